/** Which part of a picture a batch takes: the only place where crops and flips are decided. native/data/crop.cc carries them out. */
import { Purpose, philox, uniform32, uniformInteger } from '../random';
import type { Crop } from './nativeData';

/**
 * - 'random-resized-crop': a random rectangle resized to the picture size, and a random flip (paper 4; torchvision's RandomResizedCrop and
 *   RandomHorizontalFlip);
 * - 'eval': resized so that size · 256/224 is covered, then the centre (pictures that already cover the size exactly are only cut);
 * - 'none': pictures that already have the size.
 */
export type Augment = 'random-resized-crop' | 'eval' | 'none';

export interface CropSettings {
  /** Height and width of the pictures in the batch. */
  height: number;
  width: number;
  augment: Augment;
  /** Probability of a mirrored picture. */
  flip: number;
  /** Share of the picture's area that a random crop covers: lowest and highest. */
  scale: readonly [number, number];
  /** Width : height of a random crop: lowest and highest, drawn log-uniformly. */
  ratio: readonly [number, number];
  seed: number;
}

const TRIES = 10;

/**
 * The crop of one picture. Random numbers: key (seed, crop), counter (epoch, index, draw, 0); draw 0 is the flip, draw 1 + t the t-th try.
 * So a picture's crop depends on nothing but the seed, the epoch and its index.
 * @returns undefined if augment is 'none' and the picture has another size
 */
export function cropOf(settings: CropSettings, source: { height: number; width: number }, epoch: number, index: number): Crop | undefined {
  const { height, width, augment, seed } = settings;
  const crop: Crop = {
    sourceHeight: source.height,
    sourceWidth: source.width,
    top: 0,
    left: 0,
    height: source.height,
    width: source.width,
    resizedHeight: height,
    resizedWidth: width,
    offsetTop: 0,
    offsetLeft: 0,
    flip: settings.flip > 0 && uniform32(philox(epoch, index, 0, 0, seed, Purpose.crop)[0]) < settings.flip ? 1 : 0,
  };
  if (augment === 'random-resized-crop') drawRectangle(crop, settings, epoch, index);
  else if (augment === 'eval') resizeToCover(crop, height, width);
  else if (source.height !== height || source.width !== width) return undefined;
  return crop;
}

/**
 * torchvision's RandomResizedCrop.get_params: ten tries of area ~ U(scale) · H · W and log ratio ~ U(log ratio); if none fits, the largest
 * centred rectangle whose ratio is allowed. A draw's four words are area, ratio, top, left.
 */
function drawRectangle(crop: Crop, { scale, ratio, seed }: CropSettings, epoch: number, index: number): void {
  const { sourceHeight: H, sourceWidth: W } = crop;
  const lowest = Math.log(ratio[0]);
  const highest = Math.log(ratio[1]);
  for (let t = 0; t < TRIES; ++t) {
    const words = philox(epoch, index, 1 + t, 0, seed, Purpose.crop);
    const area = H * W * (scale[0] + (scale[1] - scale[0]) * uniform32(words[0]));
    const aspect = Math.exp(lowest + (highest - lowest) * uniform32(words[1]));
    const width = roundHalfEven(Math.sqrt(area * aspect));
    const height = roundHalfEven(Math.sqrt(area / aspect));
    if (width > 0 && width <= W && height > 0 && height <= H) {
      crop.top = uniformInteger(words[2], H - height + 1);
      crop.left = uniformInteger(words[3], W - width + 1);
      crop.height = height;
      crop.width = width;
      return;
    }
  }
  // At least one pixel: torchvision's rounding can reach zero for a picture one pixel wide.
  if (W / H < ratio[0]) crop.height = Math.max(1, Math.min(H, roundHalfEven(W / ratio[0])));
  else if (W / H > ratio[1]) crop.width = Math.max(1, Math.min(W, roundHalfEven(H * ratio[1])));
  crop.top = Math.floor((H - crop.height) / 2);
  crop.left = Math.floor((W - crop.width) / 2);
}

/**
 * The size to which 'eval' resizes the whole picture: the smallest of its own shape that covers 256/224 of the output on both sides, or the
 * picture's own size when that covers the output and fits it exactly on one side; then the centre. For a square output this is
 * torchvision's Resize(⌊size · 256/224⌋), whose long side is rounded down, and CenterCrop(size).
 */
function resizeToCover(crop: Crop, height: number, width: number): void {
  const { sourceHeight: H, sourceWidth: W } = crop;
  const fits = (H === height && W >= width) || (W === width && H >= height);
  const h = Math.floor((height * 256) / 224);
  const w = Math.floor((width * 256) / 224);
  if (fits) {
    crop.resizedHeight = H;
    crop.resizedWidth = W;
  } else if (h * W >= w * H) {
    crop.resizedHeight = h;
    crop.resizedWidth = Math.floor((h * W) / H);
  } else {
    crop.resizedHeight = Math.floor((w * H) / W);
    crop.resizedWidth = w;
  }
  crop.offsetTop = roundHalfEven((crop.resizedHeight - height) / 2);
  crop.offsetLeft = roundHalfEven((crop.resizedWidth - width) / 2);
}

/** Python's round. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}
