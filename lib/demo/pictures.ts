/** The demo's pictures as PNG files, so that the demo goes the way of everyone's pictures: file, decoder, loader. */
import path from 'node:path';
import { fileError, MaeError } from '../errors';
import { makeFolder } from '../io/makeFolder';
import { drawPicture, PICTURE_SIZE } from './draw';

/** PNG encoders at work while the next picture is drawn. */
const CONCURRENCY = 16;

export interface WriteOptions {
  seed: number;
  /** Number of the first picture. */
  first: number;
  count: number;
  signal?: AbortSignal;
}

/**
 * Draws pictures into a folder that is made, a file for each: 00000.png …
 * @throws MaeError MAE_FILE, MAE_INTERRUPTED
 */
export async function writePictures(folder: string, { seed, first, count, signal }: WriteOptions): Promise<void> {
  const { default: sharp } = await import('sharp');
  const raw = { width: PICTURE_SIZE, height: PICTURE_SIZE, channels: 3 } as const;
  try {
    makeFolder(folder);
    const writing = new Set<Promise<unknown>>();
    for (let index = first; index < first + count; index++) {
      const file = path.join(folder, `${String(index).padStart(5, '0')}.png`);
      const written: Promise<unknown> = sharp(drawPicture(seed, index), { raw })
        .png({ compressionLevel: 3 })
        .toFile(file)
        .finally(() => writing.delete(written));
      writing.add(written);
      if (writing.size >= CONCURRENCY) await Promise.race(writing);
      if (signal?.aborted) throw new MaeError('MAE_INTERRUPTED', 'stopped while drawing pictures');
    }
    await Promise.all(writing);
  } catch (error) {
    throw error instanceof MaeError ? error : fileError('write the pictures in', folder, error);
  }
}
