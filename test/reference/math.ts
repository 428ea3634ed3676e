/** erf, GELU and its derivative in double precision, from their series; nothing shared with native/cpu/kernels/vmath.h. */

// Looked up once: in jest's sandbox every mention of a global is a slow look-up.
const { abs, exp, sqrt, PI, SQRT2 } = Math;

/** erf(x) = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!: all terms of one sign, so nothing cancels. For |x| ≤ 3. */
function erfSeries(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; abs(term) > 1e-18 * abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / sqrt(PI)) * exp(-x * x) * sum;
}

/** erfc(x) = e^(−x²)/√π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …)))), from the inside out. For x ≥ 2, where 200 levels are more than enough. */
function erfcFraction(x: number): number {
  let tail = x;
  for (let n = 200; n >= 1; n--) tail = x + n / 2 / tail;
  return exp(-x * x) / sqrt(PI) / tail;
}

/** 1 − erf(x), accurate relative to its own size far out where it is tiny. */
export function erfc(x: number): number {
  if (x >= 2) return erfcFraction(x);
  if (x <= -2) return 2 - erfcFraction(-x);
  return x === 0 ? 1 : 1 - erfSeries(x);
}

/** Φ, the standard normal distribution. */
function normalDistribution(x: number): number {
  return erfc(-x / SQRT2) / 2;
}

/** x·Φ(x) (Hendrycks & Gimpel 2016), the exact-erf form. */
export function gelu(x: number): number {
  return x * normalDistribution(x);
}

/** Φ(x) + x·φ(x). */
export function geluDerivative(x: number): number {
  return normalDistribution(x) + (x * exp((-x * x) / 2)) / sqrt(2 * PI);
}
