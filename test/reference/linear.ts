/** Dense layers and their gradients: plain products in float64. */
import { gelu, geluDerivative } from './math';
import { matrixOf, type Reference, type Round, type Value, zeros } from './value';

/** y[r, n] = Σ_k x[r, k]·w[n, k] + bias[n]. */
export function product(x: Value, w: Value, bias?: Value): Value {
  const [rows, k] = matrixOf(x);
  const [n] = w.shape;
  const y = zeros([...x.shape.slice(0, -1), n]);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < n; i++) {
      let sum = bias ? bias.values[i] : 0;
      for (let j = 0; j < k; j++) sum += x.values[r * k + j] * w.values[i * k + j];
      y.values[r * n + i] = sum;
    }
  }
  return y;
}

/** dw[n, k] = Σ_r dy[r, n]·x[r, k] and dbias[n] = Σ_r dy[r, n]. */
export function weightGradient(x: Value, dy: Value): { dw: Value; dbias: Value } {
  const [rows, k] = matrixOf(x);
  const [, n] = matrixOf(dy);
  const [dw, dbias] = [zeros([n, k]), zeros([n])];
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < n; i++) {
      const d = dy.values[r * n + i];
      dbias.values[i] += d;
      for (let j = 0; j < k; j++) dw.values[i * k + j] += d * x.values[r * k + j];
    }
  }
  return { dw, dbias };
}

const plus = (a: Value, b: Value | undefined): Value => (b ? { shape: a.shape, values: a.values.map((v, i) => v + b.values[i]) } : a);
const rounded = (a: Value, low: Round): Value => ({ shape: a.shape, values: low(a.values) });

export const linear: Reference = ({ x, w, bias, residual }) => ({ y: plus(product(x, w, bias), residual) });

export const mlp: Reference = ({ x, w1, b1, w2, b2, residual }, _, low) => {
  const pre = product(x, w1, b1);
  const hidden = { shape: pre.shape, values: pre.values.map(gelu) };
  return { y: plus(product(rounded(hidden, low), w2, b2), residual), hidden, pre };
};

export const linearGradInput: Reference = ({ dy, w, pre, acc }) => {
  const [rows, n] = matrixOf(dy);
  const k = w.shape[1];
  const dx = zeros([...dy.shape.slice(0, -1), k]);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < n; i++) {
      const d = dy.values[r * n + i];
      for (let j = 0; j < k; j++) dx.values[r * k + j] += d * w.values[i * k + j];
    }
  }
  const through = pre ? { shape: dx.shape, values: dx.values.map((v, i) => v * geluDerivative(pre.values[i])) } : dx;
  return { dx: plus(through, acc) };
};

export const linearGradWeight: Reference = ({ x, dy }) => weightGradient(x, dy);
