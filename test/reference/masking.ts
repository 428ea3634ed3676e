/** Random masking and the patch embedding (paper section 3), by sorting and by plain loops over a picture's pixels. */
import { maskNoiseBits } from '../../lib/random';
import { product, weightGradient } from './linear';
import { Control, indexAt, type Reference, type Value, type Values, zeros } from './value';

export const randomMask: Reference = ({ control, indices, noise }, { patches: count, visible, seed }) => {
  const [patches, batch] = [Number(count), indices.values.length];
  const epoch = control.values[Control.epoch];
  const [ids, restore, mask] = [zeros([batch, patches]), zeros([batch, patches]), zeros([batch, patches])];
  for (let b = 0; b < batch; b++) {
    const key = Array.from({ length: patches }, (_, p) =>
      noise ? noise.values[b * patches + p] : maskNoiseBits(Number(seed), epoch, indices.values[b], p),
    );
    const order = key.map((_, p) => p).sort((a, c) => key[a] - key[c] || a - c);
    order.forEach((p, j) => {
      ids.values[b * patches + j] = p;
      restore.values[b * patches + p] = j;
      mask.values[b * patches + p] = j < Number(visible) ? 0 : 1;
    });
  }
  return { ids, restore, mask };
};

/** The normalised pixel (row, column, channel) of patch p of picture b; patches are numbered row by row. */
export function pixelOf(
  { images, scale, shift }: Values,
  patch: number,
): (b: number, p: number, r: number, c: number, ch: number) => number {
  const [, height, width, channels] = images.shape;
  const perRow = width / patch;
  return (b, p, r, c, ch) => {
    const row = Math.floor(p / perRow) * patch + r;
    const column = (p % perRow) * patch + c;
    return images.values[((b * height + row) * width + column) * channels + ch] * scale.values[ch] + shift.values[ch];
  };
}

export const patchEmbed: Reference = (x, { patch: side, visible: count }, low) => {
  const { images, ids, w, bias, cls, pos } = x;
  const [patch, visible] = [Number(side), Number(count)];
  const [batch, height, width, channels] = images.shape;
  const all = (height / patch) * (width / patch);
  const pixel = pixelOf(x, patch);
  const patches = zeros([batch, visible, channels * patch * patch]);
  let at = 0;
  for (let b = 0; b < batch; b++) {
    for (let j = 0; j < visible; j++) {
      const p = indexAt(ids, b, all, j);
      for (let ch = 0; ch < channels; ch++) {
        for (let r = 0; r < patch; r++) for (let c = 0; c < patch; c++) patches.values[at++] = pixel(b, p, r, c, ch);
      }
    }
  }
  const [d] = w.shape;
  const embedded = product({ shape: patches.shape, values: low(patches.values) }, w, bias);
  const tokens = zeros([batch, visible + 1, d]);
  for (let b = 0; b < batch; b++) {
    for (let t = 0; t <= visible; t++) {
      const place = t === 0 ? 0 : 1 + indexAt(ids, b, all, t - 1);
      for (let i = 0; i < d; i++) {
        const own = t === 0 ? cls.values[i] : embedded.values[(b * visible + t - 1) * d + i];
        tokens.values[(b * (visible + 1) + t) * d + i] = own + (pos ? pos.values[place * d + i] : 0);
      }
    }
  }
  return { tokens, patches };
};

export const patchEmbedGrad: Reference = ({ patches, dtokens }, _, low) => {
  const [batch, tokens, d] = dtokens.shape;
  const dcls = zeros([d]);
  const rest: Value = zeros([batch, tokens - 1, d]);
  for (let b = 0; b < batch; b++) {
    const picture = dtokens.values.subarray(b * tokens * d, (b + 1) * tokens * d);
    picture.subarray(0, d).forEach((v, i) => (dcls.values[i] += v));
    rest.values.set(picture.subarray(d), b * (tokens - 1) * d);
  }
  const { dw } = weightGradient(patches, { shape: rest.shape, values: low(rest.values) });
  return { dw, dbias: weightGradient(patches, rest).dbias, dcls };
};
