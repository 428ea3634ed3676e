// Attention backward in bf16: dqkv from qkv and dout alone (attention_backward.cuh has the algorithm).
#include <algorithm>

#include "attention_backward.cuh"

namespace mae { namespace cuda {

// ---- Resident: one block per head ------------------------------------------------------------------------------------------------------
// k and v lie in shared memory while dq is made, then q and dout take their place (they come from the second-level cache) for dk and dv:
// with half the shared memory, twice as many blocks hide each other's waiting.

// One item of a warp's work. `first_item`: what the block copies is still on its way; every warp of the block has a first item.
template <int D, int M>
static __device__ __forceinline__ void backward_resident_rows(const AttentionBackward& a, uint32_t k, uint32_t v, float2* stats, int first,
                                                     bool first_item) {
  const AttentionShape& shape = a.shape;
  const Head<const bf16> head(a.qkv, 3, shape), dout(a.dout, 1, shape);
  RowLoads<D, M> queries, gradients;
  queries.load(head.rows, head.stride, first, shape.tokens, shape.head_dim);
  gradients.load(dout.rows, dout.stride, first, shape.tokens, shape.head_dim);
  if (first_item) {
    wait_copies<0>();
    __syncthreads();
  }
  GradRows<D, D, M> rows;
  rows.begin(queries, gradients);
  rows.choose_offset(v);
  rows.walk(k, v, shape.tokens, 0, shape.scale_log2);
  rows.finish(Head<bf16>(a.dqkv, 3, shape), stats, first, 0, shape);
}

template <int D, int M>
static __device__ __forceinline__ void backward_resident_columns(const AttentionBackward& a, uint32_t q, uint32_t dout, const float2* stats,
                                                        int first, bool first_item) {
  const AttentionShape& shape = a.shape;
  const Head<const bf16> head(a.qkv, 3, shape);
  RowLoads<D, M> keys, values;
  keys.load(head.rows + head.part, head.stride, first, shape.tokens, shape.head_dim);
  values.load(head.rows + 2 * head.part, head.stride, first, shape.tokens, shape.head_dim);
  if (first_item) {
    wait_copies<0>();
    __syncthreads();
  }
  GradColumns<D, D, M> columns;
  columns.begin(keys, values);
  for (int row = 0; row < shape.tokens; row += 16) columns.step(q, dout, stats, row, 0, shape.scale_log2);
  columns.finish(Head<bf16>(a.dqkv, 3, shape), first, 0, shape);
}

template <int D, int M, int Warps, int Blocks>
__global__ void __launch_bounds__(Warps* kWarp, Blocks) attention_backward_resident(const AttentionBackward a) {
  uint4* const shared_memory = dynamic_shared<uint4>();
  const AttentionShape& shape = a.shape;
  const int tiles = ceil_div(shape.tokens, 16), warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const uint32_t first_matrix = shared_address(shared_memory), second_matrix = first_matrix + tiles * 16 * kRowBytes<D>;
  float2* stats = reinterpret_cast<float2*>(shared_memory + 2 * tiles * kRowBytes<D>);  // after the matrices
  const Head<const bf16> head(a.qkv, 3, shape), dout(a.dout, 1, shape);

  copy_rows<D>(first_matrix, head.rows + head.part, head.stride, 0, tiles * 16, shape.tokens, shape.head_dim);
  copy_rows<D>(second_matrix, head.rows + 2 * head.part, head.stride, 0, tiles * 16, shape.tokens, shape.head_dim);
  commit_copies();
  for (int tile = warp * M; tile < tiles; tile += warps * M) {
    const bool first_item = tile == warp * M;
    if (M == 1 || tile + M <= tiles)
      backward_resident_rows<D, M>(a, first_matrix, second_matrix, stats, tile * 16, first_item);
    else
      backward_resident_rows<D, 1>(a, first_matrix, second_matrix, stats, tile * 16, first_item);  // an odd tile is left
  }
  __syncthreads();  // the statistics are there, and nobody reads k and v any more
  copy_rows<D>(first_matrix, head.rows, head.stride, 0, tiles * 16, shape.tokens, shape.head_dim);
  copy_rows<D>(second_matrix, dout.rows, dout.stride, 0, tiles * 16, shape.tokens, shape.head_dim);
  commit_copies();
  for (int tile = warp * M; tile < tiles; tile += warps * M) {
    const bool first_item = tile == warp * M;
    if (M == 1 || tile + M <= tiles)
      backward_resident_columns<D, M>(a, first_matrix, second_matrix, stats, tile * 16, first_item);
    else
      backward_resident_columns<D, 1>(a, first_matrix, second_matrix, stats, tile * 16, first_item);
  }
}

template <int D, int M, int Warps, int Blocks>
static void launch_backward_resident(const AttentionBackward& a, int64_t batch, Context& context) {
  const int tiles = ceil_div(a.shape.tokens, 16), warps = std::min(Warps, ceil_div(tiles, M));
  launch("attention_backward_resident", attention_backward_resident<D, M, Warps, Blocks>, dim3(unsigned(batch * a.shape.heads)),
         dim3(warps * kWarp), size_t(tiles) * 16 * (2 * kRowBytes<D> + sizeof(float2)), context, a);
}

// ---- Streamed: two kernels, first over queries, which leave their statistics, then over keys -------------------------------------------
// A block has 64 rows of a head and Width columns of their gradient; tiles of 64 rows of the other side pass by, two in flight.

template <int D, int Width, int Blocks>
__global__ void __launch_bounds__(kStreamedWarps* kWarp, Blocks) attention_backward_rows(const AttentionBackward a) {
  uint4* const shared_memory = dynamic_shared<uint4>();
  constexpr int kMatrix = kAttentionTile * kRowBytes<D>;
  const AttentionShape& shape = a.shape;
  const int tiles = ceil_div(shape.tokens, kAttentionTile), column = blockIdx.z * Width;
  const int first = blockIdx.y * kAttentionTile + threadIdx.x / kWarp * 16;
  const Head<const bf16> head(a.qkv, 3, shape), dout(a.dout, 1, shape);
  const uint32_t shared = shared_address(shared_memory);
  const auto copy_tile = [&](int tile) {
    const uint32_t k = shared + tile % 2 * 2 * kMatrix;
    copy_rows<D>(k, head.rows + head.part, head.stride, tile * kAttentionTile, kAttentionTile, shape.tokens, shape.head_dim);
    copy_rows<D>(k + kMatrix, head.rows + 2 * head.part, head.stride, tile * kAttentionTile, kAttentionTile, shape.tokens, shape.head_dim);
  };
  copy_tile(0);
  commit_copies();
  RowLoads<D, 1> queries, gradients;
  queries.load(head.rows, head.stride, first, shape.tokens, shape.head_dim);
  gradients.load(dout.rows, dout.stride, first, shape.tokens, shape.head_dim);
  GradRows<D, Width, 1> rows;
  rows.begin(queries, gradients);
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) copy_tile(tile + 1);
    commit_copies();  // a group per tile, if an empty one
    wait_copies<1>();
    __syncthreads();
    const uint32_t k = shared + tile % 2 * 2 * kMatrix;
    if (tile == 0) rows.choose_offset(k + kMatrix);
    rows.walk(k, k + kMatrix, min(kAttentionTile, shape.tokens - tile * kAttentionTile), column, shape.scale_log2);
    __syncthreads();  // before the next turn's copies overwrite this tile
  }
  const int64_t entry = int64_t(blockIdx.x) * gridDim.y * kAttentionTile;
  rows.finish(Head<bf16>(a.dqkv, 3, shape), blockIdx.z == 0 ? a.stats + entry : nullptr, first, column, shape);
}

