// The online softmax of the bf16 attention kernels (Milakov & Gimelshein 2018), on fragments of scores whose rows are queries: rows g and
// g + 8 of every 16-row tile, columns 2t and 2t + 1 of every 8-column tile. scale_log2 > 0: the largest score has the largest exponent.
#pragma once
#include <math_constants.h>

#include "attention_tile.cuh"

namespace mae { namespace cuda {

// Columns from `count` on do not exist: their scores become −∞.
template <int M, int Tiles>
static __device__ __forceinline__ void mask_columns(float (&s)[M][Tiles][4], int count) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < Tiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (8 * n + column + i % 2 >= count) s[m][n][i] = -CUDART_INF_F;
}

// What a row's exponents are taken relative to: exp₂(score · scale_log2 − value). Any value gives the same softmax as long as nothing
// overflows, so it follows the row's maximum only when that has outgrown it by a factor of 2⁸: rescaling is then rare after the first step.
template <int M>
struct SoftmaxReference {
  float value[M][2];   // [half]: of row g + 8·half; the same in the four lanes of a row
  float factor[M][2];  // exp₂(old value − new value), of the last raise

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int m = 0; m < M; ++m) value[m][0] = value[m][1] = -CUDART_INF_F;
  }

  // This lane's largest score of a row.
  template <int Tiles>
  static __device__ __forceinline__ float largest(const float (&s)[Tiles][4], int half) {
    float top = fmaxf(s[0][2 * half], s[0][2 * half + 1]);
#pragma unroll
    for (int n = 1; n < Tiles; ++n) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    return top;
  }

  // Whether any score of the warp has outgrown its row's reference; the same in every lane.
  template <int Tiles>
  __device__ __forceinline__ bool outgrown(const float (&s)[M][Tiles][4], float scale_log2) const {
    bool any = false;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) any |= largest(s[m], half) * scale_log2 > value[m][half] + 8.0f;
    return __any_sync(kAllLanes, any);
  }

  template <int Tiles>
  __device__ __forceinline__ void raise(const float (&s)[M][Tiles][4], float scale_log2) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float next = fmaxf(value[m][half], quad_max(largest(s[m], half)) * scale_log2);
        factor[m][half] = exp2_fast(value[m][half] - next);
        value[m][half] = next;
      }
  }

  // What was summed relative to the old value, relative to the new one.
  template <int Tiles>
  __device__ __forceinline__ void rescale(float (&c)[M][Tiles][4]) const {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < Tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) c[m][n][i] *= factor[m][i / 2];
  }

  // Scores become probabilities, not yet divided by their sum.
  template <int Tiles>
  __device__ __forceinline__ void exponentials(float (&s)[M][Tiles][4], float scale_log2) const {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < Tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[m][n][i] = exp2_fast(fmaf(s[m][n][i], scale_log2, -value[m][i / 2]));
  }
};

}}  // namespace mae::cuda
