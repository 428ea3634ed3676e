/** Runs one row of the op table alone on a device and in the reference, and says how far apart they are. */
import { openDevice, type OpenDevice } from '../../lib/graph/device';
import { Program, type ProgramOptions } from '../../lib/graph/program';
import { Store } from '../../lib/graph/store';
import { Tape, type Trace } from '../../lib/graph/tape';
import { bytesOf, dtypeBytes, size, type DType, type Parameter, type Tensor } from '../../lib/graph/tensor';
import { bfloat16FromFloat32, float32FromBfloat16 } from '../../lib/halfPrecision';
import type { Drawn, OpCase } from '../cases';
import { references, type Round, type Value, type Values } from '../reference';
import type { Operand } from './draw';

// --- on the device -------------------------------------------------------------------------------------------------------------------
/** The bytes of every result by name; 'guards' are intact or not. */
export interface DeviceResults {
  readonly outputs: ReadonlyMap<string, { dtype: DType; shape: readonly number[]; bytes: Uint8Array }>;
  /** Whether the memory around given outputs was left alone. */
  readonly guardsIntact: boolean;
  readonly trace: Trace;
}

export interface RunOptions extends ProgramOptions {
  /** Every result goes to memory of its own with guards around it, instead of into the arena. */
  guarded?: boolean;
  /** Operands of a second micro-batch, whose gradients are added. */
  then?: Drawn;
}

/** Elements in front of, between and behind the outputs that are given their memory. */
const GUARD_ELEMENTS = 128;
/** What memory holds before a run: as float32 or bf16 a NaN, so that a result shows what was never written. */
const POISON = 0xff;

function zeroParameter(name: string, shape: readonly number[]): Parameter {
  return { name, shape, init: () => undefined };
}

/** Memory of the store's gradients that an output is written to. */
function outputTensor(parameter: Parameter, dtype: DType, id: number): Tensor {
  return { id, shape: parameter.shape, dtype, place: { kind: 'gradient', parameter }, name: parameter.name };
}

export async function runOp(device: OpenDevice, test: OpCase, drawn: Drawn, options: RunOptions = {}): Promise<DeviceResults> {
  const { guarded, then, ...programOptions } = options;
  const info = { compute: test.compute, stream: test.stream, device: device.kind, training: test.training };
  const trial = traceOp(test, drawn, new Tape(info), {});
  const into = new Map(Object.entries(drawn.into ?? {}));
  if (guarded) for (const [name, { shape, dtype }] of Object.entries(trial)) if (!into.has(name)) into.set(name, { shape, dtype });

  const guard = zeroParameter('guard', [GUARD_ELEMENTS]);
  const outputs = new Map([...into].map(([name, { shape }]) => [name, zeroParameter(name, shape)]));
  const layout = [guard, ...[...outputs.values()].flatMap((parameter) => [parameter, zeroParameter('guard', [GUARD_ELEMENTS])])];
  const tape = new Tape(info);
  const given = Object.fromEntries(
    [...outputs].map(([name, parameter], i) => [name, outputTensor(parameter, into.get(name)!.dtype, -1 - i)]),
  );
  const y = traceOp(test, drawn, tape, given);
  const inArena = Object.entries(y).filter(([name]) => !into.has(name));
  for (const [, tensor] of inArena) tape.keep(tensor);
  const trace = tape.finish();

  const store = new Store(device.id, device.handle, test.compute, layout, []);
  store.prepareTraining();
  const memory = store.buffer('gradients');
  memory.fill(POISON);
  for (const [name, { before }] of into) if (before) memory.write(store.offsetOf(outputs.get(name)!) * 4, before);
  const program = new Program(trace, store, { poison: true, ...programOptions, microBatches: then ? 2 : 1 });
  try {
    const inputs = [drawn, ...(then ? [then] : [])].map(({ operands }) =>
      Object.fromEntries(Object.entries(operands).map(([name, { data }]) => [name, data])),
    );
    const stages = inputs.map((_, microBatch) => ({ segment: 'run', microBatch, accumulate: microBatch > 0 }));
    const { results } = await program.run(
      inputs,
      stages,
      inArena.map(([, tensor]) => tensor),
    );
    const arena = await results;
    const [flat] = await memory.read(0, store.count * 4);
    const all = new Uint8Array(flat);
    const found = new Map(
      inArena.map(([name, tensor], i) => [name, { dtype: tensor.dtype, shape: tensor.shape, bytes: new Uint8Array(arena[i]) }]),
    );
    for (const [name, parameter] of outputs) {
      const { dtype, shape } = into.get(name)!;
      const begin = store.offsetOf(parameter) * 4;
      const end = begin + bytesOf({ shape, dtype });
      found.set(name, { dtype, shape, bytes: all.slice(begin, end) });
      all.fill(POISON, begin, end);
    }
    return { outputs: found, guardsIntact: all.every((byte) => byte === POISON), trace };
  } finally {
    program.dispose();
    store.dispose();
  }
}

