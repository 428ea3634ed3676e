// Attention backward in bf16 for at most 72 tokens, the visible patches of an encoder: one block per head with q, k, v and dout in shared
// memory, read once. A warp's registers hold whole rows of P and dP, so nothing is computed twice and D is exact:
//   1. warp w, queries 16w … 16w + 15:  P, dP, D = rowsum(P ∘ dP), dS = P ∘ (dP − D), dq = scale · dS·k
//   2. P and dS, rounded, take the places of v and k in shared memory
//   3. warp w, keys 16w … 16w + 15:     dv = Pᵀ·dout, dk = scale · dSᵀ·q
#include <algorithm>

#include "attention_backward.cuh"

namespace mae { namespace cuda {

// What a multiprocessor has for its blocks, each of which takes 1 KiB more than it asks for.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int kSharedOfMultiprocessor = (__CUDA_ARCH__ == 800 ? 164 : 100) * 1024;
#else
constexpr int kSharedOfMultiprocessor = 228 * 1024;
#endif

// Tiles: of eight keys, tokens ≤ 8·Tiles.
template <int D, int Tiles>
struct ShortShape {
  static constexpr int kSteps = (Tiles + 1) / 2;  // of 16 keys; also warps
  static constexpr int kRows = 16 * kSteps;
  static constexpr int kOperand = kRows * kRowBytes<D>;        // bytes of q or dout
  static constexpr int kExchanged = kRows * kRowBytes<kRows>;  // bytes of P or dS, [queries, keys]
  static constexpr int kShared = kOperand > kExchanged ? kOperand : kExchanged;  // of k and then dS, of v and then P
  static constexpr int kBytes = 2 * kOperand + 2 * kShared;
  static constexpr int kMostBlocks = kSharedOfMultiprocessor / (kBytes + 1024);  // at a time: no registers are saved for more
};

// Writes an A fragment's rows and columns to 16 rows of `x`, Width columns wide.
template <int Width, int Steps>
static __device__ __forceinline__ void store_fragments(uint4* x, int row, const uint32_t (&a)[Steps][4]) {
  const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  uint32_t* words = reinterpret_cast<uint32_t*>(x);
#pragma unroll
  for (int step = 0; step < Steps; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i) words[(row + g + i % 2 * 8) * (kRowBytes<Width> / 4) + step * 8 + i / 2 * 4 + t] = a[step][i];
}

// c = own · otherᵀ for the 16 rows of `own` from `row` and the first 8·Tiles rows of `other`, both [kRows, D].
template <int D, int Tiles>
static __device__ __forceinline__ void row_product(float (&c)[1][Tiles][4], uint32_t own, int row, uint32_t other) {
  const int lane = threadIdx.x % kWarp;
  clear(c);
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    uint32_t a[1][4];
    load_matrices<false>(a[0], own + (row + lane % 16) * kRowBytes<D> + step * 32 + lane / 16 * 16);
    multiply_rows_step<D>(c, a, other, 0, step);
  }
}

// c = xᵀ[keys, queries] · y[queries, D] for the 16 keys from `key`: x [kRows, kRows] is P or dS, y [kRows, D] is dout or q.
template <int D, int Rows>
static __device__ __forceinline__ void transposed_product(float (&c)[1][D / 8][4], uint32_t x, uint32_t y, int key) {
  const int lane = threadIdx.x % kWarp;
  clear(c);
#pragma unroll
  for (int query = 0; query < Rows; query += 16) {
    uint32_t a[1][4];
    load_matrices<true>(a[0], x + (query + lane % 8 + lane / 16 * 8) * kRowBytes<Rows> + (key + lane / 8 % 2 * 8) * 2);
    multiply_columns<D, D>(c, a, y, query, 0);
  }
}

template <int D, int Tiles, int Blocks>
__global__ void __launch_bounds__(ShortShape<D, Tiles>::kSteps* kWarp, std::min(Blocks, ShortShape<D, Tiles>::kMostBlocks))
    attention_backward_short_kernel(const AttentionBackward a) {
  using S = ShortShape<D, Tiles>;
  uint4* const shared_memory = dynamic_shared<uint4>();
  const AttentionShape& shape = a.shape;
  const Head<const bf16> head(a.qkv, 3, shape), dout_head(a.dout, 1, shape);
  const int first = threadIdx.x / kWarp * 16;
  uint4* k_or_ds = shared_memory + 2 * S::kOperand / 16;
  uint4* v_or_p = k_or_ds + S::kShared / 16;
  const uint32_t q = shared_address(shared_memory), dout = q + S::kOperand;
  const uint32_t k = shared_address(k_or_ds), v = shared_address(v_or_p);

  copy_rows<D>(q, head.rows, head.stride, 0, S::kRows, shape.tokens, shape.head_dim);
  copy_rows<D>(k, head.rows + head.part, head.stride, 0, S::kRows, shape.tokens, shape.head_dim);
  commit_copies();
  copy_rows<D>(dout, dout_head.rows, dout_head.stride, 0, S::kRows, shape.tokens, shape.head_dim);
  copy_rows<D>(v, head.rows + 2 * head.part, head.stride, 0, S::kRows, shape.tokens, shape.head_dim);
  commit_copies();

  uint32_t p_rounded[S::kSteps][4], ds_rounded[S::kSteps][4];
  {
    float p[1][Tiles][4], ds[1][Tiles][4];
    wait_copies<1>();
    __syncthreads();
    row_product<D>(p, q, first, k);
    mask_columns(p, shape.tokens);
    SoftmaxReference<1> reference;
    reference.begin();
    reference.raise(p, shape.scale_log2);
    reference.exponentials(p, shape.scale_log2);
    float inverse[2] = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < Tiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) inverse[i / 2] += p[0][n][i];
    inverse[0] = 1.0f / quad_sum(inverse[0]);
    inverse[1] = 1.0f / quad_sum(inverse[1]);

    wait_copies<0>();
    __syncthreads();
    row_product<D>(ds, dout, first, v);
    float delta[2] = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < Tiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        p[0][n][i] *= inverse[i / 2];
        delta[i / 2] += p[0][n][i] * ds[0][n][i];
      }
    delta[0] = quad_sum(delta[0]);
    delta[1] = quad_sum(delta[1]);
#pragma unroll
    for (int n = 0; n < Tiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) ds[0][n][i] = p[0][n][i] * (ds[0][n][i] - delta[i / 2]);
#pragma unroll
    for (int step = 0; step < S::kSteps; ++step) {
      uint32_t packed[1][4];
      pack_tiles(packed, p, 2 * step);
#pragma unroll
      for (int i = 0; i < 4; ++i) p_rounded[step][i] = packed[0][i];
      pack_tiles(packed, ds, 2 * step);
#pragma unroll
      for (int i = 0; i < 4; ++i) ds_rounded[step][i] = packed[0][i];
    }
  }
  const float scale[2] = {shape.scale, shape.scale}, one[2] = {1.0f, 1.0f};
  float c[1][D / 8][4];
  clear(c);
