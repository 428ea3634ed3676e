// Packing: operands of the GEMM rearranged into panels of 32-bit words (words.h), zero-padded where k is odd and pairs are used.
// T is the type in memory; Pairs keeps bf16 as pairs, otherwise bf16 is widened to floats.
#pragma once
#include "microkernel.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// kLanes words that lie one after another in a row of [.., k], of which `left` > 0 elements remain.
template <bool Pairs, class T>
static inline vf load_along_k(const T* p, int64_t left) {
  if constexpr (Pairs) {
    vf words = {};
    if (left >= 2 * kLanes) memcpy(&words, p, sizeof words);
    else memcpy(&words, p, size_t(left) * 2);
    return words;
  } else {
    return left >= kLanes ? load(p) : load_n(p, int(left));
  }
}

// One of the log2(kLanes) steps of a transpose: the halves of two vectors, lane by lane in turn.
#if MAE_LANES == 16
static inline vf interleave_low(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
static inline vf interleave_high(vf a, vf b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#elif MAE_LANES == 8
static inline vf interleave_low(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
static inline vf interleave_high(vf a, vf b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
static inline vf interleave_low(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
static inline vf interleave_high(vf a, vf b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
#endif

// Interleaving row i with row i + half rotates the bits of (row, lane) by one; after log2(kLanes) times the two have changed places.
static inline void transpose(vf (&rows)[kLanes]) {
#pragma GCC unroll 4
  for (int step = 1; step < kLanes; step *= 2) {
    vf next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave_low(rows[i], rows[i + kLanes / 2]);
      next[2 * i + 1] = interleave_high(rows[i], rows[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

// A panel of B[n, k]: `columns` ≤ vectors · kLanes rows of b, k elements each, stride ld → [words of k][vectors · kLanes].
template <bool Pairs, class T>
static void pack_transposed(float* out, const T* b, int64_t ld, int columns, int64_t k, int vectors) {
  const int64_t words = words_of<Pairs>(k), width = vectors * kLanes;
  for (int v = 0; v < vectors; ++v) {
    const T* from = b + v * kLanes * ld;
    const int present = columns - v * kLanes;
    for (int64_t w = 0; w < words; w += kLanes) {
      const int64_t at = w * kPerWord<Pairs>;
      vf rows[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) rows[i] = i < present ? load_along_k<Pairs>(from + i * ld + at, k - at) : vf{};
      transpose(rows);
      float* to = out + w * width + v * kLanes;
      if (words - w >= kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) store(to + i * width, rows[i]);
      } else {
        for (int i = 0; i < words - w; ++i) store(to + i * width, rows[i]);
      }
    }
  }
}

// How far ahead of a strided read its lines are asked for: rows of B, words of A.
constexpr int64_t kRowsAhead = 8, kWordsAhead = 8;

// Floats from one panel of B to the next: a line more than it holds, or the same word of all of them would fall on one set of the cache
// whenever their size is a multiple of 4 KiB.
static inline int64_t panel_stride(int64_t words) { return words * kColumns + 64 / int64_t(sizeof(float)); }

// Panels of B[k, n]: k rows of `columns` elements, stride ld → for each kColumns columns a panel [words of k][kColumns], the last one
// kLanes wide if that suffices.
template <bool Pairs, class T>
static void pack_rows(float* out, const T* b, int64_t ld, int columns, int64_t k) {
  const int64_t words = words_of<Pairs>(k), stride = panel_stride(words);
  const int full = columns / kColumns * kColumns;
  for (int64_t w = 0; w < words; ++w, b += kPerWord<Pairs> * ld) {
    const T* const next = w * kPerWord<Pairs> + 1 < k ? b + ld : nullptr;
    const auto read = [&](int j, auto n) { return words_at<Pairs>(b + j, next ? next + j : nullptr, n); };
    float* to = out + w * kColumns;
    for (int j = 0; j < full; j += kColumns, to += stride) {
      __builtin_prefetch(b + kRowsAhead * ld + j);
      __builtin_prefetch(b + (kRowsAhead + Pairs) * ld + j + kLanes);
      store(to, read(j, Full{}));
      store(to + kLanes, read(j + kLanes, Full{}));
    }
    if (full == columns) continue;
    to = out + full / kColumns * stride + w * (columns - full > kLanes ? kColumns : kLanes);
    for_lanes(columns - full, [&](int64_t j, auto n) { store(to + j, read(full + int(j), n)); });
  }
}

// A panel of A[m, k]: `rows` rows of k elements, stride ld → [rows][words of k].
template <bool Pairs, class T>
static void copy_rows(float* out, const T* a, int64_t ld, int rows, int64_t k) {
  const int64_t words = words_of<Pairs>(k);
  for (int r = 0; r < rows; ++r, out += words, a += ld) {
    if constexpr (Pairs || sizeof(T) == sizeof(float)) {
      if (k % kPerWord<Pairs>) out[words - 1] = 0;
      memcpy(out, a, size_t(k) * sizeof(T));
    } else {
      for_lanes(k, [&](int64_t i, auto n) { store(out + i, load(a + i, n), n); });
    }
  }
}

// A panel of A[k, m] and where it is packed to: [words of k][kRowStride], whose lanes from kRows on hold anything.
template <class T>
struct Strip {
  const T* from;
  int64_t ld, k;  // elements
  int64_t rows;   // that can be read: the panel's, or more
  float* to;
};

// Words [begin, end) of it.
template <bool Pairs, class T>
static void pack_words(const Strip<T>& s, int64_t begin, int64_t end) {
  const T* row = s.from + begin * kPerWord<Pairs> * s.ld;
  float* to = s.to + begin * kRowStride;
  for (int64_t w = begin; w < end; ++w, row += kPerWord<Pairs> * s.ld, to += kRowStride) {
    const T* const next = w * kPerWord<Pairs> + 1 < s.k ? row + s.ld : nullptr;
    for_lanes(at_most(kRowStride, s.rows), [&](int64_t i, auto n) { store(to + i, words_at<Pairs>(row + i, next ? next + i : nullptr, n)); });
  }
}

// The same beside a tile of `depth` words, as far as that has room: the words from begin + count on remain.
template <bool Pairs, class T>
static Errand errand_for(const Strip<T>& s, int64_t begin, int64_t end, int64_t depth) {
  const bool whole = s.rows >= kRowStride && end * kPerWord<Pairs> <= s.k;
  const int64_t count = whole ? at_most(end - begin, depth / kUnroll) : 0;
  if (count == 0) return {};
  const int64_t ld = s.ld * int64_t(sizeof(T)), step = ld * kPerWord<Pairs>;
  return {count, depth / count / kUnroll * kUnroll, reinterpret_cast<const char*>(s.from) + begin * step, step,
          kWordsAhead * step, kRowStride * int64_t(sizeof(T)) - 1, Pairs ? ld : 0, s.to + begin * kRowStride, sizeof(T) == 2};
}

// sums[kRowStride] += Σ_k of each row of a panel [words][kRowStride]: four chains, for the additions to overlap.
template <bool Pairs>
static void sum_panel(float* sums, const float* panel, int64_t words) {
  float one = 1;
  if (Pairs) memcpy(&one, "\x80\x3f\x80\x3f", 4);  // 1 as a pair of bf16
  for (int i = 0; i < kRowStride; i += kLanes) {
    vf sum[4] = {load(sums + i)};
    int64_t w = 0;
    for (; w + 4 <= words; w += 4)
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) sum[c] = multiply_add<Pairs>(sum[c], splat(one), load(panel + (w + c) * kRowStride + i));
    for (; w < words; ++w) sum[0] = multiply_add<Pairs>(sum[0], splat(one), load(panel + w * kRowStride + i));
    store(sums + i, (sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
}

}}}  // namespace mae::cpu::MAE_ISA
