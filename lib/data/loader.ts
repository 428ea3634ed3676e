/** Batches of cropped pictures, prepared in the background. */
import os from 'node:os';
import { MaeError } from '../errors';
import { checkNames } from '../issues';
import { Purpose, permutation, philox, uniformInteger } from '../random';
import { cropOf } from './augment';
import type { Augment, CropSettings } from './augment';
import { brokenError, isBroken, isStored } from './dataset';
import type { Dataset, Picture, PictureSource, StoredPicture } from './dataset';
import { cropBatch } from './nativeData';
import type { Crop } from './nativeData';

export interface LoaderOptions {
  /** Pictures per batch. */
  batchSize: number;
  /** Size of the pictures in the batch: a number for squares, or [height, width]. */
  imageSize: number | readonly [number, number];
  /** Of the epochs' order, the crops and the replacements; an unsigned 32-bit integer. Default 0. */
  seed?: number;
  /** The run's number of epochs: the last one is epochs − 1. Absent: without end. */
  epochs?: number;
  /** Where to begin, for a run that is resumed. Default 0, 0. */
  startEpoch?: number;
  startStep?: number;
  /** A new order in each epoch (default), or the data set's own. */
  shuffle?: boolean;
  /** Leave out the last batch of an epoch if it is smaller (default). */
  dropLast?: boolean;
  /** Default 'random-resized-crop'; pictures that cannot be resized need 'none' or 'eval'. */
  augment?: Augment;
  /** Probability of a mirrored picture. Default 0.5 for 'random-resized-crop', else 0. */
  flip?: number;
  /** Share of the area that a random crop covers. Default [0.2, 1] (paper, appendix A.1). */
  scale?: readonly [number, number];
  /** Width : height of a random crop. Default [3/4, 4/3]. */
  ratio?: readonly [number, number];
  /** Native threads that crop. Default: one per core. */
  workers?: number;
  /** Batches prepared ahead. Default 2. */
  prefetch?: number;
  /** A picture that cannot be decoded is replaced by another one, with one warning for the data set (default), or stops the iteration. */
  broken?: 'replace' | 'stop';
  /** Every batch gets arrays of its own, instead of those of a ring. */
  copy?: boolean;
  /** Stops the iteration with MAE_INTERRUPTED. */
  signal?: AbortSignal;
  /** Where warnings go; default standard error. */
  log?: (line: string) => void;
}

export interface Batch {
  /** [pictures, height, width, channels]: uint8, or float32 if the data set is. */
  images: Uint8Array | Float32Array;
  /** The pictures' places in the data set; a replaced picture keeps the index of the broken one. */
  indices: Int32Array;
  epoch: number;
  /** Within the epoch. */
  step: number;
  /** Class of each picture that is shown; only if the data set has classes. */
  labels?: Int32Array;
}

const MAX_REPLACEMENTS = 1000;

/** Broken pictures that were warned about: once for a data set, however many loaders go over it (training, validation, reconstructions). */
const warned = new WeakMap<Dataset, Set<number>>();

/**
 * An async iterable of batches.
 *
 * The images lie in a ring of buffers: a batch stays as it is until the batch after the next one is asked for (so it is valid during its own
 * turn of the loop and the following one). With `copy: true` every batch keeps its own memory. One iteration at a time.
 *
 * Order, crops, flips and replacements depend on the seed, the epoch and the picture's index alone: not on the batch size, the number of
 * workers or where the iteration began.
 */
export class Loader implements AsyncIterable<Batch> {
  readonly batchSize: number;
  readonly height: number;
  readonly width: number;
  readonly stepsPerEpoch: number;
  /** Milliseconds that the consumer has waited for batches. */
  waitMs = 0;
  private readonly crops: CropSettings;
  private readonly options;
  private iteration: { pending: Promise<Batch>[]; stopped: boolean } | undefined;

