// The global norm of the gradients, and AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019).
#include "../native/shared/control.h"
#include "common.cuh"

namespace mae { namespace cuda {
namespace {

// ---- grad_norm ------------------------------------------------------------------------------------------------------------------------

constexpr int kNormThreads = 256, kNormPack = 4;
constexpr int64_t kNormChunk = 65536;  // gradients of a block: at most 256 squares in one float32 sum

// partials[block] = Σ g² of the block's chunk; float32 inside a thread, float64 from there on. grads is 16-byte aligned or `packed` is
// false.
__global__ void __launch_bounds__(kNormThreads)
    norm_partials_kernel(const float* __restrict__ grads, int64_t count, bool packed, double* __restrict__ partials) {
  __shared__ double shared[kNormThreads / kWarp];
  const int64_t begin = int64_t(blockIdx.x) * kNormChunk, end = min(begin + kNormChunk, count);
  const int64_t packed_end = packed ? begin + (end - begin) / kNormPack * kNormPack : begin;
  float sums[kNormPack] = {};
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x * kNormPack; i < packed_end; i += kNormThreads * kNormPack) {
    float g[kNormPack];
    load(grads + i, g);
#pragma unroll
    for (int k = 0; k < kNormPack; ++k) sums[k] += g[k] * g[k];
  }
  for (int64_t i = packed_end + threadIdx.x; i < end; i += kNormThreads) sums[0] += grads[i] * grads[i];
  double sum = (double(sums[0]) + double(sums[1])) + (double(sums[2]) + double(sums[3]));
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    sum = 0.0;
    for (int w = 0; w < kNormThreads / kWarp; ++w) sum += shared[w];
    partials[blockIdx.x] = sum;
  }
}

// One block adds the partial sums and writes report {loss, ‖g‖₂, clip coefficient, finite}.
__global__ void __launch_bounds__(kNormThreads) norm_report_kernel(const double* __restrict__ partials, int64_t count, const float* loss_at,
                                                                   const Control* control, float* report) {
  __shared__ double shared[kNormThreads];
  double sum = 0.0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < count; i += kNormThreads) sum += partials[i];
  shared[threadIdx.x] = sum;
  for (int half = kNormThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  if (threadIdx.x == 0) {
    const float norm = float(sqrt(shared[0])), loss = *loss_at, max_norm = control->max_norm, clip = max_norm / (norm + 1e-6f);
    report[0] = loss;
    report[1] = norm;
    report[2] = max_norm > 0.0f && clip < 1.0f ? clip : 1.0f;
    report[3] = isfinite(loss) && isfinite(norm) ? 1.0f : 0.0f;
  }
}

// ---- adamw ----------------------------------------------------------------------------------------------------------------------------

constexpr int kAdamThreads = 256, kAdamPack = 4;

// One row of the table of segments: elements [begin, end) share a weight decay and a factor on the learning rate.
struct Segment {
  int32_t begin, end;
  float weight_decay, lr_scale;
};

// The first segment that ends after `element`, the same for the whole warp: 32 places of the range at once, so that a table of up to 1024
// segments costs two loads one behind the other.
__device__ __forceinline__ int first_segment(const Segment* segments, int count, int64_t element, int lane) {
  int low = 0;  // segments before `low` end at or before `element`; the answer is at most low + count
  while (count > 0) {
    const int step = ceil_div(count, kWarp), probe = low + lane * step + step - 1;  // the last segment of the lane's part
    const bool before = lane * step < count && segments[min(probe, low + count - 1)].end <= element;
    const int parts = __popc(__ballot_sync(0xffffffffu, before));  // ends are sorted: the first `parts` parts lie before the element
    const int skipped = min(parts * step, count);
    low += skipped;
    count = min(count - skipped, step - 1);  // the last segment of the part that remains ends after the element
  }
  return low;
}

struct AdamScalars {
  float beta1, beta2, rest1, rest2, eps;  // rest = 1 − beta
};

// One element, as PyTorch does: p ← p·(1 − r·wd) − (r/bias1) · m / (√v/√bias2 + eps).
struct AdamStep {
  float decay, step, root_scale, clip;
  __device__ __forceinline__ void operator()(const AdamScalars& s, float grad, float& p, float& m, float& v) const {
    const float g = grad * clip;
    m = s.beta1 * m + s.rest1 * g;
    v = s.beta2 * v + s.rest2 * (g * g);
    p = p * decay - step * (m / (sqrtf(v) * root_scale + s.eps));
  }
};

// Four elements a thread. A thread whose elements lie in one segment moves them in packs, others one by one; elements of no segment stay.
__global__ void __launch_bounds__(kAdamThreads)
    adamw_kernel(const Control* __restrict__ control, const float* __restrict__ report, const Segment* __restrict__ segments,
                 int segment_count, const float* __restrict__ grads, float* __restrict__ params, bf16* __restrict__ params_low,
                 float* __restrict__ m, float* __restrict__ v, int64_t count, bool packed, const AdamScalars scalars) {
  if (report[3] == 0.0f) return;  // loss or norm is not finite: weights and moments stay as they are
  const int lane = threadIdx.x % kWarp;
  const int64_t at = (int64_t(blockIdx.x) * kAdamThreads + threadIdx.x) * kAdamPack;
  const int64_t stop = min(at + kAdamPack, count);
  const bool whole = packed && at + kAdamPack <= count;

  float g4[kAdamPack], p4[kAdamPack], m4[kAdamPack], v4[kAdamPack];
  if (whole) {  // on their way while the segment is looked up
    load_streaming(grads + at, g4);
    load_streaming(params + at, p4);
    load_streaming(m + at, m4);
    load_streaming(v + at, v4);
  }
  int s = first_segment(segments, segment_count, at - lane * kAdamPack, lane);
  while (s < segment_count && segments[s].end <= at) ++s;

  AdamStep step;
  step.clip = report[2];
  step.root_scale = 1.0f / sqrtf(control->bias2);
  const float lr = control->lr, bias1 = control->bias1;
  for (; s < segment_count && segments[s].begin < stop; ++s) {
    const Segment segment = segments[s];
    const float rate = lr * segment.lr_scale;
    step.decay = 1.0f - rate * segment.weight_decay;
    step.step = rate / bias1;
    if (whole && segment.begin <= at && segment.end >= stop) {
#pragma unroll
      for (int i = 0; i < kAdamPack; ++i) step(scalars, g4[i], p4[i], m4[i], v4[i]);
      store_streaming(params + at, p4);
      store_streaming(m + at, m4);
      store_streaming(v + at, v4);
      if (params_low) store(params_low + at, p4);
      return;
    }
    for (int64_t i = max(at, int64_t(segment.begin)); i < min(stop, int64_t(segment.end)); ++i) {
      float p = params[i], m1 = m[i], v1 = v[i];
      step(scalars, grads[i], p, m1, v1);
      params[i] = p;
      m[i] = m1;
      v[i] = v1;
      if (params_low) params_low[i] = from_float<bf16>(p);
    }
  }
}

int64_t norm_chunks(const grad_norm_args& a) { return ceil_div(a.count, kNormChunk); }

}  // namespace

