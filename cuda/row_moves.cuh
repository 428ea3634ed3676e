// Rows of tokens copied to other places, converted on the way; sums over rows can be taken with them. Which row goes where is a functor:
//   __device__ RowMove operator()(int row) const
#pragma once
#include "partial_sums.cuh"

namespace mae { namespace cuda {

struct RowMove {
  int from;  // row of the source; kNone: a row of zeros
  int to;    // row of the destination; kNone: the row is added to the sum
  static constexpr int kNone = -1;
};

// The index at [b, j] of an index operand i32 [batch, count]; absent: the identity.
static __device__ __forceinline__ int index_at(const int32_t* indices, int b, int count, int j) {
  return indices ? indices[int64_t(b) * count + j] : j;
}

constexpr int kMoveWarps = 8, kMoveThreads = kMoveWarps * kWarp;
constexpr int kMoveTile = 256;  // columns of a block

// Block (x, y): chunk x of the rows [0, rows), columns [256·y, 256·(y + 1)). A warp takes every eighth row of the chunk, N elements an
// access. to_low [opt]: the same rows rounded to bf16. partials f32 [chunks, kSums, width]: the chunk's sum of the rows without a
// destination and, with kSums = 2, of those with one; null with kSums = 0.
template <int N, int kSums, class From, class To, class Map>
__global__ void __launch_bounds__(kMoveThreads)
    move_rows_kernel(const From* __restrict__ from, To* __restrict__ to, bf16* __restrict__ to_low, float* __restrict__ partials, int rows,
                     int chunk_rows, int width, Map map) {
  constexpr int kPacks = kMoveTile / (kWarp * N);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int first_column = blockIdx.y * kMoveTile + lane * N;
  const int begin = blockIdx.x * chunk_rows, end = min(begin + chunk_rows, rows);

  float sums[kSums > 0 ? kSums : 1][kPacks][N] = {};
  for (int row = begin + warp; row < end; row += kMoveWarps) {
    const RowMove move = map(row);
    const bool placed = move.to != RowMove::kNone;
    if (kSums == 0 && !placed) continue;
    float v[kPacks][N] = {};
    if (move.from != RowMove::kNone) {
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        const int column = first_column + p * kWarp * N;
        if (column < width) load(from + int64_t(move.from) * width + column, v[p]);
      }
    }
    if (kSums > 0 && !placed) {
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
#pragma unroll
        for (int i = 0; i < N; ++i) sums[0][p][i] += v[p][i];
      }
      continue;
    }
    if (kSums > 1) {
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
#pragma unroll
        for (int i = 0; i < N; ++i) sums[kSums - 1][p][i] += v[p][i];
      }
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = first_column + p * kWarp * N;
      const int64_t at = int64_t(move.to) * width + column;
      if (column < width) {
        store(to + at, v[p]);
        if (to_low) store(to_low + at, v[p]);
      }
    }
  }
  if constexpr (kSums > 0) {  // the warps' sums, added in the order of the warps
    static_assert(kMoveThreads == kMoveTile, "one thread a column");
    __shared__ __align__(16) float tile[kMoveWarps][kMoveTile];
    const int column = blockIdx.y * kMoveTile + threadIdx.x;
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
      if (s > 0) __syncthreads();  // the tile is read to its end
#pragma unroll
      for (int p = 0; p < kPacks; ++p) store(&tile[warp][(p * kWarp + lane) * N], sums[s][p]);
      __syncthreads();
      if (column >= width) continue;
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kMoveWarps; ++w) sum += tile[w][threadIdx.x];
      partials[(int64_t(blockIdx.x) * kSums + s) * width + column] = sum;
    }
  }
}

// Bytes of context.workspace for `sums` sums over `rows` rows.
inline size_t move_rows_workspace(int64_t sums, int64_t rows, int64_t width) {
  return size_t(cut_rows(rows).count * sums * width) * sizeof(float);
}

// Moves `rows` rows of `width` elements. kSums > 0: `unplaced`, an f32 [width] output, gets the sum of the rows without a destination;
// kSums = 2: `placed` that of the rows with one.
template <int kSums, class From, class To, class Map>
void move_rows(const char* name, Context& context, const From* from, To* to, bf16* to_low, int64_t rows, int64_t width, const Map& map,
               const Operand* unplaced = nullptr, const Operand* placed = nullptr) {
  const RowChunks chunks = cut_rows(rows);
  const dim3 grid(unsigned(chunks.count), unsigned(ceil_div(width, kMoveTile)));
  float* partials = kSums > 0 ? static_cast<float*>(context.workspace) : nullptr;
  const bool packed = width % 4 == 0 && aligned(16, from, to, to_low);
  const auto kernel = packed ? move_rows_kernel<4, kSums, From, To, Map> : move_rows_kernel<1, kSums, From, To, Map>;
  launch(name, kernel, grid, kMoveThreads, 0, context, from, to, to_low, partials, int(rows), int(chunks.size), int(width), map);
  if (kSums > 0) sum_partials(context, partials, chunks.count, width, *unplaced, placed);
}

}}  // namespace mae::cuda
