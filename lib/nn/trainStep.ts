/** One pre-training step as a program: forward, backward and update in one native call. */
import { MaeError } from '../errors';
import { CONTROL_BYTES, encodeControl } from '../graph/control';
import { dtypeOf, type Precision } from '../graph/device';
import { Program, type Inputs, type ProgramOptions, type Stage } from '../graph/program';
import type { Store } from '../graph/store';
import { Tape, type Trace } from '../graph/tape';
import type { Tensor } from '../graph/tensor';
import { checkNames } from '../issues';
import { type AdamW, type AdamWOptions, resolveAdamW, segments } from '../optim/adamw';
import { checkEpoch, checkImages, checkIndices, checkNoise, type ImageBatch } from './inputs';
import { decode, encode, type Mae, predict, randomMask, reconstructionLoss } from './mae';
import { numPatches, numVisible } from './config';

export interface TrainStepOptions {
  /** Pictures of one micro-batch. */
  batchSize: number;
  /** Micro-batches of a step: the effective batch is batchSize · accumIter. Default 1. */
  accumIter?: number;
  optimizer?: AdamWOptions;
  /** Clip gradients to this global norm. Default: no clipping, as the paper. */
  clipGrad?: number;
  /**
   * Keep of every Transformer block its input alone and run it again in the backward pass: a fraction of the memory for about 2/9 more
   * arithmetic, and the same bits. Default false.
   */
  recompute?: boolean;
  /** The program takes the mask noise as an input instead of drawing it (tests, comparisons). Default false. */
  givenNoise?: boolean;
  program?: Omit<ProgramOptions, 'microBatches'>;
}

/** The pictures of a whole step, batchSize · accumIter of them, in the order of the micro-batches. */
export interface StepBatch extends ImageBatch {
  /** Place of each picture in its data set: what its mask is drawn from. Default: running numbers. */
  indices?: Int32Array;
  epoch?: number;
  /** [pictures, L], for a step made with givenNoise. */
  noise?: Float32Array;
}

export interface StepResult {
  /** Mean over the step's pictures; resolves when the step is done. */
  readonly loss: Promise<number>;
  /** Global norm of the accumulated mean gradient, before clipping. */
  readonly gradNorm: Promise<number>;
  /** False: loss or gradient norm was not finite, and weights and moments were left as they were. */
  readonly finite: Promise<boolean>;
}

/** What is traced: a MaskedAutoencoder, or as much of one as has no memory. */
export interface StepModel {
  readonly mae: Mae;
  readonly store: Pick<Store, 'compute' | 'deviceKind' | 'count' | 'parameters'>;
  readonly seed: number;
  /** Default 'u8'. */
  readonly imageDType?: 'u8' | 'f32';
  /** Default 'fp32'. */
  readonly residualPrecision?: Precision;
}

interface TracedStep {
  readonly trace: Trace;
  readonly report: Tensor;
}

/** Traces the two segments: `backward` (writes or adds gradients) and `update`. */
export function traceTrainStep(
  { mae, store, seed, imageDType = 'u8', residualPrecision = 'fp32' }: StepModel,
  adamw: AdamW,
  { batchSize, recompute, givenNoise }: Pick<TrainStepOptions, 'batchSize' | 'recompute' | 'givenNoise'>,
): TracedStep {
  const { config } = mae;
  const stream = dtypeOf(residualPrecision);
  const t = new Tape({ compute: store.compute, stream, device: store.deviceKind, training: true, recompute });
  const [height, width] = config.imageSize;
  const control = t.input('control', [CONTROL_BYTES / 4], 'f32');
  const indices = t.input('indices', [batchSize], 'i32');
  const images = t.input('images', [batchSize, height, width, config.inChans], imageDType);
  const table = t.input('segments', [store.parameters.length, 4], 'i32');
  const noise = givenNoise ? t.input('noise', [batchSize, numPatches(config)], 'f32') : undefined;

  const loss = t.segment('backward', () => {
    const mask = randomMask(t, mae, control, indices, seed, noise);
    const latent = encode(t, mae, images, mask);
    const stream = t.scope('decoder', () => decode(t, mae, latent, mask));
    const pred = t.scope('decoder', () => predict(t, mae, stream, mask, 'removed'));
    const value = t.keep(reconstructionLoss(t, mae, pred, images, control, mask, 'removed'));
    t.backward(value);
    return value;
  });
  const report = t.segment('update', () => {
    const flat = (buffer: 'parameters' | 'gradients' | 'moment1' | 'moment2'): Tensor => t.store(buffer, [store.count], 'f32');
    const grads = flat('gradients');
    const result = t.keep(t.call('grad_norm', { grads, loss, control }).report);
    const paramsLow = store.compute === 'bf16' ? t.store('low', [store.count], 'bf16') : null;
    t.call(
      'adamw',
      { control, report: result, segments: table, grads },
      { beta1: adamw.betas[0], beta2: adamw.betas[1], eps: adamw.eps },
      { params: flat('parameters'), params_low: paramsLow, m: flat('moment1'), v: flat('moment2') },
    );
    return result;
  });
  return { trace: t.finish(), report };
}