// One double for each chunk: its Σ g².
size_t grad_norm_workspace(const grad_norm_args& a) { return size_t(norm_chunks(a)) * sizeof(double); }

void grad_norm(const grad_norm_args& a, Context& context) {
  double* partials = static_cast<double*>(context.workspace);
  launch("grad_norm", norm_partials_kernel, dim3(unsigned(norm_chunks(a))), kNormThreads, 0, context, a.grads.f32(), a.count,
         aligned(16, a.grads.f32()), partials);
  launch("grad_norm (report)", norm_report_kernel, 1, kNormThreads, 0, context, partials, norm_chunks(a), a.loss.f32(),
         static_cast<const Control*>(a.control.data), a.report.f32_mut());
}

size_t adamw_workspace(const adamw_args&) { return 0; }

void adamw(const adamw_args& a, Context& context) {
  const AdamScalars scalars = {float(a.beta1), float(a.beta2), float(1.0 - a.beta1), float(1.0 - a.beta2), float(a.eps)};
  const bool packed = aligned(16, a.grads.f32(), a.params.f32(), a.params_low.bf16(), a.m.f32(), a.v.f32());
  launch("adamw", adamw_kernel, dim3(unsigned(ceil_div(a.count, kAdamThreads * kAdamPack))), kAdamThreads, 0, context,
         static_cast<const Control*>(a.control.data), a.report.f32(), static_cast<const Segment*>(a.segments.data), int(a.segment_count),
         a.grads.f32(), a.params.f32_mut(), static_cast<bf16*>(a.params_low.data), a.m.f32_mut(), a.v.f32_mut(), a.count, packed, scalars);
}

}}  // namespace mae::cuda
