/**
 * What a model owns on its device: parameters in fp32, their bf16 copies, gradients, optimizer moments and fixed tables. All parameters lie
 * in one flat buffer, so that the optimizer is one launch; gradients and moments have the same layout.
 */
import { MaeError } from '../errors';
import { bfloat16FromFloat32 } from '../halfPrecision';
import { native, type NativeBuffer, type NativeDevice } from '../native';
import { requireMemory } from './device';
import { alignElements, type Layout, layoutOf } from './layout';
import { size, type Constant, type Parameter, type StoreBuffer } from './tensor';

/** An optimizer's setting for one parameter. */
export interface Segment {
  readonly parameter: Parameter;
  readonly weightDecay: number;
  readonly lrScale: number;
}

export class Store {
  readonly device: NativeDevice;
  readonly deviceKind: 'cpu' | 'cuda';
  readonly compute: 'f32' | 'bf16';
  readonly parameters: readonly Parameter[];
  /** Optimizer steps that the moments have seen: t of the bias corrections, of all training steps over this store together. */
  optimizerStep = 0;
  readonly layout: Layout;
  private readonly constantOffset = new Map<Constant, number>();
  private readonly buffers = new Map<StoreBuffer | 'constants', NativeBuffer>();
  private disposed = false;

  constructor(
    deviceId: string,
    device: NativeDevice,
    compute: 'f32' | 'bf16',
    parameters: readonly Parameter[],
    constants: readonly Constant[],
  ) {
    this.device = device;
    this.deviceKind = deviceId === 'cpu' ? 'cpu' : 'cuda';
    this.compute = compute;
    this.parameters = parameters;
    this.layout = layoutOf(parameters);
    requireMemory(this.deviceKind, device, { weights: this.count * (compute === 'bf16' ? 6 : 4) });
    this.allocate('parameters', this.count * 4);
    if (compute === 'bf16') this.allocate('low', this.count * 2);
    for (const parameter of parameters) {
      const values = new Float32Array(size(parameter.shape));
      parameter.init(values, parameter.name);
      this.write(parameter, values);
    }
    let constantBytes = 0;
    for (const constant of constants) {
      this.constantOffset.set(constant, constantBytes);
      constantBytes += alignElements(size(constant.shape)) * 4;
    }
    if (constantBytes > 0) this.allocate('constants', constantBytes);
    for (const constant of constants) this.buffer('constants').write(this.constantOffset.get(constant)!, constant.values);
  }

  /** Elements of the flat buffers, padding included. */
  get count(): number {
    return this.layout.count;
  }

  /** Trainable values, padding excluded. */
  get parameterCount(): number {
    return this.parameters.reduce((sum, parameter) => sum + size(parameter.shape), 0);
  }

  has(buffer: StoreBuffer | 'constants'): boolean {
    return this.buffers.has(buffer);
  }

  /** Makes gradients and moments, when a training step is made. */
  prepareTraining(): void {
    this.checkAlive('trainStep');
    const absent = (['gradients', 'moment1', 'moment2'] as const).filter((buffer) => !this.has(buffer));
    requireMemory(this.deviceKind, this.device, Object.fromEntries(absent.map((buffer) => [buffer, this.count * 4])));
    for (const buffer of absent) this.allocate(buffer, this.count * 4);
  }

  /** The optimizer's table i32 [segments, 4]: per parameter its begin and end in the flat buffers, bits of f32 weight decay and lr scale. */
  segmentTable(segments: readonly Segment[]): Int32Array {
    const table = new Int32Array(segments.length * 4);
    const floats = new Float32Array(table.buffer);
    segments.forEach(({ parameter, weightDecay, lrScale }, i) => {
      const begin = this.layout.offsets.get(parameter)!;
      table[4 * i] = begin;
      table[4 * i + 1] = begin + size(parameter.shape);
      floats[4 * i + 2] = weightDecay;
      floats[4 * i + 3] = lrScale;
    });
    return table;
  }

  /** Overwrites a parameter (and its bf16 copy). */
  write(parameter: Parameter, values: Float32Array): void {
    const offset = this.offsetOf(parameter);
    if (values.length !== size(parameter.shape)) {
      throw new MaeError(
        'MAE_SHAPE',
        `${parameter.name} has ${size(parameter.shape)} values [${parameter.shape.join(', ')}], got ${values.length}`,
      );
    }
    this.buffer('parameters').write(offset * 4, values);
    if (this.has('low')) this.buffer('low').write(offset * 2, bfloat16FromFloat32(values));
  }

  /** Overwrites a fixed table, here and on the device. */
  writeConstant(constant: Constant, values: Float32Array): void {
    constant.values.set(values);
    this.buffer('constants').write(this.offsetOfConstant(constant), constant.values);
  }

  /** A parameter's slice of one of the flat fp32 buffers, after every run submitted before. */
  async read(parameter: Parameter, from: 'parameters' | 'gradients' | 'moment1' | 'moment2' = 'parameters'): Promise<Float32Array> {
    const [bytes] = await this.buffer(from).read(this.offsetOf(parameter) * 4, size(parameter.shape) * 4);
    return new Float32Array(bytes);
  }

  /** Overwrites a parameter's slice of a moment. */
  writeMoment(parameter: Parameter, moment: 'moment1' | 'moment2', values: Float32Array): void {
    this.buffer(moment).write(this.offsetOf(parameter) * 4, values);
  }

  /** @internal For programs: the native buffer of a place and the byte offset in it. */
  buffer(name: StoreBuffer | 'constants'): NativeBuffer {
    this.checkAlive(name);
    const buffer = this.buffers.get(name);
    if (!buffer) throw new MaeError('MAE_GRAPH', `the store has no ${name}: make a training step first`);
    return buffer;
  }

  /** @internal Element offset of a parameter in the flat buffers. */
  offsetOf(parameter: Parameter): number {
    const offset = this.layout.offsets.get(parameter);
    if (offset === undefined) throw new MaeError('MAE_GRAPH', `${parameter.name} is not a parameter of this store`);
    return offset;
  }

  /** @internal Byte offset of a constant. */
  offsetOfConstant(constant: Constant): number {
    const offset = this.constantOffset.get(constant);
    if (offset === undefined) throw new MaeError('MAE_GRAPH', `${constant.name} is not a constant of this store`);
    return offset;
  }

  /** @internal Programs use the store's memory: they ask before every run. */
  checkAlive(what: string): void {
    if (this.disposed) throw new MaeError('MAE_DISPOSED', `${what}: this model was disposed; make a new one`);
  }

  /** Device bytes held. */
  get bytes(): number {
    return this.allocated;
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    for (const buffer of this.buffers.values()) buffer.dispose();
  }

  private allocated = 0;
  private allocate(name: StoreBuffer | 'constants', bytes: number): void {
    this.buffers.set(name, new (native().Buffer)(this.device, bytes));
    this.allocated += bytes;
  }
}