export class TrainStep {
  readonly program: Program;
  readonly batchSize: number;
  readonly accumIter: number;
  readonly optimizer: AdamW;
  private readonly report: Tensor;
  private readonly stages: readonly Stage[];
  /** An input of every run, not a buffer of the store: steps over one model may have different weight decay. */
  private readonly segmentTable: Int32Array;
  private readonly clipGrad: number;
  private readonly givenNoise: boolean;
  private readonly mae: Mae;
  private readonly store: Store;
  private readonly imageDType: 'u8' | 'f32';
  private readonly onDispose: () => void;
  private pictures = 0;
  /** On CUDA the first run waits for the matrix products to be chosen (lib/graph/gemmChoices.ts): those that write gradients and those that add. */
  private readonly tunes: boolean;
  private tuned: Promise<void> | undefined;

  /** @internal Made by MaskedAutoencoder.trainStep. */
  constructor(model: StepModel & { store: Store; imageDType: 'u8' | 'f32' }, options: TrainStepOptions, onDispose: () => void) {
    checkNames<TrainStepOptions>('trainStep', options, {
      batchSize: true,
      accumIter: true,
      optimizer: true,
      clipGrad: true,
      recompute: true,
      givenNoise: true,
      program: true,
    });
    const { mae, store, imageDType } = model;
    this.batchSize = positive('batchSize', options.batchSize);
    this.accumIter = positive('accumIter', options.accumIter ?? 1);
    this.optimizer = resolveAdamW(options.optimizer);
    this.clipGrad = options.clipGrad ?? 0;
    if (!(Number.isFinite(this.clipGrad) && this.clipGrad >= 0))
      throw new MaeError('MAE_ARGUMENT', `trainStep: clipGrad must be a number of at least 0, got ${this.clipGrad}`);
    this.givenNoise = options.givenNoise ?? false;
    this.mae = mae;
    this.store = store;
    this.imageDType = imageDType;
    this.onDispose = onDispose;
    this.tunes = store.deviceKind === 'cuda';
    const { config } = mae;
    if (numVisible(config) === numPatches(config)) {
      throw new MaeError(
        'MAE_ARGUMENT',
        `trainStep: maskRatio ${config.maskRatio} masks none of the ${numPatches(config)} patches, so there is nothing to predict: raise it`,
      );
    }
    store.prepareTraining();
    this.segmentTable = store.segmentTable(segments(store.parameters, this.optimizer.weightDecay));
    const { trace, report } = traceTrainStep(model, this.optimizer, options);
    this.report = report;
    this.program = new Program(trace, store, { lendGradients: this.accumIter === 1, ...options.program, microBatches: this.accumIter });
    const backward = Array.from({ length: this.accumIter }, (_, i) => ({ segment: 'backward', microBatch: i, accumulate: i > 0 }));
    this.stages = [...backward, { segment: 'update' }];
  }

  /**
   * Optimizer steps taken so far over this model, by all its training steps: they share the moments, so they share t of the bias corrections.
   * Saved and restored with the moments.
   */
  get optimizerStep(): number {
    return this.store.optimizerStep;
  }

