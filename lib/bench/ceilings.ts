/** The machine's own limits, measured in the same run: arithmetic on registers, memory bandwidth, and a large matrix product. */
import { type OpenDevice, type Precision } from '../graph/device';
import { Store } from '../graph/store';
import { Tape, type Launch, type Trace } from '../graph/tape';
import type { Constant, Tensor } from '../graph/tensor';
import { ParameterFactory, xavierUniform } from '../nn/init';
import { bestSeconds, productSeconds, type Runs } from './alone';
import type { BenchResult } from './result';

export type Ceilings = BenchResult['ceilings'];

/** How often each limit is measured. The best time counts: a ceiling is what the machine can do when nothing disturbs it. */
const RUNS: Runs = { most: 20, least: 3, seconds: 1.5 };
/** 4 · 10⁹ FLOPs: tens of milliseconds on two cores, in pieces enough for any number of them. */
const FMA = { flops: 4e9, chunks: 512 };
/** Side of the product: large enough that it is bound by arithmetic on the device. */
const MATMUL_SIZE = { cpu: 2048, cuda: 8192 };
/** float32 values that are copied, 256 MiB: more than any cache holds. */
const COPY_VALUES = 2 ** 26;

/** Dense FLOP/s of bf16 tensor cores with float32 accumulation, and of plain float32, from NVIDIA's data sheets. First match wins. */
const DATA_SHEETS: readonly (readonly [RegExp, { readonly bf16: number; readonly fp32: number }])[] = [
  [/H100 PCIe/i, { bf16: 756e12, fp32: 51.2e12 }],
  [/H100 NVL/i, { bf16: 835e12, fp32: 60e12 }],
  [/H100|H200|GH200/i, { bf16: 989.4e12, fp32: 66.9e12 }],
  [/B200/i, { bf16: 2250e12, fp32: 75e12 }],
  [/A100/i, { bf16: 312e12, fp32: 19.5e12 }],
  [/L40S/i, { bf16: 362e12, fp32: 91.6e12 }],
  [/\bL4\b/i, { bf16: 121e12, fp32: 30.3e12 }],
  [/RTX 5090/i, { bf16: 209.5e12, fp32: 104.8e12 }],
  [/RTX 4090/i, { bf16: 165.2e12, fp32: 82.6e12 }],
  [/A6000/i, { bf16: 154.8e12, fp32: 38.7e12 }],
  [/RTX 3090/i, { bf16: 71e12, fp32: 35.6e12 }],
];

export function measureCeilings(device: OpenDevice, precision: Precision): Ceilings {
  return {
    arithmetic: device.kind === 'cpu' ? processorPeak(device) : dataSheetPeak(device.handle.name),
    matmul: { size: MATMUL_SIZE[device.kind], precision, flopsPerSecond: matmulRate(device, precision) },
    copyBytesPerSecond: copyRate(device),
  };
}

/** FLOP/s that the precision's instructions could reach, for MFU and the kernels' shares; undefined for a GPU that is not in the table. */
export function peakOf(ceilings: Ceilings, precision: Precision): number | undefined {
  return ceilings.arithmetic?.[precision];
}

function dataSheetPeak(name: string): Ceilings['arithmetic'] {
  const found = DATA_SHEETS.find(([pattern]) => pattern.test(name));
  return found && { ...found[1], source: 'data sheet' };
}

function processorPeak(device: OpenDevice): Ceilings['arithmetic'] {
  return { fp32: multiplyAddRate(device, 'fp32', RUNS), bf16: multiplyAddRate(device, 'bf16', RUNS), source: 'measured' };
}

/** FLOP/s of multiply-adds on a CPU's registers. The kernel peak_fma is no op of a model, so its launch is written here as the tape would. */
export function multiplyAddRate(device: OpenDevice, precision: Precision, runs: Runs): number {
  const factor: Constant = { name: 'factor', shape: [1], values: Float32Array.of(0.5) };
  const store = new Store(device.id, device.handle, 'f32', new ParameterFactory(0).parameters, [factor]);
  const tensor = (id: number, name: string, shape: readonly number[], place: Tensor['place']): Tensor => ({
    id,
    name,
    shape,
    dtype: 'f32',
    place,
  });
  const launch: Launch = {
    kernel: 'peak_fma',
    operands: {
      x: tensor(0, 'factor', [1], { kind: 'constant', constant: factor }),
      sums: tensor(1, 'sums', [FMA.chunks], { kind: 'arena' }),
    },
    accumulate: {},
    dims: { chunks: FMA.chunks, flops: FMA.flops, bf16: precision === 'bf16' ? 1 : 0 },
    reals: {},
    label: 'peak_fma',
    inPlace: [],
    prunable: [],
  };
  const info = { compute: 'f32', device: 'cpu', training: false } as const;
  const trace: Trace = { info, launches: [launch], ops: [], segments: { run: [0, 1] }, inputs: [], kept: [] };
  return FMA.flops / bestSeconds(trace, store, {}, runs);
}

function matmulRate(device: OpenDevice, precision: Precision): number {
  const n = MATMUL_SIZE[device.kind];
  return (2 * n ** 3) / productSeconds({ pass: 'forward', rows: n, n, k: n }, device, precision, RUNS);
}

function copyRate(device: OpenDevice): number {
  const make = new ParameterFactory(0);
  const source = make.make('source', [COPY_VALUES], xavierUniform);
  const store = new Store(device.id, device.handle, 'f32', make.parameters, []);
  const t = new Tape({ compute: 'f32', device: device.kind, training: false });
  t.call('cast', { x: t.parameter(source) }, { f32: true });
  return (2 * 4 * COPY_VALUES) / bestSeconds(t.finish(), store, {}, RUNS); // read and written
}
