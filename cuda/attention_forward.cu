// Attention forward in bf16: out = softmax(scale · q·kᵀ)·v. A warp owns 16 or 32 query rows and walks over the keys, as many at a time;
// scores and probabilities live in its registers. A masked autoencoder's 50–257 tokens are bound by memory traffic and by exponentials, so
// a block takes in the whole k and v of a head at once and nothing is read twice.
#include <math.h>

#include <algorithm>

#include "attention.cuh"
#include "attention_softmax.cuh"
#include "attention_tile.cuh"

namespace mae { namespace cuda {

struct AttentionForward {
  const bf16* qkv;
  bf16* out;
  AttentionShape shape;
};

// 16·M query rows, their output and their softmax so far.
template <int D, int M>
struct ForwardRows {
  uint32_t q[D / 16][M][4];
  float out[M][D / 8][4];
  float sum[M][1][4];  // of the rounded probabilities: a product with ones, [0] for row g and [2] for row g + 8
  SoftmaxReference<M> reference;

  __device__ __forceinline__ void begin(const RowLoads<D, M>& queries) {
    queries.fragments(q);
    clear(out);
    clear(sum);
    reference.begin();
  }

  // The 8·Tiles keys from `row` of k and v in shared memory. Masked: only the first `keys` of them exist.
  template <int Tiles, bool Masked>
  __device__ __forceinline__ void step(uint32_t k, uint32_t v, int row, int keys, float scale_log2) {
    float p[M][Tiles][4];
    clear(p);
    multiply_rows<D>(p, q, k, row);
    if (Masked) mask_columns(p, keys);
    if (reference.outgrown(p, scale_log2)) {
      reference.raise(p, scale_log2);
      reference.rescale(out);
      reference.rescale(sum);
    }
    reference.exponentials(p, scale_log2);
#pragma unroll
    for (int n = 0; n < Tiles; n += 2) {
      uint32_t a[M][4];
      pack_tiles(a, p, n);
#pragma unroll
      for (int m = 0; m < M; ++m) multiply(sum[m][0], a[m], kOnes, kOnes);
      multiply_columns<D, D>(out, a, v, row + n * 8, 0);
    }
  }

  // The first `keys` keys of k and v in shared memory.
  __device__ __forceinline__ void walk(uint32_t k, uint32_t v, int keys, float scale_log2) {
    int row = 0;
    for (; row + 16 * M <= keys; row += 16 * M) step<2 * M, false>(k, v, row, 16 * M, scale_log2);
    if (M > 1 && row + 16 <= keys) {
      step<2, false>(k, v, row, 16, scale_log2);
      row += 16;
    }
    if (row + 8 < keys)
      step<2, true>(k, v, row, keys - row, scale_log2);
    else if (row < keys)
      step<1, true>(k, v, row, keys - row, scale_log2);
  }

