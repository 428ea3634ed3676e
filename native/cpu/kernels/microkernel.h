// The inner loop of the GEMM: a tile of C in registers, kRows × (vectors · kLanes), over a run of k. Both operands are read as words of
// 32 bits: a float, or (Pairs) two bf16 that are neighbours along k and go through vdpbf16ps. Where that instruction is missing, bf16
// was widened to floats when it was packed.
#pragma once
#include "../simd.h"

namespace mae { namespace cpu { namespace MAE_ISA {

#if defined(__AVX512BF16__)
constexpr bool kHasPairs = true;
#else
constexpr bool kHasPairs = false;
#endif

// 28 accumulators of 32 registers, or 12 of 16.
constexpr int kRows = kLanes == 16 ? 14 : 6;
constexpr int kVectors = 2;
constexpr int kColumns = kVectors * kLanes;
// From one k to the next in a panel of A whose words of one k lie together: kRows, in whole vectors.
constexpr int kRowStride = (kRows + kLanes - 1) / kLanes * kLanes;

typedef float word __attribute__((may_alias));  // a float or a pair of bf16

// Lines to bring into L2 while the tile is computed: at `at`, at + one, at + other and at + one + other bytes, then the same again
// `step` bytes on, one such group for every `words` words of k (a multiple of kUnroll). Addresses beyond an array are harmless.
struct Ahead {
  const char* at;
  int64_t one, other, step, words;
};
constexpr int kUnroll = 4;

struct Tile {
  int64_t depth;       // words along k
  const word* a;       // row r, word k: a[r · a_stride + k] (rows as they are) or a[k · a_stride + r] (words of one k together)
  int64_t a_stride;
  const word* b;       // word k, column j: b[k · vectors · kLanes + j]
  const float* start;  // the tile to add to, or null
  int64_t start_stride;
  float* out;          // may be `start`
  int64_t out_stride;
  Ahead ahead;         // memory wanted soon
};

template <bool Pairs>
static inline vf multiply_add(vf acc, word a, vf b) {
#if defined(__AVX512BF16__)
  if (Pairs) return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)splat(a), (__m512bh)b);
#endif
  return acc + splat(a) * b;
}

template <bool Pairs, bool ByRow, int Vectors, int Rows>
static void multiply_tile(const Tile& t) {
  vf acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) acc[r][v] = t.start ? load(t.start + r * t.start_stride + v * kLanes) : vf{};
  const word* a = t.a;
  const word* b = t.b;
  const int64_t stride = t.a_stride;
  const auto next_k = [&]() __attribute__((always_inline)) {
    vf column[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) memcpy(&column[v], b + v * kLanes, sizeof(vf));
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) acc[r][v] = multiply_add<Pairs>(acc[r][v], a[ByRow ? r * stride : r], column[v]);
    a += ByRow ? 1 : stride;
    b += Vectors * kLanes;
  };
  const Ahead ahead = t.ahead;
  const char* at = ahead.at;
  int64_t left = t.depth;
  for (; left >= ahead.words; left -= ahead.words, at += ahead.step) {
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(at + ahead.one, 0, 2);
    __builtin_prefetch(at + ahead.other, 0, 2);
    __builtin_prefetch(at + ahead.other + ahead.one, 0, 2);
    for (int64_t k = 0; k < ahead.words; k += kUnroll) {
#pragma GCC unroll 4
      for (int i = 0; i < kUnroll; ++i) next_k();
    }
  }
  for (; left; --left) next_k();
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) store(t.out + r * t.out_stride + v * kLanes, acc[r][v]);
}

// Kernels exist for 1 and for even numbers of rows.
template <bool Pairs, bool ByRow, int Vectors, int Rows>
static void multiply_even(int rows, const Tile& t) {
  if (rows == Rows) return multiply_tile<Pairs, ByRow, Vectors, Rows>(t);
  if constexpr (Rows > 2) return multiply_even<Pairs, ByRow, Vectors, Rows - 2>(rows, t);
}

// The first `rows` ≤ kRows rows of the tile.
template <bool Pairs, bool ByRow, int Vectors>
static void multiply_rows(int rows, const Tile& t) {
  const int even = rows & ~1;
  if (even) multiply_even<Pairs, ByRow, Vectors, kRows>(even, t);
  if (even == rows) return;
  Tile last = t;
  last.a += ByRow ? even * t.a_stride : even;
  if (t.start) last.start += even * t.start_stride;
  last.out += even * t.out_stride;
  multiply_tile<Pairs, ByRow, Vectors, 1>(last);
}

template <bool Pairs>
static void multiply(bool by_row, int vectors, int rows, const Tile& t) {
  if (by_row) return vectors == 2 ? multiply_rows<Pairs, true, 2>(rows, t) : multiply_rows<Pairs, true, 1>(rows, t);
  return vectors == 2 ? multiply_rows<Pairs, false, 2>(rows, t) : multiply_rows<Pairs, false, 1>(rows, t);
}

}}}  // namespace mae::cpu::MAE_ISA
