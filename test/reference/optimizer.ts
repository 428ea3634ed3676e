/** The update: gradient norm, clipping and AdamW (Loshchilov & Hutter 2019, algorithm 2). */
import { Control, type Reference } from './value';

export const gradNorm: Reference = ({ grads, loss, control }) => {
  const norm = Math.sqrt(grads.values.reduce((sum, g) => sum + g * g, 0));
  const most = control.values[Control.maxNorm];
  const clip = most > 0 && most < norm + 1e-6 ? most / (norm + 1e-6) : 1;
  const finite = Number.isFinite(loss.values[0]) && Number.isFinite(norm);
  return { report: { shape: [4], values: Float64Array.of(loss.values[0], norm, clip, Number(finite)) } };
};

export const adamw: Reference = ({ control, report, segments, grads, params, m, v }, { beta1, beta2, eps }) => {
  const [b1, b2] = [Number(beta1), Number(beta2)];
  const [p, m1, v1] = [params.values.slice(), m.values.slice(), v.values.slice()];
  const table = Int32Array.from(segments.values);
  const floats = new Float32Array(table.buffer);
  const [, , clip, finite] = report.values;
  for (let s = 0; finite && s < table.length; s += 4) {
    const rate = control.values[Control.lr] * floats[s + 3];
    for (let i = table[s]; i < table[s + 1]; i++) {
      const g = grads.values[i] * clip;
      m1[i] = b1 * m1[i] + (1 - b1) * g;
      v1[i] = b2 * v1[i] + (1 - b2) * g * g;
      const [mHat, vHat] = [m1[i] / control.values[Control.bias1], v1[i] / control.values[Control.bias2]];
      p[i] = p[i] * (1 - rate * floats[s + 2]) - (rate * mHat) / (Math.sqrt(vHat) + Number(eps));
    }
  }
  const { shape } = params;
  return { params: { shape, values: p }, params_low: { shape, values: p }, m: { shape, values: m1 }, v: { shape, values: v1 } };
};
