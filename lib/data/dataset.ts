/** What a data set is to the loader: numbered pictures of one kind, given as pixels, as records of an open file, or as broken. */
import fs from 'node:fs';
import { promisify } from 'node:util';
import { MaeError } from '../errors';

/** Pixels [height, width, channels], row-major. */
export interface Picture {
  readonly height: number;
  readonly width: number;
  readonly data: Uint8Array | Float32Array;
}

/** uint8 pixels [height, width, channels] that lie in an open file; native threads read the rows they need. */
export interface StoredPicture {
  readonly height: number;
  readonly width: number;
  readonly fd: number;
  readonly offset: number;
}

/** A file that could not be decoded: it keeps its index, the loader replaces or reports it. */
export interface BrokenPicture {
  readonly reason: string;
}

export type PictureSource = Picture | StoredPicture | BrokenPicture;

/**
 * A data set. The index of a picture is its place in the data set's own order and never changes: masks, crops and replacements are drawn
 * from it.
 */
export interface Dataset {
  /** For messages: the path, or what the arrays are. */
  readonly name: string;
  /** Number of pictures, broken ones included. */
  readonly length: number;
  readonly channels: number;
  readonly dtype: 'uint8' | 'float32';
  /** Names of the classes, sorted bytewise; empty when the pictures have none. */
  readonly classes: readonly string[];
  /** The class of each picture; −1 for one without. */
  readonly labels: Int32Array;
  /** Where picture `index` comes from, for messages. */
  pathOf(index: number): string;
  /** The pictures in the order asked for. Never rejects because of a single picture. */
  fetch(indices: ArrayLike<number>): Promise<PictureSource[]>;
  /** Frees files and memory; not while a loader runs over it. */
  close(): void;
}

export const isBroken = (source: PictureSource): source is BrokenPicture => 'reason' in source;
export const isStored = (source: PictureSource): source is StoredPicture => 'fd' in source;

const readFile = promisify(fs.read);

/** The pixels of one picture. @throws MaeError MAE_DATA if it is broken, MAE_FILE if its record cannot be read. */
export async function readPicture(dataset: Dataset, index: number): Promise<Picture> {
  if (!Number.isInteger(index) || index < 0 || index >= dataset.length) {
    throw new MaeError(
      'MAE_ARGUMENT',
      `${dataset.name}: picture ${index} does not exist; needs an integer from 0 to ${dataset.length - 1}`,
    );
  }
  const [source] = await dataset.fetch([index]);
  if (isBroken(source)) throw brokenError(dataset, index, source);
  return readPixels(dataset, source);
}

/** The pixels of a picture that was fetched. @throws MaeError MAE_FILE if its record cannot be read */
export async function readPixels(dataset: Dataset, source: Picture | StoredPicture): Promise<Picture> {
  if (!isStored(source)) return source;
  const { height, width, fd, offset } = source;
  const data = new Uint8Array(height * width * dataset.channels);
  for (let done = 0; done < data.length;) {
    const { bytesRead } = await readFile(fd, data, done, data.length - done, offset + done);
    if (bytesRead === 0) throw new MaeError('MAE_FILE', `${dataset.name}: became shorter while it was open; write it again`);
    done += bytesRead;
  }
  return { height, width, data };
}

export function brokenError(dataset: Dataset, index: number, { reason }: BrokenPicture): MaeError {
  return new MaeError(
    'MAE_DATA',
    `${dataset.pathOf(index)} (picture ${index} of ${dataset.name}) cannot be decoded: ${reason}. ` +
      "Remove or repair it, or use broken: 'replace'; `mae check-data` lists all such files",
  );
}
