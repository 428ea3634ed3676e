// Masked mean squared error on pixels (paper 3), with its gradient. One warp a predicted patch; the target comes straight from the picture.
#include <limits.h>

#include "../native/shared/control.h"
#include "../native/shared/patches.h"
#include "common.cuh"

namespace mae { namespace cuda {
namespace {

constexpr int kMseWarps = 8, kMseThreads = kMseWarps * kWarp;
constexpr int kBlockRows = 32;  // predicted patches of a block, four a warp

template <class P, class I>
struct MseArgs {
  const P* pred;
  const I* images;
  const int32_t* ids;  // may be null
  const float *scale, *shift;
  const float* mask;  // may be null
  const Control* control;
  P* dpred;  // may be null
  float* partials;
  int rows, count, first, patches;
  int64_t picture;                   // values of a picture
  int width, channels, patch;
  int dim, run, pitch;               // values of a patch, of one row of a patch, of one row of the picture
  float slope;                       // 2 / (dim · counted)
  bool norm_pix;
};

// Where the patch of predicted row `row` begins in the pictures; −1: the row is left out of the loss.
template <class P, class I>
__device__ __forceinline__ int64_t patch_of_row(const MseArgs<P, I>& a, int row) {
  const int b = row / a.count, j = a.first + row % a.count;
  const int p = a.ids ? a.ids[int64_t(b) * a.patches + j] : j;
  if (a.mask && a.mask[int64_t(b) * a.patches + p] == 0.0f) return -1;
  return b * a.picture + patch_origin(p, a.width, a.channels, a.patch);
}

// The same for all rows of a block: partials[block] = Σ (pred − target)².
template <class P, class I>
__device__ __forceinline__ void store_partial(const MseArgs<P, I>& a, float loss) {
  __shared__ float shared[kWarp];
  loss = block_sum<kMseThreads>(loss, shared);
  if (threadIdx.x == 0) a.partials[blockIdx.x] = loss;
}

// Three channels. Value k of the patch, k = (pack·32 + lane)·N + i, sits in register target[pack][i]; N divides the row of a patch, so that
// a pack never crosses the picture's rows. Pack by pack the channel advances by 32·N mod 3: known to the compiler once the lane's first
// channel is rotated to place 0.
template <int N, int kPacks, class P, class I>
__global__ void __launch_bounds__(kMseThreads) masked_mse_kernel(const MseArgs<P, I> a) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  float scale[3], shift[3];
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    const int channel = (lane * N + c) % 3;
    scale[c] = a.scale[channel];
    shift[c] = a.shift[channel];
  }
  int offset[kPacks];  // of the pack's values from the patch's first; −1: past the end of the patch
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int k = (p * kWarp + lane) * N;
    offset[p] = k < a.dim ? (k / a.run) * a.pitch + k % a.run : -1;
  }
  const float slope = a.control->grad_scale * a.slope;

  float loss = 0.0f;
  const int begin = blockIdx.x * kBlockRows, end = min(begin + kBlockRows, a.rows);
  for (int row = begin + warp; row < end; row += kMseWarps) {
    const int64_t at = int64_t(row) * a.dim + lane * N, origin = patch_of_row(a, row);
    if (origin < 0) {
      const float zeros[N] = {};
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        if (a.dpred && offset[p] >= 0) store(a.dpred + at + p * kWarp * N, zeros);
      }
      continue;
    }
    float target[kPacks][N], sum = 0.0f;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if (offset[p] < 0) continue;
      load(a.images + origin + offset[p], target[p]);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const int c = (p * kWarp * N + i) % 3;
        target[p][i] = target[p][i] * scale[c] + shift[c];
        sum += target[p][i];
      }
    }
    float mean = 0.0f, rstd = 1.0f;
    if (a.norm_pix) {
      mean = warp_sum(sum) / float(a.dim);
      float squares = 0.0f;
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        if (offset[p] < 0) continue;
#pragma unroll
        for (int i = 0; i < N; ++i) squares += (target[p][i] - mean) * (target[p][i] - mean);
      }
      rstd = 1.0f / sqrtf(warp_sum(squares) / float(a.dim - 1) + 1e-6f);
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if (offset[p] < 0) continue;
      float d[N];
      load(a.pred + at + p * kWarp * N, d);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        d[i] -= (target[p][i] - mean) * rstd;
        loss += d[i] * d[i];
        d[i] *= slope;
      }
      if (a.dpred) store(a.dpred + at + p * kWarp * N, d);
    }
  }
  store_partial(a, loss);
}

