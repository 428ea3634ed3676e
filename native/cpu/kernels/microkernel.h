// The inner loop of the GEMM: a tile of C in registers, over a run of k. The multiply-adds leave room for other work: while a tile is
// computed, operands of the tiles to come are brought nearer and packed.
#pragma once
#include "words.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// What is done `count` times beside a tile, once for every `every` words of k (a multiple of kUnroll): lines are brought into L2, and a word of
// k of the next panel of A is packed. Prefetches may reach beyond an array.
struct Errand {
  int64_t count, every;
  const char* at;
  int64_t step;                // bytes from one time to the next
  int64_t ahead, right, down;  // the lines of at + ahead, that many bytes to the right of it, down of it (the second bf16 of pairs), and both
  float* to;                   // where [words][kRowStride] are packed; null: nothing is
  bool bf16;                   // what lies at `at`
};
constexpr int kUnroll = 4;

// How many words of k ahead a row of Tile::raw_b is asked for.
constexpr int kRawAhead = 16;

struct Tile {
  int64_t depth;       // words along k
  const word* a;       // row r, word k: a[r · a_stride + k] (rows as they are) or a[k · a_stride + r] (words of one k together)
  int64_t a_stride;
  word* b;             // word k, column j: b[k · vectors · kLanes + j]
  const void* raw_b;   // B where it lies, [k, kColumns]: read in place of b and left packed there; null: b is packed
  int64_t raw_stride;  // elements
  const float* start;  // the tile to add to, or null
  int64_t start_stride;
  float* out;          // may be `start`
  int64_t out_stride;
  Errand errand;
};

// A word of k of a panel of A.
template <bool Pairs>
static inline void pack_word(const Errand& e, const char* at, float* to) {
#pragma GCC unroll 2
  for (int i = 0; i < kRowStride; i += kLanes) {
    if (Pairs || e.bf16) {
      const uint16_t* row = reinterpret_cast<const uint16_t*>(at) + i;
      store(to + i, words_at<Pairs>(row, row + e.down / 2, Full{}));
    } else {
      store(to + i, load(reinterpret_cast<const float*>(at) + i));
    }
  }
}

template <class T>
constexpr bool kIsRaw = true;
template <>
constexpr bool kIsRaw<void> = false;

// Raw is the type of raw_b, void where b is packed.
template <bool Pairs, bool ByRow, int Vectors, int Rows, class Raw = void>
static void multiply_tile(const Tile& t) {
  vf acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) acc[r][v] = t.start ? load(t.start + r * t.start_stride + v * kLanes) : vf{};
  const word* a = t.a;
  word* b = t.b;
  const Raw* raw = static_cast<const Raw*>(t.raw_b);
  const int64_t stride = t.a_stride, raw_stride = t.raw_stride;
  const auto next_k = [&]() __attribute__((always_inline)) {
    vf column[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      if constexpr (kIsRaw<Raw>) {
        column[v] = words_at<Pairs>(raw + v * kLanes, raw + raw_stride + v * kLanes, Full{});
        memcpy(b + v * kLanes, &column[v], sizeof(vf));
      } else {
        memcpy(&column[v], b + v * kLanes, sizeof(vf));
      }
    }
    if constexpr (kIsRaw<Raw>) {
      __builtin_prefetch(raw + kRawAhead * kPerWord<Pairs> * raw_stride);
      __builtin_prefetch(raw + (kRawAhead * kPerWord<Pairs> + Pairs) * raw_stride + kColumns - 1);
      raw += kPerWord<Pairs> * raw_stride;
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) acc[r][v] = multiply_add<Pairs>(acc[r][v], splat(a[ByRow ? r * stride : r]), column[v]);
    a += ByRow ? 1 : stride;
    b += Vectors * kLanes;
  };
  const Errand& e = t.errand;
  const char* at = e.at;
  float* to = e.to;
  for (int64_t n = e.count; n; --n, at += e.step) {
    const char* line = at + e.ahead;
    __builtin_prefetch(line, 0, 2);
    __builtin_prefetch(line + e.right, 0, 2);
    __builtin_prefetch(line + e.down, 0, 2);
    __builtin_prefetch(line + e.down + e.right, 0, 2);
    if (!ByRow && to) {
      pack_word<Pairs>(e, at, to);
      to += kRowStride;
    }
    for (int64_t k = 0; k < e.every; k += kUnroll) {
#pragma GCC unroll 4
      for (int i = 0; i < kUnroll; ++i) next_k();
    }
  }
  int64_t left = t.depth - e.count * e.every;
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

// With raw_b, of type T, the tile is a whole one: kRows × kColumns.
template <bool Pairs, class T>
static void multiply(bool by_row, int vectors, int rows, const Tile& t) {
  if (t.raw_b) return by_row ? multiply_tile<Pairs, true, 2, kRows, T>(t) : multiply_tile<Pairs, false, 2, kRows, T>(t);
  if (by_row) return vectors == 2 ? multiply_rows<Pairs, true, 2>(rows, t) : multiply_rows<Pairs, true, 1>(rows, t);
  return vectors == 2 ? multiply_rows<Pairs, false, 2>(rows, t) : multiply_rows<Pairs, false, 1>(rows, t);
}

}}}  // namespace mae::cpu::MAE_ISA