  __device__ __forceinline__ void finish(const AttentionForward& a, int first) const {
    const AttentionShape& shape = a.shape;
    const Head<bf16> head(a.out, 1, shape);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      const float inverse[2] = {1.0f / sum[m][0][0], 1.0f / sum[m][0][2]};
      store_rows<D>(head.rows, head.stride, first + 16 * m, shape.tokens, shape.head_dim, out[m], inverse);
    }
  }
};

// ---- Resident: one block per head, k and v of all its tokens in shared memory ----------------------------------------------------------

// One item of a warp's work. `first_item`: k and v are still on their way; every warp of the block has a first item.
template <int D, int M>
static __device__ __forceinline__ void forward_resident_rows(const AttentionForward& a, const Head<const bf16>& head, uint32_t k,
                                                             uint32_t v, int first, bool first_item) {
  RowLoads<D, M> queries;
  queries.load(head.rows, head.stride, first, a.shape.tokens, a.shape.head_dim);
  if (first_item) {
    wait_copies<0>();
    __syncthreads();
  }
  ForwardRows<D, M> rows;
  rows.begin(queries);
  rows.walk(k, v, a.shape.tokens, a.shape.scale_log2);
  rows.finish(a, first);
}

template <int D, int M, int Warps, int Blocks>
__global__ void __launch_bounds__(Warps* kWarp, Blocks) attention_forward_resident(const AttentionForward a) {
  uint4* const shared_memory = dynamic_shared<uint4>();
  const AttentionShape& shape = a.shape;
  const int tiles = ceil_div(shape.tokens, 16), warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const Head<const bf16> head(a.qkv, 3, shape);
  const uint32_t k = shared_address(shared_memory), v = k + tiles * 16 * kRowBytes<D>;
  copy_rows<D>(k, head.rows + head.part, head.stride, 0, tiles * 16, shape.tokens, shape.head_dim);
  copy_rows<D>(v, head.rows + 2 * head.part, head.stride, 0, tiles * 16, shape.tokens, shape.head_dim);
  commit_copies();
  for (int tile = warp * M; tile < tiles; tile += warps * M) {
    const bool first_item = tile == warp * M;
    if (M == 1 || tile + M <= tiles)
      forward_resident_rows<D, M>(a, head, k, v, tile * 16, first_item);
    else
      forward_resident_rows<D, 1>(a, head, k, v, tile * 16, first_item);  // an odd tile is left
  }
}

template <int D, int M, int Warps, int Blocks>
static void launch_forward_resident(const AttentionForward& a, int64_t batch, Context& context) {
  const int tiles = ceil_div(a.shape.tokens, 16), warps = std::min(Warps, ceil_div(tiles, M));
  launch("attention_forward_resident", attention_forward_resident<D, M, Warps, Blocks>, dim3(unsigned(batch * a.shape.heads)),
         dim3(warps * kWarp), size_t(2) * tiles * 16 * kRowBytes<D>, context, a);
}

// ---- Streamed: one block per 64 query rows of a head, tiles of 64 keys, two in flight --------------------------------------------------

template <int D, int Blocks>
__global__ void __launch_bounds__(kStreamedWarps* kWarp, Blocks) attention_forward_streamed(const AttentionForward a) {
  uint4* const shared_memory = dynamic_shared<uint4>();
  constexpr int kMatrix = kAttentionTile * kRowBytes<D>;
  const AttentionShape& shape = a.shape;
  const int tiles = ceil_div(shape.tokens, kAttentionTile);
  const int first = blockIdx.y * kAttentionTile + threadIdx.x / kWarp * 16;
  const Head<const bf16> head(a.qkv, 3, shape);
  const uint32_t shared = shared_address(shared_memory);
  const auto copy_tile = [&](int tile) {
    const uint32_t k = shared + tile % 2 * 2 * kMatrix;
    copy_rows<D>(k, head.rows + head.part, head.stride, tile * kAttentionTile, kAttentionTile, shape.tokens, shape.head_dim);
    copy_rows<D>(k + kMatrix, head.rows + 2 * head.part, head.stride, tile * kAttentionTile, kAttentionTile, shape.tokens, shape.head_dim);
  };
  copy_tile(0);
  commit_copies();
  RowLoads<D, 1> queries;
  queries.load(head.rows, head.stride, first, shape.tokens, shape.head_dim);
  ForwardRows<D, 1> rows;
  rows.begin(queries);
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) copy_tile(tile + 1);
    commit_copies();  // a group per tile, if an empty one
    wait_copies<1>();
    __syncthreads();
    const uint32_t k = shared + tile % 2 * 2 * kMatrix;
    rows.walk(k, k + kMatrix, min(kAttentionTile, shape.tokens - tile * kAttentionTile), shape.scale_log2);
    __syncthreads();  // before the next turn's copies overwrite this tile
  }
  rows.finish(a, first);
}

template <int D, int Blocks>
static void launch_forward_streamed(const AttentionForward& a, int64_t batch, Context& context) {
  const dim3 grid(unsigned(batch * a.shape.heads), ceil_div(a.shape.tokens, kAttentionTile));
  launch("attention_forward_streamed", attention_forward_streamed<D, Blocks>, grid, dim3(kStreamedWarps * kWarp),
         size_t(4) * kAttentionTile * kRowBytes<D>, context, a);
}

// ---- Which kernel a shape gets ---------------------------------------------------------------------------------------------------------

// Up to 80 tokens (an encoder's visible patches) a warp has 16 rows: there are few, and memory is the limit. Above (decoders, unmasked
// encoders) it has 32, which halves its reads of shared memory.
void attention_forward_bf16(const attention_args& args, Context& context) {
  const AttentionShape shape = attention_shape(args.tokens, args.heads, args.head_dim, args.scale);
  const AttentionForward a = {static_cast<const bf16*>(args.qkv.data), static_cast<bf16*>(args.out.data), shape};
  const int width = attention_width(args.head_dim);
  if (!attention_resident(args.tokens, args.head_dim)) {
    if (width == 32) return launch_forward_streamed<32, 4>(a, args.batch, context);
    if (width == 64) return launch_forward_streamed<64, 3>(a, args.batch, context);
    if (width == 80) return launch_forward_streamed<80, 2>(a, args.batch, context);
    return launch_forward_streamed<128, 2>(a, args.batch, context);
  }
  if (args.tokens <= 80) {
    if (width == 32) return launch_forward_resident<32, 1, 5, 5>(a, args.batch, context);
    if (width == 64) return launch_forward_resident<64, 1, 5, 4>(a, args.batch, context);
    return launch_forward_resident<80, 1, 5, 3>(a, args.batch, context);
  }
  if (width == 32) return launch_forward_resident<32, 2, 4, 4>(a, args.batch, context);
  if (width == 64) return launch_forward_resident<64, 2, 4, 2>(a, args.batch, context);
  return launch_forward_resident<80, 2, 4, 2>(a, args.batch, context);
}

}}  // namespace mae::cuda
