/** The public model: a masked autoencoder with its weights on a device, and the programs that use them. */
import { MaeError } from '../errors';
import { CONTROL_BYTES, encodeControl } from '../graph/control';
import { dtypeOf, openDevice, type OpenDevice, type Precision } from '../graph/device';
import { Program, type Inputs } from '../graph/program';
import { Store } from '../graph/store';
import { Tape } from '../graph/tape';
import type { Constant, Parameter, Tensor } from '../graph/tensor';
import { toMetadata } from '../io/metadata';
import { checkNames } from '../issues';
import { type NameStyle, toNames } from '../io/names';
import { type HostTensor, toFloat32, writeSafetensors } from '../io/safetensors';
import { readWeights } from '../io/weights';
import { compareWeights, requireLoadable, type WeightsReport } from '../io/weightsReport';
import { configNames, type MaeConfig, type MaeOptions, numPatches, numVisible, resolveConfig } from './config';
import { checkEpoch, checkImages, checkIndices, checkNoise } from './inputs';
import { decode, encode, type Mae, makeMae, predict, randomMask, reconstructionLoss } from './mae';
import { TrainStep, type TrainStepOptions } from './trainStep';

export interface ModelOptions extends MaeOptions {
  /** 'auto' (the first usable GPU, else the CPU), 'cpu', 'cuda' or 'cuda:<number>'. Default 'auto'. */
  device?: string;
  /** 'bf16' (default on CUDA) or 'fp32' (default on the CPU). */
  precision?: Precision;
  /** Of the residual stream: 'fp32' (default), or 'bf16' where precision is: less memory and traffic for more rounding. */
  residualPrecision?: Precision;
  /** Of the initial weights and the masks. Default 0. */
  seed?: number;
  /** 'u8' pictures 0–255 (default) or 'f32' pictures 0–1, for channels that no picture file has. */
  imageDType?: 'u8' | 'f32';
}

export interface ForwardOptions {
  /** [pictures, L]: patches are kept in ascending order of it. Default: drawn from seed, epoch and indices. */
  noise?: Float32Array;
  /** Per picture, the patches to keep (equally many each). Instead of noise. */
  keep?: readonly (readonly number[])[];
  /** Another mask ratio than the model's, for this call. */
  maskRatio?: number;
  indices?: Int32Array;
  epoch?: number;
}

export interface ForwardResult {
  /** [pictures, visible + 1, embedDim], cls first, patches in shuffled order. */
  latent: Float32Array;
  /** [pictures, L, p·p·C] in (row, column, channel) order: normalised pixels, or per-patch-normalised ones. */
  pred: Float32Array;
  /** [pictures, L]: 0 = kept, 1 = removed. */
  mask: Float32Array;
  /** [pictures, L]. */
  idsRestore: Int32Array;
  /** Mean over the removed patches. */
  loss: number;
}

interface ForwardProgram {
  readonly program: Program;
  readonly reads: readonly Tensor[];
  /** Calls that run it or wait to. */
  users: number;
  /** No longer in the cache: the last user disposes it. */
  evicted: boolean;
}

/** Programs of other batch sizes or mask ratios that are kept for the next call. */
const CACHED_PROGRAMS = 4;

export class MaskedAutoencoder {
  readonly config: MaeConfig;
  readonly device: OpenDevice;
  readonly precision: Precision;
  readonly residualPrecision: Precision;
  readonly seed: number;
  readonly imageDType: 'u8' | 'f32';
  /** @internal */
  readonly mae: Mae;
  /** @internal */
  readonly store: Store;
  private readonly cache = new Map<string, ForwardProgram>();
  private readonly steps = new Set<TrainStep>();

  /** @throws MaeError MAE_ARGUMENT, MAE_NO_CUDA, MAE_NOT_BUILT, MAE_MEMORY */
  constructor(options: ModelOptions = {}) {
    checkNames<ModelOptions>('MaskedAutoencoder', options, {
      ...configNames,
      device: true,
      precision: true,
      residualPrecision: true,
      seed: true,
      imageDType: true,
    });
    const { device, precision, residualPrecision = 'fp32', seed = 0, imageDType = 'u8', ...sizes } = options;
    if (!Number.isInteger(seed) || seed < 0 || seed > 0xffffffff) {
      throw new MaeError('MAE_ARGUMENT', `MaskedAutoencoder: seed must be a whole number from 0 to 2^32 − 1, got ${seed}`);
    }
    this.config = resolveConfig(sizes);
    this.device = openDevice(device);
    this.precision = precision ?? this.device.defaultPrecision;
    if (this.precision !== 'fp32' && this.precision !== 'bf16') {
      throw new MaeError('MAE_ARGUMENT', `MaskedAutoencoder: precision must be 'fp32' or 'bf16', got '${String(precision)}'`);
    }
    if (residualPrecision !== 'fp32' && (residualPrecision !== 'bf16' || this.precision !== 'bf16')) {
      const need = "residualPrecision must be 'fp32', or 'bf16' with precision 'bf16'";
      throw new MaeError(
        'MAE_ARGUMENT',
        `MaskedAutoencoder: ${need}, got '${String(residualPrecision)}' with precision '${this.precision}'`,
      );
    }
    if (imageDType !== 'u8' && imageDType !== 'f32') {
      throw new MaeError('MAE_ARGUMENT', `MaskedAutoencoder: imageDType must be 'u8' or 'f32', got '${String(imageDType)}'`);
    }
    this.seed = seed;
    this.imageDType = imageDType;
    this.residualPrecision = residualPrecision;
    this.mae = makeMae(this.config, seed, imageDType);
    this.store = new Store(this.device.id, this.device.handle, dtypeOf(this.precision), this.mae.parameters, this.mae.constants);
  }

