// The global norm of the gradients, and AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019).
#include "../../kernel.h"
#include "../../shared/control.h"
#include "../chunks.h"
#include "../lanes.h"
#include "../pool.h"
#include "../typed.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// Σ x²: blocks in float32, their sum in float64. A square that overflows float32 makes it infinite, which is meant: it would do the same in
// AdamW's v.
static double sum_squares(const float* x, int64_t count) {
  double sum = 0;
  for (int64_t begin = 0; begin < count; begin += 1024) {
    const float* block = x + begin;
    sum += double(sum_lanes(count - begin < 1024 ? count - begin : 1024, [&](int64_t i, auto n) {
      const vf v = load(block + i, n);
      return v * v;
    }));
  }
  return sum;
}

static Chunks norm_chunks(const grad_norm_args& a) { return cut(a.count, 65536); }

// One double for each chunk: its Σ g².
size_t grad_norm_workspace(const grad_norm_args& a) { return size_t(norm_chunks(a).count) * sizeof(double); }

void grad_norm(const grad_norm_args& a, Context& context) {
  const Chunks chunks = norm_chunks(a);
  double* partials = static_cast<double*>(context.workspace);
  parallel_for(chunks.count, [&](int64_t chunk, int) {
    const int64_t begin = chunk_begin(chunks, chunk);
    partials[chunk] = sum_squares(a.grads.f32() + begin, chunk_end(chunks, chunk) - begin);
  });
  double sum = 0;
  for (int64_t c = 0; c < chunks.count; ++c) sum += partials[c];
  const float norm = float(__builtin_sqrt(sum)), loss = *a.loss.f32();
  const float max_norm = static_cast<const Control*>(a.control.data)->max_norm, clip = max_norm / (norm + 1e-6f);
  float* report = a.report.f32_mut();
  report[0] = loss;
  report[1] = norm;
  report[2] = max_norm > 0 && clip < 1 ? clip : 1.0f;
  report[3] = __builtin_isfinite(loss) && __builtin_isfinite(norm) ? 1.0f : 0.0f;
}

// One row of the table of segments: elements [begin, end) share a weight decay and a factor on the learning rate.
struct Segment {
  int32_t begin, end;
  float weight_decay, lr_scale;
};

// The first segment that ends after `element`.
static int64_t first_segment(const Segment* segments, int64_t count, int64_t element) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (segments[middle].end > element) high = middle;
    else low = middle + 1;
  }
  return low;
}

size_t adamw_workspace(const adamw_args&) { return 0; }

void adamw(const adamw_args& a, Context&) {
  const float* report = a.report.f32();
  if (report[3] == 0) return;
  const Control& control = *static_cast<const Control*>(a.control.data);
  const Segment* segments = static_cast<const Segment*>(a.segments.data);
  // As PyTorch does: the scalars are made in float64 and rounded once; the elements are float32 throughout.
  const vf clip = splat(report[2]), beta1 = splat(float(a.beta1)), beta2 = splat(float(a.beta2)), eps = splat(float(a.eps));
  const vf rest1 = splat(float(1 - a.beta1)), rest2 = splat(float(1 - a.beta2));
  const vf root_scale = splat(float(1 / __builtin_sqrt(double(control.bias2))));

  const Chunks chunks = cut(a.count, 32768);
  parallel_for(chunks.count, [&](int64_t chunk, int) {
    const int64_t chunk_from = chunk_begin(chunks, chunk), chunk_to = chunk_end(chunks, chunk);
    for (int64_t s = first_segment(segments, a.segment_count, chunk_from); s < a.segment_count && segments[s].begin < chunk_to; ++s) {
      const int64_t begin = segments[s].begin > chunk_from ? segments[s].begin : chunk_from;
      const int64_t end = segments[s].end < chunk_to ? segments[s].end : chunk_to;
      const double rate = double(control.lr) * double(segments[s].lr_scale);
      const vf decay = splat(float(1 - rate * double(segments[s].weight_decay))), step = splat(float(rate / double(control.bias1)));
      const float* grads = a.grads.f32() + begin;
      float* params = a.params.f32_mut() + begin;
      float* m = a.m.f32_mut() + begin;
      float* v = a.v.f32_mut() + begin;
      uint16_t* params_low = advance(a.params_low.bf16_mut(), begin);
      for_lanes(end - begin, [&](int64_t i, auto n) {
        const vf g = load(grads + i, n) * clip;
        const vf m_new = beta1 * load(m + i, n) + rest1 * g;
        const vf v_new = beta2 * load(v + i, n) + rest2 * (g * g);
        const vf p = load(params + i, n) * decay - step * (m_new / (vsqrt(v_new) * root_scale + eps));
        store(m + i, m_new, n);
        store(v + i, v_new, n);
        store(params + i, p, n);
        if (params_low) store(params_low + i, p, n);
      });
    }
  });
}

}}}  // namespace mae::cpu::MAE_ISA
