// What a kernel is. Every kernel of native/kernels.def gets a struct of named, trusted arguments and a context; it checks
// nothing (the op row in TypeScript did), allocates nothing (the planner gave it a workspace) and knows nothing of Node.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace mae {

enum DType : int32_t { F32 = 0, BF16 = 1, U8 = 2, I32 = 3 };  // lib/graph/tensor.ts holds the same numbers

enum OperandFlags : int32_t {
  kAccumulate = 1,  // an output: add to what is there instead of overwriting it
};

struct Operand {
  void* data;  // null: an optional operand that is absent
  DType dtype;
  int32_t flags;

  bool accumulate() const { return flags & kAccumulate; }
  const float* f32() const { return static_cast<const float*>(data); }
  float* f32_mut() const { return static_cast<float*>(data); }
  const uint16_t* bf16() const { return static_cast<const uint16_t*>(data); }
  uint16_t* bf16_mut() const { return static_cast<uint16_t*>(data); }
  const int32_t* i32() const { return static_cast<const int32_t*>(data); }
  int32_t* i32_mut() const { return static_cast<int32_t*>(data); }
  const uint8_t* u8() const { return static_cast<const uint8_t*>(data); }
};

struct Context {
  void* workspace;         // as many bytes as the kernel's own `<name>_workspace(args)` asked for; contents undefined
  size_t workspace_bytes;
  void* stream;            // cudaStream_t on CUDA; unused on the CPU
};

// struct <name>_args for every line of kernels.def: operands (IN then OUT), then dims, then reals, in the written order.
// program.cc fills them as flat arrays, which the layout (8-byte members only) makes valid.
#define MAE_IN(...) Operand __VA_ARGS__;
#define MAE_OUT(...) Operand __VA_ARGS__;
#define MAE_DIMS(...) int64_t __VA_ARGS__;
#define MAE_REALS(...) double __VA_ARGS__;
#define MAE_NO_REALS
#define KERNEL(backends, name, in, out, dims, reals) \
  struct name##_args {                               \
    in out dims reals                                \
  };
#include "kernels.def"
#undef KERNEL

}  // namespace mae
