// Attention in true float32, forward and backward, for any number of tokens and any head_dim ≤ 128: the parity path, written to be read.
// A warp owns four rows of one side and walks over the other side's rows, 32 at a time, in shared memory: a lane has one of them while
// scores are made, and columns (lane, lane + 32, …) while rows are summed.
#include <math_constants.h>

#include "attention.cuh"
#include "attention_tile.cuh"

namespace mae { namespace cuda {

constexpr int kF32Rows = 4, kF32Warps = 4, kF32BlockRows = kF32Rows * kF32Warps, kF32Columns = 4;  // a lane has at most 4 columns

struct AttentionF32 {
  const float* qkv;
  const float* dout;  // backward only, as the next two
  float* out;         // forward: out; backward: dqkv
  float2* stats;      // [batch · heads, attention_stats_rows(tokens)]: log₂-sum-exp₂ of a query's scaled scores, and D
  AttentionShape shape;
};

// Shared memory: two matrices of the walked side, [32][head_dim + 1] (odd rows: lanes with a row each meet different banks), and two of the
// owned side, [head_dim][16], so that a warp's four rows are one float4.
struct F32Shared {
  float *walked[2], *owned[2];
  int stride;
  __device__ __forceinline__ F32Shared(uint4* memory, int head_dim) : stride(head_dim + 1) {
    owned[0] = reinterpret_cast<float*>(memory);
    owned[1] = owned[0] + head_dim * kF32BlockRows;
    walked[0] = owned[1] + head_dim * kF32BlockRows;
    walked[1] = walked[0] + kWarp * stride;
  }
};
static size_t f32_shared_bytes(int head_dim) { return sizeof(float) * 2 * (kF32BlockRows * head_dim + kWarp * (head_dim + 1)); }

static __device__ void copy_owned(float* to, const float* rows, int64_t stride, int first, const AttentionShape& shape) {
  for (int i = threadIdx.x; i < kF32BlockRows * shape.head_dim; i += blockDim.x) {
    const int row = i / shape.head_dim, column = i % shape.head_dim;
    to[column * kF32BlockRows + row] = first + row < shape.tokens ? rows[(first + row) * stride + column] : 0.0f;
  }
}
static __device__ void copy_walked(float* to, const float* rows, int64_t stride, int first, const AttentionShape& shape) {
  for (int i = threadIdx.x; i < kWarp * shape.head_dim; i += blockDim.x) {
    const int row = i / shape.head_dim, column = i % shape.head_dim;
    to[row * (shape.head_dim + 1) + column] = first + row < shape.tokens ? rows[(first + row) * stride + column] : 0.0f;
  }
}

// dot[r] = owned row r · this lane's walked row.
static __device__ __forceinline__ void dots(float (&dot)[kF32Rows], const float* owned, const float* walked, const F32Shared& shared,
                                            int head_dim) {
  const float* lane_row = walked + threadIdx.x % kWarp * shared.stride;
  const float* warp_rows = owned + threadIdx.x / kWarp * kF32Rows;
  dot[0] = dot[1] = dot[2] = dot[3] = 0.0f;
  for (int column = 0; column < head_dim; ++column) {
    const float4 four = *reinterpret_cast<const float4*>(warp_rows + column * kF32BlockRows);
    const float x = lane_row[column];
    dot[0] = fmaf(four.x, x, dot[0]);
    dot[1] = fmaf(four.y, x, dot[1]);
    dot[2] = fmaf(four.z, x, dot[2]);
    dot[3] = fmaf(four.w, x, dot[3]);
  }
}

// sum[r] += Σ_j (lane j's weight[r]) · walked row j.
static __device__ __forceinline__ void add_rows(float (&sum)[kF32Rows][kF32Columns], const float (&weight)[kF32Rows], const float* walked,
                                                const F32Shared& shared, int head_dim) {
  const int lane = threadIdx.x % kWarp;
  for (int j = 0; j < kWarp; ++j) {
    float w[kF32Rows];
#pragma unroll
    for (int r = 0; r < kF32Rows; ++r) w[r] = __shfl_sync(kAllLanes, weight[r], j);
#pragma unroll
    for (int c = 0; c < kF32Columns; ++c) {
      const int column = lane + c * kWarp;
      if (column >= head_dim) break;
      const float x = walked[j * shared.stride + column];
#pragma unroll
      for (int r = 0; r < kF32Rows; ++r) sum[r][c] = fmaf(w[r], x, sum[r][c]);
    }
  }
}

static __device__ __forceinline__ void store_sums(float* rows, int64_t stride, int first, const float (&sum)[kF32Rows][kF32Columns],
                                                  const float (&factor)[kF32Rows], const AttentionShape& shape) {
#pragma unroll
  for (int r = 0; r < kF32Rows; ++r)
#pragma unroll
    for (int c = 0; c < kF32Columns; ++c) {
      const int row = first + r, column = threadIdx.x % kWarp + c * kWarp;
      if (row < shape.tokens && column < shape.head_dim) rows[row * stride + column] = sum[r][c] * factor[r];
    }
}

// The online softmax of four rows: relative to `top`, this lane's part of the sum of probabilities.
struct F32Softmax {
  float top[kF32Rows], sum[kF32Rows], factor[kF32Rows];
  __device__ __forceinline__ F32Softmax() {
#pragma unroll
    for (int r = 0; r < kF32Rows; ++r) {
      top[r] = -CUDART_INF_F;
      sum[r] = 0.0f;
    }
  }
  // Scores of this lane's key become probabilities relative to the new top. `factor` brings what was relative to the old one there.
  __device__ __forceinline__ void step(float (&s)[kF32Rows], bool exists, float scale_log2) {
#pragma unroll
    for (int r = 0; r < kF32Rows; ++r) {
      s[r] = exists ? s[r] * scale_log2 : -CUDART_INF_F;
      const float next = fmaxf(top[r], warp_max(s[r]));
      factor[r] = exp2f(top[r] - next);
      top[r] = next;
      s[r] = exp2f(s[r] - next);
      sum[r] = sum[r] * factor[r] + s[r];
    }
  }
};

__global__ void __launch_bounds__(kF32Warps* kWarp, 4) attention_forward_f32_rows(const AttentionF32 a) {
  uint4* const shared_memory = dynamic_shared<uint4>();
  const AttentionShape& shape = a.shape;
  const F32Shared shared(shared_memory, shape.head_dim);
  const Head<const float> head(a.qkv, 3, shape);
  const int lane = threadIdx.x % kWarp, block_first = blockIdx.y * kF32BlockRows, first = block_first + threadIdx.x / kWarp * kF32Rows;
  copy_owned(shared.owned[0], head.rows, head.stride, block_first, shape);
  float out[kF32Rows][kF32Columns] = {};
  F32Softmax softmax;
  for (int key = 0; key < shape.tokens; key += kWarp) {
    copy_walked(shared.walked[0], head.rows + head.part, head.stride, key, shape);
    copy_walked(shared.walked[1], head.rows + 2 * head.part, head.stride, key, shape);
    __syncthreads();
    float p[kF32Rows];
    dots(p, shared.owned[0], shared.walked[0], shared, shape.head_dim);
    softmax.step(p, key + lane < shape.tokens, shape.scale_log2);
#pragma unroll
    for (int r = 0; r < kF32Rows; ++r)
#pragma unroll
      for (int c = 0; c < kF32Columns; ++c) out[r][c] *= softmax.factor[r];
    add_rows(out, p, shared.walked[1], shared, shape.head_dim);
    __syncthreads();
  }
  float inverse[kF32Rows];
#pragma unroll
  for (int r = 0; r < kF32Rows; ++r) inverse[r] = 1.0f / warp_sum(softmax.sum[r]);
  const Head<float> out_head(a.out, 1, shape);
  store_sums(out_head.rows, out_head.stride, first, out, inverse, shape);
}

// dq of 16 query rows, and their statistics: one walk for the statistics, one for dq = scale · Σ_j P_ij (dP_ij − D_i) k_j.
__global__ void __launch_bounds__(kF32Warps* kWarp, 4) attention_backward_f32_rows(const AttentionF32 a) {
  uint4* const shared_memory = dynamic_shared<uint4>();
  const AttentionShape& shape = a.shape;
  const F32Shared shared(shared_memory, shape.head_dim);
  const Head<const float> head(a.qkv, 3, shape), dout(a.dout, 1, shape);
  const int lane = threadIdx.x % kWarp, block_first = blockIdx.y * kF32BlockRows, first = block_first + threadIdx.x / kWarp * kF32Rows;
  copy_owned(shared.owned[0], head.rows, head.stride, block_first, shape);
  copy_owned(shared.owned[1], dout.rows, dout.stride, block_first, shape);
  float dq[kF32Rows][kF32Columns] = {}, delta[kF32Rows] = {}, log2_sum[kF32Rows], scale[kF32Rows];
  F32Softmax softmax;
  for (int walk = 0; walk < 2; ++walk) {
    for (int key = 0; key < shape.tokens; key += kWarp) {
      copy_walked(shared.walked[0], head.rows + head.part, head.stride, key, shape);
      copy_walked(shared.walked[1], head.rows + 2 * head.part, head.stride, key, shape);
      __syncthreads();
      const bool exists = key + lane < shape.tokens;
      float p[kF32Rows], dp[kF32Rows];
      dots(p, shared.owned[0], shared.walked[0], shared, shape.head_dim);
      dots(dp, shared.owned[1], shared.walked[1], shared, shape.head_dim);
      if (walk == 0) {
        softmax.step(p, exists, shape.scale_log2);
#pragma unroll
        for (int r = 0; r < kF32Rows; ++r) delta[r] = delta[r] * softmax.factor[r] + p[r] * dp[r];
      } else {
#pragma unroll
        for (int r = 0; r < kF32Rows; ++r) p[r] = exists ? exp2f(p[r] * shape.scale_log2 - log2_sum[r]) * (dp[r] - delta[r]) : 0.0f;
        add_rows(dq, p, shared.walked[0], shared, shape.head_dim);
      }
      __syncthreads();
    }
    if (walk == 1) break;
#pragma unroll
    for (int r = 0; r < kF32Rows; ++r) {
      const float sum = warp_sum(softmax.sum[r]);
      log2_sum[r] = softmax.top[r] + log2f(sum);
      delta[r] = warp_sum(delta[r]) / sum;
      scale[r] = shape.scale;
      if (lane == 0 && first + r < shape.tokens)
        a.stats[blockIdx.x * attention_stats_rows(shape.tokens) + first + r] = make_float2(log2_sum[r], delta[r]);
    }
  }
  const Head<float> out_head(a.out, 3, shape);
  store_sums(out_head.rows, out_head.stride, first, dq, scale, shape);
}

// dk and dv of 16 key rows: dk_j = scale · Σ_i P_ij (dP_ij − D_i) q_i, dv_j = Σ_i P_ij dout_i.
__global__ void __launch_bounds__(kF32Warps* kWarp, 4) attention_backward_f32_columns(const AttentionF32 a) {
  uint4* const shared_memory = dynamic_shared<uint4>();
  const AttentionShape& shape = a.shape;
  const F32Shared shared(shared_memory, shape.head_dim);
  const Head<const float> head(a.qkv, 3, shape), dout(a.dout, 1, shape);
  const int lane = threadIdx.x % kWarp, block_first = blockIdx.y * kF32BlockRows, first = block_first + threadIdx.x / kWarp * kF32Rows;
  copy_owned(shared.owned[0], head.rows + head.part, head.stride, block_first, shape);
  copy_owned(shared.owned[1], head.rows + 2 * head.part, head.stride, block_first, shape);
  float dk[kF32Rows][kF32Columns] = {}, dv[kF32Rows][kF32Columns] = {};
  for (int query = 0; query < shape.tokens; query += kWarp) {
    copy_walked(shared.walked[0], head.rows, head.stride, query, shape);
    copy_walked(shared.walked[1], dout.rows, dout.stride, query, shape);
    __syncthreads();
    const bool exists = query + lane < shape.tokens;
    const float2 stats = exists ? a.stats[blockIdx.x * attention_stats_rows(shape.tokens) + query + lane] : make_float2(0.0f, 0.0f);
    float p[kF32Rows], dp[kF32Rows];
    dots(p, shared.owned[0], shared.walked[0], shared, shape.head_dim);
    dots(dp, shared.owned[1], shared.walked[1], shared, shape.head_dim);
#pragma unroll
    for (int r = 0; r < kF32Rows; ++r) {
      p[r] = exists ? exp2f(p[r] * shape.scale_log2 - stats.x) : 0.0f;
      dp[r] = p[r] * (dp[r] - stats.y);
    }
    add_rows(dv, p, shared.walked[1], shared, shape.head_dim);
    add_rows(dk, dp, shared.walked[0], shared, shape.head_dim);
    __syncthreads();
  }
  const float scale[kF32Rows] = {shape.scale, shape.scale, shape.scale, shape.scale}, one[kF32Rows] = {1.0f, 1.0f, 1.0f, 1.0f};
  const Head<float> out_head(a.out, 3, shape);
  store_sums(out_head.rows + out_head.part, out_head.stride, first, dk, scale, shape);
  store_sums(out_head.rows + 2 * out_head.part, out_head.stride, first, dv, one, shape);
}

static dim3 f32_grid(int64_t batch, const AttentionShape& shape) {
  return dim3(unsigned(batch * shape.heads), ceil_div(shape.tokens, kF32BlockRows));
}

void attention_forward_f32(const attention_args& args, Context& context) {
  const AttentionShape shape = attention_shape(args.tokens, args.heads, args.head_dim, args.scale);
  const AttentionF32 a = {args.qkv.f32(), nullptr, args.out.f32_mut(), nullptr, shape};
  launch("attention_forward_f32_rows", attention_forward_f32_rows, f32_grid(args.batch, shape), dim3(kF32Warps * kWarp),
         f32_shared_bytes(shape.head_dim), context, a);
}

void attention_backward_f32(const attention_grad_args& args, Context& context) {
  const AttentionShape shape = attention_shape(args.tokens, args.heads, args.head_dim, args.scale);
  const AttentionF32 a = {args.qkv.f32(), args.dout.f32(), args.dqkv.f32_mut(), static_cast<float2*>(context.workspace), shape};
  const dim3 grid = f32_grid(args.batch, shape), block(kF32Warps * kWarp);
  launch("attention_backward_f32_rows", attention_backward_f32_rows, grid, block, f32_shared_bytes(shape.head_dim), context, a);
  launch("attention_backward_f32_columns", attention_backward_f32_columns, grid, block, f32_shared_bytes(shape.head_dim), context, a);
}

}}  // namespace mae::cuda
