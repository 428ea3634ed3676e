/** The update segment: gradient norm, clipping and AdamW over the whole store (Loshchilov & Hutter 2019). */
import type { OpRow } from '../op';
import { bytesOf, size } from '../tensor';

/** report f32 [4] = loss, gradient norm, clip coefficient, 1 when both are finite. */
export const gradNorm: OpRow = {
  inputs: ['grads', 'loss', 'control'],
  outputs: () => ({ report: { shape: [4], dtype: 'f32' } }),
  flops: () => 0,
  bytes: 'operands',
  launch: (emit, x, y) => emit('grad_norm', { ...x, ...y }, { count: size(x.grads.shape) }),
  grad: 'none',
};

/** Updates params, params_low, m and v (given as `into`) where report says that the step is finite. Attributes: beta1, beta2, eps. */
export const adamw: OpRow = {
  inputs: ['control', 'report', 'segments', 'grads'],
  outputs: ({ grads }) => {
    const flat = { shape: grads.shape, dtype: 'f32' } as const;
    return { params: flat, params_low: undefined, m: flat, v: flat };
  },
  flops: () => 0,
  bytes: ({ grads }, y) =>
    bytesOf(grads) + 2 * (bytesOf(y.params) + bytesOf(y.m) + bytesOf(y.v)) + (y.params_low ? bytesOf(y.params_low) : 0),
  launch: (emit, x, y, { beta1, beta2, eps }) =>
    emit(
      'adamw',
      { ...x, ...y },
      { count: size(x.grads.shape), segment_count: x.segments.shape[0] },
      { beta1: Number(beta1), beta2: Number(beta2), eps: Number(eps) },
    ),
  grad: 'none',
};