  /** Trainable values. */
  get parameterCount(): number {
    return this.store.parameterCount;
  }

  /** A training step over this model's weights. Dispose it when done, or with the model. */
  trainStep(options: TrainStepOptions): TrainStep {
    const step: TrainStep = new TrainStep(this, options ?? {}, () => this.steps.delete(step));
    this.steps.add(step);
    return step;
  }

  /**
   * Masks, encodes, decodes and compares, with the weights as they are now.
   * @param images  NHWC, any number of pictures
   */
  async forward(images: Uint8Array | Float32Array, options: ForwardOptions = {}): Promise<ForwardResult> {
    checkNames<ForwardOptions>('forward', options, { noise: true, keep: true, maskRatio: true, indices: true, epoch: true });
    const batch = this.countOf('forward', images);
    const patches = numPatches(this.config);
    if (options.keep && (options.noise ?? options.maskRatio) !== undefined)
      throw new MaeError('MAE_ARGUMENT', 'forward: keep says which patches stay: give it without noise and maskRatio');
    const noise = options.keep ? noiseOf(options.keep, batch, patches) : options.noise;
    // Half a patch more than are kept: truncating L·(1 − ratio) then gives exactly those.
    const maskRatio = options.keep
      ? Math.max(0, 1 - (options.keep[0].length + 0.5) / patches)
      : (options.maskRatio ?? this.config.maskRatio);
    if (noise) checkNoise('forward', noise, batch, patches);
    if (options.indices) checkIndices('forward', options.indices, batch);
    checkEpoch('forward', options.epoch ?? 0);
    const config = resolveConfig({ ...this.config, maskRatio });
    const mae = { ...this.mae, config };
    const made = this.cached(
      `forward ${batch} ${maskRatio} ${Boolean(noise)}`,
      (t, images_, control, indices) => {
        const given = noise && t.input('noise', [batch, patches], 'f32');
        const mask = randomMask(t, mae, control, indices, this.seed, given);
        const latent = encode(t, mae, images_, mask);
        const pred = t.scope('decoder', () => predict(t, mae, decode(t, mae, latent, mask), mask, 'all'));
        const loss = reconstructionLoss(t, mae, pred, images_, control, mask, 'all');
        return [this.readable(t, latent), this.readable(t, pred), mask.mask, mask.restore, loss];
      },
      batch,
    );
    const inputs = { ...this.inputs(images, batch, options), ...(noise ? { noise } : {}) };
    const [latent, pred, mask, idsRestore, loss] = await runCached(made, inputs);
    return {
      latent: new Float32Array(latent),
      pred: new Float32Array(pred),
      mask: new Float32Array(mask),
      idsRestore: new Int32Array(idsRestore),
      loss: numVisible(config) === patches ? 0 : new Float32Array(loss)[0],
    };
  }

  /**
   * The unmasked encoder's output for downstream use.
   * @param pool  'cls' or 'mean' [pictures, embedDim], or 'tokens' [pictures, L + 1, embedDim] (cls first). Default 'mean' over the patches.
   */
  async features(images: Uint8Array | Float32Array, options: { pool?: 'cls' | 'mean' | 'tokens' } = {}): Promise<Float32Array> {
    checkNames('features', options, { pool: true });
    const { pool = 'mean' } = options;
    if (!['cls', 'mean', 'tokens'].includes(pool))
      throw new MaeError('MAE_ARGUMENT', `features: pool must be 'cls', 'mean' or 'tokens', got '${String(pool)}'`);
    const batch = this.countOf('features', images);
    const made = this.cached(`features ${batch}`, (t, images_) => [this.readable(t, encode(t, this.mae, images_))], batch);
    const tokens = new Float32Array((await runCached(made, this.inputs(images, batch, {})))[0]);
    return pool === 'tokens' ? tokens : poolTokens(tokens, batch, numPatches(this.config) + 1, this.config.embedDim, pool);
  }

