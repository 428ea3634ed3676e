/** Writing a packed data set (packFormat.ts). */
import path from 'node:path';
import { MaeError } from '../errors';
import { writeFileAtomic } from '../io/atomic';
import { checkNames } from '../issues';
import { isBroken } from './dataset';
import type { Picture } from './dataset';
import { ImageFolder } from './folder';
import { START_BYTES, encodeStart, encodeTables } from './packFormat';
import type { PackDescription, PackEntry } from './packFormat';

export interface PackOptions {
  /** Shrink so that the short side is at most this many pixels; absent: full size. */
  size?: number;
  /** After every picture: how many are done, of how many. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface PackResult {
  /** All of them, broken ones included. */
  pictures: number;
  /** Bytes of the file. */
  bytes: number;
  broken: { path: string; reason: string }[];
}

const IN_FLIGHT = 64; // pictures being decoded or waiting to be written in order

/**
 * Decodes every picture of a folder into one file, which appears under its name only when it is complete. Broken pictures keep their index
 * and are marked.
 * @throws MaeError MAE_DATA when there is no readable picture, MAE_FILE when writing fails, MAE_INTERRUPTED when the signal is aborted
 */
export async function pack(folder: string, out: string, options: PackOptions = {}): Promise<PackResult> {
  checkNames('pack', options, { size: true, onProgress: true, signal: true });
  const { size, onProgress, signal } = options;
  const dataset = new ImageFolder(folder, { size, cacheBytes: 0 });
  const total = dataset.length;
  const description: PackDescription = {
    paths: dataset.paths.map((file) => path.relative(folder, file).split(path.sep).join('/')),
    classes: [...dataset.classes],
    size,
    broken: {},
  };
  const entries: PackEntry[] = [];
  let bytes = START_BYTES;

  async function* content(): AsyncGenerator<Uint8Array> {
    yield encodeStart();
    const pending: ReturnType<ImageFolder['fetch']>[] = [];
    for (let started = 0; entries.length < total;) {
      if (signal?.aborted)
        throw new MaeError('MAE_INTERRUPTED', `pack: stopped after ${entries.length} of ${total} pictures; ${out} was not written`);
      while (started < total && pending.length < IN_FLIGHT) pending.push(dataset.fetch([started++]));
      const [source] = (await pending.shift())!;
      const i = entries.length;
      if (isBroken(source)) {
        description.broken[i] = source.reason;
        entries.push({ offset: 0, height: 0, width: 0, label: dataset.labels[i] });
      } else {
        const { height, width, data } = source as Picture;
        entries.push({ offset: bytes, height, width, label: dataset.labels[i] });
        yield data as Uint8Array;
        bytes += data.length;
      }
      onProgress?.(i + 1, total);
    }
    if (Object.keys(description.broken).length === total) {
      throw new MaeError(
        'MAE_DATA',
        `pack: none of the ${total} pictures in ${folder} can be decoded; ${dataset.pathOf(0)}: ${description.broken[0]}`,
      );
    }
    const tables = encodeTables(entries, description, bytes);
    bytes += tables.length;
    yield tables;
  }

  await writeFileAtomic(out, content());
  const broken = Object.entries(description.broken).map(([i, reason]) => ({ path: dataset.pathOf(Number(i)), reason }));
  return { pictures: total, bytes, broken };
}
