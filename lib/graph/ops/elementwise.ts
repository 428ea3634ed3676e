/** Element by element: change of dtype and addition. */
import { MaeError } from '../../errors';
import type { OpRow } from '../op';
import { describe, size } from '../tensor';

/** y = x in f32 (attribute f32 = 1) or in the compute dtype. */
export const cast: OpRow = {
  inputs: ['x'],
  outputs: ({ x }, { f32 }, info) => ({ y: { shape: x.shape, dtype: f32 ? 'f32' : info.compute } }),
  flops: () => 0,
  bytes: 'operands',
  launch: (emit, x, y) => emit('cast', { ...x, ...y }, { count: size(x.x.shape) }),
  grad: ({ x, d, call }) => ({ x: d('y')!.dtype === x.x.dtype ? d('y') : call('cast', { x: d('y') }, { f32: x.x.dtype === 'f32' }).y }),
};

/** y = a + b. */
export const add: OpRow = {
  inputs: ['a', 'b'],
  outputs: ({ a, b }) => {
    if (describe(a) !== describe(b)) {
      throw new MaeError('MAE_SHAPE', `add: a and b must be alike, got ${describe(a)} (${a.name}) and ${describe(b)} (${b.name})`);
    }
    return { y: { shape: a.shape, dtype: a.dtype } };
  },
  flops: () => 0,
  bytes: 'operands',
  launch: (emit, x, y) => emit('add', { ...x, ...y }, { count: size(x.a.shape) }),
  grad: ({ d }) => ({ a: d('y'), b: d('y') }),
  inPlace: [['y', 'a']],
};