  // --- weights -------------------------------------------------------------------------------------------------------------------
  /** Every weight by its reference name, fixed position tables included. */
  async weights(): Promise<Map<string, HostTensor>> {
    return this.collect('parameters', true);
  }

  /** Gradients by the same names: the accumulated mean of the last backward pass, before clipping. Valid until the next one. */
  async gradients(): Promise<Map<string, HostTensor>> {
    if (!this.store.has('gradients')) throw new MaeError('MAE_GRAPH', 'gradients: there are none before a trainStep has run');
    return this.collect('gradients', false);
  }

  /** @internal The optimizer's moments by parameter name, for checkpoints. */
  async moments(): Promise<{ moment1: Map<string, HostTensor>; moment2: Map<string, HostTensor> }> {
    const [moment1, moment2] = await Promise.all([this.collect('moment1', false), this.collect('moment2', false)]);
    return { moment1, moment2 };
  }

  /** @internal */
  setMoments(moment: 'moment1' | 'moment2', tensors: ReadonlyMap<string, HostTensor>): void {
    this.store.prepareTraining();
    for (const parameter of this.store.parameters) {
      const values = tensors.get(parameter.name);
      if (!values)
        throw new MaeError('MAE_CHECKPOINT', `the optimizer's state lacks ${parameter.name}: the checkpoint is of another model`);
      this.store.writeMoment(parameter, moment, values.data as Float32Array);
    }
  }

  /**
   * Takes weights over by their reference names; float16 and bfloat16 are widened.
   * @returns what was taken, missing, unknown or of a wrong shape
   * @throws MaeError MAE_CHECKPOINT unless everything fits, or only the whole decoder is missing
   */
  setWeights(tensors: ReadonlyMap<string, HostTensor>, path = 'setWeights'): WeightsReport {
    if (typeof tensors?.get !== 'function') throw new MaeError('MAE_ARGUMENT', 'setWeights: needs a Map of tensors by reference name');
    // Position tables are fixed and may be left out; where a file has them, it is theirs that its weights were trained with.
    const tables = this.positionTables().filter(({ name }) => tensors.has(name));
    const report = compareWeights(
      new Map([
        ...this.store.parameters.map(({ name, shape }) => [name, shape] as const),
        ...tables.map(({ name, shape }) => [name, [1, ...shape]] as const),
      ]),
      tensors,
    );
    requireLoadable(report, path);
    const valuesOf = (name: string): Float32Array | undefined => {
      const tensor = tensors.get(name);
      const values = tensor && toFloat32(tensor);
      if (tensor && !values) throw new MaeError('MAE_FORMAT', `${path}: ${name} is ${tensor.dtype}, not floating point`);
      return values;
    };
    // All are converted before the first is written: a tensor that cannot be leaves the model as it was.
    const values = new Map([...this.store.parameters, ...tables].map(({ name }) => [name, valuesOf(name)]));
    for (const parameter of this.store.parameters) {
      const given = values.get(parameter.name);
      if (given) this.store.write(parameter, given);
    }
    for (const table of tables) this.store.writeConstant(table, values.get(table.name)!);
    return report;
  }

  /**
   * Writes the weights as safetensors, atomically.
   * @param options.names  'reference' (default), 'huggingface' or 'timm'
   * @param options.encoderOnly  leave the decoder out
   */
  async save(path: string, options: { names?: NameStyle; encoderOnly?: boolean } = {}): Promise<void> {
    checkNames('save', options, { names: true, encoderOnly: true });
    const tensors = toNames(await this.weights(), options.names ?? 'reference', options);
    await writeSafetensors(path, tensors, toMetadata(this.config));
  }

  /**
   * Makes a model of weights: a .safetensors file, a checkpoint folder, a run folder (its newest checkpoint) or a folder of Hugging Face.
   * Sizes come from the file's metadata or Hugging Face's config.json where there are any, and from `options` before them.
   * @returns the model and a report; an encoder-only file leaves the decoder at its initialisation
   * @throws MaeError MAE_FILE, MAE_FORMAT, MAE_CHECKPOINT, and as the constructor
   */
  static load(path: string, options: ModelOptions = {}): { model: MaskedAutoencoder; report: WeightsReport } {
    const { file, tensors, config } = readWeights(path);
    const model = new MaskedAutoencoder({ ...config, ...options });
    try {
      return { model, report: model.setWeights(tensors, file) };
    } catch (error) {
      model.dispose();
      throw error;
    }
  }

