/** One model at one mask ratio and batch size, ready to be timed: forward alone, forward and backward, the whole training step. */
import { randomFillSync } from 'node:crypto';
import { encodeControl } from '../graph/control';
import { type Inputs, Program, type Stage } from '../graph/program';
import type { Tensor } from '../graph/tensor';
import { type MaeConfig, numPatches, numVisible, resolveConfig } from '../nn/config';
import type { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import { traceTrainStep } from '../nn/trainStep';
import { resolveAdamW, segments } from '../optim/adamw';
import { type Costs, costsOf, traceForward } from './costs';

export type Phase = 'forward' | 'backward' | 'step';

export interface WorkloadOptions {
  readonly batchSize: number;
  /** Another than the model's. */
  readonly maskRatio?: number;
}

/** Different random batches that take turns, with masks that are new in every run. Never zeros: hardware is faster on them. */
const BATCHES = 3;
/** Runs are repeated until a sample lasts so many seconds: short ones would measure the clock and the queue. */
const SAMPLE_SECONDS = { cpu: 0.05, cuda: 0.25 };
/** Of the paper at batch 256; training on noise, but weights and moments move as in a real run. */
const LEARNING_RATE = 1.5e-4;

/** How many runs of `seconds` each make one sample. */
export function repeatsFor(device: 'cpu' | 'cuda', seconds: number): number {
  return Math.max(1, Math.ceil(SAMPLE_SECONDS[device] / seconds));
}

const STAGES: Readonly<Record<Phase, readonly Stage[]>> = {
  forward: [{ segment: 'run' }],
  backward: [{ segment: 'backward' }],
  step: [{ segment: 'backward' }, { segment: 'update' }],
};

export class Workload {
  readonly config: MaeConfig;
  readonly batchSize: number;
  /** Of one picture: the forward program's and the step's. */
  readonly forwardCosts: Costs;
  /** Absent at mask ratio 0: there is nothing to learn from. */
  readonly stepCosts: Costs | undefined;
  private readonly model: MaskedAutoencoder;
  private readonly forward: { readonly program: Program; readonly reads: readonly Tensor[] };
  private readonly training: { readonly program: Program; readonly reads: readonly Tensor[] } | undefined;
  private readonly pictures: readonly Uint8Array[];
  private readonly adamw = resolveAdamW();
  private readonly segmentTable: Int32Array;
  private readonly repeats = new Map<Phase, number>();
  private runs = 0;

  /** @throws MaeError MAE_MEMORY when it does not fit */
  constructor(model: MaskedAutoencoder, { batchSize, maskRatio }: WorkloadOptions) {
    this.model = model;
    this.batchSize = batchSize;
    this.config = resolveConfig({ ...model.config, maskRatio: maskRatio ?? model.config.maskRatio });
    const mae = { ...model.mae, config: this.config };
    const { store, seed } = model;
    this.segmentTable = store.segmentTable(segments(store.parameters, this.adamw.weightDecay));
    const { trace, loss } = traceForward(mae, store, batchSize, seed);
    this.forwardCosts = costsOf(trace, batchSize);
    this.forward = { program: new Program(trace, store), reads: loss ? [loss] : [] };
    if (numVisible(this.config) < numPatches(this.config)) {
      store.prepareTraining();
      const step = traceTrainStep({ mae, store, seed }, this.adamw, { batchSize });
      this.stepCosts = costsOf(step.trace, batchSize);
      this.training = { program: new Program(step.trace, store, { lendGradients: true }), reads: [step.report] };
    }
    const [height, width] = this.config.imageSize;
    const bytes = batchSize * height * width * this.config.inChans;
    this.pictures = Array.from({ length: BATCHES }, () => randomFillSync(new Uint8Array(bytes)));
  }

  /** Device bytes that training takes: weights, gradients, moments, and the step's arena, workspace and inputs. */
  get memoryBytes(): number {
    return this.model.store.bytes + (this.training ?? this.forward).program.bytes;
  }

  /** The training program; its trace tells what each launch costs. */
  get step(): Program {
    return this.training!.program;
  }

  /**
   * One sample: seconds of one run of `phase`, the mean over as many runs, one right after the other, as a sample needs to be long enough.
   * Pictures are taken over from the host in that time, as in training.
   */
  async sample(phase: Phase): Promise<number> {
    let repeats = this.repeats.get(phase);
    if (!repeats) {
      await this.timed(phase, 1); // the first use of the memory
      repeats = repeatsFor(this.model.device.kind, await this.timed(phase, 1));
      this.repeats.set(phase, repeats);
    }
    return (await this.timed(phase, repeats)) / repeats;
  }

  /** Seconds of every launch of one step, run op by op. */
  profile(): Float64Array {
    return this.step.profile([this.inputs('step')], STAGES.step);
  }

  dispose(): void {
    this.forward.program.dispose();
    this.training?.program.dispose();
  }

  private async timed(phase: Phase, repeats: number): Promise<number> {
    const { program, reads } = phase === 'forward' ? this.forward : this.training!;
    const started = performance.now();
    const results: Promise<unknown>[] = [];
    for (let i = 0; i < repeats; i++) results.push((await program.run([this.inputs(phase)], STAGES[phase], reads)).results);
    await Promise.all(results);
    return (performance.now() - started) / 1000;
  }

  private inputs(phase: Phase): Inputs {
    const { batchSize } = this;
    const run = ++this.runs;
    return {
      control: encodeControl({ lr: LEARNING_RATE, optimizerStep: run, betas: this.adamw.betas, epoch: run, step: run }),
      indices: Int32Array.from({ length: batchSize }, (_, i) => run * batchSize + i),
      images: this.pictures[run % BATCHES],
      ...(phase === 'forward' ? {} : { segments: this.segmentTable }),
    };
  }
}
