/** Arrays as a model takes them: pictures, their places in the data set, noise. */
import { MaeError } from '../errors';
import { size } from '../graph/tensor';
import type { MaeConfig } from './config';

export interface ImageBatch {
  /** NHWC: uint8 0–255, or float32 on the scale 0–1 (any number of channels). Not normalised: the model does that. */
  images: Uint8Array | Float32Array;
}

/**
 * Checks that `images` holds `count` pictures of the model's size and dtype.
 * @throws MaeError MAE_SHAPE
 */
export function checkImages(call: string, images: unknown, dtype: 'u8' | 'f32', count: number, { imageSize, inChans }: MaeConfig): void {
  const [height, width] = imageSize;
  const wanted = dtype === 'u8' ? 'Uint8Array' : 'Float32Array';
  const need = `${wanted} NHWC [${count}, ${height}, ${width}, ${inChans}] (${count * height * width * inChans} values)`;
  const isArray =
    dtype === 'u8'
      ? ArrayBuffer.isView(images) && images.constructor.name.match(/^(Uint8Array|Buffer)$/)
      : ArrayBuffer.isView(images) && images.constructor.name === 'Float32Array';
  if (!isArray) {
    const got = (images as object | undefined)?.constructor?.name ?? String(images);
    const hint = dtype === 'u8' && got === 'Float32Array' ? ": make the model with imageDType 'f32' for float pictures" : '';
    throw new MaeError('MAE_ARGUMENT', `${call}: images must be a ${need}, got ${got}${hint}`);
  }
  const { length } = images as Uint8Array;
  if (length !== count * height * width * inChans)
    throw new MaeError('MAE_SHAPE', `${call}: images must be a ${need}, got ${length} values`);
}

/** @throws MaeError MAE_ARGUMENT, MAE_SHAPE unless `indices` are [count] */
export function checkIndices(call: string, indices: Int32Array, count: number): void {
  checkArray(`${call}: indices`, indices, 'Int32Array', [count]);
}

/** @throws MaeError MAE_ARGUMENT, MAE_SHAPE unless `noise` is [pictures, patches] and finite: what has no order decides no mask */
export function checkNoise(call: string, noise: Float32Array | undefined, pictures: number, patches: number): void {
  checkArray(`${call}: noise`, noise, 'Float32Array', [pictures, patches]);
  const at = noise!.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) {
    const where = `patch ${at % patches} of picture ${Math.floor(at / patches)}`;
    throw new MaeError('MAE_ARGUMENT', `${call}: noise must be finite, got ${noise![at]} for ${where}`);
  }
}

/** @throws MaeError MAE_ARGUMENT unless masks can be drawn from `epoch` */
export function checkEpoch(call: string, epoch: number): void {
  if (!(Number.isInteger(epoch) && epoch >= 0))
    throw new MaeError('MAE_ARGUMENT', `${call}: epoch must be a whole number from 0, got ${epoch}`);
}

/** By its class's name: an array of another realm is no instance of this realm's classes. */
function checkArray(
  what: string,
  value: ArrayLike<number> | undefined,
  type: 'Int32Array' | 'Float32Array',
  shape: readonly number[],
): void {
  const need = `${what} must be ${type === 'Int32Array' ? 'an' : 'a'} ${type} [${shape.join(', ')}]`;
  const got = value?.constructor.name ?? 'none';
  if (got !== type) throw new MaeError('MAE_ARGUMENT', `${need}, got ${got}`);
  if (value!.length !== size(shape)) throw new MaeError('MAE_SHAPE', `${need}, got ${value!.length} values`);
}