template <int D, int Width, int Blocks>
__global__ void __launch_bounds__(kStreamedWarps* kWarp, Blocks) attention_backward_columns(const AttentionBackward a) {
  uint4* const shared_memory = dynamic_shared<uint4>();
  constexpr int kMatrix = kAttentionTile * kRowBytes<D>, kStage = 2 * kMatrix + kAttentionTile * int(sizeof(float2));
  const AttentionShape& shape = a.shape;
  const int tiles = ceil_div(shape.tokens, kAttentionTile), column = blockIdx.z * Width;
  const int first = blockIdx.y * kAttentionTile + threadIdx.x / kWarp * 16;
  const Head<const bf16> head(a.qkv, 3, shape), dout(a.dout, 1, shape);
  const int64_t entry = int64_t(blockIdx.x) * gridDim.y * kAttentionTile;
  const uint32_t shared = shared_address(shared_memory);
  const auto copy_tile = [&](int tile) {
    const uint32_t q = shared + tile % 2 * kStage;
    copy_rows<D>(q, head.rows, head.stride, tile * kAttentionTile, kAttentionTile, shape.tokens, shape.head_dim);
    copy_rows<D>(q + kMatrix, dout.rows, dout.stride, tile * kAttentionTile, kAttentionTile, shape.tokens, shape.head_dim);
    const int two = threadIdx.x * 2;  // statistics of two rows are 16 bytes
    const float2* from = a.stats + entry + tile * kAttentionTile + two;
    if (two < kAttentionTile) copy_async<16>(q + 2 * kMatrix + two * int(sizeof(float2)), from, true);
  };
  copy_tile(0);
  commit_copies();
  RowLoads<D, 1> keys, values;
  keys.load(head.rows + head.part, head.stride, first, shape.tokens, shape.head_dim);
  values.load(head.rows + 2 * head.part, head.stride, first, shape.tokens, shape.head_dim);
  GradColumns<D, Width, 1> columns;
  columns.begin(keys, values);
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) copy_tile(tile + 1);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const int stage = tile % 2 * kStage, queries = min(kAttentionTile, shape.tokens - tile * kAttentionTile);
    const float2* stats = reinterpret_cast<const float2*>(shared_memory + (stage + 2 * kMatrix) / 16);
    for (int row = 0; row < queries; row += 16)
      columns.step(shared + stage, shared + stage + kMatrix, stats, row, column, shape.scale_log2);
    __syncthreads();
  }
  columns.finish(Head<bf16>(a.dqkv, 3, shape), first, column, shape);
}

