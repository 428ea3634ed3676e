// exp and the exact-erf GELU on vectors of float. The polynomials are minimax fits made for this file; the errors stated were measured
// against float64 over every instruction set. NaN gives NaN.
#pragma once
#include "../simd.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// eˣ within 1 unit in the last place; +inf above 88.73, denormals down to 0 below −103.97.
static inline vf vexp(vf x) {
  x = vmax(splat(-104.5f), vmin(splat(89.0f), x));
  const float shift = 12582912.0f;  // 1.5·2²³: adding it rounds to an integer, which then lies in the low bits
  const vf shifted = x * 1.44269504f + shift;
  const vf n = shifted - shift;
  const vf r = (x - n * 0.693145752f) - n * 1.42860677e-6f;  // x − n·ln 2, ln 2 in two pieces
  vf p = splat(0.00138145988f);
  p = p * r + 0.00836871658f;
  p = p * r + 0.041668389f;
  p = p * r + 0.166665211f;
  p = p * r + 0.49999994f;
  p = (p * r) * r + r + 1.0f;
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)n);
#else
  const vi exponent = (vi)shifted - 0x4b400000;  // 2ⁿ in two factors, since n may lie outside the exponent's range
  const vi half = exponent >> 1;
  return p * (vf)((half + 127) << 23) * (vf)((exponent - half + 127) << 23);
#endif
}

static inline vf vabs(vf x) { return (vf)((vi)x & 0x7fffffff); }

// |Φ(x) − ½| = ½·erf(|x|/√2), Φ the normal distribution function: t·P(t²)/Q(t²). Absolute error ≤ 1.9e-7, exactly ½ beyond ±5.5
// (1 − Φ(5.5) = 1.9e-8).
static inline vf normal_half(vf x) {
  const float edge = 5.5f;
  const vf size = vabs(x), t = vmin(splat(edge), size), u = t * t;
  vf p = splat(2.27493206e-08f), q = splat(1.19750371e-06f);
  p = p * u + 6.35213246e-06f, q = q * u + 7.36480142e-05f;
  p = p * u + 0.000168827202f, q = q * u + 0.00188445346f;
  p = p * u + 0.00467727007f, q = q * u + 0.028645955f;
  p = p * u + 0.0338527933f, q = q * u + 0.251522273f;
  p = p * u + 0.398942232f, q = q * u + 1.0f;
  return select(size > edge, splat(0.5f), t * p / q);
}

// x·Φ(x) (Hendrycks and Gimpel 2016, the erf form), error ≤ 2e-7·max(1, |x|). Exactly x or 0 beyond ±5.5.
static inline vf gelu(vf x) { return vabs(x) * normal_half(x) + 0.5f * x; }

// d/dx gelu = Φ(x) + x·φ(x) = ½ + an odd function, ±t·P(t²)/Q(t²): no exp. Absolute error ≤ 3.6e-7. Exactly 1 or 0 beyond ±6.
static inline vf gelu_grad(vf x) {
  const float edge = 6.0f;
  const vf size = vabs(x), t = vmin(splat(edge), size), u = t * t;
  vf p = splat(1.90884961e-07f), q = splat(8.887474e-06f);
  p = p * u + 3.58505677e-05f, q = q * u + 0.000193519969f;
  p = p * u + 2.41844937e-05f, q = q * u + 0.00352876307f;
  p = p * u + 0.0142091727f, q = q * u + 0.041064702f;
  p = p * u - 0.0307434332f, q = q * u + 0.294805706f;
  p = p * u + 0.797884524f, q = q * u + 1.0f;
  const vf odd = select(size > edge, splat(0.5f), t * p / q);
  return (vf)((vi)odd ^ ((vi)x & INT32_MIN)) + 0.5f;
}

}}}  // namespace mae::cpu::MAE_ISA
