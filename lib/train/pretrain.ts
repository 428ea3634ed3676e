/** The whole job: pictures in, a pre-trained masked autoencoder out (paper, section 4 and appendix A.1). */
import path from 'node:path';
import { availableParallelism } from 'node:os';
import type { Dataset } from '../data/dataset';
import { Loader, type Batch } from '../data/loader';
import { openDataset } from '../data/open';
import { MaeError } from '../errors';
import { gemmChoices, restoreGemmChoices } from '../graph/gemmChoices';
import { native } from '../native';
import { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import type { StepResult, TrainStep } from '../nn/trainStep';
import { cosineSchedule, type Schedule } from '../optim/schedule';
import { TrainingProgress, type ProgressStream } from '../view/progress';
import { type CheckpointState, loadCheckpoint, saveCheckpoint } from './checkpoint';
import { somePictures, reconstructionPicture, validationLoss } from './evaluation';
import { initialiseFrom } from './initialise';
import { modelOptions, type PretrainOptions, type ResolvedOptions, resolveOptions, stepOptions } from './options';
import { resumePoint, RunFolder } from './runFolder';
import { describePlan } from './summary';
import { Throughput } from './throughput';

/** What the API takes beyond the options of the command line. */
export interface PretrainCall extends Omit<PretrainOptions, 'data' | 'valData'> {
  data: string | Dataset;
  valData?: string | Dataset;
  /** true: go on in `out`; a path: from that run folder or checkpoint. */
  resume?: boolean | string;
  /** Stops after the running step, with a checkpoint. */
  signal?: AbortSignal;
  /** Where progress goes; default standard error. */
  stream?: ProgressStream;
  quiet?: boolean;
  onStep?: (event: StepEvent) => void;
  onCheckpoint?: (event: { step: number; path: string }) => void;
}

export interface StepEvent {
  step: number;
  epoch: number;
  loss: number;
  lr: number;
  gradNorm: number;
}

export interface PretrainResult {
  /** Optimizer steps done in all, earlier runs included. */
  steps: number;
  /** Loss of the last step. */
  loss: number;
  validationLoss?: number;
  /** Run folder and what is worth looking at. */
  out: string;
  checkpoint: string;
  curve: string;
  reconstructions?: string;
  /** Steady state: from the third step on. */
  imagesPerSecond: number;
  /** Share of the time that was spent waiting for pictures. */
  dataWait: number;
  /** 'done', or why it stopped before the last epoch. */
  ended: 'done' | 'max-steps' | 'max-minutes' | 'interrupted';
}

/** Optimizer steps done, and the batch that comes next. */
type Cursor = Pick<CheckpointState, 'step' | 'epoch' | 'stepInEpoch'>;

/** Pictures in the grid of reconstructions. */
const SHOWN = 12;

/**
 * Pre-trains a model and keeps everything that a run needs in `out`.
 * @throws MaeError MAE_CONFIG, MAE_DATA, MAE_CHECKPOINT, MAE_FILE, MAE_NON_FINITE
 */
export async function pretrain(call: PretrainCall): Promise<PretrainResult> {
  const { data, valData, resume, signal, stream, quiet, onStep, onCheckpoint, ...rest } = call ?? ({} as PretrainCall);
  for (const [name, source] of Object.entries({ data, valData: valData ?? data })) {
    if (typeof source !== 'string' && typeof source?.fetch !== 'function')
      throw new MaeError('MAE_ARGUMENT', `pretrain: ${name} needs a folder, a .maepack file or a Dataset, got ${String(source)}`);
  }
  const nameOf = (source: string | Dataset): string => (typeof source === 'string' ? source : source.name);
  const options = resolveOptions({ ...rest, data: nameOf(data), valData: valData && nameOf(valData) });
  const out =
    options.out ?? path.join('runs', `${options.preset.replace('/', '-')}-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, '')}`);
  const checkpoint = resumePoint(out, resume);
  const cacheBytes = options.cacheMib === undefined ? ('auto' as const) : options.cacheMib * 2 ** 20;
  const log = quiet ? () => undefined : (line: string) => (stream ?? process.stderr).write(`${line}\n`);
  const dataset = openDataset(data, { cacheBytes, log });
  const validation = valData === undefined ? undefined : openDataset(valData, { cacheBytes, log });
  const run = new Pretraining(options, out, dataset, validation, { signal, stream, quiet, onStep, onCheckpoint, log });
  try {
    return await run.go(checkpoint);
  } finally {
    run.close();
    if (typeof data === 'string') dataset.close();
    if (typeof valData === 'string') validation?.close();
  }
}

type Hooks = Pick<PretrainCall, 'signal' | 'stream' | 'quiet' | 'onStep' | 'onCheckpoint'> & { log: (line: string) => void };

/** One run: the objects it holds, and the loop over them. */
class Pretraining {
  private readonly model: MaskedAutoencoder;
  private readonly step: TrainStep;
  private readonly schedule: Schedule;
  private readonly loader: { stepsPerEpoch: number; make(startEpoch: number, startStep: number): Loader };
  private folder: RunFolder | undefined;
  private progress: TrainingProgress | undefined;
  private lastCheckpoint: string | undefined;
  private last: { loss: number; validationLoss?: number } = { loss: NaN };
  private validatedStep: number | undefined;
  private lastReconstructions: string | undefined;
  private settled: Promise<void> = Promise.resolve();
  private failure: unknown;
  private shown: Uint8Array | undefined;
  private readonly throughput = new Throughput();
  /** Writes a line above the progress. */
  private readonly log = (line: string): void => (this.progress ? this.progress.note(line) : void this.hooks.log(line));

  constructor(
    private readonly options: ResolvedOptions,
    private readonly out: string,
    private readonly dataset: Dataset,
    private readonly validation: Dataset | undefined,
    private readonly hooks: Hooks,
  ) {
    const { batchSize, accumIter, epochs, warmupEpochs, minLr } = options;
    const effectiveBatch = batchSize * accumIter;
    if (options.inChans !== undefined && options.inChans !== dataset.channels) {
      throw new MaeError(
        'MAE_DATA',
        `pretrain: inChans is ${options.inChans}, but ${dataset.name} has pictures of ${dataset.channels} channels (files are read as RGB; ` +
          'an ArrayDataset takes any number): leave inChans out',
      );
    }
    const isRgb = dataset.channels === 3;
    this.model = new MaskedAutoencoder({
      ...modelOptions(options),
      ...(isRgb ? {} : { inChans: dataset.channels }),
      imageDType: dataset.dtype === 'uint8' ? 'u8' : 'f32',
    });
    this.step = this.model.trainStep(stepOptions(options));
    this.schedule = cosineSchedule({ blr: options.blr, lr: options.lr, effectiveBatch, epochs, warmupEpochs, minLr });
    const make = (startEpoch: number, startStep: number): Loader => {
      const overfit = options.overfit !== undefined;
      return new Loader(dataset, {
        batchSize: effectiveBatch,
        imageSize: this.model.config.imageSize,
        seed: options.seed,
        epochs,
        startEpoch,
        startStep,
        augment: overfit && options.augment === 'random-resized-crop' ? 'eval' : options.augment,
        shuffle: !overfit,
        flip: overfit ? 0 : options.flip,
        scale: options.scale,
        ratio: options.ratio,
        workers: options.workers ?? availableParallelism(),
        broken: options.broken,
        log: this.log,
      });
    };
    const stepsPerEpoch = Math.min(make(0, 0).stepsPerEpoch, options.overfit ?? Infinity);
    this.loader = { stepsPerEpoch, make };
  }

  async go(checkpoint: string | undefined): Promise<PretrainResult> {
    const { options, model, step, hooks } = this;
    const start = checkpoint ? this.resume(checkpoint) : this.begin();
    const folder = (this.folder = RunFolder.open(this.out, checkpoint ? start.step : undefined, options.tensorboard));
    this.lastCheckpoint = checkpoint;
    const plan = describePlan(model, step, options, this.dataset.length, this.loader.stepsPerEpoch);
    await folder.writeConfig(options, { ...plan.about, startedAt: new Date().toISOString() });
    for (const line of plan.lines) hooks.log(line);

    const allSteps = this.loader.stepsPerEpoch * options.epochs;
    const totalSteps = Math.min(allSteps, options.maxSteps ?? Infinity);
    this.progress = new TrainingProgress({
      totalSteps,
      totalEpochs: options.epochs,
      startStep: start.step,
      stream: hooks.stream,
      quiet: hooks.quiet,
    });
    const logEvery = options.logEvery ?? (totalSteps <= 5000 ? 1 : 20);
    const deadline = options.maxMinutes === undefined ? Infinity : performance.now() + options.maxMinutes * 60_000;
    const cursor = { ...start };
    let ended: PretrainResult['ended'] = start.step >= allSteps ? 'done' : 'max-steps';
    const loader = this.loader.make(start.epoch, start.stepInEpoch);
    if (start.step < totalSteps) {
      for await (const batch of this.batches(loader, start)) {
        if (this.failure) break;
        await this.take(batch, cursor, logEvery, loader);
        const epochEnds = cursor.stepInEpoch === 0;
        if (epochEnds) await this.endEpoch(cursor);
        if (cursor.step >= totalSteps) ended = cursor.step >= allSteps ? 'done' : 'max-steps';
        else if (hooks.signal?.aborted) ended = 'interrupted';
        else if (performance.now() > deadline) ended = 'max-minutes';
        else continue;
        break;
      }
    }
    await this.settled;
    if (this.failure) throw this.failure;
    return this.end(cursor, ended);
  }

  close(): void {
    this.progress?.finish();
    this.folder?.close();
    this.model.dispose();
  }

  /** The loader's batches; with `overfit` the first few again and again. */
  private async *batches(loader: Loader, start: { epoch: number; stepInEpoch: number }): AsyncGenerator<Batch> {
    const { overfit, epochs } = this.options;
    if (overfit === undefined) {
      yield* loader;
      return;
    }
    const few: Batch[] = [];
    for await (const batch of this.loader.make(0, 0)) {
      few.push({ ...batch, images: batch.images.slice() });
      if (few.length === this.loader.stepsPerEpoch) break;
    }
    for (let epoch = start.epoch; epoch < epochs; epoch++) {
      for (let i = epoch === start.epoch ? start.stepInEpoch : 0; i < few.length; i++) yield { ...few[i], epoch, step: i };
    }
  }

  private begin(): Cursor {
    const { initFrom } = this.options;
    if (initFrom !== undefined) for (const line of initialiseFrom(initFrom, this.model)) this.hooks.log(line);
    return { step: 0, epoch: 0, stepInEpoch: 0 };
  }

  private resume(checkpoint: string): Cursor {
    const state = loadCheckpoint(checkpoint, this.model);
    const now = this.state({ step: 0, epoch: 0, stepInEpoch: 0 });
    if (state.seed !== now.seed) {
      throw new MaeError(
        'MAE_CHECKPOINT',
        `${checkpoint} was made with seed ${state.seed}, this run has ${now.seed}: give --seed ${state.seed}`,
      );
    }
    if (state.batchSize * state.accumIter !== now.batchSize * now.accumIter) {
      throw new MaeError(
        'MAE_CHECKPOINT',
        `${checkpoint} was made with ${state.batchSize * state.accumIter} pictures a step, this run has ${now.batchSize * now.accumIter}: ` +
          `its place in the epoch would be another. Keep batchSize · accumIter`,
      );
    }
    for (const key of ['device', 'precision', 'residualPrecision', 'batchSize', 'accumIter'] as const) {
      if (state[key] !== now[key])
        this.hooks.log(
          `note: ${key} was ${state[key]} and is ${now[key]}: the run goes on, its bits will differ from an uninterrupted one`,
        );
    }
    const ignored = state.gemmChoices && restoreGemmChoices(this.model.device, state.gemmChoices);
    if (ignored) this.hooks.log(`note: the checkpoint's choices of matrix products are ignored: ${ignored}`);
    this.hooks.log(`resuming from ${checkpoint}: step ${state.step}, epoch ${state.epoch}`);
    return state;
  }

  private state(cursor: Cursor): CheckpointState {
    const { seed, batchSize, accumIter } = this.options;
    return {
      step: cursor.step,
      epoch: cursor.epoch,
      stepInEpoch: cursor.stepInEpoch,
      optimizerStep: this.step.optimizerStep,
      seed,
      device: this.model.device.handle.name.replace(/, \d+ threads/, ''), // the number of threads changes no bits
      precision: this.model.precision,
      residualPrecision: this.model.residualPrecision,
      batchSize,
      accumIter,
      gemmChoices: gemmChoices(this.model.device),
    };
  }

  /** One step: enqueued here, its loss noted when it is known. */
  private async take(batch: Batch, cursor: Cursor, logEvery: number, loader: Loader): Promise<void> {
    const { stepsPerEpoch } = this.loader;
    const epoch = batch.epoch + batch.step / stepsPerEpoch;
    const lr = this.schedule(epoch);
    const result = await this.step.run(batch, { lr });
    cursor.step++;
    cursor.stepInEpoch = (batch.step + 1) % stepsPerEpoch;
    cursor.epoch = batch.epoch + (cursor.stepInEpoch === 0 ? 1 : 0);
    const stepNumber = cursor.step;
    const before = this.settled;
    this.settled = before
      .then(() => this.note(result, { step: stepNumber, epoch: batch.epoch + (batch.step + 1) / stepsPerEpoch, lr }, logEvery, loader))
      .catch((error: unknown) => {
        this.failure ??= error;
      });
    await before; // one step behind the device: errors and the progress line stay close
  }

  private async note(result: StepResult, at: { step: number; epoch: number; lr: number }, logEvery: number, loader: Loader): Promise<void> {
    if (this.failure) return;
    const [loss, gradNorm, finite] = await Promise.all([result.loss, result.gradNorm, result.finite]);
    if (!finite) {
      throw new MaeError(
        'MAE_NON_FINITE',
        `step ${at.step}: loss ${loss}, gradient norm ${gradNorm} at lr ${at.lr}. The weights were left as they were before it. ` +
          `Last good checkpoint: ${this.lastCheckpoint ?? 'none yet'}. A lower learning rate (--blr), longer warm-up (--warmup-epochs) or clipping (--clip-grad 1) helps; ` +
          `precision fp32 tells whether bf16 is the cause`,
      );
    }
    this.last.loss = loss;
    this.throughput.step(this.step.effectiveBatch, loader.waitMs);
    const { imagesPerSecond, dataWait } = this.throughput.rates();
    this.progress?.update({ step: at.step, epoch: at.epoch, loss, lr: at.lr, imagesPerSecond, dataWait, memoryBytes: this.memory() });
    this.hooks.onStep?.({ ...at, loss, gradNorm });
    if (at.step % logEvery === 0)
      this.folder?.record({ step: at.step, epoch: at.epoch, loss, lr: at.lr, gradNorm, imagesPerSecond, dataWait });
  }

  private memory(): number {
    return this.model.device.kind === 'cuda' ? native().stats().deviceBytes : process.memoryUsage.rss();
  }

  private async endEpoch(cursor: Cursor): Promise<void> {
    const { saveEvery, valEvery, reconstructEvery } = this.options;
    const every = (period: number): boolean => period > 0 && cursor.epoch % period === 0;
    if (this.validation && every(valEvery)) await this.validate(cursor);
    if (every(reconstructEvery)) await this.reconstruct(cursor.step);
    if (every(saveEvery)) await this.save(cursor);
  }

  private async validate({ step, epoch }: { step: number; epoch: number }): Promise<void> {
    await this.settled;
    if (this.failure || !this.validation) return;
    const loss = await validationLoss(this.model, this.validation, this.options.batchSize, {
      workers: this.options.workers,
      log: this.log,
    });
    this.last.validationLoss = loss;
    this.validatedStep = step;
    this.folder?.record({ step, epoch, validationLoss: loss });
    this.progress?.note(`epoch ${epoch}: validation loss ${loss.toFixed(4)}`);
  }

  private async reconstruct(step: number): Promise<void> {
    await this.settled;
    // Float pictures have no colours to look at.
    if (this.failure || this.dataset.dtype !== 'uint8' || this.model.config.inChans !== 3) return;
    this.shown ??= await somePictures(this.model, this.validation ?? this.dataset, SHOWN, { spread: true, log: this.log });
    this.lastReconstructions = await this.folder?.writeReconstructions(step, await reconstructionPicture(this.model, this.shown));
    await this.writeCurve();
  }

  private async writeCurve(): Promise<string> {
    const { preset } = this.options;
    return this.folder!.writeCurve(`${preset} on ${this.dataset.name}`);
  }

  private async save(cursor: Cursor): Promise<string> {
    await this.settled;
    if (this.failure) throw this.failure;
    this.lastCheckpoint = await saveCheckpoint(this.out, this.model, this.state(cursor), this.options.keep);
    this.progress?.note(`step ${cursor.step}: saved ${this.lastCheckpoint}`);
    this.hooks.onCheckpoint?.({ step: cursor.step, path: this.lastCheckpoint });
    return this.lastCheckpoint;
  }

  private async end(cursor: Cursor, ended: PretrainResult['ended']): Promise<PretrainResult> {
    const speed = this.throughput.rates();
    const saved = this.lastCheckpoint && path.basename(this.lastCheckpoint) === `step-${cursor.step}`;
    const checkpoint = saved ? this.lastCheckpoint! : await this.save(cursor);
    if (ended !== 'interrupted') {
      if (this.validatedStep !== cursor.step) await this.validate(cursor);
      if (this.options.reconstructEvery > 0) await this.reconstruct(cursor.step);
    }
    const curve = await this.writeCurve();
    return {
      steps: cursor.step,
      ...this.last,
      out: this.out,
      checkpoint,
      curve,
      reconstructions: this.lastReconstructions,
      imagesPerSecond: speed.imagesPerSecond ?? NaN,
      dataWait: speed.dataWait ?? 0,
      ended,
    };
  }
}
