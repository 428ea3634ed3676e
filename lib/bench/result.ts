/** The schema of a benchmark's result.json. Times are seconds, rates are per second, costs are of one picture unless said otherwise. */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { fileError, MaeError } from '../errors';
import type { PresetName } from '../nn/presets';
import { presets } from '../nn/presets';
import { ratioOf, spreadOf } from './stats';

export const SCHEMA = 'node-mae-bench/1';

const count = z.number().int().nonnegative();
const positive = z.number().positive();

const spread = z.strictObject({ median: z.number(), low: z.number(), high: z.number(), min: z.number(), runs: count });
/** A timing keeps its samples, so that every figure made of it can be made again. */
const timing = z.strictObject({ ...spread.shape, samples: z.array(positive) });
const costs = z.strictObject({ flops: positive, bytes: positive });
const preset = z.enum(Object.keys(presets) as PresetName[]);
const precision = z.enum(['fp32', 'bf16']);

const workload = { preset, precision, batchSize: count };

/** One of the four models of the paper's Table 1(c) and Table 2. */
const variant = z.strictObject({
  maskTokens: z.boolean(),
  decoderDepth: count,
  parameters: count,
  memoryBytes: positive,
  /** lib/nn/flops.ts: a training step of one picture as the reference counts it. */
  referenceFlops: positive,
  forwardCosts: costs,
  stepCosts: costs,
  forward: timing,
  /** Forward and backward. */
  backward: timing,
  /** Forward, backward and update. */
  step: timing,
  picturesPerSecond: positive,
  /** Reference FLOPs per second over the peak of the precision; absent where the peak is unknown. */
  mfu: positive.optional(),
  /** Over the encoder with [M] of the deepest decoder: FLOPs as the reference counts, FLOPs executed, time round by round. */
  referenceRatio: positive,
  executedRatio: positive,
  speedup: spread,
  /** Share of the executed FLOPs saved that was also saved as time (masking.ts: arrivedShare). Absent for the model compared with. */
  arrived: z.number().optional(),
  paperSpeedup: positive.optional(),
});

const masking = z.strictObject({
  ...workload,
  /** False: the models did not fit into memory together and were measured one after the other. */
  alternated: z.boolean(),
  variants: z.array(variant),
});

const sweepPoint = z.strictObject({
  value: z.number(),
  batchSize: count,
  referenceFlops: positive,
  memoryBytes: positive,
  forwardCosts: costs,
  forward: timing,
  /** Absent at mask ratio 0, where there is nothing to learn from. */
  stepCosts: costs.optional(),
  step: timing.optional(),
});

const sweep = z.strictObject({
  ...workload,
  over: z.enum(['maskRatio', 'decoderDepth', 'decoderWidth', 'batchSize']),
  alternated: z.boolean(),
  points: z.array(sweepPoint),
});

const peer = z.strictObject({
  /** "PyTorch 2.3.0, compiled". */
  name: z.string(),
  /** What its best form is made of on this machine. */
  form: z.string(),
  step: timing,
  /** Its time over ours, round by round: above 1, node-mae is faster. */
  ratio: spread,
  memoryBytes: positive,
  /** Relative difference between its loss and ours on the same weights, pictures and masks. */
  lossDifference: z.number(),
});

const comparison = z.strictObject({
  ...workload,
  ours: timing,
  memoryBytes: positive,
  peers: z.array(peer),
});

const op = z.strictObject({
  op: z.string(),
  part: z.enum(['encoder', 'decoder', 'masking and loss', 'optimizer']),
  pass: z.enum(['forward', 'backward', 'update']),
  /** "800 x 2304 x 768": rows · outputs · inputs, or batch · tokens · heads · head. */
  shape: z.string(),
  /** In one step. */
  calls: count,
  /** Of the whole step's batch: all calls together. */
  seconds: positive,
  flops: z.number(),
  bytes: z.number(),
});

const profile = z.strictObject({
  ...workload,
  /** The step replayed as in training, to compare with the sum of the ops. */
  step: timing,
  ops: z.array(op),
});

