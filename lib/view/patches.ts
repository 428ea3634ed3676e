/**
 * Pictures and their patches on the host, for looking at: what the kernels do on the device is done there. Pictures are [height,
 * width, channels]; patches are [patches, patch·patch·channels], numbered row by row, each in (row, column, channel) order
 * (paper section 3, the reference's `patchify`). A mask holds 0 for kept patches, 1 for removed ones.
 */
import { MaeError } from '../errors';

/** The sizes of a picture and of its patches, in pixels. */
export interface PictureShape {
  height: number;
  width: number;
  channels: number;
  patch: number;
}

/** Per-channel mean and standard deviation of the data set, on the scale 0–1, that pictures are normalised by. */
export interface Normalisation {
  mean: readonly number[];
  std: readonly number[];
}

/** Rows of patches, columns of patches, values of a patch. @throws MaeError MAE_SHAPE unless the patch divides the picture */
export function patchGrid({ height, width, channels, patch }: PictureShape): { rows: number; columns: number; size: number } {
  if (height % patch !== 0 || width % patch !== 0) {
    throw new MaeError('MAE_SHAPE', `patches of ${patch} pixels do not tile a picture of ${height}x${width}: both sides must be multiples`);
  }
  return { rows: height / patch, columns: width / patch, size: patch * patch * channels };
}

/** Picture [height, width, channels] → patches. @throws MaeError MAE_SHAPE */
export function patchify(picture: ArrayLike<number>, shape: PictureShape): Float32Array {
  const out = new Float32Array(pictureLength(shape));
  requireLength('patchify: the picture', picture, out.length, shape);
  forEachValue(shape, (inPicture, inPatches) => (out[inPatches] = picture[inPicture]));
  return out;
}

/** Patches → picture [height, width, channels]. @throws MaeError MAE_SHAPE */
export function unpatchify(patches: ArrayLike<number>, shape: PictureShape): Float32Array {
  const out = new Float32Array(pictureLength(shape));
  requireLength('unpatchify: the patches', patches, out.length, shape);
  forEachValue(shape, (inPicture, inPatches) => (out[inPicture] = patches[inPatches]));
  return out;
}

/** uint8 [.., channels] → (value/255 − mean)/std. */
export function normalise(picture: Uint8Array, { mean, std }: Normalisation): Float32Array {
  const channels = mean.length;
  return Float32Array.from(picture, (value, i) => (value / 255 - mean[i % channels]) / std[i % channels]);
}

/** Normalised [.., channels] → uint8: (value·std + mean)·255, rounded; what lies outside is clamped, NaN becomes 0. */
export function toUint8(picture: Float32Array, { mean, std }: Normalisation): Uint8Array {
  const channels = mean.length;
  // A clamped array rounds and clamps by itself.
  return new Uint8Array(Uint8ClampedArray.from(picture, (value, i) => (value * std[i % channels] + mean[i % channels]) * 255).buffer);
}

/** A picture with its removed patches painted over. @param grey  0–255 */
export function maskPicture(picture: Uint8Array, mask: ArrayLike<number>, shape: PictureShape, grey = 128): Uint8Array {
  return mix(picture, undefined, mask, shape, grey);
}

/** `reconstruction` where patches were removed, `original` where they were visible. */
export function pasteVisible(reconstruction: Uint8Array, original: Uint8Array, mask: ArrayLike<number>, shape: PictureShape): Uint8Array {
  return mix(original, reconstruction, mask, shape, 0);
}

function mix(kept: Uint8Array, removed: Uint8Array | undefined, mask: ArrayLike<number>, shape: PictureShape, grey: number): Uint8Array {
  const { rows, columns, size } = patchGrid(shape);
  requireLength('the picture', kept, pictureLength(shape), shape);
  requireLength('the mask', mask, rows * columns, shape);
  const out = new Uint8Array(kept);
  forEachValue(shape, (inPicture, inPatches) => {
    if (mask[Math.floor(inPatches / size)] !== 0) out[inPicture] = removed ? removed[inPicture] : grey;
  });
  return out;
}

/** Calls back with the place of every value in the picture and among the patches. */
function forEachValue(shape: PictureShape, callback: (inPicture: number, inPatches: number) => void): void {
  const { rows, columns } = patchGrid(shape);
  const { width, channels, patch } = shape;
  const run = patch * channels; // one pixel row of one patch is contiguous in both
  let inPatches = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      for (let y = 0; y < patch; y++) {
        const start = ((row * patch + y) * width + column * patch) * channels;
        for (let i = 0; i < run; i++) callback(start + i, inPatches++);
      }
    }
  }
}

function pictureLength({ height, width, channels }: PictureShape): number {
  return height * width * channels;
}

function requireLength(what: string, values: ArrayLike<number>, needed: number, shape: PictureShape): void {
  if (values.length === needed) return;
  const size = `${shape.height}x${shape.width}x${shape.channels} in patches of ${shape.patch}`;
  throw new MaeError('MAE_SHAPE', `${what} must have ${needed} values for ${size}, got ${values.length}`);
}
