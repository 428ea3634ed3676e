/** Random masking and the embedding of the patches that it keeps (paper section 3, "Masking" and "MAE encoder"). */
import { MaeError } from '../../errors';
import type { OpRow } from '../op';
import { expectDType, expectShape, type Tensor } from '../tensor';

/**
 * Shuffles the patches of every picture by uniform noise and keeps the first `visible`. ids [batch, patches] is ids_shuffle, restore its
 * inverse, mask 0 = kept, 1 = removed. Attributes: patches, visible, seed. noise [batch, patches] replaces the generator's.
 */
export const randomMask: OpRow = {
  inputs: ['control', 'indices', 'noise?'],
  outputs: ({ indices, noise }, { patches, visible }) => {
    const [batch] = indices.shape;
    const [all, kept] = [Number(patches), Number(visible)];
    if (kept < 1 || kept > all) {
      throw new MaeError('MAE_SHAPE', `random_mask: must keep between 1 and all ${all} patches, got ${kept}: change the mask ratio`);
    }
    if (noise) expectShape('random_mask', 'noise', noise, [batch, all]);
    const shape = [batch, all];
    return { ids: { shape, dtype: 'i32' }, restore: { shape, dtype: 'i32' }, mask: { shape, dtype: 'f32' } };
  },
  flops: () => 0,
  bytes: 'operands',
  launch: (emit, x, y, { patches, visible, seed }) =>
    emit(
      'random_mask',
      { ...x, ...y },
      { batch: x.indices.shape[0], patches: Number(patches), visible: Number(visible), seed: Number(seed) },
    ),
  grad: 'none',
};

/** Picture size and patch grid behind `images` [batch, height, width, channels]. */
export function imageDims(op: string, images: Tensor, patch: number): { batch: number; height: number; width: number; channels: number } {
  expectDType(op, 'images', images, ['u8', 'f32']);
  expectShape(op, 'images', images, [null, null, null, null]);
  const [batch, height, width, channels] = images.shape;
  if (height % patch !== 0 || width % patch !== 0) {
    throw new MaeError(
      'MAE_SHAPE',
      `${op}: a picture of ${height}x${width} does not divide into ${patch}x${patch} patches: change imageSize or patchSize`,
    );
  }
  return { batch, height, width, channels };
}

/**
 * tokens [batch, visible + 1, D] of the first `visible` patches of ids (absent: all, in order): row 0 = cls + pos[0], row 1+j = the
 * embedded, normalised patch ids[j] + pos[1 + ids[j]]. Attributes: patch, visible. `patches` is kept for the weight gradient.
 */
export const patchEmbed: OpRow = {
  inputs: ['images', 'ids?', 'scale', 'shift', 'w', 'bias', 'cls', 'pos?'],
  outputs: ({ images, scale, shift, w, bias, cls, pos }, { patch, visible }, info) => {
    const { batch, height, width, channels } = imageDims('patch_embed', images, Number(patch));
    const patchDim = channels * Number(patch) ** 2;
    expectShape('patch_embed', 'w', w, [null, patchDim]);
    const d = w.shape[0];
    expectShape('patch_embed', 'bias', bias, [d]);
    expectShape('patch_embed', 'cls', cls, [d]);
    expectShape('patch_embed', 'scale', scale, [channels]);
    expectShape('patch_embed', 'shift', shift, [channels]);
    if (pos) expectShape('patch_embed', 'pos', pos, [(height * width) / Number(patch) ** 2 + 1, d]);
    return {
      tokens: { shape: [batch, Number(visible) + 1, d], dtype: info.stream ?? 'f32' },
      patches: { shape: [batch, Number(visible), patchDim], dtype: info.compute },
    };
  },
  flops: ({ images, w }, { visible }) => 2 * images.shape[0] * Number(visible) * w.shape[0] * w.shape[1],
  bytes: 'operands',
  launch: (emit, x, y, { patch, visible }) =>
    emit(
      'patch_embed',
      { ...x, ...y },
      { ...imageDims('patch_embed', x.images, Number(patch)), patch: Number(patch), visible: Number(visible), width_out: x.w.shape[0] },
    ),
  grad: ({ y, d, call, parameterGradient }) => {
    const into = { dw: parameterGradient('w'), dbias: parameterGradient('bias'), dcls: parameterGradient('cls') };
    call('patch_embed_grad', { patches: y.patches, dtokens: d('tokens') }, {}, into);
    return {};
  },
};

export const patchEmbedGrad: OpRow = {
  inputs: ['patches', 'dtokens'],
  outputs: ({ patches, dtokens }) => {
    const [batch, visible, patchDim] = patches.shape;
    const d = dtokens.shape[2];
    expectShape('patch_embed_grad', 'dtokens', dtokens, [batch, visible + 1, null]);
    return { dw: { shape: [d, patchDim], dtype: 'f32' }, dbias: { shape: [d], dtype: 'f32' }, dcls: { shape: [d], dtype: 'f32' } };
  },
  flops: ({ patches, dtokens }) => 2 * patches.shape[0] * patches.shape[1] * patches.shape[2] * dtokens.shape[2],
  bytes: 'operands',
  launch: (emit, x, y) => {
    const [batch, visible, patchDim] = x.patches.shape;
    emit('patch_embed_grad', { ...x, ...y }, { batch, visible, patch_dim: patchDim, width_out: x.dtokens.shape[2] });
  },
  grad: 'none',
};
