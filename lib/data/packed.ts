/** A packed data set (packFormat.ts), as written by `mae pack`. */
import fs from 'node:fs';
import { crc32 } from 'node:zlib';
import { MaeError, fileError } from '../errors';
import type { Dataset, PictureSource } from './dataset';
import { END_BYTES, INDEX_ENTRY_BYTES, PACK_MAGIC, PACK_VERSION, START_BYTES, decodeEnd, decodeEntry } from './packFormat';
import type { PackDescription } from './packFormat';

/**
 * Opens a .maepack file. Pictures stay in the file: native threads read the rows of a crop, and the operating system's page cache keeps what
 * fits in memory. Indices, classes and labels are those of the folder that was packed, and so are crops and masks.
 */
export class PackedDataset implements Dataset {
  readonly name: string;
  /** Relative to the folder that was packed. */
  readonly paths: readonly string[];
  readonly classes: readonly string[];
  readonly labels: Int32Array;
  readonly channels = 3;
  readonly dtype = 'uint8';
  /** Short side that larger pictures were shrunk to, if any. */
  readonly size: number | undefined;
  /** Bytes of the file. */
  readonly bytes: number;
  private readonly fd: number;
  private readonly offsets: Float64Array;
  private readonly heights: Uint32Array;
  private readonly widths: Uint32Array;
  private readonly broken: Record<number, string>;
  private isClosed = false;

  /** @throws MaeError MAE_FILE when it cannot be read, MAE_FORMAT when it is no packed data set, truncated or damaged */
  constructor(file: string) {
    this.name = file;
    try {
      this.fd = fs.openSync(file, 'r');
    } catch (error) {
      throw fileError('open the packed data set', file, error);
    }
    try {
      this.bytes = fs.fstatSync(this.fd).size;
      const { index, description } = this.readTables();
      const count = index.length / INDEX_ENTRY_BYTES;
      this.offsets = new Float64Array(count);
      this.heights = new Uint32Array(count);
      this.widths = new Uint32Array(count);
      this.labels = new Int32Array(count);
      for (let i = 0; i < count; ++i) {
        const entry = decodeEntry(index, i);
        this.offsets[i] = entry.offset;
        this.heights[i] = entry.height;
        this.widths[i] = entry.width;
        this.labels[i] = entry.label;
      }
      this.paths = description.paths;
      this.classes = description.classes;
      this.size = description.size;
      this.broken = description.broken;
    } catch (error) {
      fs.closeSync(this.fd);
      throw error instanceof MaeError ? error : fileError('read the packed data set', file, error);
    }
  }

  /** Whether a file starts like a packed data set. @throws MaeError MAE_FILE when it cannot be read */
  static recognises(file: string): boolean {
    try {
      const fd = fs.openSync(file, 'r');
      try {
        const start = Buffer.alloc(PACK_MAGIC.length);
        return fs.readSync(fd, start) === start.length && start.equals(PACK_MAGIC);
      } finally {
        fs.closeSync(fd);
      }
    } catch (error) {
      throw fileError('open', file, error);
    }
  }

  get length(): number {
    return this.offsets.length;
  }

  pathOf(index: number): string {
    return this.paths[index];
  }

  async fetch(indices: ArrayLike<number>): Promise<PictureSource[]> {
    if (this.isClosed) throw new MaeError('MAE_DISPOSED', `PackedDataset: ${this.name} was closed; open it again`);
    return Array.from(indices, (i) =>
      this.heights[i] === 0
        ? { reason: this.broken[i] }
        : { height: this.heights[i], width: this.widths[i], fd: this.fd, offset: this.offsets[i] },
    );
  }

  close(): void {
    if (!this.isClosed) fs.closeSync(this.fd);
    this.isClosed = true;
  }

  private readTables(): { index: Buffer; description: PackDescription } {
    const start = this.read(0, Math.min(START_BYTES, this.bytes));
    if (!start.subarray(0, PACK_MAGIC.length).equals(PACK_MAGIC)) throw this.formatError('it does not start with the word MAEPACK');
    if (this.bytes < START_BYTES + END_BYTES) throw this.formatError(`it is truncated: it has ${this.bytes} bytes`);
    const version = start.readUInt32LE(PACK_MAGIC.length);
    if (version !== PACK_VERSION) throw this.formatError(`it has version ${version} of the format, this node-mae reads ${PACK_VERSION}`);
    const end = this.read(this.bytes - END_BYTES, END_BYTES);
    if (!end.subarray(-PACK_MAGIC.length).equals(PACK_MAGIC)) throw this.formatError('it is truncated: its end is missing');
    const { pictures, indexOffset, descriptionBytes, crc } = decodeEnd(end);
    const indexBytes = pictures * INDEX_ENTRY_BYTES;
    if (indexOffset + indexBytes + descriptionBytes + END_BYTES !== this.bytes) {
      throw this.formatError(`it has ${this.bytes} bytes, which is not what its tables say: a part is missing or was added`);
    }
    const tables = this.read(indexOffset, indexBytes + descriptionBytes);
    if (crc32(tables) !== crc) throw this.formatError('its tables do not have the checksum that it says: it is damaged');
    return { index: tables.subarray(0, indexBytes), description: JSON.parse(tables.toString('utf8', indexBytes)) };
  }

  private read(offset: number, bytes: number): Buffer {
    const buffer = Buffer.alloc(bytes);
    for (let done = 0; done < bytes;) {
      const got = fs.readSync(this.fd, buffer, done, bytes - done, offset + done);
      if (got === 0) throw this.formatError('it became shorter while it was read');
      done += got;
    }
    return buffer;
  }

  private formatError(problem: string): MaeError {
    return new MaeError(
      'MAE_FORMAT',
      `PackedDataset: ${this.name} is not a usable packed data set: ${problem}. Write it with \`mae pack\``,
    );
  }
}
