/**
 * Event files that TensorBoard reads: TFRecords of `Event` protobuf messages, scalars and pictures.
 * Formats: tensorflow/core/lib/io/record_writer, tensorflow/core/util/event.proto and framework/summary.proto.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { MaeError, fileError } from '../errors';
import { makeFolder } from '../io/makeFolder';

/** Appends events to a new file `events.out.tfevents.…` in a folder; a resumed run opens another beside the first. */
export class EventWriter {
  readonly path: string;
  private fd: number | undefined;

  /**
   * @param folder  is made if need be
   * @param options.purgeStep  on resuming: TensorBoard discards what earlier files say of this step and later ones
   * @throws MaeError MAE_FILE
   */
  constructor(folder: string, options: { purgeStep?: number } = {}) {
    const seconds = String(Math.floor(Date.now() / 1000)).padStart(10, '0');
    this.path = join(folder, `events.out.tfevents.${seconds}.${hostname() || 'localhost'}.${process.pid}.${nextNumber++}`);
    try {
      makeFolder(folder);
      this.fd = openSync(this.path, 'ax');
    } catch (error) {
      throw fileError('open', this.path, error);
    }
    this.event(0, bytesField(3, Buffer.from('brain.Event:2'))); // file_version
    if (options.purgeStep !== undefined) this.event(options.purgeStep, bytesField(7, varintField(1, 1))); // session_log { status: START }
  }

  /** A number; tags with a slash are grouped by what is before it (`train/loss`). @throws MaeError MAE_FILE, MAE_DISPOSED */
  scalar(tag: string, step: number, value: number): void {
    // Written even when it is 0: a Value is a oneof, and without its field TensorBoard drops the point.
    const simpleValue = Buffer.alloc(5);
    simpleValue[0] = (2 << 3) | 5;
    simpleValue.writeFloatLE(value, 1);
    this.summary(step, tag, simpleValue);
  }

  /** A picture, as PNG. @throws MaeError MAE_ARGUMENT when it is no PNG, MAE_FILE, MAE_DISPOSED */
  image(tag: string, step: number, png: Uint8Array): void {
    const bytes = Buffer.from(png.buffer, png.byteOffset, png.byteLength);
    if (bytes.length < 26 || bytes.readUInt32BE(0) !== 0x89504e47)
      throw new MaeError('MAE_ARGUMENT', `EventWriter.image ${tag}: needs a PNG`);
    const [width, height, colorType] = [bytes.readUInt32BE(16), bytes.readUInt32BE(20), bytes[25]];
    const channels = colorType === 0 ? 1 : colorType === 4 ? 2 : colorType === 6 ? 4 : 3;
    const image = [varintField(1, height), varintField(2, width), varintField(3, channels), bytesField(4, bytes)];
    this.summary(step, tag, bytesField(4, Buffer.concat(image)));
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }

  private summary(step: number, tag: string, value: Buffer): void {
    const tagged = Buffer.concat([bytesField(1, Buffer.from(tag)), value]);
    this.event(step, bytesField(5, bytesField(1, tagged)));
  }

  // Event { double wall_time = 1; int64 step = 2; oneof what }
  private event(step: number, what: Buffer): void {
    if (this.fd === undefined) throw new MaeError('MAE_DISPOSED', `${this.path} is closed`);
    const wallTime = Buffer.alloc(9);
    wallTime[0] = (1 << 3) | 1;
    wallTime.writeDoubleLE(Date.now() / 1000, 1);
    const record = tfRecord(Buffer.concat([wallTime, varintField(2, step), what]));
    try {
      for (let offset = 0; offset < record.length;) offset += writeSync(this.fd, record, offset);
    } catch (error) {
      throw fileError('write', this.path, error);
    }
  }
}

/** CRC-32C (Castagnoli), as in RFC 3720: "123456789" gives e3069283. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

let nextNumber = 0;

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

// uint64 length · masked crc of the length · data · masked crc of the data
function tfRecord(data: Buffer): Buffer {
  const record = Buffer.alloc(12 + data.length + 4);
  record.writeBigUInt64LE(BigInt(data.length));
  record.writeUInt32LE(maskedCrc(record.subarray(0, 8)), 8);
  data.copy(record, 12);
  record.writeUInt32LE(maskedCrc(data), 12 + data.length);
  return record;
}

function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

// Protobuf fields: the key (number << 3 | wire type), then the value.
function varintField(number: number, value: number): Buffer {
  return Buffer.concat([varint(number << 3), varint(value)]);
}

function bytesField(number: number, value: Uint8Array): Buffer {
  return Buffer.concat([varint((number << 3) | 2), varint(value.length), value]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  bytes.push(value);
  return Buffer.from(bytes);
}
