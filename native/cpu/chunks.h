// Work cut into chunks by its shape alone, so that the number of threads changes no result.
#pragma once
#include "../kernel.h"
#include "lanes.h"
#include "pool.h"

namespace mae { namespace cpu { namespace MAE_ISA {

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

// `count` pieces of `size` items; the last may be shorter. Plain functions: a member would be an inline symbol.
struct Chunks {
  int64_t items, size, count;
};
static inline int64_t chunk_begin(const Chunks& c, int64_t chunk) { return chunk * c.size; }
static inline int64_t chunk_end(const Chunks& c, int64_t chunk) { return at_most((chunk + 1) * c.size, c.items); }

static inline Chunks cut(int64_t items, int64_t size) { return {items, size, ceil_div(items, size)}; }

// For reductions, which keep one partial result for each piece: at most kPartials pieces of at least `least` items.
constexpr int64_t kPartials = 64;
static inline Chunks cut_for_partials(int64_t items, int64_t least) {
  return cut(items, at_least(ceil_div(items, kPartials), least));
}

// Rows for loops without a reduction: about 128 KiB of float32 a piece.
static inline Chunks cut_rows(int64_t rows, int64_t width) { return cut(rows, width < 32768 ? 32768 / width : 1); }

// out[i] (+)= Σ_c partials[c · stride + i] for i < width, in the order of c. out honours kAccumulate.
static inline void sum_partials(const float* partials, int64_t count, int64_t stride, int64_t width, const Operand& out) {
  const Chunks columns = cut(width, 256);
  parallel_for(columns.count, [&](int64_t chunk, int) {
    const int64_t begin = chunk_begin(columns, chunk);
    float* to = out.f32_mut() + begin;
    for_lanes(chunk_end(columns, chunk) - begin, [&](int64_t i, auto n) {
      vf sum = {};
      for (int64_t c = 0; c < count; ++c) sum += load(partials + c * stride + begin + i, n);
      if (out.accumulate()) sum += load(to + i, n);
      store(to + i, sum, n);
    });
  });
}

}}}  // namespace mae::cpu::MAE_ISA