  /** Pictures of one step. */
  get effectiveBatch(): number {
    return this.batchSize * this.accumIter;
  }

  /**
   * Takes the pictures and enqueues the step; resolves when they are taken, not when it is done.
   * @throws MaeError MAE_SHAPE when the number or size of the pictures is not the step's, MAE_ARGUMENT for what is of another type
   */
  async run(batch: StepBatch, options: { lr: number }): Promise<StepResult> {
    checkNames('trainStep.run', options ?? {}, { lr: true });
    const inputs = this.inputs(batch, options?.lr);
    if (this.tunes) await (this.tuned ??= this.program.tune(this.stages.slice(0, Math.min(this.accumIter, 2))));
    const { results } = await this.program.run(inputs, this.stages, [this.report]);
    const report = results.then(([bytes]) => new Float32Array(bytes));
    const gradNorm = report.then((r) => r[1]);
    const finite = report.then((r) => r[3] === 1);
    // A failed step fails all three; whoever awaits the loss has seen it, and the others must not end the process as unhandled.
    for (const other of [gradNorm, finite]) other.catch(() => undefined);
    return { loss: report.then((r) => r[0]), gradNorm, finite };
  }

  /** Seconds of every launch of a step, run op by op (it trains). Blocks the thread. */
  profile(batch: StepBatch, { lr }: { lr: number }): { label: string; kernel: string; seconds: number }[] {
    const seconds = this.program.profile(this.inputs(batch, lr), this.stages);
    const { launches, segments: ranges } = this.program.trace;
    const order = this.stages.flatMap(({ segment }) => launches.slice(...ranges[segment]));
    return order.map(({ label, kernel }, i) => ({ label, kernel, seconds: seconds[i] }));
  }

  dispose(): void {
    this.program.dispose();
    this.onDispose();
  }

  private inputs(batch: StepBatch, lr: number): Inputs[] {
    const { config } = this.mae;
    checkImages('trainStep.run', batch?.images, this.imageDType, this.effectiveBatch, config);
    if (!(Number.isFinite(lr) && lr >= 0))
      throw new MaeError('MAE_ARGUMENT', `trainStep.run: lr must be a finite number from 0, got ${lr}`);
    const { epoch = 0 } = batch; // the masks are drawn from it
    checkEpoch('trainStep.run', epoch);
    const indices = batch.indices ?? Int32Array.from({ length: this.effectiveBatch }, (_, i) => this.pictures + i);
    checkIndices('trainStep.run', indices, this.effectiveBatch);
    if (this.givenNoise) checkNoise('trainStep.run', batch.noise, this.effectiveBatch, numPatches(config));
    else if (batch.noise)
      throw new MaeError('MAE_ARGUMENT', 'trainStep.run: this step draws its own masks; make it with givenNoise: true to give it noise');
    this.pictures += this.effectiveBatch;
    this.store.optimizerStep++;
    const control = encodeControl({
      lr,
      optimizerStep: this.optimizerStep,
      betas: this.optimizer.betas,
      gradScale: 1 / this.accumIter,
      maxNorm: this.clipGrad,
      epoch,
      step: this.optimizerStep,
    });
    const perBatch = batch.images.length / this.accumIter;
    const noisePerBatch = (batch.noise?.length ?? 0) / this.accumIter;
    return Array.from({ length: this.accumIter }, (_, i) => ({
      control,
      segments: this.segmentTable,
      indices: indices.subarray(i * this.batchSize, (i + 1) * this.batchSize),
      images: batch.images.subarray(i * perBatch, (i + 1) * perBatch),
      ...(batch.noise ? { noise: batch.noise.subarray(i * noisePerBatch, (i + 1) * noisePerBatch) } : {}),
    }));
  }
}

function positive(name: string, value: number): number {
  if (!Number.isInteger(value) || value < 1)
    throw new MaeError('MAE_ARGUMENT', `trainStep: ${name} must be a positive whole number, got ${value}`);
  return value;
}
