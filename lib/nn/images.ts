/** Pictures as a model takes them. */
import { MaeError } from '../errors';
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
