/** Picture files to pixels, by sharp (libvips). */
import fs from 'node:fs';
import os from 'node:os';
import { promisify } from 'node:util';
import sharp from 'sharp';
import type { Picture } from './dataset';

/** File names that count as pictures: what sharp's prebuilt libvips reads, without vector graphics. */
export const PICTURE_EXTENSIONS: readonly string[] = ['.jpg', '.jpeg', '.jfif', '.png', '.webp', '.avif', '.gif', '.tif', '.tiff'];

/** Pictures decoded at once: one thread each. */
export const decodeConcurrency = (): number => Math.max(4, os.availableParallelism());

const readFile = promisify(fs.readFile); // a third faster than fs.promises.readFile on small files

let prepared = false;
/** One thread per picture and many pictures at once is the fastest way to use sharp (a third more than threads inside a picture). */
function prepare(): void {
  if (prepared) return;
  prepared = true;
  sharp.concurrency(1);
  sharp.cache(false); // every file is read once: libvips' cache would only hold memory
  // libuv starts its threads at their first use and has four unless told; where they already run, this changes nothing.
  process.env.UV_THREADPOOL_SIZE ??= String(decodeConcurrency());
}

export interface DecodeOptions {
  /** Shrink so that the short side is at most this many pixels (Lanczos); absent: as it is. Pictures are never enlarged. */
  size?: number;
}

/**
 * Decodes a file to 3-channel sRGB uint8, upright. Greyscale is repeated, CMYK and colour profiles are converted, 16 bits become 8, alpha
 * is dropped (as PIL's `convert('RGB')` does), the EXIF orientation is applied, of an animation the first frame is taken.
 * @throws Error with the system's or libvips' reason when the file cannot be read, is truncated, damaged or no picture
 */
export async function decodePicture(path: string, { size }: DecodeOptions = {}): Promise<Picture> {
  prepare();
  // failOn 'error': a stray byte that decoders only warn about is no reason to lose a picture; a truncated file is.
  // Given the bytes, libvips takes half the time for a small picture that it takes when it opens the file itself.
  let image = sharp(await readFile(path), { failOn: 'error' }).autoOrient();
  if (size !== undefined) {
    image = image.resize({
      width: size,
      height: size,
      fit: 'outside',
      withoutEnlargement: true,
      kernel: 'lanczos3',
      fastShrinkOnLoad: false,
    });
  }
  const { data, info } = await image.toColourspace('srgb').removeAlpha().raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
  return { height: info.height, width: info.width, data: info.channels === 3 ? data : repeatGrey(data) };
}

/** Greyscale [height, width] to [height, width, 3]. */
function repeatGrey(grey: Uint8Array): Uint8Array {
  const data = new Uint8Array(grey.length * 3);
  for (let i = 0; i < grey.length; ++i) data.fill(grey[i], i * 3, i * 3 + 3);
  return data;
}

/** What a file's header says, without decoding it. */
export interface PictureHeader {
  format: string;
  /** Upright size, before any shrinking. */
  height: number;
  width: number;
  /** libvips' name of the colour space: srgb, b-w, cmyk, rgb16, grey16 … */
  space: string;
  channels: number;
  depth: string;
  hasAlpha: boolean;
  /** EXIF orientation; 1 or undefined: stored upright. */
  orientation: number | undefined;
}

/** @throws Error with libvips' reason when the header cannot be read */
export async function readHeader(path: string): Promise<PictureHeader> {
  prepare();
  const { format, space, channels, depth, hasAlpha, orientation, autoOrient } = await sharp(path).metadata();
  return { format, height: autoOrient.height, width: autoOrient.width, space, channels, depth, hasAlpha, orientation };
}

/** libvips' message in one line; it repeats itself. */
export const reasonOf = (error: unknown): string => [...new Set((error as Error).message.trim().split(/\s*\n\s*/))].join('; ');

/** Runs at most `count` tasks at a time, first come first served. */
export function limitConcurrency(count: number): <T>(task: () => Promise<T>) => Promise<T> {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (task) => {
    if (running >= count) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await task();
    } finally {
      const next = waiting.shift(); // the place goes straight to the next in line
      if (next) next();
      else running--;
    }
  };
}