function traceOp(test: OpCase, { operands }: Drawn, tape: Tape, into: Record<string, Tensor>): Record<string, Tensor> {
  const x = Object.fromEntries(Object.entries(operands).map(([name, { shape, dtype }]) => [name, tape.input(name, shape, dtype)]));
  return tape.call(test.op, x, test.attributes, into);
}

export function valuesOf({ dtype, bytes }: { dtype: DType; bytes: Uint8Array }): Float64Array {
  const aligned = bytes.slice().buffer;
  if (dtype === 'f32') return Float64Array.from(new Float32Array(aligned));
  if (dtype === 'bf16') return Float64Array.from(float32FromBfloat16(new Uint16Array(aligned)));
  return dtype === 'i32' ? Float64Array.from(new Int32Array(aligned)) : Float64Array.from(bytes);
}

// --- in the reference ------------------------------------------------------------------------------------------------------------------
const exactly: Round = (values) => values;
export const toBf16: Round = (values) => Float64Array.from(float32FromBfloat16(bfloat16FromFloat32(Float32Array.from(values))));
const toDType: Record<DType, Round> = {
  f32: (values) => Float64Array.from(Float32Array.from(values)),
  bf16: toBf16,
  u8: exactly,
  i32: exactly,
};

/** The control buffer's words as numbers: five floats, then two unsigned integers (lib/graph/control.ts). */
function controlValues(data: Uint8Array): Float64Array {
  const view = new DataView(data.buffer, data.byteOffset);
  return Float64Array.from({ length: data.length / 4 }, (_, i) => (i < 5 ? view.getFloat32(4 * i, true) : view.getUint32(4 * i, true)));
}

function referenceValue(name: string, { shape, dtype, data }: Operand): Value {
  if (name === 'control') return { shape, values: controlValues(data as Uint8Array) };
  return { shape, values: dtype === 'bf16' ? Float64Array.from(float32FromBfloat16(data as Uint16Array)) : Float64Array.from(data) };
}

/** Operands as the reference takes them; state that a row updates is an operand like any other. */
export function referenceOperands({ operands, into = {} }: Drawn): Values {
  const state = Object.entries(into).flatMap(([name, { before, ...rest }]) => (before ? [[name, { ...rest, data: before }] as const] : []));
  return Object.fromEntries([...Object.entries(operands), ...state].map(([name, operand]) => [name, referenceValue(name, operand)]));
}

export interface ReferenceResults {
  /** In float64 throughout. */
  readonly exact: Record<string, Value>;
  /** Intermediates that a program keeps in its compute dtype rounded to it; a result still has to be rounded to its own dtype. */
  readonly naive: Record<string, Value>;
}

