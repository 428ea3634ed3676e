// From an operand's run-time dtype to a typed pointer, so that a kernel is one template.
#pragma once
#include "../kernel.h"
#include "simd.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// body(float*) or body(uint16_t*) with the data of an operand that is f32 or bf16.
template <class F>
static inline void with_float(const Operand& x, const F& body) {
  x.dtype == BF16 ? body(x.bf16_mut()) : body(x.f32_mut());
}

// The data of an operand that has the dtype of `like`.
template <class T>
static inline T* same_type(const T* /*like*/, const Operand& x) { return static_cast<T*>(x.data); }

// p + offset, or null for an absent operand.
template <class T>
static inline T* advance(T* p, int64_t offset) { return p ? p + offset : nullptr; }

}}}  // namespace mae::cpu::MAE_ISA