template <int D, int Width, int Blocks>
static void launch_backward_streamed(const AttentionBackward& a, int64_t batch, Context& context) {
  const dim3 grid(unsigned(batch * a.shape.heads), ceil_div(a.shape.tokens, kAttentionTile), D / Width), block(kStreamedWarps * kWarp);
  const size_t matrices = size_t(4) * kAttentionTile * kRowBytes<D>;
  launch("attention_backward_rows", attention_backward_rows<D, Width, Blocks>, grid, block, matrices, context, a);
  launch("attention_backward_columns", attention_backward_columns<D, Width, Blocks>, grid, block,
         matrices + 2 * kAttentionTile * sizeof(float2), context, a);
}

// ---- Which kernel a shape gets ---------------------------------------------------------------------------------------------------------

// Up to 72 tokens a whole row of scores fits into registers. Above, a warp has 32 rows at width 32, where fragments are small and reads of
// shared memory are the limit, and 16 rows at the others.
void attention_backward_bf16(const attention_grad_args& args, Context& context) {
  const AttentionShape shape = attention_shape(args.tokens, args.heads, args.head_dim, args.scale);
  const AttentionBackward a = {static_cast<const bf16*>(args.qkv.data), static_cast<const bf16*>(args.dout.data),
                         static_cast<bf16*>(args.dqkv.data), static_cast<float2*>(context.workspace), shape};
  const int width = attention_width(args.head_dim);
  if (!attention_resident(args.tokens, args.head_dim)) {
    if (width == 32) return launch_backward_streamed<32, 32, 4>(a, args.batch, context);
    if (width == 64) return launch_backward_streamed<64, 64, 2>(a, args.batch, context);
    if (width == 80) return launch_backward_streamed<80, 80, 2>(a, args.batch, context);
    return launch_backward_streamed<128, 64, 2>(a, args.batch, context);
  }
  if (args.tokens <= 72) return attention_backward_short(a, args.batch, context);
  if (width == 32) return launch_backward_resident<32, 2, 4, 3>(a, args.batch, context);
  if (width == 64) return launch_backward_resident<64, 1, 4, 3>(a, args.batch, context);
  return launch_backward_resident<80, 1, 4, 2>(a, args.batch, context);
}

}}  // namespace mae::cuda
