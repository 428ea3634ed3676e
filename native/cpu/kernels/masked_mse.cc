// Masked mean squared error on pixels of removed patches (paper 3), with its gradient.
#include "../../kernel.h"
#include "../../shared/control.h"
#include "../../shared/patches.h"
#include "../chunks.h"
#include "../lanes.h"
#include "../pool.h"
#include "../typed.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// The workspace, in this order: the loss of every chunk of rows, double [chunks]; scale and shift repeated over a row of a patch, float
// [patch · channels] each; a patch's values for every chunk, float [chunks, patch · patch · channels].
struct Layout {
  Chunks chunks;
  int64_t run, dim;  // values in one row of a patch, in a patch
};

static Layout layout(const masked_mse_args& a) {
  return {cut_for_partials(a.batch * a.count, 4), a.patch * a.channels, a.patch * a.patch * a.channels};
}

size_t masked_mse_workspace(const masked_mse_args& a) {
  const Layout l = layout(a);
  return size_t(l.chunks.count) * sizeof(double) + size_t(2 * l.run + l.chunks.count * l.dim) * sizeof(float);
}

// What is subtracted from a patch's values and what they are multiplied with then.
struct Moments {
  float mean, rstd;
};

// to [run] = one row of a patch, normalised by channel. The last vector goes back to overlap the one before it: rows are short, and where
// they are no multiple of the lanes (patch 14) a partial vector in each would dominate.
template <class I>
static inline void normalise(const I* from, const float* scale, const float* shift, float* to, int64_t run) {
  const auto body = [&](int64_t i, auto n) { store(to + i, load(from + i, n) * load(scale + i, n) + load(shift + i, n), n); };
  if (run < kLanes) return body(0, Part{int(run)});
  for (int64_t i = 0; i + kLanes < run; i += kLanes) body(i, Full{});
  body(run - kLanes, Full{});
}

// values [dim] = the patch at `pixels`, normalised by channel, in (row, column, channel) order; returns the patch's own moments, or those
// that change nothing where norm_pix is not set.
template <class I>
static inline Moments read_patch(const masked_mse_args& a, const Layout& l, const I* pixels, const float* scale, const float* shift,
                                 float* values) {
  for (int64_t row = 0; row < a.patch; ++row) {
    normalise(pixels + patch_offset(row, 0, 0, a.width, a.channels), scale, shift, values + row * l.run, l.run);
  }
  if (!a.norm_pix) return {0, 1};
  const float mean = sum_lanes(l.dim, [&](int64_t i, auto n) { return load(values + i, n); }) / float(l.dim);
  const vf centre = splat(mean);
  const float squares = sum_lanes(l.dim, [&](int64_t i, auto n) {
    const vf d = load(values + i, n) - centre;
    return d * d;
  });
  return {mean, 1.0f / __builtin_sqrtf(squares / float(l.dim - 1) + 1e-6f)};
}

// Σ_k (pred − target)² of one patch, target = (values − mean)·rstd; dpred [opt] = (pred − target) · slope.
template <class P>
static inline float compare(const P* pred, const float* values, Moments moments, P* dpred, float slope, int64_t dim) {
  const vf mean = splat(moments.mean), rstd = splat(moments.rstd), factor = splat(slope);
  return sum_lanes(dim, [&](int64_t i, auto n) {
    const vf d = load(pred + i, n) - (load(values + i, n) - mean) * rstd;
    if (dpred) store(dpred + i, d * factor, n);
    return d * d;
  });
}

template <class P, class I>
static void run(const masked_mse_args& a, void* workspace, const P* pred, const I* images) {
  const Layout l = layout(a);
  double* losses = static_cast<double*>(workspace);
  float* scale = reinterpret_cast<float*>(losses + l.chunks.count);
  float* shift = scale + l.run;
  float* patch_values = shift + l.run;
  for (int64_t i = 0; i < l.run; ++i) {
    scale[i] = a.scale.f32()[i % a.channels];
    shift[i] = a.shift.f32()[i % a.channels];
  }
  const int64_t patches = (a.height / a.patch) * (a.width / a.patch);
  // A row's mean over dim, the mean over the counted rows, and the share of this micro-batch: one factor.
  const double weight = double(static_cast<const Control*>(a.control.data)->grad_scale) / (double(l.dim) * double(a.counted));
  P* const dpreds = same_type(pred, a.dpred);

  parallel_for(l.chunks.count, [&](int64_t chunk, int) {
    float* values = patch_values + chunk * l.dim;
    double loss = 0;
    for (int64_t row = chunk_begin(l.chunks, chunk); row < chunk_end(l.chunks, chunk); ++row) {
      const int64_t b = row / a.count, j = a.first + row % a.count;
      const int64_t p = a.ids.data ? a.ids.i32()[b * patches + j] : j;
      P* dpred = advance(dpreds, row * l.dim);
      if (a.mask.data && a.mask.f32()[b * patches + p] == 0) {
        if (dpred) memset(dpred, 0, size_t(l.dim) * sizeof *dpred);
        continue;
      }
      const I* picture = images + b * a.height * a.width * a.channels;
      const I* pixels = picture + patch_origin(p, a.width, a.channels, a.patch);
      const Moments moments = read_patch(a, l, pixels, scale, shift, values);
      loss += double(compare(pred + row * l.dim, values, moments, dpred, float(2 * weight), l.dim));
    }
    losses[chunk] = loss;
  });

  double sum = 0;
  for (int64_t c = 0; c < l.chunks.count; ++c) sum += losses[c];
  float* loss = a.loss.f32_mut();
  *loss = float(sum * weight + (a.loss.accumulate() ? double(*loss) : 0.0));
}

void masked_mse(const masked_mse_args& a, Context& context) {
  with_float(a.pred, [&](auto* pred) {
    if (a.images.dtype == U8) run(a, context.workspace, pred, a.images.u8());
    else run(a, context.workspace, pred, a.images.f32());
  });
}

}}}  // namespace mae::cpu::MAE_ISA