#pragma unroll
  for (int step = 0; step < S::kSteps; ++step) {
    const uint32_t fragment[1][4] = {{ds_rounded[step][0], ds_rounded[step][1], ds_rounded[step][2], ds_rounded[step][3]}};
    multiply_columns<D, D>(c, fragment, k, 16 * step, 0);
  }
  AttentionShape again = shape;
  asm volatile("" : "+r"(again.heads));  // computes the head's place anew: there were no registers to keep it in
  const Head<bf16> grad(a.dqkv, 3, again);
  __syncthreads();  // nobody reads k and v any more
  store_fragments<S::kRows>(v_or_p, first, p_rounded);
  store_fragments<S::kRows>(k_or_ds, first, ds_rounded);
  store_rows<D>(grad.rows, grad.stride, first, shape.tokens, shape.head_dim, c[0], scale);
  __syncthreads();
  transposed_product<D, S::kRows>(c, v, dout, first);
  store_rows<D>(grad.rows + 2 * grad.part, grad.stride, first, shape.tokens, shape.head_dim, c[0], one);
  transposed_product<D, S::kRows>(c, k, q, first);
  store_rows<D>(grad.rows + grad.part, grad.stride, first, shape.tokens, shape.head_dim, c[0], scale);
}

template <int D, int Tiles, int Blocks>
static void launch_short(const AttentionBackward& a, int64_t batch, Context& context) {
  using S = ShortShape<D, Tiles>;
  launch("attention_backward_short", attention_backward_short_kernel<D, Tiles, Blocks>, dim3(unsigned(batch * a.shape.heads)),
         dim3(S::kSteps * kWarp), size_t(S::kBytes), context, a);
}

void attention_backward_short(const AttentionBackward& a, int64_t batch, Context& context) {
  const int width = attention_width(a.shape.head_dim);
  if (a.shape.tokens <= 56) {
    if (width == 32) return launch_short<32, 7, 5>(a, batch, context);
    if (width == 64) return launch_short<64, 7, 5>(a, batch, context);
    return launch_short<80, 7, 4>(a, batch, context);
  }
  if (width == 32) return launch_short<32, 9, 4>(a, batch, context);
  if (width == 64) return launch_short<64, 9, 3>(a, batch, context);
  return launch_short<80, 9, 3>(a, batch, context);
}

}}  // namespace mae::cuda