  /** @throws MaeError MAE_ARGUMENT for an impossible option, MAE_DATA when there are fewer pictures than one batch needs */
  constructor(
    readonly dataset: Dataset,
    options: LoaderOptions,
  ) {
    if (!options) throw new MaeError('MAE_ARGUMENT', 'Loader: needs options, batchSize and imageSize at least');
    checkNames<LoaderOptions>('Loader', options, {
      batchSize: true,
      imageSize: true,
      seed: true,
      epochs: true,
      startEpoch: true,
      startStep: true,
      shuffle: true,
      dropLast: true,
      augment: true,
      flip: true,
      scale: true,
      ratio: true,
      workers: true,
      prefetch: true,
      broken: true,
      copy: true,
      signal: true,
      log: true,
    });
    const augment = options.augment ?? 'random-resized-crop';
    const { epochs = Infinity, startEpoch = 0, startStep = 0, shuffle = true, dropLast = true, copy = false, signal } = options;
    const { workers = os.availableParallelism(), prefetch = 2, broken = 'replace', log = (line: string) => console.error(line) } = options;
    this.options = { epochs, startEpoch, startStep, shuffle, dropLast, copy, signal, workers, prefetch, broken, log };
    const {
      batchSize,
      imageSize,
      seed = 0,
      flip = augment === 'random-resized-crop' ? 0.5 : 0,
      scale = [0.2, 1],
      ratio = [3 / 4, 4 / 3],
    } = options;
    const [height, width] = (Array.isArray(imageSize) ? imageSize : [imageSize, imageSize]) as [number, number];
    this.batchSize = batchSize;
    this.height = height;
    this.width = width;
    this.crops = { height, width, augment, flip, scale, ratio, seed: seed >>> 0 };

    const need = (ok: boolean, name: string, what: string, got: unknown): void => {
      if (!ok) throw new MaeError('MAE_ARGUMENT', `Loader: ${name} needs ${what}, got ${JSON.stringify(got) ?? String(got)}`);
    };
    const whole = (value: number, lowest: number): boolean => Number.isInteger(value) && value >= lowest;
    need(typeof dataset?.fetch === 'function', 'dataset', 'a Dataset', typeof dataset);
    need(whole(batchSize, 1), 'batchSize', 'a positive integer', batchSize);
    need(whole(height, 1) && whole(width, 1), 'imageSize', 'a positive integer or [height, width]', imageSize);
    need(whole(seed, 0) && seed < 2 ** 32, 'seed', 'an integer from 0 to 4294967295', seed);
    need(epochs === Infinity || whole(epochs, 1), 'epochs', 'a positive integer', epochs);
    need(whole(startEpoch, 0) && whole(startStep, 0), 'startEpoch and startStep', 'integers from 0', [startEpoch, startStep]);
    need(whole(workers, 1), 'workers', 'a positive integer', workers);
    need(whole(prefetch, 1), 'prefetch', 'a positive integer', prefetch);
    need(['random-resized-crop', 'eval', 'none'].includes(augment), 'augment', "'random-resized-crop', 'eval' or 'none'", augment);
    need(['replace', 'stop'].includes(broken), 'broken', "'replace' or 'stop'", broken);
    need(flip >= 0 && flip <= 1, 'flip', 'a probability', flip);
    need(scale[0] > 0 && scale[0] <= scale[1] && scale[1] <= 1, 'scale', '[lowest, highest] within (0, 1]', scale);
    need(ratio[0] > 0 && ratio[0] <= ratio[1] && ratio[1] < Infinity, 'ratio', '[lowest, highest], positive', ratio);
    if (augment === 'random-resized-crop' && (dataset.dtype !== 'uint8' || dataset.channels > 4)) {
      throw new MaeError(
        'MAE_ARGUMENT',
        `Loader: 'random-resized-crop' resizes uint8 pictures of up to 4 channels, but ${dataset.name} has ${dataset.dtype} with ` +
          `${dataset.channels}; use augment: 'none'`,
      );
    }
    this.stepsPerEpoch = dropLast ? Math.floor(dataset.length / batchSize) : Math.ceil(dataset.length / batchSize);
    if (this.stepsPerEpoch === 0) {
      throw new MaeError(
        'MAE_DATA',
        `Loader: ${dataset.name} has ${dataset.length} pictures, fewer than one batch of ${batchSize}; use a smaller batchSize (--batch-size), or dropLast: false`,
      );
    }
    need(startStep <= this.stepsPerEpoch, 'startStep', `at most the ${this.stepsPerEpoch} steps of an epoch`, startStep);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    if (this.iteration)
      throw new MaeError('MAE_BUSY', 'Loader: an iteration is running already; end it (break or close()), or make a second Loader');
    const { copy, prefetch, signal } = this.options;
    const pending: Promise<Batch>[] = [];
    const iteration = (this.iteration = { pending, stopped: false });
    // In use at once: the batch in the consumer's hands, the one before it, and those being prepared.
    const ring = Array.from({ length: prefetch + 2 }, () => (copy ? undefined : this.allocate()));
    const positions = this.positions();
    let started = 0;
    let cropping: Promise<unknown> = Promise.resolve(); // decoding overlaps with the crops of the batch before, which get all the workers
    const fill = (): void => {
      while (pending.length < prefetch) {
        const { value: position, done } = positions.next();
        if (done) return;
        const batch = this.prepare(position, ring[started++ % ring.length] ?? this.allocate(), cropping);
        cropping = batch.catch(() => undefined); // a failure reaches the consumer when that batch's turn comes
        pending.push(batch);
      }
    };
    try {
      while (!iteration.stopped) {
        if (signal?.aborted) throw new MaeError('MAE_INTERRUPTED', 'Loader: stopped by its signal');
        fill();
        if (pending.length === 0) return;
        const asked = performance.now();
        const batch = await pending[0];
        this.waitMs += performance.now() - asked;
        if (iteration.stopped) return;
        pending.shift();
        fill();
        yield batch;
      }
    } finally {
      await Promise.allSettled(pending); // nothing writes into the ring any more
      if (this.iteration === iteration) this.iteration = undefined;
    }
  }

  /** Ends a running iteration: it gives no further batch. Resolves when nothing runs in the background; the data set stays open. */
  async close(): Promise<void> {
    const { iteration } = this;
    if (!iteration) return;
    iteration.stopped = true;
    await Promise.allSettled(iteration.pending);
    if (this.iteration === iteration) this.iteration = undefined;
  }

