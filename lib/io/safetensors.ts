/**
 * The safetensors format: 8 bytes with the header's length, a JSON header { name: { dtype, shape, data_offsets } }, then the values,
 * little-endian, dense, without gaps. Read whole or tensor by tensor; written as a stream.
 * Format: https://github.com/huggingface/safetensors
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { MaeError, fileError } from '../errors';
import { writeFileAtomic } from './atomic';
import { float32FromBfloat16, float32FromFloat16 } from '../halfPrecision';

const arrayTypes = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
  U8: Uint8Array,
} as const;

/** The dtypes that are read and written, by the format's own names. */
export type SafetensorsDType = keyof typeof arrayTypes;

/** A tensor's values on the host; F16 and BF16 are their bits. */
export type TensorData = Float64Array | Float32Array | Uint16Array | BigInt64Array | Int32Array | Uint8Array;

/** A dense tensor on the host. */
export interface HostTensor {
  dtype: SafetensorsDType;
  shape: readonly number[];
  data: TensorData;
}

/** A tensor to write: its values now, or a function that fetches them when their turn comes (one tensor in memory at a time). */
export interface TensorSource {
  dtype: SafetensorsDType;
  shape: readonly number[];
  data: TensorData | (() => TensorData | Promise<TensorData>);
}

/** What a file says of a tensor. `dtype` may be one that cannot be read here; reading it says so. */
export interface TensorEntry {
  dtype: string;
  shape: readonly number[];
  /** Bytes [begin, end) after the header. */
  begin: number;
  end: number;
}

/** An open file whose header has been checked; tensors are read when asked for. Close it. */
export class SafetensorsFile implements Disposable {
  readonly path: string;
  /** `__metadata__` of the header. */
  readonly metadata: Readonly<Record<string, string>>;
  /** By name, in the order of their values in the file. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  private fd: number | undefined;
  private readonly dataStart: number;

  /** @throws MaeError MAE_FILE when it cannot be read, MAE_FORMAT when it is no safetensors file, is damaged or truncated. */
  static open(path: string): SafetensorsFile {
    return new SafetensorsFile(path);
  }