export function runReference(test: OpCase, drawn: Drawn): ReferenceResults {
  const operands = referenceOperands(drawn);
  const exact = references[test.op](operands, test.attributes, exactly);
  return { exact, naive: test.compute === 'bf16' ? references[test.op](operands, test.attributes, toBf16) : exact };
}

// --- comparison --------------------------------------------------------------------------------------------------------------------------
/** Half a unit in the last place of float32, relative. */
const FLOAT32_ROUNDING = 2 ** -24;

/**
 * Relative error that fp32 arithmetic is allowed: roundings of a sum of n terms are independent, so the error of the sum grows with √n
 * (it would grow with n if they had a direction); 4 stands for the handful of single operations around the sum.
 */
export function float32Tolerance(terms: number): number {
  return FLOAT32_ROUNDING * (4 + Math.sqrt(terms));
}

// Looked up once: in jest's sandbox every mention of a global is a slow look-up.
const { is: isSame } = Object;
const { isFinite } = Number;
const { abs } = Math;

/** ‖a − b‖₂ and max |a − b| over the places where b is finite, with a = 0 where it is absent. */
function distance(a: Float64Array | undefined, b: Float64Array): { norm: number; worst: number } {
  let [square, worst] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    if (!isFinite(b[i])) continue;
    const difference = abs((a ? a[i] : 0) - b[i]);
    square += difference * difference;
    if (!(difference <= worst)) worst = difference;
  }
  return { norm: Math.sqrt(square), worst };
}

/**
 * What is wrong with a result, or null. In norm and in the worst element, relative to the result's, the error must be at most twice the
 * naive computation's (Dao et al., flash-attention's tests: 0 in fp32) plus fp32's tolerance. Where the exact result is not finite, so must
 * be the device's.
 */
export function compare(
  got: { dtype: DType; shape: readonly number[]; bytes: Uint8Array },
  exact: Value | undefined,
  naive: Value | undefined,
  tolerance: number,
  bitForBit: boolean,
): string | null {
  if (!exact || !naive) return 'the reference has no such result';
  const values = valuesOf(got);
  if (values.length !== exact.values.length || size(got.shape) * dtypeBytes[got.dtype] !== got.bytes.length) {
    return `${values.length} values where the reference has ${exact.values.length}`;
  }
  const rounded = toDType[got.dtype](naive.values);
  if (bitForBit || got.dtype === 'i32') {
    const different = values.findIndex((v, i) => !isSame(v + 0, rounded[i] + 0));
    return different < 0 ? null : `value ${different} is ${values[different]}, must be exactly ${rounded[different]}`;
  }
  const special = exact.values.findIndex((v, i) => !isFinite(v) && !isSame(v, values[i]));
  if (special >= 0) return `value ${special} is ${values[special]}, must be ${exact.values[special]}`;
  const [error, baseline, result] = [values, rounded, undefined].map((a) => distance(a, exact.values));
  const twice = naive === exact ? 0 : 2;
  const limits: [string, number, number][] = [
    ['norm of the error', error.norm, twice * baseline.norm + tolerance * result.norm],
    ['worst error', error.worst, twice * baseline.worst + tolerance * result.worst],
  ];
  for (const [what, is, limit] of limits) {
    if (!(is <= limit)) return `${what} is ${is.toExponential(2)}, at most ${limit.toExponential(2)} (${(is / limit).toFixed(2)} times)`;
  }
  return null;
}

// --- devices ---------------------------------------------------------------------------------------------------------------------------
/** Devices that the op cases run on: MAE_DEVICE, else the CPU and, where there is one, a GPU. */
export function testDevices(): { id: string; skip?: string }[] {
  return (process.env.MAE_DEVICE ? [process.env.MAE_DEVICE] : ['cpu', 'cuda']).map((id) => {
    try {
      openDevice(id);
      return { id };
    } catch (error) {
      if (process.env.MAE_DEVICE && !id.startsWith('cuda')) throw error;
      return { id, skip: (error as Error).message };
    }
  });
}
