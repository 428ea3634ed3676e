/** Moving tokens: back to their places with mask tokens between them, and picking some of them (paper section 3, "MAE decoder"). */
import { MaeError } from '../../errors';
import type { OpRow } from '../op';
import { describe, expectShape } from '../tensor';

/**
 * y [batch, patches + 1, width]: x's cls and visible tokens at their places, mask_token elsewhere, pos added everywhere. Without restore,
 * x already holds every patch in order and only pos is added. ids is what the gradient reads. Attributes: none.
 */
export const unshuffle: OpRow = {
  inputs: ['x', 'mask_token?', 'pos', 'ids?', 'restore?'],
  outputs: ({ x, mask_token: maskToken, pos, ids, restore }, _, info) => {
    expectShape('unshuffle', 'x', x, [null, null, pos.shape[1]]);
    const [batch, tokens, width] = x.shape;
    const patches = pos.shape[0] - 1;
    if (restore) {
      expectShape('unshuffle', 'restore', restore, [batch, patches]);
      if (!maskToken || !ids) throw new MaeError('MAE_SHAPE', 'unshuffle: with restore there must be ids and a mask_token');
      expectShape('unshuffle', 'ids', ids, [batch, patches]);
      expectShape('unshuffle', 'mask_token', maskToken, [width]);
    } else if (tokens !== patches + 1) {
      throw new MaeError('MAE_SHAPE', `unshuffle: without restore x must hold all ${patches} patches and cls, got ${describe(x)}`);
    }
    return { y: { shape: [batch, patches + 1, width], dtype: info.stream ?? 'f32' } };
  },
  flops: () => 0,
  bytes: 'operands',
  launch: (emit, { x, mask_token, pos, restore }, { y }) =>
    emit(
      'unshuffle',
      { x, mask_token, pos, restore, y },
      { batch: x.shape[0], visible: x.shape[1] - 1, patches: pos.shape[0] - 1, width: pos.shape[1] },
    ),
  grad: ({ x, d, call, setLow, parameterGradient }) => {
    const { dx, dx_low: dxLow } = call(
      'unshuffle_grad',
      { dy: d('y'), ids: x.ids },
      { visible: x.x.shape[1] - 1, f32: x.x.dtype === 'f32' },
      { dmask_token: parameterGradient('mask_token') },
    );
    setLow(dx, dxLow);
    return { x: dx };
  },
};

/** dx [batch, visible + 1, width]: the gradient's rows of cls and the visible patches; dmask_token: the sum over the others. */
export const unshuffleGrad: OpRow = {
  inputs: ['dy', 'ids?'],
  outputs: ({ dy }, { visible, f32 }, info) => {
    const [batch, , width] = dy.shape;
    const shape = [batch, Number(visible) + 1, width];
    return {
      dx: { shape, dtype: f32 ? 'f32' : info.compute },
      dx_low: f32 && info.compute === 'bf16' ? { shape, dtype: 'bf16' } : undefined,
      dmask_token: undefined,
    };
  },
  flops: () => 0,
  bytes: 'operands',
  launch: (emit, x, y, { visible }) =>
    emit(
      'unshuffle_grad',
      { ...x, ...y },
      { batch: x.dy.shape[0], visible: Number(visible), patches: x.dy.shape[1] - 1, width: x.dy.shape[2] },
    ),
  grad: 'none',
  prunable: ['dx_low'],
};

/**
 * y [batch, count, width]: patch tokens ids[first …], ids absent: in order; cls is left out. With first = visible these are the masked
 * patches. Attributes: first, count. restore is what the gradient reads.
 */
export const selectTokens: OpRow = {
  inputs: ['x', 'ids?', 'restore?'],
  outputs: ({ x, ids }, { first, count }) => {
    const [batch, tokens, width] = x.shape;
    if (ids) expectShape('select_tokens', 'ids', ids, [batch, tokens - 1]);
    if (Number(first) + Number(count) > tokens - 1) {
      throw new MaeError('MAE_SHAPE', `select_tokens: patches ${first} … ${Number(first) + Number(count)} of ${tokens - 1} were asked for`);
    }
    return { y: { shape: [batch, Number(count), width], dtype: x.dtype } };
  },
  flops: () => 0,
  bytes: ({ x }, { y }) => 2 * y.shape[0] * y.shape[1] * y.shape[2] * (x.dtype === 'f32' ? 4 : 2),
  launch: (emit, { x, ids }, { y }, { first, count }) =>
    emit(
      'select_tokens',
      { x, ids, y },
      { batch: x.shape[0], patches: x.shape[1] - 1, first: Number(first), count: Number(count), width: x.shape[2] },
    ),
  grad: ({ x, d, attributes, call, setLow }) => {
    const { dx, dx_low: dxLow } = call(
      'select_tokens_grad',
      { dy: d('y'), restore: x.restore },
      { ...attributes, patches: x.x.shape[1] - 1 },
    );
    setLow(dx, dxLow);
    return { x: dx };
  },
};

export const selectTokensGrad: OpRow = {
  inputs: ['dy', 'restore?'],
  outputs: ({ dy }, { patches }, info) => {
    const shape = [dy.shape[0], Number(patches) + 1, dy.shape[2]];
    return {
      dx: { shape, dtype: dy.dtype },
      dx_low: info.compute === 'bf16' && dy.dtype === 'f32' ? { shape, dtype: 'bf16' } : undefined,
    };
  },
  flops: () => 0,
  bytes: 'operands',
  launch: (emit, x, y, { patches, first, count }) =>
    emit(
      'select_tokens_grad',
      { ...x, ...y },
      { batch: x.dy.shape[0], patches: Number(patches), first: Number(first), count: Number(count), width: x.dy.shape[2] },
    ),
  grad: 'none',
  prunable: ['dx_low'],
};
