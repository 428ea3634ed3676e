// What the GEMM's inner loop reads: words of 32 bits, each a float or (Pairs) two bf16 that are neighbours along k and go through
// vdpbf16ps. Where that instruction is missing, bf16 is widened to floats when it is packed.
#pragma once
#include "../chunks.h"

namespace mae { namespace cpu { namespace MAE_ISA {

#if defined(__AVX512BF16__)
constexpr bool kHasPairs = true;
#else
constexpr bool kHasPairs = false;
#endif

typedef float word __attribute__((may_alias));

template <bool Pairs>
constexpr int kPerWord = Pairs ? 2 : 1;  // elements along k in a word
template <bool Pairs>
static inline int64_t words_of(int64_t k) { return ceil_div(k, kPerWord<Pairs>); }

// A tile of C in registers, kRows × kColumns: 28 accumulators of 32 registers, or 12 of 16.
constexpr int kRows = kLanes == 16 ? 14 : 6;
constexpr int kVectors = 2;
constexpr int kColumns = kVectors * kLanes;
// From one k to the next in a panel of A whose words of one k lie together: kRows, in whole vectors.
constexpr int kRowStride = (kRows + kLanes - 1) / kLanes * kLanes;

// The words of n columns of [k, columns] at one k; Pairs: lane j = (row[j], next[j]), `next` null where k ends: zeros.
template <bool Pairs, class T, class N>
static inline vf words_at(const T* row, const T* next, N n) {
  if constexpr (!Pairs) return load(row, n);
  else {
    const vu low = (vu)load(row, n) >> 16;
    return (vf)(next ? low | (vu)load(next, n) : low);
  }
}

template <bool Pairs>
static inline vf multiply_add(vf acc, vf a, vf b) {
#if defined(__AVX512BF16__)
  if (Pairs) return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#endif
  return acc + a * b;
}

}}}  // namespace mae::cpu::MAE_ISA
