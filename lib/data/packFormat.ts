/**
 * The layout of a packed data set (.maepack): decoded uint8 pictures in one file, so that no epoch decodes anything. Little-endian.
 *
 *   start        magic "MAEPACK\n" · u32 version · u32 zero
 *   records      uint8 [height, width, 3], one after the other
 *   index        per picture 24 bytes: f64 offset · u32 height · u32 width · i32 class (−1: none) · u32 zero;
 *                height 0 marks a file that could not be decoded: it keeps its index
 *   description  JSON, UTF-8 (`PackDescription`)
 *   end          f64 pictures · f64 offset of the index · f64 bytes of the description · u32 CRC-32 of index and description · u32 zero ·
 *                the magic again
 *
 * Sizes are known only once pictures are decoded, so the tables come last and the file is written in one go. Whole numbers are exact in an
 * f64 up to 2^53.
 */
import { crc32 } from 'node:zlib';

export const PACK_MAGIC = Buffer.from('MAEPACK\n', 'latin1');
export const PACK_VERSION = 1;
export const START_BYTES = 16;
export const INDEX_ENTRY_BYTES = 24;
export const END_BYTES = 40;

export interface PackDescription {
  /** Relative paths of the pictures, in order. */
  paths: string[];
  classes: string[];
  /** Short side that larger pictures were shrunk to; absent: full size. */
  size?: number;
  /** Why a picture is broken, by its index. */
  broken: Record<number, string>;
}

/** A picture's entry in the index. */
export interface PackEntry {
  offset: number;
  height: number;
  width: number;
  label: number;
}

export interface PackEnd {
  pictures: number;
  indexOffset: number;
  descriptionBytes: number;
  crc: number;
}

export function encodeStart(): Buffer {
  const start = Buffer.alloc(START_BYTES);
  PACK_MAGIC.copy(start);
  start.writeUInt32LE(PACK_VERSION, PACK_MAGIC.length);
  return start;
}

/** Index, description and end; `indexOffset` is where they begin. */
export function encodeTables(entries: readonly PackEntry[], description: PackDescription, indexOffset: number): Buffer {
  const index = Buffer.alloc(entries.length * INDEX_ENTRY_BYTES);
  entries.forEach(({ offset, height, width, label }, i) => {
    const at = i * INDEX_ENTRY_BYTES;
    index.writeDoubleLE(offset, at);
    index.writeUInt32LE(height, at + 8);
    index.writeUInt32LE(width, at + 12);
    index.writeInt32LE(label, at + 16);
  });
  const text = Buffer.from(JSON.stringify(description));
  const end = Buffer.alloc(END_BYTES);
  [entries.length, indexOffset, text.length].forEach((value, i) => end.writeDoubleLE(value, 8 * i));
  end.writeUInt32LE(crc32(text, crc32(index)), 24);
  PACK_MAGIC.copy(end, END_BYTES - PACK_MAGIC.length);
  return Buffer.concat([index, text, end]);
}

export function decodeEnd(end: Buffer): PackEnd {
  const [pictures, indexOffset, descriptionBytes] = [0, 8, 16].map((at) => end.readDoubleLE(at));
  return { pictures, indexOffset, descriptionBytes, crc: end.readUInt32LE(24) };
}

export function decodeEntry(index: Buffer, i: number): PackEntry {
  const at = i * INDEX_ENTRY_BYTES;
  return {
    offset: index.readDoubleLE(at),
    height: index.readUInt32LE(at + 8),
    width: index.readUInt32LE(at + 12),
    label: index.readInt32LE(at + 16),
  };
}
