// Tiles of the bf16 attention kernels: rows of one head between global memory, shared memory and fragments. D is the compiled width, a
// multiple of 16; columns from head_dim to D are zeros. (g, t) = (lane / 4, lane % 4), fragments as in attention_mma.cuh.
#pragma once
#include "attention_mma.cuh"

namespace mae { namespace cuda {

// What every kernel of a head knows.
struct AttentionShape {
  int tokens, heads, head_dim;
  float scale;       // of the scores
  float scale_log2;  // scale · log₂(e): probabilities are powers of two
};

inline AttentionShape attention_shape(int64_t tokens, int64_t heads, int64_t head_dim, double scale) {
  return {int(tokens), int(heads), int(head_dim), float(scale), float(scale * 1.4426950408889634)};
}

// One head of packed qkv [batch, tokens, 3, heads, head_dim], or (parts = 1) of out [batch, tokens, heads, head_dim].
template <class T>
struct Head {
  T* rows;         // its first row, of q where packed
  int64_t stride;  // elements between tokens
  int64_t part;    // elements from q to k and from k to v
  __device__ __forceinline__ Head(T* data, int parts, const AttentionShape& shape) {
    const int64_t batch = blockIdx.x / shape.heads, head = blockIdx.x % shape.heads;
    part = int64_t(shape.heads) * shape.head_dim;
    stride = parts * part;
    rows = data + batch * shape.tokens * stride + head * shape.head_dim;
  }
};

// ---- Shared memory -------------------------------------------------------------------------------------------------------------------

// A row takes an odd number of 16-byte chunks, so the eight rows of an 8×8 matrix lie in different banks.
template <int D>
constexpr int kRowBytes = (D + 8) * 2;

// Starts copying rows [first, first + count) of one head to shared memory, zeros where row ≥ limit or column ≥ head_dim. Whole block.
template <int D>
static __device__ __forceinline__ void copy_rows(uint32_t shared, const bf16* rows, int64_t stride, int first, int count, int limit,
                                                 int head_dim) {
  constexpr int kChunks = D / 8;
  for (int i = threadIdx.x; i < count * kChunks; i += blockDim.x) {
    const int row = i / kChunks, column = i % kChunks * 8;
    const bool valid = first + row < limit && column < head_dim;
    copy_async<16>(shared + row * kRowBytes<D> + column * 2, valid ? rows + (first + row) * stride + column : rows, valid);
  }
}

// c[m][n] += a[m] · Xᵀ over columns 16·step … 16·step + 15, for the 8·Tiles rows of X, in shared memory, that start at `row` (16 rows are
// read for every two tiles).
template <int D, int M, int Tiles>
static __device__ __forceinline__ void multiply_rows_step(float (&c)[M][Tiles][4], const uint32_t (&a)[M][4], uint32_t x, int row,
                                                          int step) {
  const int lane = threadIdx.x % kWarp;
  const uint32_t address = x + (row + lane % 8 + lane / 16 * 8) * kRowBytes<D> + lane / 8 % 2 * 16 + step * 32;
#pragma unroll
  for (int n = 0; n < Tiles; n += 2) {
    uint32_t b[4];  // rows 0–7, then rows 8–15
    load_matrices<false>(b, address + n * 8 * kRowBytes<D>);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      multiply(c[m][n], a[m], b[0], b[1]);
      if (n + 1 < Tiles) multiply(c[m][n + 1], a[m], b[2], b[3]);
    }
  }
}
// The same over all D columns.
template <int D, int M, int Tiles>
static __device__ __forceinline__ void multiply_rows(float (&c)[M][Tiles][4], const uint32_t (&a)[D / 16][M][4], uint32_t x, int row) {
#pragma unroll
  for (int step = 0; step < D / 16; ++step) multiply_rows_step<D>(c, a[step], x, row, step);
}

// B fragments of rows [row, row + 16) and columns [column, column + 16) of X with rows as the summed index: b[0], b[1] are the first eight
// columns, b[2], b[3] the others.
template <int D>
static __device__ __forceinline__ void load_columns(uint32_t (&b)[4], uint32_t x, int row, int column) {
  const int lane = threadIdx.x % kWarp;
  load_matrices<true>(b, x + (row + lane % 16) * kRowBytes<D> + (column + lane / 16 * 8) * 2);
}

// c[m] += a[m] · X for rows [row, row + 16) and columns [column, column + Width) of X.
template <int D, int Width, int M>
static __device__ __forceinline__ void multiply_columns(float (&c)[M][Width / 8][4], const uint32_t (&a)[M][4], uint32_t x, int row,
                                                        int column) {
#pragma unroll
  for (int n = 0; n < Width / 8; n += 2) {
    uint32_t b[4];
    load_columns<D>(b, x, row, column + n * 8);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      multiply(c[m][n], a[m], b[0], b[1]);
      multiply(c[m][n + 1], a[m], b[2], b[3]);
    }
  }
}

