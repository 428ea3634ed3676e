/** Decoded pictures kept in memory, up to a budget. */
import type { Picture } from './dataset';

const SLAB_BYTES = 16 * 1024 * 1024;

/**
 * Keeps the first pictures that fit and never evicts: an epoch visits every picture once, in random order, so evicting the least recently
 * used one would only lower the share that is found. Small pictures lie together in slabs, which spares the garbage collector one object
 * per picture.
 */
export class PictureCache {
  private readonly slabs: Uint8Array[] = [];
  private readonly slabOf: Int32Array;
  private readonly offsets: Uint32Array;
  private readonly heights: Uint32Array;
  private readonly widths: Uint32Array;
  private free = 0; // bytes left at the end of the last slab
  private allocated = 0;
  private isFull = false;
  private kept = 0;

  /** @param length  pictures of the data set @param budget  bytes that may be used for pixels @param channels  uint8 values per pixel */
  constructor(
    length: number,
    readonly budget: number,
    private readonly channels: number,
  ) {
    this.slabOf = new Int32Array(length).fill(-1);
    this.offsets = new Uint32Array(length);
    this.heights = new Uint32Array(length);
    this.widths = new Uint32Array(length);
  }

  /** Bytes allocated. */
  get bytes(): number {
    return this.allocated;
  }

  /** Pictures kept. */
  get count(): number {
    return this.kept;
  }

  get(index: number): Picture | undefined {
    const slab = this.slabOf[index];
    if (slab < 0) return undefined;
    const height = this.heights[index];
    const width = this.widths[index];
    const offset = this.offsets[index];
    return { height, width, data: this.slabs[slab].subarray(offset, offset + height * width * this.channels) };
  }

  /** Copies the picture if the budget allows it; once one did not fit, nothing more is taken. */
  add(index: number, { height, width, data }: Picture): void {
    if (this.isFull || this.slabOf[index] >= 0) return;
    if (data.length > this.free && !this.grow(data.length)) return;
    const slab = this.slabs.length - 1;
    const offset = this.slabs[slab].length - this.free;
    this.slabs[slab].set(data, offset);
    this.slabOf[index] = slab;
    this.offsets[index] = offset;
    this.heights[index] = height;
    this.widths[index] = width;
    this.free -= data.length;
    this.kept++;
  }

  clear(): void {
    this.slabs.length = 0;
    this.slabOf.fill(-1);
    this.free = this.allocated = this.kept = 0;
    this.isFull = false;
  }

  private grow(needed: number): boolean {
    const bytes = Math.max(needed, Math.min(SLAB_BYTES, this.budget - this.allocated));
    if (this.allocated + bytes > this.budget) {
      this.isFull = true;
      return false;
    }
    this.slabs.push(new Uint8Array(bytes));
    this.free = bytes;
    this.allocated += bytes;
    return true;
  }
}
