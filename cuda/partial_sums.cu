#include "partial_sums.cuh"

namespace mae { namespace cuda {
namespace {

struct SumOutput {
  float* data;
  bool accumulate;
};

// A block owns 32 columns of output blockIdx.y. Warp w adds the partial rows w, w + 32, …, reading 128 bytes at a time; then the warps'
// sums of one column are laid across the lanes of one warp and added.
__global__ void __launch_bounds__(kWarp* kWarp)
    sum_partials_kernel(const float* partials, int64_t count, int64_t width, SumOutput first, SumOutput second) {
  __shared__ float tile[kWarp][kWarp + 1];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t stride = width * gridDim.y, first_column = int64_t(blockIdx.x) * kWarp;
  float sum = 0.0f;
  if (first_column + lane < width) {
    const float* column = partials + blockIdx.y * width + first_column + lane;
#pragma unroll 4
    for (int64_t c = warp; c < count; c += kWarp) sum += column[c * stride];
  }
  tile[warp][lane] = sum;
  __syncthreads();
  sum = warp_sum(tile[lane][warp]);
  const int64_t mine = first_column + warp;
  if (lane == 0 && mine < width) {
    const SumOutput output = blockIdx.y == 0 ? first : second;
    output.data[mine] = output.accumulate ? output.data[mine] + sum : sum;
  }
}

}  // namespace

void sum_partials(Context& context, const float* partials, int64_t count, int64_t width, const Operand& first, const Operand* second) {
  const SumOutput one = {first.f32_mut(), first.accumulate()};
  const SumOutput two = second ? SumOutput{second->f32_mut(), second->accumulate()} : one;
  const dim3 grid(unsigned(ceil_div(width, kWarp)), second ? 2 : 1);
  launch("sum_partials", sum_partials_kernel, grid, kWarp * kWarp, 0, context, partials, count, width, one, two);
}

}}  // namespace mae::cuda
