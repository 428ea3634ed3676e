/** The reconstruction loss (paper section 3, "Reconstruction target"): mean squared error on patches, target read from the picture. */
import type { OpRow } from '../op';
import { bytesOf, expectShape } from '../tensor';
import { imageDims } from './masking';

/**
 * loss f32 [1] = gradScale · Σ mean((pred − target)²) / counted, over the patches ids[first …] that pred [batch, count, p·p·C] predicts
 * (ids absent: in order), those whose mask is 0 left out. dpred is its gradient. Attributes: patch, first, counted, normPix.
 */
export const maskedMse: OpRow = {
  inputs: ['pred', 'images', 'ids?', 'scale', 'shift', 'mask?', 'control'],
  outputs: ({ pred, images, mask }, { patch }, info) => {
    const { batch, height, width, channels } = imageDims('masked_mse', images, Number(patch));
    const p2 = Number(patch) ** 2;
    expectShape('masked_mse', 'pred', pred, [batch, null, p2 * channels]);
    if (mask) expectShape('masked_mse', 'mask', mask, [batch, (height * width) / p2]);
    return { loss: { shape: [1], dtype: 'f32' }, dpred: info.training ? { shape: pred.shape, dtype: pred.dtype } : undefined };
  },
  flops: () => 0,
  bytes: ({ pred, images }, { dpred }) =>
    bytesOf(pred) + (dpred ? bytesOf(dpred) : 0) + pred.shape[0] * pred.shape[1] * pred.shape[2] * (images.dtype === 'u8' ? 1 : 4),
  launch: (emit, x, y, { patch, first, counted, normPix }) =>
    emit(
      'masked_mse',
      { ...x, ...y },
      {
        ...imageDims('masked_mse', x.images, Number(patch)),
        patch: Number(patch),
        first: Number(first),
        count: x.pred.shape[1],
        counted: Number(counted),
        norm_pix: Number(normPix),
      },
    ),
  grad: ({ y }) => ({ pred: y.dpred }),
  root: true,
};