// Any number of channels and any patch: value by value, the target computed again in each pass (the picture comes from the cache).
template <class P, class I>
__global__ void __launch_bounds__(kMseThreads) masked_mse_general_kernel(const MseArgs<P, I> a) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const float slope = a.control->grad_scale * a.slope;
  float loss = 0.0f;
  const int begin = blockIdx.x * kBlockRows, end = min(begin + kBlockRows, a.rows);
  for (int row = begin + warp; row < end; row += kMseWarps) {
    const int64_t at = int64_t(row) * a.dim, origin = patch_of_row(a, row);
    if (origin < 0) {
      for (int k = lane; a.dpred && k < a.dim; k += kWarp) a.dpred[at + k] = from_float<P>(0.0f);
      continue;
    }
    const auto target = [&](int k) {
      const int inside = k % a.run, channel = inside % a.channels;
      return to_float(a.images[origin + int64_t(k / a.run) * a.pitch + inside]) * a.scale[channel] + a.shift[channel];
    };
    float mean = 0.0f, rstd = 1.0f;
    if (a.norm_pix) {
      float sum = 0.0f, squares = 0.0f;
      for (int k = lane; k < a.dim; k += kWarp) sum += target(k);
      mean = warp_sum(sum) / float(a.dim);
      for (int k = lane; k < a.dim; k += kWarp) squares += (target(k) - mean) * (target(k) - mean);
      rstd = 1.0f / sqrtf(warp_sum(squares) / float(a.dim - 1) + 1e-6f);
    }
    for (int k = lane; k < a.dim; k += kWarp) {
      const float d = to_float(a.pred[at + k]) - (target(k) - mean) * rstd;
      loss += d * d;
      if (a.dpred) a.dpred[at + k] = from_float<P>(d * slope);
    }
  }
  store_partial(a, loss);
}

// loss (+)= grad_scale · factor · Σ partials, in a fixed order and float64.
__global__ void __launch_bounds__(kMseThreads)
    mse_total_kernel(const float* __restrict__ partials, int count, const Control* control, double factor, float* loss, bool accumulate) {
  __shared__ double shared[kMseThreads];
  double sum = 0.0;
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += kMseThreads) sum += double(partials[i]);
  shared[threadIdx.x] = sum;
  for (int half = kMseThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  if (threadIdx.x == 0) *loss = float(shared[0] * factor * double(control->grad_scale) + (accumulate ? double(*loss) : 0.0));
}

int64_t blocks_of(const masked_mse_args& a) { return ceil_div(a.batch * a.count, kBlockRows); }

template <class P, class I>
MseArgs<P, I> mse_args(const masked_mse_args& a, const Context& context) {
  const int64_t dim = a.patch * a.patch * a.channels, pitch = a.width * a.channels;
  return {static_cast<const P*>(a.pred.data),
          static_cast<const I*>(a.images.data),
          a.ids.i32(),
          a.scale.f32(),
          a.shift.f32(),
          a.mask.f32(),
          static_cast<const Control*>(a.control.data),
          static_cast<P*>(a.dpred.data),
          static_cast<float*>(context.workspace),
          int(a.batch * a.count),
          int(a.count),
          int(a.first),
          int((a.height / a.patch) * (a.width / a.patch)),
          a.height * pitch,
          int(a.width),
          int(a.channels),
          int(a.patch),
          int(dim),
          int(a.patch * a.channels),
          int(pitch),
          float(2.0 / (double(dim) * double(a.counted))),
          a.norm_pix != 0};
}

template <class P, class I>
void run_masked_mse(const masked_mse_args& a, Context& context) {
  const MseArgs<P, I> args = mse_args<P, I>(a, context);
  const dim3 grid(unsigned(blocks_of(a)));
  const bool three = a.channels == 3 && aligned(16, a.pred.f32(), a.images.f32(), a.dpred.f32());
  const auto packs = [&](int n) { return three && args.run % n == 0 && args.pitch % n == 0 ? ceil_div(args.dim, kWarp * n) : INT_MAX; };
  if (packs(4) <= 6) launch("masked_mse", masked_mse_kernel<4, 6, P, I>, grid, kMseThreads, 0, context, args);
  else if (packs(4) <= 24) launch("masked_mse", masked_mse_kernel<4, 24, P, I>, grid, kMseThreads, 0, context, args);
  else if (packs(2) <= 10) launch("masked_mse", masked_mse_kernel<2, 10, P, I>, grid, kMseThreads, 0, context, args);
  else launch("masked_mse (general)", masked_mse_general_kernel<P, I>, grid, kMseThreads, 0, context, args);
  launch("masked_mse (total)", mse_total_kernel, 1, kMseThreads, 0, context, args.partials, int(grid.x), args.control,
         1.0 / (double(args.dim) * double(a.counted)), a.loss.f32_mut(), a.loss.accumulate());
}

}  // namespace

// One float for each block: the sum of its squared differences.
size_t masked_mse_workspace(const masked_mse_args& a) { return size_t(blocks_of(a)) * sizeof(float); }

void masked_mse(const masked_mse_args& a, Context& context) {
  with_type(a.pred.dtype, [&](auto tag) {
    using P = typename decltype(tag)::type;
    if (a.images.dtype == U8) run_masked_mse<P, uint8_t>(a, context);
    else run_masked_mse<P, float>(a, context);
  });
}

}}  // namespace mae::cuda
