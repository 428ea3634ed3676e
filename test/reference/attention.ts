/** Multi-head self-attention (Vaswani et al. 2017) with its scores and probabilities written out, which the kernels never do. */
import type { Attributes } from '../../lib/graph/op';
import { type Reference, type Round, type Value, zeros } from './value';

interface Heads {
  readonly batch: number;
  readonly tokens: number;
  readonly heads: number;
  readonly dim: number;
  /** Offset of (picture, token, part 0 q / 1 k / 2 v, head) in qkv; parts = 1 for out. */
  at(b: number, t: number, part: number, head: number, parts: number): number;
}

function headsOf(qkv: Value, { heads: count }: Attributes): Heads {
  const [batch, tokens, packed] = qkv.shape;
  const heads = Number(count);
  const dim = packed / 3 / heads;
  return { batch, tokens, heads, dim, at: (b, t, part, head, parts) => ((b * tokens + t) * parts * heads + part * heads + head) * dim };
}

/** [tokens, tokens] of the rows at a(i) and b(j): Σ_d x[a(i) + d]·y[b(j) + d]. */
function dots(x: Float64Array, a: (i: number) => number, y: Float64Array, b: (j: number) => number, { tokens, dim }: Heads): Float64Array {
  const out = new Float64Array(tokens * tokens);
  for (let i = 0; i < tokens; i++) {
    for (let j = 0; j < tokens; j++) {
      let sum = 0;
      for (let d = 0; d < dim; d++) sum += x[a(i) + d] * y[b(j) + d];
      out[i * tokens + j] = sum;
    }
  }
  return out;
}

// Looked up once: in jest's sandbox every mention of a global is a slow look-up.
const { exp, max, sqrt } = Math;

/** Row by row, in place. */
function softmax(scores: Float64Array, tokens: number): Float64Array {
  for (let i = 0; i < tokens; i++) {
    const row = scores.subarray(i * tokens, (i + 1) * tokens);
    const most = row.reduce((a, b) => max(a, b));
    const sum = row.reduce((total, s) => total + exp(s - most), 0);
    row.forEach((s, j) => (row[j] = exp(s - most) / sum));
  }
  return scores;
}

/** Adds Σ_j p[i, j]·x[from(j) + d] to out[to(i) + d]; `transposed` uses p[j, i]. */
function mix(
  p: Float64Array,
  x: Float64Array,
  from: (j: number) => number,
  out: Float64Array,
  to: (i: number) => number,
  { tokens, dim }: Heads,
  transposed = false,
): void {
  for (let i = 0; i < tokens; i++) {
    for (let j = 0; j < tokens; j++) {
      const weight = transposed ? p[j * tokens + i] : p[i * tokens + j];
      for (let d = 0; d < dim; d++) out[to(i) + d] += weight * x[from(j) + d];
    }
  }
}

function probabilities(qkv: Value, h: Heads, b: number, head: number, low: Round): Float64Array {
  const rows = (part: number) => (t: number) => h.at(b, t, part, head, 3);
  const scale = 1 / sqrt(h.dim);
  const scores = low(dots(qkv.values, rows(0), qkv.values, rows(1), h)).map((s) => s * scale);
  return low(softmax(scores, h.tokens));
}

export const attention: Reference = ({ qkv }, attributes, low) => {
  const h = headsOf(qkv, attributes);
  const out = zeros([h.batch, h.tokens, h.heads * h.dim]);
  for (let b = 0; b < h.batch; b++) {
    for (let head = 0; head < h.heads; head++) {
      const p = probabilities(qkv, h, b, head, low);
      mix(
        p,
        qkv.values,
        (t) => h.at(b, t, 2, head, 3),
        out.values,
        (t) => h.at(b, t, 0, head, 1),
        h,
      );
    }
  }
  return { out };
};

/** dv = Pᵀ·dout; dP = dout·vᵀ; dS = P∘(dP − rowsum(P∘dP)); dq = dS·k/√d; dk = dSᵀ·q/√d. */
export const attentionGrad: Reference = ({ qkv, dout }, attributes, low) => {
  const h = headsOf(qkv, attributes);
  const dqkv = zeros(qkv.shape);
  const { tokens } = h;
  for (let b = 0; b < h.batch; b++) {
    for (let head = 0; head < h.heads; head++) {
      const part = (which: number) => (t: number) => h.at(b, t, which, head, 3);
      const outRow = (t: number): number => h.at(b, t, 0, head, 1);
      const p = probabilities(qkv, h, b, head, low);
      const dp = low(dots(dout.values, outRow, qkv.values, part(2), h));
      const ds = new Float64Array(tokens * tokens);
      for (let i = 0; i < tokens; i++) {
        let mean = 0;
        for (let j = 0; j < tokens; j++) mean += p[i * tokens + j] * dp[i * tokens + j];
        for (let j = 0; j < tokens; j++) ds[i * tokens + j] = (p[i * tokens + j] * (dp[i * tokens + j] - mean)) / sqrt(h.dim);
      }
      const dsLow = low(ds);
      mix(dsLow, qkv.values, part(1), dqkv.values, part(0), h);
      mix(dsLow, qkv.values, part(0), dqkv.values, part(1), h, true);
      mix(p, dout.values, outRow, dqkv.values, part(2), h, true);
    }
  }
  return { dqkv };
};