// ---- Registers -----------------------------------------------------------------------------------------------------------------------

// Tiles n and n + 1 of c as the A fragment of 16 columns; a tile that c lacks counts as zeros.
template <int M, int Tiles>
static __device__ __forceinline__ void pack_tiles(uint32_t (&a)[M][4], const float (&c)[M][Tiles][4], int n) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
    a[m][0] = pack_bf16(c[m][n][0], c[m][n][1]);
    a[m][1] = pack_bf16(c[m][n][2], c[m][n][3]);
    a[m][2] = n + 1 < Tiles ? pack_bf16(c[m][n + 1][0], c[m][n + 1][1]) : 0;
    a[m][3] = n + 1 < Tiles ? pack_bf16(c[m][n + 1][2], c[m][n + 1][3]) : 0;
  }
}

template <int M, int Tiles>
static __device__ __forceinline__ void clear(float (&c)[M][Tiles][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < Tiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) c[m][n][i] = 0.0f;
}

// The sum (maximum) over the four lanes that share a row.
static __device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}
static __device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// Transposes a 4×4 matrix over the four lanes of a row: w[c] of lane t becomes w[t] of lane c. It turns 16-byte accesses (lane t has chunk
// t of a row) into fragments (lane t has word t of every chunk), and back.
static __device__ __forceinline__ void quad_transpose(uint32_t (&w)[4]) {
  const int lane = threadIdx.x;
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool high = lane & bit;
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const int i = bit == 1 ? 2 * pair : pair, j = i + bit;
      const uint32_t received = __shfl_xor_sync(kAllLanes, high ? w[i] : w[j], bit);
      if (high)
        w[i] = received;
      else
        w[j] = received;
    }
  }
}

// ---- Global memory -------------------------------------------------------------------------------------------------------------------

// 16·M rows of one head, on their way from global memory into A fragments: `load` starts the accesses, `fragments` waits for them.
template <int D, int M>
struct RowLoads {
  static constexpr int kGroups = (D + 31) / 32;  // of four chunks, one chunk per lane
  uint4 chunks[M][2][kGroups];

  __device__ __forceinline__ void load(const bf16* rows, int64_t stride, int first, int limit, int head_dim) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          const int row = first + 16 * m + 8 * half + g, column = 32 * group + 8 * t;
          chunks[m][half][group] = row < limit && column < head_dim ? *reinterpret_cast<const uint4*>(rows + row * stride + column)
                                                                    : make_uint4(0, 0, 0, 0);
        }
  }

  __device__ __forceinline__ void fragments(uint32_t (&a)[D / 16][M][4]) const {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          const uint4 chunk = chunks[m][half][group];
          uint32_t w[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
          quad_transpose(w);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int column = 4 * group + i;  // in chunks
            if (column < D / 8) a[column / 2][m][half + column % 2 * 2] = w[i];
          }
        }
  }
};

// Rows first … first + 15 of one head ← c, rows g times factor[0] and rows g + 8 times factor[1]; only rows < limit and columns < columns.
template <int Width>
static __device__ __forceinline__ void store_rows(bf16* rows, int64_t stride, int first, int limit, int columns,
                                                  const float (&c)[Width / 8][4], const float (&factor)[2]) {
  const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int group = 0; group < (Width + 31) / 32; ++group) {
      uint32_t w[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int n = 4 * group + i;
        w[i] = n < Width / 8 ? pack_bf16(c[n][2 * half] * factor[half], c[n][2 * half + 1] * factor[half]) : 0;
      }
      quad_transpose(w);
      const int row = first + 8 * half + g, column = 32 * group + 8 * t;
      if (row < limit && column < columns)
        *reinterpret_cast<uint4*>(rows + row * stride + column) = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

}}  // namespace mae::cuda
