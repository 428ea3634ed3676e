// The memory-bound companions of the GEMM kernels: adding up the parts of a split product, sums of columns, and the epilogue by itself.
#include "common.cuh"
#include "gemm_epilogue.cuh"
#include "gemm_kernels.h"

namespace mae { namespace cuda {
namespace {

constexpr int kThreads = 256;

// to[i] = Σ_s partials[s · stride + i] (+ to[i]), W neighbouring elements.
template <int W>
__device__ __forceinline__ void reduce(const float* partials, int splits, int64_t stride, float* to, bool accumulate) {
  float sum[W] = {};
  if (accumulate) load<W>(to, sum);
#pragma unroll 4
  for (int s = 0; s < splits; ++s) {
    float part[W];
    load<W>(partials + s * stride, part);
#pragma unroll
    for (int i = 0; i < W; ++i) sum[i] += part[i];
  }
  store<W>(to, sum);
}

// Blocks [0, blocks_c) take c (count elements, in fours where kVector), the rest take sums (count_sums elements behind them).
template <bool kVector>
__global__ void __launch_bounds__(kThreads) reduce_kernel(const float* partials, int splits, int64_t stride, float* c, int64_t count,
                                                          bool accumulate, int blocks_c, float* sums, int64_t count_sums,
                                                          bool sums_accumulate) {
  constexpr int W = kVector ? 4 : 1;
  if (int(blockIdx.x) < blocks_c) {
    const int64_t at = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * W;
    if (at < count) reduce<W>(partials + at, splits, stride, c + at, accumulate);
  } else {
    const int64_t at = int64_t(blockIdx.x - blocks_c) * kThreads + threadIdx.x;
    if (at < count_sums) reduce<1>(partials + count + at, splits, stride, sums + at, sums_accumulate);
  }
}

// Sums of columns: a block adds 256 rows of 128 columns, eight rows at a time (one a warp, four columns a lane).
constexpr int kSumColumns = 128;
constexpr int kSumRows = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) column_sums_kernel(const T* a, int64_t rows, int64_t columns, float* partials, int access) {
  __shared__ float shared[kThreads / kWarp][kSumColumns];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t column = int64_t(blockIdx.x) * kSumColumns + lane * 4;
  const int count = int(min(columns - column, int64_t(4)));
  const int64_t begin = int64_t(blockIdx.y) * kSumRows, end = min(begin + kSumRows, rows);
  float sum[4] = {};
#pragma unroll 4
  for (int64_t row = begin + warp; row < end; row += kThreads / kWarp) {
    float v[4] = {};
    if (count > 0) load_part<4>(a + row * columns + column, count, access, v);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += v[i];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) shared[warp][lane * 4 + i] = sum[i];
  __syncthreads();
  if (threadIdx.x < kSumColumns) {
    const int64_t mine = int64_t(blockIdx.x) * kSumColumns + threadIdx.x;
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < kThreads / kWarp; ++w) total += shared[w][threadIdx.x];
    if (mine < columns) partials[blockIdx.y * columns + mine] = total;
  }
}

template <class Operand, int kKind>
__global__ void __launch_bounds__(kThreads) finish_kernel(const void* product, EpilogueArgs e) {
  constexpr int W = 8;
  const int64_t groups = (e.n + W - 1) / W;  // of a row
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x, row = index / groups, column = index % groups * W;
  if (row >= e.m) return;
  EpilogueGroup<kKind, Operand, W> group;
  group.fetch(e, row, column);
  float v[W] = {};
  load_any<W>(product, row * e.n + column, e.c_is_bf16, group.count, e.access, v);
  group.finish(e, column, v);
}

template <class Operand>
void finish(Context& context, const void* product, const EpilogueArgs& e, int kind) {
  const int64_t groups = e.m * ceil_div(e.n, 8);
  const dim3 grid(unsigned(ceil_div(groups, kThreads)));
  if (kind == kGelu) launch("gemm_finish", finish_kernel<Operand, kGelu>, grid, dim3(kThreads), 0, context, product, e);
  else if (kind == kGeluGrad) launch("gemm_finish", finish_kernel<Operand, kGeluGrad>, grid, dim3(kThreads), 0, context, product, e);
  else launch("gemm_finish", finish_kernel<Operand, kPlain>, grid, dim3(kThreads), 0, context, product, e);
}

}  // namespace

void gemm_reduce(Context& context, const GemmProblem& p, float* c, bool accumulate) {
  const int64_t count = p.m * p.n, count_sums = p.a_sums ? p.m : 0;
  const bool vector = count % 4 == 0 && p.partial_stride % 4 == 0 && aligned(16, c, p.partials);
  const int blocks_c = int(ceil_div(count, kThreads * (vector ? 4 : 1)));
  const dim3 grid(unsigned(blocks_c + ceil_div(count_sums, kThreads)));
  launch("gemm_reduce", vector ? reduce_kernel<true> : reduce_kernel<false>, grid, dim3(kThreads), 0, context,
         static_cast<const float*>(p.partials), p.splits, p.partial_stride, c, count, accumulate, blocks_c, p.a_sums, count_sums,
         p.a_sums_accumulate);
}

size_t column_sums_workspace(int64_t rows, int64_t columns) { return ceil_div(rows, kSumRows) * columns * sizeof(float); }

void column_sums(Context& context, const void* a, DType dtype, int64_t rows, int64_t columns, float* sums, bool accumulate,
                 void* workspace) {
  const dim3 grid(unsigned(ceil_div(columns, kSumColumns)), unsigned(ceil_div(rows, kSumRows)));
  float* partials = static_cast<float*>(workspace);
  with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int access = columns % 4 == 0 && aligned(4 * sizeof(T), a) ? 4 : 1;
    const T* from = static_cast<const T*>(a);
    launch("column_sums", column_sums_kernel<T>, grid, dim3(kThreads), 0, context, from, rows, columns, partials, access);
  });
  GemmProblem parts = {};
  parts.m = 1, parts.n = columns, parts.splits = int(grid.y), parts.partials = partials, parts.partial_stride = columns;
  gemm_reduce(context, parts, sums, accumulate);
}

void gemm_finish(Context& context, const void* product, DType operands, const EpilogueArgs& epilogue, int kind) {
  if (operands == BF16) finish<bf16>(context, product, epilogue, kind);
  else finish<float>(context, product, epilogue, kind);
}

}}  // namespace mae::cuda
