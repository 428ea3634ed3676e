/** Masked mean squared error (paper section 3, "Reconstruction target"). */
import { pixelOf } from './masking';
import { Control, indexAt, type Reference, zeros } from './value';

/** Added to a patch's variance, as the reference implementation does. */
const EPS = 1e-6;

export const maskedMse: Reference = (x, { patch: side, first, counted, normPix }) => {
  const { pred, images, ids, mask, control } = x;
  const patch = Number(side);
  const [batch, count, dim] = pred.shape;
  const [, height, width, channels] = images.shape;
  const all = (height / patch) * (width / patch);
  const pixel = pixelOf(x, patch);
  const [loss, dpred] = [zeros([1]), zeros(pred.shape)];
  const weight = control.values[Control.gradScale] / (dim * Number(counted));
  for (let b = 0; b < batch; b++) {
    for (let j = 0; j < count; j++) {
      const p = indexAt(ids, b, all, Number(first) + j);
      if (mask && mask.values[b * all + p] === 0) continue;
      const target: number[] = [];
      for (let r = 0; r < patch; r++) {
        for (let c = 0; c < patch; c++) for (let ch = 0; ch < channels; ch++) target.push(pixel(b, p, r, c, ch));
      }
      const mean = normPix ? target.reduce((sum, v) => sum + v, 0) / dim : 0;
      const variance = target.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (dim - 1);
      const deviation = normPix ? Math.sqrt(variance + EPS) : 1;
      target.forEach((v, k) => {
        const at = (b * count + j) * dim + k;
        const difference = pred.values[at] - (v - mean) / deviation;
        loss.values[0] += weight * difference ** 2;
        dpred.values[at] = 2 * weight * difference;
      });
    }
  }
  return { loss, dpred };
};