  private constructor(path: string) {
    this.path = path;
    try {
      this.fd = openSync(path, 'r');
    } catch (error) {
      throw fileError('open', path, error);
    }
    try {
      const header = this.readHeader();
      this.dataStart = header.dataStart;
      this.metadata = header.metadata;
      this.entries = header.entries;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The names of the tensors, in the order of their values in the file. */
  names(): string[] {
    return [...this.entries.keys()];
  }

  has(name: string): boolean {
    return this.entries.has(name);
  }

  /**
   * Reads one tensor into memory of its own.
   *
   * @throws MaeError MAE_FORMAT when the file has no such tensor or one of a dtype that is not a SafetensorsDType.
   */
  read(name: string): HostTensor {
    const entry = this.entries.get(name);
    if (!entry)
      throw this.damaged(`has no tensor ${name}; it holds ${this.entries.size}, among them ${this.names().slice(0, 3).join(', ')}`);
    if (!isKnown(entry.dtype)) {
      throw this.damaged(`tensor ${name} has dtype ${entry.dtype}; ${Object.keys(arrayTypes).join(', ')} can be read`);
    }
    const buffer = new ArrayBuffer(entry.end - entry.begin);
    this.readBytes(new Uint8Array(buffer), this.dataStart + entry.begin);
    return { dtype: entry.dtype, shape: entry.shape, data: new arrayTypes[entry.dtype](buffer) };
  }

  /** Reads one tensor as float32, converting F64, F16 and BF16. @throws MaeError MAE_FORMAT for the integer dtypes, and as `read`. */
  readFloat32(name: string): Float32Array {
    const tensor = this.read(name);
    const values = toFloat32(tensor);
    if (!values) throw this.damaged(`tensor ${name} holds ${tensor.dtype}, a floating-point dtype is needed`);
    return values;
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private readHeader() {
    const size = this.size();
    if (size < 8) throw this.damaged(`is no safetensors file: ${size} bytes, at least 8 are needed`);
    const prefix = new DataView(new ArrayBuffer(8));
    this.readBytes(new Uint8Array(prefix.buffer), 0);
    const length = prefix.getBigUint64(0, true);
    if (length > maxHeader && pyTorchFile.test(this.path)) throw this.damaged(`is a PyTorch pickle, ${convertPickle}`);
    if (length > maxHeader) throw this.damaged(`is no safetensors file, or damaged: its header would take ${length} bytes`);
    const dataStart = 8 + Number(length);
    if (dataStart > size) throw this.damaged(`is truncated: the header needs ${dataStart} bytes, the file has ${size}`);
    const text = Buffer.alloc(Number(length));
    this.readBytes(text, 8);
    const { metadata, entries } = this.parseHeader(text.toString('utf8'));
    this.checkLayout(entries, size - dataStart);
    return { dataStart, metadata, entries: new Map([...entries].sort((a, b) => a[1].begin - b[1].begin)) };
  }

  private parseHeader(text: string) {
    let header: unknown;
    try {
      header = JSON.parse(text);
    } catch (error) {
      throw this.damaged(`is no safetensors file, or damaged: its header is not JSON (${(error as Error).message})`);
    }
    if (!isRecord(header)) throw this.damaged('is damaged: its header is not a JSON object');
    const entries = new Map<string, TensorEntry>();
    let metadata: Record<string, string> = {};
    for (const [name, value] of Object.entries(header)) {
      if (name === '__metadata__') metadata = this.checkMetadata(value);
      else entries.set(name, this.checkEntry(name, value));
    }
    return { metadata, entries };
  }

  private checkMetadata(value: unknown): Record<string, string> {
    if (!isRecord(value) || Object.values(value).some((v) => typeof v !== 'string')) {
      throw this.damaged('is damaged: __metadata__ must map strings to strings');
    }
    return value as Record<string, string>;
  }

  private checkEntry(name: string, value: unknown): TensorEntry {
    const { dtype, shape, data_offsets: offsets } = (isRecord(value) ? value : {}) as Record<string, unknown>;
    const valid = typeof dtype === 'string' && isSizes(shape) && isSizes(offsets) && offsets.length === 2 && offsets[0] <= offsets[1];
    if (!valid) throw this.damaged(`is damaged: tensor ${name} has no valid dtype, shape and data_offsets: ${JSON.stringify(value)}`);
    const [begin, end] = offsets;
    const bytes = isKnown(dtype) ? elements(shape) * arrayTypes[dtype].BYTES_PER_ELEMENT : end - begin;
    if (end - begin !== bytes) {
      throw this.damaged(`is damaged: tensor ${name} is ${dtype} [${shape}], ${bytes} bytes, but ${end - begin} are stored`);
    }
    return { dtype, shape, begin, end };
  }

  // The values must fill the file exactly: a gap, an overlap or a rest means that the header belongs to other bytes.
  private checkLayout(entries: ReadonlyMap<string, TensorEntry>, dataSize: number): void {
    let at = 0;
    for (const [name, { begin, end }] of [...entries].sort((a, b) => a[1].begin - b[1].begin || a[1].end - b[1].end)) {
      if (end > dataSize) throw this.damaged(`is truncated: tensor ${name} ends at byte ${end} of the values, the file has ${dataSize}`);
      if (begin !== at) throw this.damaged(`is damaged: tensor ${name} begins at byte ${begin} of the values, byte ${at} is expected`);
      at = end;
    }
    if (at !== dataSize) throw this.damaged(`is damaged: ${dataSize - at} bytes follow the last tensor`);
  }

  private size(): number {
    const stat = fstatSync(this.openFd());
    if (stat.isDirectory()) throw fileError('read', this.path, { code: 'EISDIR' });
    return stat.size;
  }

  private readBytes(into: Uint8Array, position: number): void {
    const most = 1 << 30; // one read(2) takes less than 2 GiB
    for (let offset = 0; offset < into.byteLength;) {
      let count: number;
      try {
        count = readSync(this.openFd(), into, offset, Math.min(most, into.byteLength - offset), position + offset);
      } catch (error) {
        throw error instanceof MaeError ? error : fileError('read', this.path, error);
      }
      if (count === 0) throw this.damaged('is truncated: it became shorter while it was read');
      offset += count;
    }
  }

  private openFd(): number {
    if (this.fd === undefined) throw new MaeError('MAE_DISPOSED', `${this.path} is closed: open it again to read from it`);
    return this.fd;
  }

  private damaged(what: string): MaeError {
    return new MaeError('MAE_FORMAT', `${this.path} ${what}`);
  }
}

/** Reads a whole file. @throws as SafetensorsFile. */
export function readSafetensors(path: string): { tensors: Map<string, HostTensor>; metadata: Readonly<Record<string, string>> } {
  const file = SafetensorsFile.open(path);
  try {
    return { tensors: new Map(file.names().map((name) => [name, file.read(name)])), metadata: file.metadata };
  } finally {
    file.close();
  }
}

/**
 * Writes a file atomically, one tensor in memory at a time. The same input gives the same bytes: values lie by falling element size,
 * then by name, so all are aligned; the header is padded to 8 bytes.
 *
 * @param metadata  `__metadata__`; loaders of the PyTorch world want `format: 'pt'`
 * @throws MaeError MAE_ARGUMENT when values do not fit their dtype and shape or a name occurs twice, MAE_FILE when the system refuses
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<readonly [string, TensorSource]>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  if (pyTorchFile.test(path)) {
    throw new MaeError(
      'MAE_ARGUMENT',
      `writeSafetensors: ${path} has the name of a PyTorch pickle: call it .safetensors (safetensors.torch.load_file reads it)`,
    );
  }
  const sources = layOut(tensors);
  await writeFileAtomic(path, fileChunks(encodeHeader(sources, metadata), sources));
}

/** Floating-point values as float32 (F32 without a copy); undefined for integers. */
export function toFloat32({ dtype, data }: HostTensor): Float32Array | undefined {
  if (dtype === 'F32') return data as Float32Array;
  if (dtype === 'F64') return Float32Array.from(data as Float64Array);
  if (dtype === 'BF16') return float32FromBfloat16(data as Uint16Array);
  if (dtype === 'F16') return float32FromFloat16(data as Uint16Array);
  return undefined;
}

/** The number of elements of a shape. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

const pyTorchFile = /\.(pth|pt|bin|ckpt)$/i;
const convertPickle =
  'which Python alone can read. There, once: from safetensors.torch import save_file; ' +
  "save_file(torch.load('mae.pth', map_location='cpu', weights_only=False)['model'], 'mae.safetensors')";
const maxHeader = 100_000_000n; // the limit of the reference implementation

function layOut(tensors: Iterable<readonly [string, TensorSource]>): (readonly [string, TensorSource])[] {
  const sources = [...tensors];
  const seen = new Set<string>();
  for (const [name, { dtype, shape, data }] of sources) {
    if (seen.has(name) || name === '__metadata__') throw invalid(name, seen.has(name) ? 'the name occurs twice' : 'the name is reserved');
    if (!isKnown(dtype)) throw invalid(name, `dtype ${String(dtype)} cannot be written`);
    if (!isSizes(shape)) throw invalid(name, `the shape [${shape}] must be integers ≥ 0`);
    if (typeof data !== 'function') checkData(name, dtype, shape, data);
    seen.add(name);
  }
  const size = (dtype: SafetensorsDType) => arrayTypes[dtype].BYTES_PER_ELEMENT;
  return sources.sort(([a, x], [b, y]) => size(y.dtype) - size(x.dtype) || Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

function encodeHeader(sources: readonly (readonly [string, TensorSource])[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const sorted = Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1));
  const header: [string, unknown][] = sorted.length ? [['__metadata__', Object.fromEntries(sorted)]] : [];
  let at = 0;
  for (const [name, { dtype, shape }] of sources) {
    const begin = at;
    at += elements(shape) * arrayTypes[dtype].BYTES_PER_ELEMENT;
    header.push([name, { dtype, shape, data_offsets: [begin, at] }]);
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ');
  padded.writeBigUInt64LE(BigInt(padded.length - 8));
  json.copy(padded, 8);
  return padded;
}

async function* fileChunks(header: Uint8Array, sources: readonly (readonly [string, TensorSource])[]): AsyncGenerator<Uint8Array> {
  yield header;
  for (const [name, { dtype, shape, data }] of sources) {
    const values = typeof data === 'function' ? await data() : data;
    checkData(name, dtype, shape, values);
    yield new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  }
}

function checkData(name: string, dtype: SafetensorsDType, shape: readonly number[], data: TensorData): void {
  const wanted = arrayTypes[dtype].name;
  // By name: the array may come from another realm (a worker, a test sandbox), where instanceof fails.
  const got = ArrayBuffer.isView(data) ? Object.prototype.toString.call(data).slice(8, -1) : typeof data;
  if (got !== wanted) throw invalid(name, `${dtype} needs a ${wanted}, got ${got}`);
  if (data.length !== elements(shape)) throw invalid(name, `the shape [${shape}] needs ${elements(shape)} values, got ${data.length}`);
}

function invalid(name: string, what: string): MaeError {
  return new MaeError('MAE_ARGUMENT', `writeSafetensors: tensor ${name}: ${what}`);
}

function isKnown(dtype: string): dtype is SafetensorsDType {
  return Object.hasOwn(arrayTypes, dtype);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}
