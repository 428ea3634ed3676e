// Sums over rows in two steps with a fixed order: each block sums the rows of its chunk into one partial row, then the partial rows are
// added in the order of the chunks. How rows are cut depends on their number alone.
#pragma once
#include "common.cuh"

namespace mae { namespace cuda {

// Rows [chunk · size, (chunk + 1) · size) belong to one block; the last chunk may be shorter.
struct RowChunks {
  int64_t size, count;
};

// At most 1056 chunks: a whole number of blocks on each of the 132 multiprocessors of an H100 or H200, however many fit at once. Chunks of
// at least 16 rows keep the partial rows a small share of the traffic.
inline RowChunks cut_rows(int64_t rows) {
  constexpr int64_t kMostChunks = 1056, kLeastRows = 16;
  const int64_t even = ceil_div(rows, kMostChunks), size = even > kLeastRows ? even : kLeastRows;
  return {size, ceil_div(rows, size)};
}

// partials f32 [count, outputs · width] → output i [width] (+)= Σ_c partials[c, i · width …]; an output honours kAccumulate.
// One output, or two where `second` is given.
void sum_partials(Context& context, const float* partials, int64_t count, int64_t width, const Operand& first,
                  const Operand* second = nullptr);

}}  // namespace mae::cuda
