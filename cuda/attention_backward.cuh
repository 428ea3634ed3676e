// The two walks of attention's backward in bf16. With P = softmax(scale · q·kᵀ), dP = dout·vᵀ, D_i = Σ_j P_ij dP_ij and
// dS = P ∘ (dP − D):  dq = scale · dS·k,  dk = scale · dSᵀ·q,  dv = Pᵀ·dout.
//
// GradRows walks over the keys of 16·M query rows, once: it makes dq, and the statistics that GradColumns, which walks over the queries of
// 16·M key rows, needs to make dk and dv. D and the sum of the probabilities are known only at a row's end, so with unnormalised P:
//   Σ_j P_ij (dP_ij − D_i) k_j = Σ_j P_ij (dP_ij − c_i) k_j − (D_i − c_i) Σ_j P_ij k_j,  for any c_i
// and both sums on the right are products of their own. What keeps the difference as exact as its parts: c_i is the mean of the first
// dP_ij, so what the dP of a row have in common does not go through rounding; P is rounded before anything else uses it; and
// (D_i − c_i) there is the quotient of the rounded operands' sums. Then the rounded dS of a row sum to zero as the exact ones do, and a row
// whose softmax is saturated gets a dq as small as it should be.
#pragma once
#include "attention.cuh"
#include "attention_softmax.cuh"

namespace mae { namespace cuda {

struct AttentionBackward {
  const bf16* qkv;
  const bf16* dout;
  bf16* dqkv;
  float2* stats;  // [batch · heads, attention_stats_rows(tokens)]; streamed only
  AttentionShape shape;
};

void attention_backward_short(const AttentionBackward& a, int64_t batch, Context& context);  // tokens ≤ 72, head_dim ≤ 80

// A query row's statistics are a float2: the log₂-sum-exp₂ of its scaled scores, and D; (+∞, 0), which makes its probabilities zero, where
// the row does not exist.

// 16·M query rows. Width columns of dq, from `column` on, are made here (all D of them, except where registers do not suffice).
template <int D, int Width, int M>
struct GradRows {
  uint32_t q[D / 16][M][4], dout[D / 16][M][4];
  float weighted[M][Width / 8][4], plain[M][Width / 8][4];  // Σ_j e_ij k_j with e = P ∘ (dP − c), and Σ_j P_ij k_j
  float sums[M][1][4];                                      // Σ_j P_ij in [2·half], Σ_j e_ij (rounded) in [2·half + 1], of row g + 8·half
  float e_sum[M][2];                                        // Σ_j e_ij before rounding, this lane's part
  float offset[M][2];                                       // c
  SoftmaxReference<M> reference;

  __device__ __forceinline__ void begin(const RowLoads<D, M>& queries, const RowLoads<D, M>& gradients) {
    queries.fragments(q);
    gradients.fragments(dout);
    clear(weighted);
    clear(plain);
    clear(sums);
    reference.begin();
#pragma unroll
    for (int m = 0; m < M; ++m) e_sum[m][0] = e_sum[m][1] = 0.0f;
  }

  // c from the head's first eight keys, which v in shared memory begins with (rows that do not exist are zeros: any c will do).
  __device__ __forceinline__ void choose_offset(uint32_t v) {
    float dp[M][1][4];
    clear(dp);
    multiply_rows<D>(dp, dout, v, 0);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) offset[m][half] = quad_sum(dp[m][0][2 * half] + dp[m][0][2 * half + 1]) * 0.125f;
  }

  // The 8·Tiles keys (Tiles ≤ 2) from `row` of k and v in shared memory. Masked: only the first `keys` of them exist.
  template <int Tiles, bool Masked>
  __device__ __forceinline__ void step(uint32_t k, uint32_t v, int row, int keys, int column, float scale_log2) {
    uint32_t p[M][4];
    {
      float s[M][Tiles][4];
      clear(s);
      multiply_rows<D>(s, q, k, row);
      if (Masked) mask_columns(s, keys);
      if (reference.outgrown(s, scale_log2)) {
        reference.raise(s, scale_log2);
        reference.rescale(weighted);
        reference.rescale(plain);
        reference.rescale(sums);
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half) e_sum[m][half] *= reference.factor[m][half];
      }
      reference.exponentials(s, scale_log2);
      pack_tiles(p, s, 0);
    }
    float e[M][Tiles][4];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < Tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) e[m][n][i] = -offset[m][i / 2];
    multiply_rows<D>(e, dout, v, row);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < Tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          e[m][n][i] *= unpacked(p[m], n, i);
          e_sum[m][i / 2] += e[m][n][i];
        }
    uint32_t e_rounded[M][4];
    pack_tiles(e_rounded, e, 0);
    // Products with ones in the even columns, and with ones in the odd columns.
    const uint32_t even = threadIdx.x / 4 % 2 == 0 ? kOnes : 0, odd = kOnes - even;
#pragma unroll
    for (int m = 0; m < M; ++m) {
      multiply(sums[m][0], p[m], even, even);
      multiply(sums[m][0], e_rounded[m], odd, odd);
    }
