/** A folder of picture files. */
import fs from 'node:fs';
import path from 'node:path';
import { MaeError, fileError } from '../errors';
import { formatBytes } from '../format';
import { checkNames } from '../issues';
import { PictureCache } from './cache';
import type { Dataset, PictureSource } from './dataset';
import { PICTURE_EXTENSIONS, decodeConcurrency, decodePicture, limitConcurrency, readHeader, reasonOf } from './decode';

export interface ImageFolderOptions {
  /** Shrink at decoding so that the short side is at most this many pixels; absent: full size. */
  size?: number;
  /** Bytes of memory for decoded pictures: 'auto' takes half of what is available to this process, 0 keeps none. */
  cacheBytes?: number | 'auto';
  /** Where to say what stays in memory; default standard error. */
  log?: (line: string) => void;
}

const SAMPLED_HEADERS = 64; // headers that are read to estimate the decoded size of all

/**
 * Pictures in a folder, flat or nested, found recursively (symbolic links followed, hidden files left out). Order: relative path, bytewise.
 * Class: the first folder level; a picture directly in the folder has none (label −1).
 *
 * Each file is decoded once and kept as uint8 while the memory budget lasts; the rest is decoded again when needed.
 */
export class ImageFolder implements Dataset {
  readonly name: string;
  /** Absolute or relative as given: folder and relative path joined. */
  readonly paths: readonly string[];
  readonly classes: readonly string[];
  readonly labels: Int32Array;
  readonly channels = 3;
  readonly dtype = 'uint8';
  /** Files that are no pictures by their names, by extension. */
  readonly passedOver: Readonly<Record<string, number>>;
  /** Shrink-to size at decoding, if any. */
  readonly size: number | undefined;
  private readonly cache: PictureCache;
  private readonly broken = new Map<number, string>();
  private readonly limit = limitConcurrency(decodeConcurrency());
  private readonly log: (line: string) => void;
  private announced: Promise<void> | undefined;

  /** @throws MaeError MAE_DATA when the folder is absent, no folder, or has no picture below it */
  constructor(folder: string, options: ImageFolderOptions = {}) {
    checkNames('ImageFolder', options, { size: true, cacheBytes: true, log: true });
    this.name = folder;
    this.size = options.size;
    if (this.size !== undefined && !(Number.isInteger(this.size) && this.size > 0)) {
      throw new MaeError('MAE_ARGUMENT', `ImageFolder: size needs a positive number of pixels, got ${this.size}`);
    }
    const { cacheBytes = 'auto' } = options;
    if (cacheBytes !== 'auto' && !(cacheBytes >= 0)) {
      throw new MaeError('MAE_ARGUMENT', `ImageFolder: cacheBytes needs 'auto' or a number of bytes from 0, got ${cacheBytes}`);
    }
    this.log = options.log ?? ((line) => console.error(line));
    const { files: relative, passedOver } = listPictures(folder);
    this.passedOver = passedOver;
    this.paths = relative.map((file) => path.join(folder, file));
    const classOf = (file: string): string | undefined => (file.includes('/') ? file.slice(0, file.indexOf('/')) : undefined);
    this.classes = sortBytewise([...new Set(relative.map(classOf))].filter((name) => name !== undefined));
    const number = new Map<string | undefined, number>(this.classes.map((name, i) => [name, i]));
    this.labels = Int32Array.from(relative, (file) => number.get(classOf(file)) ?? -1);
    this.cache = new PictureCache(this.length, cacheBytes === 'auto' ? Math.floor(process.availableMemory() / 2) : cacheBytes, 3);
  }

  get length(): number {
    return this.paths.length;
  }

  /** What is kept in memory now. */
  get cached(): { pictures: number; bytes: number } {
    return { pictures: this.cache.count, bytes: this.cache.bytes };
  }

  pathOf(index: number): string {
    return this.paths[index];
  }

  async fetch(indices: ArrayLike<number>): Promise<PictureSource[]> {
    await (this.announced ??= this.announce());
    const sources = Array.from(indices, (index) => this.cache.get(index) ?? this.decode(index));
    return sources.some((source) => source instanceof Promise) ? Promise.all(sources) : (sources as PictureSource[]);
  }

  close(): void {
    this.cache.clear();
  }

