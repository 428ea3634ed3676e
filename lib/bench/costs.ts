/** What a traced program costs: FLOPs and bytes from the op table, memory from the plan. Needs no device: any size may be asked about. */
import { dtypeOf, type Precision } from '../graph/device';
import { layoutOf } from '../graph/layout';
import { plan } from '../graph/plan';
import type { Store } from '../graph/store';
import { Tape, type Trace } from '../graph/tape';
import { bytesOf, type Tensor } from '../graph/tensor';
import { CONTROL_BYTES } from '../graph/control';
import { type MaeConfig, numPatches, numVisible } from '../nn/config';
import { decode, encode, type Mae, makeMae, predict, randomMask, reconstructionLoss } from '../nn/mae';
import { traceTrainStep } from '../nn/trainStep';
import { resolveAdamW } from '../optim/adamw';

/** What tracing asks of a store. */
export type StoreSketch = Pick<Store, 'compute' | 'deviceKind' | 'count' | 'parameters'>;

/** Of one picture. */
export interface Costs {
  /** 2 per multiply-add of the matrix products that are really executed. */
  readonly flops: number;
  /** Every operand and result of every op, moved once. */
  readonly bytes: number;
}

export function costsOf(trace: Trace, batchSize: number): Costs {
  const sum = (what: 'flops' | 'bytes'): number => trace.ops.reduce((total, op) => total + op[what], 0) / batchSize;
  return { flops: sum('flops'), bytes: sum('bytes') };
}

/** A training step of `batchSize` pictures, traced without a device. */
export function sketchStep(config: MaeConfig, batchSize: number, precision: Precision, device: 'cpu' | 'cuda'): Trace {
  return traceSketch(makeMae(config, 0), batchSize, precision, device);
}

/** Device memory that training takes, in bytes; the kernels' workspace, which only the device knows, is not in it. */
export interface StepMemory {
  /** Weights, gradients and moments; programs of one model share them. */
  readonly store: number;
  /** Activations and pictures. */
  readonly program: number;
}

export function memoryOfStep(config: MaeConfig, batchSize: number, precision: Precision, device: 'cpu' | 'cuda'): StepMemory {
  const mae = makeMae(config, 0);
  const trace = traceSketch(mae, batchSize, precision, device);
  const layout = layoutOf(mae.parameters);
  const inputs = trace.inputs.reduce((sum, input) => sum + bytesOf(input), 0);
  return { store: layout.count * (precision === 'bf16' ? 18 : 16), program: plan(trace, true, layout).arenaBytes + 2 * inputs };
}

/** The step's forward pass alone, nothing kept for a backward pass; only removed patches are predicted, all where none is removed. */
export function traceForward(mae: Mae, store: StoreSketch, batchSize: number, seed: number): { trace: Trace; loss: Tensor | undefined } {
  const { config } = mae;
  const t = new Tape({ compute: store.compute, device: store.deviceKind, training: false });
  const [height, width] = config.imageSize;
  const control = t.input('control', [CONTROL_BYTES / 4], 'f32');
  const indices = t.input('indices', [batchSize], 'i32');
  const images = t.input('images', [batchSize, height, width, config.inChans], 'u8');
  const masks = numVisible(config) < numPatches(config);
  const mask = randomMask(t, mae, control, indices, seed);
  const latent = encode(t, mae, images, mask);
  const pred = t.scope('decoder', () => predict(t, mae, decode(t, mae, latent, mask), mask, masks ? 'removed' : 'all'));
  const loss = masks ? t.keep(reconstructionLoss(t, mae, pred, images, control, mask, 'removed')) : undefined;
  return { trace: t.finish(), loss };
}

function sketchStore(mae: Mae, precision: Precision, deviceKind: 'cpu' | 'cuda'): StoreSketch {
  return {
    compute: dtypeOf(precision),
    deviceKind,
    count: layoutOf(mae.parameters).count,
    parameters: mae.parameters,
  };
}

function traceSketch(mae: Mae, batchSize: number, precision: Precision, device: 'cpu' | 'cuda'): Trace {
  return traceTrainStep({ mae, store: sketchStore(mae, precision, device), seed: 0 }, resolveAdamW(), { batchSize }).trace;
}