/** Matrix products of a step, each alone. */
const products = z.strictObject({
  ...workload,
  /** FLOP/s that the precision's instructions reach; absent where unknown. */
  peak: positive.optional(),
  products: z.array(
    z.strictObject({
      pass: z.enum(['forward', 'input gradient', 'weight gradient']),
      /** Of the layer: [rows, k] → [rows, n]. */
      rows: count,
      n: count,
      k: count,
      /** The best of several. */
      seconds: positive,
    }),
  ),
});

const dataPath = z.strictObject({ name: z.string(), picturesPerSecond: positive });
const data = z.strictObject({
  pictures: z.string(),
  imageSize: count,
  workers: count,
  paths: z.array(dataPath),
  /** What training takes. */
  steps: z.array(z.strictObject({ ...workload, picturesPerSecond: positive })),
});

const scalingPoint = z.strictObject({
  devices: count,
  batchPerDevice: count,
  stepSeconds: positive,
  /** Of the step: all-reduce that the backward pass does not hide. */
  exposedSeconds: z.number(),
  picturesPerSecond: positive,
  /** 800 epochs of ImageNet-1K. */
  hours: positive,
});
const scaling = z.strictObject({
  paper: z.array(z.strictObject({ preset, maskTokens: z.boolean(), decoderDepth: count, hours: positive, modelHours: positive })),
  paperEfficiency: positive,
  curves: z.array(
    z.strictObject({
      preset,
      device: z.string(),
      /** Share of its roofline that the device is taken to reach. */
      efficiency: positive,
      /** Where the efficiency is from. */
      source: z.string(),
      points: z.array(scalingPoint),
    }),
  ),
});

const resultSchema = z.strictObject({
  schema: z.literal(SCHEMA),
  started: z.string(),
  seconds: positive,
  mode: z.enum(['quick', 'full']),
  machine: z.strictObject({
    device: z.string(),
    processor: z.string(),
    cores: count,
    memoryBytes: positive,
    system: z.string(),
    node: z.string(),
    nodeMae: z.string(),
    commit: z.string().optional(),
    /** One-minute load average before the run. */
    loadBefore: z.number(),
  }),
  ceilings: z.strictObject({
    arithmetic: z.strictObject({ fp32: positive, bf16: positive, source: z.enum(['measured', 'data sheet']) }).optional(),
    matmul: z.strictObject({ size: count, precision, flopsPerSecond: positive }),
    copyBytesPerSecond: positive,
  }),
  masking: z.array(masking),
  sweeps: z.array(sweep),
  comparisons: z.array(comparison),
  profiles: z.array(profile),
  products: z.array(products).default([]), // results of before it was measured have none
  data: data.optional(),
  scaling: scaling.optional(),
  /** What was left out and why. */
  notes: z.array(z.string()),
});

export type BenchResult = z.output<typeof resultSchema>;
export type Timing = z.output<typeof timing>;
export type Masking = BenchResult['masking'][number];
export type MaskingVariant = Masking['variants'][number];
export type Sweep = BenchResult['sweeps'][number];
export type SweepPoint = Sweep['points'][number];
export type Comparison = BenchResult['comparisons'][number];
export type Profile = BenchResult['profiles'][number];
export type ProfiledOp = Profile['ops'][number];
export type Products = BenchResult['products'][number];
export type DataRates = NonNullable<BenchResult['data']>;
export type Scaling = NonNullable<BenchResult['scaling']>;

export function timingOf(samples: readonly number[]): Timing {
  return { ...spreadOf(samples), samples: [...samples] };
}

/** Their quotient round by round. */
export function speedupOf(slow: Timing, fast: Timing): ReturnType<typeof ratioOf> {
  return ratioOf(slow.samples, fast.samples);
}

/** @throws MaeError MAE_FILE when it cannot be read, MAE_FORMAT when it is no result of this version */
export function readResult(path: string): BenchResult {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw fileError('read the benchmark result', path, error);
  }
  const refuse = (why: string): never => {
    throw new MaeError('MAE_FORMAT', `${path} is not a result of \`mae bench\` (${SCHEMA}): ${why}`);
  };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return refuse((error as Error).message);
  }
  const parsed = resultSchema.safeParse(json);
  return parsed.success ? parsed.data : refuse(z.prettifyError(parsed.error));
}