  private allocate(): Uint8Array | Float32Array {
    const values = this.batchSize * this.height * this.width * this.dataset.channels;
    return this.dataset.dtype === 'uint8' ? new Uint8Array(values) : new Float32Array(values);
  }

  /** Epoch, step and picture indices of each batch, from the start position on. */
  private *positions(): Generator<{ epoch: number; step: number; indices: Int32Array }, void, undefined> {
    const { epochs, startEpoch, startStep, shuffle } = this.options;
    const { length } = this.dataset;
    for (let epoch = startEpoch; epoch < epochs; ++epoch) {
      const order = shuffle ? permutation(length, this.crops.seed, epoch) : Int32Array.from({ length }, (_, i) => i);
      for (let step = epoch === startEpoch ? startStep : 0; step < this.stepsPerEpoch; ++step) {
        yield { epoch, step, indices: order.slice(step * this.batchSize, (step + 1) * this.batchSize) };
      }
    }
  }

  private async prepare(
    { epoch, step, indices }: { epoch: number; step: number; indices: Int32Array },
    buffer: Uint8Array | Float32Array,
    before: Promise<unknown>,
  ): Promise<Batch> {
    const { dataset, height, width } = this;
    const sources = await dataset.fetch(indices);
    const shown = Int32Array.from(indices); // what is seen under each index: itself, or its replacement
    const pictures: (Picture | StoredPicture)[] = [];
    for (let i = 0; i < sources.length; ++i) {
      const source = sources[i];
      if (isBroken(source)) {
        const replacement = await this.replace(epoch, indices[i], source);
        shown[i] = replacement.index;
        pictures.push(replacement.picture);
      } else pictures.push(source);
    }
    const crops = pictures.map((picture, i) => this.crop(picture, epoch, indices[i], shown[i]));
    const { channels } = dataset;
    const images = buffer.subarray(0, indices.length * height * width * channels);
    await before;
    const job = { channels, bytesPerValue: images.BYTES_PER_ELEMENT as 1 | 4, out: images, height, width, workers: this.options.workers };
    if (isStored(pictures[0])) {
      const stored = pictures as StoredPicture[]; // a data set is of one kind
      await cropBatch({ ...job, fd: stored[0].fd, offsets: Float64Array.from(stored, ({ offset }) => offset) }, crops);
    } else {
      await cropBatch({ ...job, pictures: (pictures as Picture[]).map(({ data }) => data) }, crops);
    }
    const batch: Batch = { images, indices, epoch, step };
    if (dataset.classes.length > 0) batch.labels = shown.map((index) => dataset.labels[index]);
    return batch;
  }

  private crop(picture: { height: number; width: number }, epoch: number, index: number, shown: number): Crop {
    const { dataset, height, width } = this;
    const crop = cropOf(this.crops, picture, epoch, index);
    const where = `${dataset.pathOf(shown)} (picture ${shown} of ${dataset.name}) has ${picture.height}x${picture.width} pixels`;
    if (!crop) {
      throw new MaeError(
        'MAE_DATA',
        `${where}, but augment: 'none' needs all to have ${height}x${width}; use 'eval' or 'random-resized-crop'`,
      );
    }
    const resizes = crop.resizedHeight !== crop.height || crop.resizedWidth !== crop.width;
    if (resizes && (dataset.dtype !== 'uint8' || dataset.channels > 4)) {
      throw new MaeError(
        'MAE_DATA',
        `${where}; only uint8 pictures of up to 4 channels can be resized to ${height}x${width}, this one has ${dataset.dtype} with ` +
          `${dataset.channels}: resize it beforehand`,
      );
    }
    return crop;
  }

  /** Another picture for a broken one: key (seed, replace), counter (epoch, index, attempt, 0), until one can be decoded. */
  private async replace(
    epoch: number,
    index: number,
    source: PictureSource & { reason: string },
  ): Promise<{ index: number; picture: Picture | StoredPicture }> {
    const { dataset } = this;
    const { broken, log } = this.options;
    if (broken === 'stop') throw brokenError(dataset, index, source);
    const known = warned.get(dataset) ?? new Set();
    if (!known.has(index)) {
      warned.set(dataset, known.add(index));
      log(`warning: ${dataset.pathOf(index)} cannot be decoded and is replaced by other pictures: ${source.reason}`);
    }
    for (let attempt = 0; attempt < MAX_REPLACEMENTS; ++attempt) {
      const other = uniformInteger(philox(epoch, index, attempt, 0, this.crops.seed, Purpose.replace)[0], dataset.length);
      const [picture] = await dataset.fetch([other]);
      if (!isBroken(picture)) return { index: other, picture };
    }
    throw new MaeError(
      'MAE_DATA',
      `Loader: no replacement for ${dataset.pathOf(index)} among ${MAX_REPLACEMENTS} pictures of ${dataset.name}: nearly all are broken; ` +
        'run `mae check-data` on it',
    );
  }
}
