// LayerNorm over the last axis (Ba et al., 2016): y = x̂·weight + bias, x̂ = (x − μ)·rstd, rstd = 1/√(σ² + eps), σ² biased.
#include "../../kernel.h"
#include "../chunks.h"
#include "../lanes.h"
#include "../pool.h"
#include "../typed.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// The row is read from memory once; the second and third passes find it in the cache. Two passes for the variance: Σx² − μ² would cancel.
template <class X, class Y>
static inline void normalise_row(const layer_norm_args& a, const X* x, Y* y, float* mean, float* rstd) {
  const int64_t width = a.width;
  const float mu = sum_lanes(width, [&](int64_t i, auto n) { return load(x + i, n); }) / float(width);
  const vf centre = splat(mu);
  const float squares = sum_lanes(width, [&](int64_t i, auto n) {
    const vf d = load(x + i, n) - centre;
    return d * d;
  });
  const float r = 1.0f / __builtin_sqrtf(squares / float(width) + float(a.eps));
  const vf scale = splat(r);
  const float* weight = a.weight.f32();
  const float* bias = a.bias.f32();
  for_lanes(width, [&](int64_t i, auto n) {
    store(y + i, (load(x + i, n) - centre) * scale * load(weight + i, n) + load(bias + i, n), n);
  });
  *mean = mu;
  *rstd = r;
}

size_t layer_norm_workspace(const layer_norm_args&) { return 0; }

void layer_norm(const layer_norm_args& a, Context&) {
  with_float(a.x, [&](auto* x) {
    with_float(a.y, [&](auto* y) {
      const Chunks chunks = cut_rows(a.rows, a.width);
      parallel_for(chunks.count, [&](int64_t chunk, int) {
        for (int64_t row = chunk_begin(chunks, chunk); row < chunk_end(chunks, chunk); ++row) {
          normalise_row(a, x + row * a.width, y + row * a.width, a.mean.f32_mut() + row, a.rstd.f32_mut() + row);
        }
      });
    });
  });
}

// With g = dy ∘ weight: dx = rstd·(g − mean(g) − x̂·mean(g ∘ x̂)) + acc, dweight += dy ∘ x̂, dbias += dy. x and dy come from memory in the
// first pass and from the cache in the second; the first also asks for acc, which would stall the second (1.4 times as fast beyond the
// caches).
template <class X, class D>
static inline void grad_row(const layer_norm_grad_args& a, int64_t row, const X* x, const D* dy, const X* acc, X* dx, uint16_t* dx_low,
                            float* dweight, float* dbias) {
  const int64_t width = a.width;
  const float* weight = a.weight.f32();
  const vf mean = splat(a.mean.f32()[row]), rstd = splat(a.rstd.f32()[row]);
  vf sum_g = {}, sum_gx = {};
  for_lanes(width, [&](int64_t i, auto n) {
    if (acc) __builtin_prefetch(acc + i);
    const vf d = load(dy + i, n), x_hat = (load(x + i, n) - mean) * rstd, g = d * load(weight + i, n);
    sum_g += g;
    sum_gx += g * x_hat;
    store(dweight + i, load(dweight + i, n) + d * x_hat, n);
    store(dbias + i, load(dbias + i, n) + d, n);
  });
  const vf mean_g = splat(hsum(sum_g) / float(width)), mean_gx = splat(hsum(sum_gx) / float(width));
  for_lanes(width, [&](int64_t i, auto n) {
    const vf x_hat = (load(x + i, n) - mean) * rstd;
    vf v = rstd * (load(dy + i, n) * load(weight + i, n) - mean_g - x_hat * mean_gx);
    if (acc) v += load(acc + i, n);
    store(dx + i, v, n);
    if (dx_low) store(dx_low + i, v, n);
  });
}

static Chunks grad_chunks(const layer_norm_grad_args& a) { return cut_for_partials(a.rows, 16); }

// A chunk's partial sums: dweight [width], dbias [width].
size_t layer_norm_grad_workspace(const layer_norm_grad_args& a) { return size_t(grad_chunks(a).count * 2 * a.width) * sizeof(float); }

void layer_norm_grad(const layer_norm_grad_args& a, Context& context) {
  const Chunks chunks = grad_chunks(a);
  float* partials = static_cast<float*>(context.workspace);
  with_float(a.x, [&](auto* x) {
    auto* const acc = same_type(x, a.acc);
    auto* const dx = same_type(x, a.dx);
    with_float(a.dy, [&](auto* dy) {
      parallel_for(chunks.count, [&](int64_t chunk, int) {
        float* dweight = partials + chunk * 2 * a.width;
        float* dbias = dweight + a.width;
        memset(dweight, 0, size_t(2 * a.width) * sizeof(float));
        for (int64_t row = chunk_begin(chunks, chunk); row < chunk_end(chunks, chunk); ++row) {
          const int64_t at = row * a.width;
          grad_row(a, row, x + at, dy + at, advance(acc, at), dx + at, advance(a.dx_low.bf16_mut(), at), dweight, dbias);
        }
      });
    });
  });
  sum_partials(partials, chunks.count, 2 * a.width, a.width, a.dweight);
  sum_partials(partials + a.width, chunks.count, 2 * a.width, a.width, a.dbias);
}

}}}  // namespace mae::cpu::MAE_ISA