  /** Frees the device memory of the weights and of every program made of this model. */
  dispose(): void {
    for (const { program } of this.cache.values()) program.dispose();
    for (const step of this.steps) step.dispose();
    this.cache.clear();
    this.store.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  // --- inner ---------------------------------------------------------------------------------------------------------------------
  private positionTables(): Constant[] {
    return [this.mae.posEmbed, this.mae.decoderPosEmbed];
  }

  private async collect(from: 'parameters' | 'gradients' | 'moment1' | 'moment2', tables: boolean): Promise<Map<string, HostTensor>> {
    const read = async (parameter: Parameter): Promise<[string, HostTensor]> => [
      parameter.name,
      { dtype: 'F32', shape: parameter.shape, data: await this.store.read(parameter, from) },
    ];
    const tensors = new Map(await Promise.all(this.store.parameters.map(read)));
    if (tables)
      for (const { name, shape, values } of this.positionTables()) tensors.set(name, { dtype: 'F32', shape: [1, ...shape], data: values });
    return tensors;
  }

  private countOf(call: string, images: Uint8Array | Float32Array): number {
    const [height, width] = this.config.imageSize;
    const count = Math.max(1, Math.round((images?.length ?? 0) / (height * width * this.config.inChans)));
    checkImages(call, images, this.imageDType, count, this.config);
    return count;
  }

  private inputs(images: Uint8Array | Float32Array, batch: number, { indices, epoch }: ForwardOptions): Record<string, ArrayBufferView> {
    return { images, control: encodeControl({ epoch }), indices: indices ?? Int32Array.from({ length: batch }, (_, i) => i) };
  }

  /** fp32 for the host, kept until it is read. */
  private readable(t: Tape, tensor: Tensor): Tensor {
    return tensor.dtype === 'f32' ? tensor : t.call('cast', { x: tensor }, { f32: true }).y;
  }

  private cached(
    key: string,
    trace: (t: Tape, images: Tensor, control: Tensor, indices: Tensor) => Tensor[],
    batch: number,
  ): ForwardProgram {
    const known = this.cache.get(key);
    if (known) return known;
    const stream = dtypeOf(this.residualPrecision);
    const t = new Tape({ compute: this.store.compute, stream, device: this.store.deviceKind, training: false });
    const [height, width] = this.config.imageSize;
    const images = t.input('images', [batch, height, width, this.config.inChans], this.imageDType);
    const control = t.input('control', [CONTROL_BYTES / 4], 'f32');
    const indices = t.input('indices', [batch], 'i32');
    const reads = trace(t, images, control, indices).map((tensor) => t.keep(tensor));
    const made = { program: new Program(t.finish(), this.store), reads, users: 0, evicted: false };
    if (this.cache.size >= CACHED_PROGRAMS) {
      const [[oldest, evicted]] = this.cache;
      this.cache.delete(oldest);
      evicted.evicted = true;
      if (evicted.users === 0) evicted.program.dispose();
    }
    this.cache.set(key, made);
    return made;
  }
}

async function runCached(made: ForwardProgram, inputs: Inputs): Promise<ArrayBuffer[]> {
  made.users++;
  try {
    const { results } = await made.program.run([inputs], [{ segment: 'run' }], made.reads);
    return await results;
  } finally {
    made.users--;
    if (made.evicted && made.users === 0) made.program.dispose();
  }
}

/** Noise whose ascending order keeps the given patches, in the given order. */
function noiseOf(keep: readonly (readonly number[])[], batch: number, patches: number): Float32Array {
  const kept = keep[0]?.length;
  if (keep.length !== batch || keep.some((ids) => ids.length !== kept) || !kept) {
    throw new MaeError('MAE_SHAPE', `forward: keep needs one list for each of the ${batch} pictures, all equally long and not empty`);
  }
  const noise = new Float32Array(batch * patches);
  keep.forEach((ids, b) => {
    const row = noise.subarray(b * patches, (b + 1) * patches).fill(patches);
    ids.forEach((id, rank) => {
      if (!Number.isInteger(id) || id < 0 || id >= patches || row[id] !== patches) {
        throw new MaeError('MAE_ARGUMENT', `forward: keep must name different patches from 0 to ${patches - 1}, got ${ids.join(', ')}`);
      }
      row[id] = rank;
    });
  });
  return noise;
}

function poolTokens(tokens: Float32Array, batch: number, count: number, width: number, pool: 'cls' | 'mean'): Float32Array {
  const out = new Float32Array(batch * width);
  for (let b = 0; b < batch; b++) {
    const picture = tokens.subarray(b * count * width, (b + 1) * count * width);
    if (pool === 'cls') out.set(picture.subarray(0, width), b * width);
    else for (let t = 1; t < count; t++) for (let i = 0; i < width; i++) out[b * width + i] += picture[t * width + i] / (count - 1);
  }
  return out;
}