#pragma unroll
    for (int n = 0; n < Width / 8; n += 2) {
      uint32_t keys_of[4];
      load_columns<D>(keys_of, k, row, column + n * 8);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        multiply(plain[m][n], p[m], keys_of[0], keys_of[1]);
        multiply(plain[m][n + 1], p[m], keys_of[2], keys_of[3]);
        multiply(weighted[m][n], e_rounded[m], keys_of[0], keys_of[1]);
        multiply(weighted[m][n + 1], e_rounded[m], keys_of[2], keys_of[3]);
      }
    }
  }

  // Element i of tile n of what pack_tiles packed.
  static __device__ __forceinline__ float unpacked(const uint32_t (&a)[4], int n, int i) {
    const uint32_t two = a[2 * n + i / 2];
    return __uint_as_float(i % 2 ? two & 0xffff0000u : two << 16);
  }

  // The first `keys` keys of k and v in shared memory.
  __device__ __forceinline__ void walk(uint32_t k, uint32_t v, int keys, int column, float scale_log2) {
    int row = 0;
    for (; row + 16 <= keys; row += 16) step<2, false>(k, v, row, 16, column, scale_log2);
    if (row + 8 < keys)
      step<2, true>(k, v, row, keys - row, column, scale_log2);
    else if (row < keys)
      step<1, true>(k, v, row, keys - row, column, scale_log2);
  }

  // dq: rows of this head's q in dqkv. stats: entries of this head, [opt].
  __device__ __forceinline__ void finish(const Head<bf16>& dq, float2* stats, int first, int column, const AttentionShape& shape) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
      float factor[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float p_total = sums[m][0][2 * half], e_total = quad_sum(e_sum[m][half]);
        const float excess = sums[m][0][2 * half + 1] / p_total;  // D − c
        factor[half] = shape.scale / p_total;
#pragma unroll
        for (int n = 0; n < Width / 8; ++n)
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) weighted[m][n][i] -= excess * plain[m][n][i];
        const int row = first + 16 * m + 8 * half + threadIdx.x % kWarp / 4;
        if (stats && threadIdx.x % 4 == 0) {
          stats[row] = row < shape.tokens ? make_float2(reference.value[m][half] + log2f(p_total), offset[m][half] + e_total / p_total)
                                          : make_float2(CUDART_INF_F, 0.0f);
        }
      }
      store_rows<Width>(dq.rows + column, dq.stride, first + 16 * m, shape.tokens, shape.head_dim - column, weighted[m], factor);
    }
  }
};

// 16·M key rows: transposed products, whose rows are keys and whose columns are queries. Width columns of dk and dv, from `column` on.
template <int D, int Width, int M>
struct GradColumns {
  uint32_t k[D / 16][M][4], v[D / 16][M][4];
  float dk[M][Width / 8][4], dv[M][Width / 8][4];

  __device__ __forceinline__ void begin(const RowLoads<D, M>& keys, const RowLoads<D, M>& values) {
    keys.fragments(k);
    values.fragments(v);
    clear(dk);
    clear(dv);
  }

  // The 16 queries from `row` of q and dout in shared memory; stats, in shared memory too, has their entries.
  __device__ __forceinline__ void step(uint32_t q, uint32_t dout, const float2* stats, int row, int column, float scale_log2) {
    float p[M][2][4], e[M][2][4];
    clear(p);
    multiply_rows<D>(p, k, q, row);
    clear(e);
    multiply_rows<D>(e, v, dout, row);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const float4 two = *reinterpret_cast<const float4*>(stats + row + 8 * n + threadIdx.x % 4 * 2);
      const float log2_sum[2] = {two.x, two.z}, delta[2] = {two.y, two.w};
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          p[m][n][i] = exp2_fast(fmaf(p[m][n][i], scale_log2, -log2_sum[i % 2]));
          e[m][n][i] = p[m][n][i] * (e[m][n][i] - delta[i % 2]);
        }
    }
    uint32_t a[M][4];
    pack_tiles(a, p, 0);
    multiply_columns<D, Width>(dv, a, dout, row, column);
    pack_tiles(a, e, 0);
    multiply_columns<D, Width>(dk, a, q, row, column);
  }

  // head: this head in dqkv.
  __device__ __forceinline__ void finish(const Head<bf16>& head, int first, int column, const AttentionShape& shape) const {
    const float scale[2] = {shape.scale, shape.scale}, one[2] = {1.0f, 1.0f};
    bf16* rows = head.rows + head.part + column;
#pragma unroll
    for (int m = 0; m < M; ++m) {
      store_rows<Width>(rows, head.stride, first + 16 * m, shape.tokens, shape.head_dim - column, dk[m], scale);
      store_rows<Width>(rows + head.part, head.stride, first + 16 * m, shape.tokens, shape.head_dim - column, dv[m], one);
    }
  }
};

}}  // namespace mae::cuda
