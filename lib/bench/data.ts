/** Pictures per second of every loading path, beside what training takes. */
import { randomFillSync } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { ArrayDataset } from '../data/array';
import type { Dataset } from '../data/dataset';
import { ImageFolder } from '../data/folder';
import { Loader } from '../data/loader';
import { pack } from '../data/pack';
import { PackedDataset } from '../data/packed';
import { resolveConfig } from '../nn/config';
import { type PresetName, presets } from '../nn/presets';
import type { Context } from './context';
import type { DataRates } from './result';

const BATCH = 32;
/** Made where no pictures are given: the size of a usual ImageNet file. */
const MADE = { count: 128, width: 500, height: 375, quality: 90 };
/** At most so many of the user's own. */
const LINKED = 256;
/** Pictures in an array are so much larger than the crop: 256 for 224. */
const ARRAY_MARGIN = 8 / 7;
/** Seconds for one path. */
const SECONDS = { quick: 1.5, full: 10 };

/**
 * Random crops, flips included, from: files (decoded anew each time), files that stay decoded in memory, a packed file, an array.
 * @param folder  of the user's own pictures; without it, JPEGs are made for the occasion
 * @param steps  what training takes; those whose pictures have the first one's size are compared with
 */
export async function measureData(context: Context, folder: string | undefined, steps: DataRates['steps']): Promise<DataRates> {
  const sizeOf = (preset: PresetName): number => resolveConfig(presets[preset]).imageSize[0];
  const imageSize = sizeOf(steps[0].preset);
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'mae-bench-'));
  try {
    const source = path.join(scratch, 'pictures');
    mkdirSync(source);
    const pictures = folder === undefined ? await makePictures(source) : linkPictures(folder, source);
    const packed = path.join(scratch, 'pictures.maepack');
    const quiet = { log: () => undefined };
    await pack(source, packed);
    const paths: DataRates['paths'] = [];
    for (const [name, open] of [
      ['files, decoded each time', () => new ImageFolder(source, { ...quiet, cacheBytes: 0 })],
      ['files, kept decoded in memory', () => new ImageFolder(source, quiet)],
      ['packed file', () => new PackedDataset(packed)],
      ['array in memory', () => arrayOf(Math.round(imageSize * ARRAY_MARGIN))],
    ] as const) {
      context.say(`  ${name}`);
      paths.push({ name, picturesPerSecond: await rateOf(context, open(), imageSize) });
    }
    return {
      pictures,
      imageSize,
      workers: os.availableParallelism(),
      paths,
      steps: steps.filter(({ preset }) => sizeOf(preset) === imageSize),
    };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Nothing else runs: what the path gives at most. The first epoch, which fills caches, is not counted. */
async function rateOf({ full }: Context, dataset: Dataset, imageSize: number): Promise<number> {
  const batchSize = Math.min(BATCH, dataset.length);
  const loader = new Loader(dataset, { batchSize, imageSize, log: () => undefined });
  let pictures = 0;
  let started = 0;
  for await (const { epoch } of loader) {
    if (epoch === 0) continue;
    if (!started) {
      started = performance.now();
      continue;
    }
    pictures += batchSize;
    if (performance.now() - started > SECONDS[full ? 'full' : 'quick'] * 1000) break;
  }
  const seconds = (performance.now() - started) / 1000;
  dataset.close();
  return pictures / seconds;
}

/** Some of the user's pictures, from all over the folder: packing all of a large one would fill the disk. */
function linkPictures(from: string, to: string): string {
  const { paths } = new ImageFolder(from, { cacheBytes: 0 });
  const count = Math.min(LINKED, paths.length);
  for (let i = 0; i < count; i++) {
    const picture = path.resolve(paths[Math.floor((i * paths.length) / count)]);
    symlinkSync(picture, path.join(to, `${nameOf(i)}${path.extname(picture)}`));
  }
  return `${count} of the ${paths.length} pictures in ${from}`;
}

/** Noise of several scales, one over the other: a JPEG of it has about the size, and takes about the time, of a photograph's. */
async function makePictures(folder: string): Promise<string> {
  const { count, width, height, quality } = MADE;
  const layer = (divisor: number): { raw: { width: number; height: number; channels: 3 }; data: Uint8Array } => {
    const [w, h] = [Math.ceil(width / divisor), Math.ceil(height / divisor)];
    return { raw: { width: w, height: h, channels: 3 }, data: randomFillSync(new Uint8Array(w * h * 3)) };
  };
  for (let i = 0; i < count; i++) {
    const { data, raw } = layer(64);
    const overlays = await Promise.all(
      [16, 4].map(async (divisor) => {
        const fine = layer(divisor);
        const input = await sharp(fine.data, { raw: fine.raw })
          .resize(width, height, { fit: 'fill' })
          .ensureAlpha(0.3)
          .png({ compressionLevel: 0 })
          .toBuffer();
        return { input, blend: 'over' as const };
      }),
    );
    const base = await sharp(data, { raw }).resize(width, height, { fit: 'fill' }).png({ compressionLevel: 0 }).toBuffer();
    await sharp(base)
      .composite(overlays)
      .jpeg({ quality })
      .toFile(path.join(folder, `${nameOf(i)}.jpg`));
  }
  return `${count} JPEGs of ${width}x${height}, quality ${quality}, made`;
}

function nameOf(i: number): string {
  return String(i).padStart(4, '0');
}

function arrayOf(side: number): ArrayDataset {
  const images = randomFillSync(new Uint8Array(2 * BATCH * side * side * 3));
  return new ArrayDataset({ images, height: side, width: side, channels: 3 });
}