  private async decode(index: number): Promise<PictureSource> {
    const known = this.broken.get(index);
    if (known !== undefined) return { reason: known };
    return this.limit(async () => {
      try {
        const picture = await decodePicture(this.paths[index], { size: this.size });
        this.cache.add(index, picture);
        return picture;
      } catch (error) {
        const reason = reasonOf(error);
        this.broken.set(index, reason);
        return { reason };
      }
    });
  }

  /** Says once, before the first picture, which share will stay in memory. */
  private async announce(): Promise<void> {
    if (this.cache.budget === 0) return;
    const estimate = await this.estimateBytes();
    const share = Math.min(1, this.cache.budget / estimate);
    const what = `${this.name}: ${this.length} pictures, about ${formatBytes(estimate)} decoded`;
    if (share === 1) {
      this.log(`${what}: all stay in memory once decoded (up to ${formatBytes(this.cache.budget)})`);
    } else {
      this.log(
        `${what}, of which ${formatBytes(this.cache.budget)} (${Math.floor(share * 100)}%) stay in memory; the rest is decoded anew in every epoch. ` +
          `To decode once for all: mae pack ${this.name} --out ${path.basename(this.name)}.maepack`,
      );
    }
  }

  /** Bytes of all pictures decoded, from the headers of some evenly spaced ones. */
  async estimateBytes(): Promise<number> {
    const count = Math.min(SAMPLED_HEADERS, this.length);
    const sizes = await Promise.all(
      Array.from({ length: count }, (_, i) =>
        this.limit(async () => {
          try {
            const { height, width } = await readHeader(this.paths[Math.floor((i * this.length) / count)]);
            const shrink = Math.min(1, (this.size ?? Infinity) / Math.min(height, width));
            return height * width * shrink * shrink * this.channels;
          } catch {
            return 0; // unreadable: takes no memory
          }
        }),
      ),
    );
    return (sizes.reduce((sum, bytes) => sum + bytes, 0) / count) * this.length;
  }
}

/** Relative paths of the pictures below a folder, '/'-separated, sorted by their UTF-8 bytes. */
function listPictures(folder: string): { files: string[]; passedOver: Record<string, number> } {
  const files: string[] = [];
  const passedOver: Record<string, number> = {};
  const visited = new Set<string>(); // real paths, so that a circle of symbolic links ends
  const visit = (relative: string): void => {
    const here = path.join(folder, relative);
    const real = fs.realpathSync(here);
    if (visited.has(real)) return;
    visited.add(real);
    for (const entry of fs.readdirSync(here, { withFileTypes: true })) {
      if (entry.name.startsWith('.')) continue;
      const extension = path.extname(entry.name).toLowerCase();
      const inside = relative === '' ? entry.name : `${relative}/${entry.name}`;
      const target = entry.isSymbolicLink() ? fs.statSync(path.join(folder, inside), { throwIfNoEntry: false }) : entry;
      if (target?.isDirectory()) visit(inside);
      else if (target?.isFile() && PICTURE_EXTENSIONS.includes(extension)) files.push(inside);
      else passedOver[extension] = (passedOver[extension] ?? 0) + 1;
    }
  };
  const wanted = `a folder with pictures (${PICTURE_EXTENSIONS.join(' ')}), in sub-folders or not`;
  try {
    if (!fs.statSync(folder, { throwIfNoEntry: false })) {
      throw new MaeError('MAE_DATA', `ImageFolder: ${folder} does not exist; needs ${wanted}. Working folder: ${process.cwd()}`);
    }
    if (!fs.statSync(folder).isDirectory()) throw new MaeError('MAE_DATA', `ImageFolder: ${folder} is not a folder; needs ${wanted}`);
    visit('');
  } catch (error) {
    throw error instanceof MaeError ? error : fileError('list the pictures of', folder, error);
  }
  if (files.length === 0) {
    const others = Object.entries(passedOver).map(([extension, count]) => `${count} ${extension || 'without extension'}`);
    const found = others.length === 0 ? 'it is empty' : `it has other files (${others.join(', ')})`;
    throw new MaeError('MAE_DATA', `ImageFolder: no picture in ${folder}: ${found}; needs ${wanted}`);
  }
  return { files: sortBytewise(files), passedOver };
}

/** Sorts by UTF-8 bytes, in place. JavaScript orders by UTF-16 units, which differs only when there are surrogates. */
function sortBytewise(names: string[]): string[] {
  if (names.some((name) => /[\ud800-\udfff]/.test(name))) return names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return names.sort();
}
