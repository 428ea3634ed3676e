/** Multi-head self-attention over a packed qkv, flash-style: scores and probabilities never reach memory. */
import { MaeError } from '../../errors';
import type { OpRow } from '../op';
import { describe, type Tensor } from '../tensor';

/** qkv [batch, tokens, 3·heads·headDim] as the qkv layer writes it: (3, heads, headDim) inside a row. */
function dims(qkv: Tensor, heads: number): { batch: number; tokens: number; heads: number; head_dim: number } {
  const [batch, tokens, packed] = qkv.shape;
  if (qkv.shape.length !== 3 || packed % (3 * heads) !== 0) {
    throw new MaeError('MAE_SHAPE', `attention: qkv must be [batch, tokens, 3·${heads} heads·headDim], got ${describe(qkv)} (${qkv.name})`);
  }
  return { batch, tokens, heads, head_dim: packed / 3 / heads };
}

/** out = softmax(q·kᵀ/√headDim)·v. Attributes: heads. */
export const attention: OpRow = {
  inputs: ['qkv'],
  outputs: ({ qkv }, { heads }) => {
    const { batch, tokens, head_dim: headDim } = dims(qkv, Number(heads));
    return { out: { shape: [batch, tokens, Number(heads) * headDim], dtype: qkv.dtype } };
  },
  flops: ({ qkv }, { heads }) => {
    const d = dims(qkv, Number(heads));
    return 4 * d.batch * d.heads * d.tokens * d.tokens * d.head_dim;
  },
  bytes: 'operands',
  launch: (emit, { qkv }, { out }, { heads }) => {
    const d = dims(qkv, Number(heads));
    emit('attention', { qkv, out }, d, { scale: d.head_dim ** -0.5 });
  },
  // Nothing but qkv is kept: every backend finds the probabilities and D = rowsum(P ∘ dP) anew.
  grad: ({ x, d, attributes, call }) => ({ qkv: call('attention_grad', { qkv: x.qkv, dout: d('out') }, attributes).dqkv }),
};

/** dqkv, packed as qkv. The five products of the backward pass; the recomputed q·kᵀ is hardware work and not counted. */
export const attentionGrad: OpRow = {
  inputs: ['qkv', 'dout'],
  outputs: ({ qkv }) => ({ dqkv: { shape: qkv.shape, dtype: qkv.dtype } }),
  flops: ({ qkv }, { heads }) => {
    const d = dims(qkv, Number(heads));
    return 8 * d.batch * d.heads * d.tokens * d.tokens * d.head_dim;
  },
  bytes: 'operands',
  launch: (emit, { qkv, dout }, { dqkv }, { heads }) => {
    const d = dims(qkv, Number(heads));
    emit('attention_grad', { qkv, dout, dqkv }, d, { scale: d.head_dim ** -0.5 });
  },
  grad: 'none',
};
