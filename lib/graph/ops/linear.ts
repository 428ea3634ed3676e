/** Dense layers: linear, the two-layer perceptron of a Transformer block, and their gradients. */
import { MaeError } from '../../errors';
import type { OpRow } from '../op';
import { bytesOf, describe, expectDType, expectShape, size, type Tensor } from '../tensor';

/** Rows of a matrix whose last dimension is the width. */
const rowsOf = (tensor: Tensor): number => size(tensor.shape.slice(0, -1));
const widthOf = (tensor: Tensor): number => tensor.shape[tensor.shape.length - 1];

function checkLinear(op: string, x: Tensor, w: Tensor, wName: string): void {
  if (w.shape.length !== 2) throw new MaeError('MAE_SHAPE', `${op}: ${wName} must be [n, k], got ${describe(w)} (${w.name})`);
  if (widthOf(x) !== w.shape[1]) {
    throw new MaeError(
      'MAE_SHAPE',
      `${op}: the last dimension of x must be the ${w.shape[1]} columns of ${wName}, got ${describe(x)} (${x.name}) and ${describe(w)} (${w.name})`,
    );
  }
  if (x.dtype !== w.dtype) {
    throw new MaeError('MAE_SHAPE', `${op}: x and ${wName} must have one dtype, got ${describe(x)} and ${describe(w)}`);
  }
}

/** y = x·wᵀ + bias (+ residual). Attributes: f32 = 1 keeps y in fp32 whatever the compute dtype is. */
export const linear: OpRow = {
  inputs: ['x', 'w', 'bias?', 'residual?'],
  outputs: ({ x, w, bias, residual }, { f32 }, info) => {
    checkLinear('linear', x, w, 'w');
    const shape = [...x.shape.slice(0, -1), w.shape[0]];
    if (bias) expectShape('linear', 'bias', bias, [w.shape[0]]);
    if (residual) expectShape('linear', 'residual', residual, shape);
    return { y: { shape, dtype: residual ? residual.dtype : f32 ? 'f32' : info.compute } };
  },
  flops: ({ x, w }) => 2 * rowsOf(x) * size(w.shape),
  bytes: 'operands',
  launch: (emit, x, y) => emit('linear', { ...x, y: y.y, pre: null }, { rows: rowsOf(x.x), n: x.w.shape[0], k: x.w.shape[1], gelu: 0 }),
  grad: ({ x, d, call, low, accumulated, parameterGradient, needs }) => {
    const dy = d('y')!;
    const dyLow = low(dy);
    call('linear_grad_weight', { x: x.x, dy: dyLow }, {}, { dw: parameterGradient('w'), dbias: parameterGradient('bias') });
    const dx = needs('x') ? call('linear_grad_input', { dy: dyLow, w: x.w, acc: accumulated('x') }, { f32: x.x.dtype === 'f32' }).dx : null;
    return { x: dx, residual: x.residual ? dy : null };
  },
};

/**
 * y = fc2(GELU(fc1(x))) + residual, exact-erf GELU. `hidden` [rows, n1] is GELU's result, `pre` its argument, kept for the backward pass.
 * Attributes: recompute = 1 stops there, without y: gradients read no more.
 */
export const mlp: OpRow = {
  inputs: ['x', 'w1', 'b1', 'w2', 'b2', 'residual'],
  outputs: ({ x, w1, b1, w2, b2, residual }, { recompute }, info) => {
    checkLinear('mlp', x, w1, 'w1');
    expectShape('mlp', 'w2', w2, [null, w1.shape[0]]);
    expectShape('mlp', 'b1', b1, [w1.shape[0]]);
    expectShape('mlp', 'b2', b2, [w2.shape[0]]);
    const rows = x.shape.slice(0, -1);
    expectShape('mlp', 'residual', residual, [...rows, w2.shape[0]]);
    const hidden = { shape: [...rows, w1.shape[0]], dtype: info.compute };
    const y = recompute ? undefined : { shape: residual.shape, dtype: residual.dtype };
    return { y, hidden, pre: info.training ? hidden : undefined };
  },
  flops: ({ x, w1, w2 }, { recompute }) => 2 * rowsOf(x) * (size(w1.shape) + (recompute ? 0 : size(w2.shape))),
  bytes: ({ x, w1, b1, w2, b2, residual }, { y, hidden, pre }) =>
    [x, w1, b1, hidden, pre, ...(y ? [hidden, w2, b2, residual, y] : [])].reduce((sum, t) => sum + (t ? bytesOf(t) : 0), 0),
  launch: (emit, { x, w1, b1, w2, b2, residual }, { y, hidden, pre }) => {
    const rows = rowsOf(x);
    emit('linear', { x, w: w1, bias: b1, residual: null, y: hidden, pre }, { rows, n: w1.shape[0], k: w1.shape[1], gelu: 1 });
    if (y) emit('linear', { x: hidden, w: w2, bias: b2, residual, y, pre: null }, { rows, n: w2.shape[0], k: w2.shape[1], gelu: 0 });
  },
  grad: ({ x, y, d, call, low, accumulated, parameterGradient }) => {
    const dy = d('y')!;
    const dyLow = low(dy);
    call('linear_grad_weight', { x: y.hidden, dy: dyLow }, {}, { dw: parameterGradient('w2'), dbias: parameterGradient('b2') });
    const dpre = call('linear_grad_input', { dy: dyLow, w: x.w2, pre: y.pre }).dx;
    call('linear_grad_weight', { x: x.x, dy: dpre }, {}, { dw: parameterGradient('w1'), dbias: parameterGradient('b1') });
    const dx = call('linear_grad_input', { dy: dpre, w: x.w1, acc: accumulated('x') }).dx;
    return { x: dx, residual: dy };
  },
};

/** dx = (dy·w) ∘ GELU'(pre) + acc. Attributes: f32 = 1 keeps dx in fp32. */
export const linearGradInput: OpRow = {
  inputs: ['dy', 'w', 'pre?', 'acc?'],
  outputs: ({ dy, w, pre, acc }, { f32 }, info) => {
    const shape = [...dy.shape.slice(0, -1), w.shape[1]];
    if (pre) expectShape('linear_grad_input', 'pre', pre, shape);
    return { dx: { shape, dtype: acc ? acc.dtype : f32 ? 'f32' : info.compute } };
  },
  flops: ({ dy, w }) => 2 * rowsOf(dy) * size(w.shape),
  bytes: 'operands',
  launch: (emit, x, y) => emit('linear_grad_input', { ...x, dx: y.dx }, { rows: rowsOf(x.dy), n: x.w.shape[0], k: x.w.shape[1] }),
  grad: 'none',
};

/** dw = dyᵀ·x, dbias = Σ dy, into the parameters' gradients. */
export const linearGradWeight: OpRow = {
  inputs: ['x', 'dy'],
  outputs: ({ x, dy }) => {
    expectDType('linear_grad_weight', 'dy', dy, [x.dtype]);
    return { dw: { shape: [widthOf(dy), widthOf(x)], dtype: 'f32' }, dbias: undefined };
  },
  flops: ({ x, dy }) => 2 * rowsOf(x) * widthOf(x) * widthOf(dy),
  bytes: 'operands',
  launch: (emit, { x, dy }, { dw, dbias }) =>
    emit('linear_grad_weight', { x, dy, dw, dbias }, { rows: rowsOf(x), n: widthOf(dy), k: widthOf(x) }),
  grad: 'none',
};
