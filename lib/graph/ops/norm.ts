/** Layer normalisation over the last dimension (biased variance, epsilon inside the root). */
import type { OpRow } from '../op';
import { expectShape, size } from '../tensor';

/** Attributes: eps; f32 = 1 keeps y in fp32. mean and rstd [rows] are kept for the backward pass. */
export const layerNorm: OpRow = {
  inputs: ['x', 'weight', 'bias'],
  outputs: ({ x, weight, bias }, { f32 }, info) => {
    const width = x.shape[x.shape.length - 1];
    expectShape('layer_norm', 'weight', weight, [width]);
    expectShape('layer_norm', 'bias', bias, [width]);
    const rows = { shape: x.shape.slice(0, -1), dtype: 'f32' } as const;
    return { y: { shape: x.shape, dtype: f32 ? 'f32' : info.compute }, mean: rows, rstd: rows };
  },
  flops: () => 0,
  bytes: 'operands',
  launch: (emit, x, y, { eps }) => {
    const width = x.weight.shape[0];
    emit('layer_norm', { ...x, ...y }, { rows: size(x.x.shape) / width, width }, { eps: Number(eps) });
  },
  grad: ({ x, y, d, call, accumulated, setLow, parameterGradient }) => {
    const { dx, dx_low: dxLow } = call(
      'layer_norm_grad',
      { x: x.x, dy: d('y'), weight: x.weight, mean: y.mean, rstd: y.rstd, acc: accumulated('x') },
      {},
      { dweight: parameterGradient('weight'), dbias: parameterGradient('bias') },
    );
    setLow(dx, dxLow);
    return { x: dx };
  },
};

/** dx = LayerNorm'(dy) + acc; dx_low is its bf16 twin for the GEMMs that follow. */
export const layerNormGrad: OpRow = {
  inputs: ['x', 'dy', 'weight', 'mean', 'rstd', 'acc?'],
  outputs: ({ x, dy, weight }, _, info) => {
    expectShape('layer_norm_grad', 'dy', dy, x.shape);
    const low = info.compute === 'bf16' && x.dtype === 'f32';
    return {
      dx: { shape: x.shape, dtype: x.dtype },
      dx_low: low ? { shape: x.shape, dtype: 'bf16' } : undefined,
      dweight: { shape: weight.shape, dtype: 'f32' },
      dbias: { shape: weight.shape, dtype: 'f32' },
    };
  },
  flops: () => 0,
  bytes: 'operands',
  launch: (emit, x, y) => {
    const width = x.weight.shape[0];
    emit('layer_norm_grad', { ...x, ...y }, { rows: size(x.x.shape) / width, width });
  },
  grad: 'none',
  prunable: ['dx_low'],
  inPlace: [['dx', 'acc']],
};
