/** Runs a traced program over a store: encodes it for native/program.cc, feeds it, reads it back. */
import { MaeError } from '../errors';
import { native, type KernelSignature, type NativeBuffer, type NativeProgram } from '../native';
import { align, plan, type Plan } from './plan';
import { requireMemory } from './device';
import type { Layout } from './layout';
import type { Store } from './store';
import { bytesOf, describe, dtypeCode, type DType, type StoreBuffer, type Tensor } from './tensor';
import type { Launch, Trace } from './tape';

/** Values of the program's inputs for one micro-batch. */
export type Inputs = Readonly<Record<string, ArrayBufferView>>;

/** One entry of a run: a segment, the micro-batch whose inputs it reads, and whether it adds to the gradients that are there. */
export interface Stage {
  readonly segment: string;
  readonly microBatch?: number;
  readonly accumulate?: boolean;
}

export interface ProgramOptions {
  /** How many micro-batches one run can hold inputs for. Default 1. */
  readonly microBatches?: number;
  /** 0 op by op with a wait after each, 1 replay, 2 CUDA graph. Default: MAE_REPLAY, else 2 on CUDA and 1 on the CPU. All give the same bits. */
  readonly replay?: 0 | 1 | 2;
  /** Lets activations use the memory of gradients that are not written yet; no stage may then accumulate. Default false. */
  readonly lendGradients?: boolean;
  /** Memory of its own for every tensor (finds wrong lifetimes). Default false. */
  readonly unshared?: boolean;
  /** Fill the arena with NaN before every run (finds reads of what was never written). Default false. */
  readonly poison?: boolean;
}

/** What native/program.h calls spaces. */
const SPACE = { absent: 0, arena: 1, inputs: 2, firstBuffer: 3 } as const;
const STORE_BUFFERS: readonly (StoreBuffer | 'constants')[] = ['parameters', 'low', 'gradients', 'moment1', 'moment2', 'constants'];
const ACCUMULATE = { no: 0, always: 1, 'after-first': 2 } as const;

interface Signature {
  readonly index: number;
  readonly operands: readonly string[];
  readonly dims: readonly string[];
  readonly reals: readonly string[];
}

let signatures: Map<string, Signature> | undefined;
function signatureOf(kernel: string): Signature {
  const split = (list: string): string[] =>
    list
      .split(',')
      .map((name) => name.trim())
      .filter(Boolean);
  signatures ??= new Map(
    native()
      .kernels()
      .map((row: KernelSignature, index) => [
        row.name,
        { index, operands: [...split(row.inputs), ...split(row.outputs)], dims: split(row.dims), reals: split(row.reals) },
      ]),
  );
  const signature = signatures.get(kernel);
  if (!signature) throw new MaeError('MAE_GRAPH', `there is no kernel '${kernel}' in native/kernels.def`);
  return signature;
}

function replayMode(option: 0 | 1 | 2 | undefined, device: 'cpu' | 'cuda'): number {
  const fromEnvironment = process.env.MAE_REPLAY;
  if (option !== undefined) return option;
  if (!fromEnvironment) return device === 'cuda' ? 2 : 1;
  if (!/^[012]$/.test(fromEnvironment)) throw new MaeError('MAE_ARGUMENT', `MAE_REPLAY must be 0, 1 or 2, got '${fromEnvironment}'`);
  return Number(fromEnvironment);
}

/** Typed arrays of each dtype; any input may also be given as its bytes. */
const ARRAYS: Record<DType, string> = { f32: 'Float32Array', bf16: 'Uint16Array', u8: 'Uint8Array', i32: 'Int32Array' };

function checkInput(name: string, tensor: Tensor, value: ArrayBufferView | undefined): void {
  if (!value) throw new MaeError('MAE_ARGUMENT', `run: input '${name}' is missing; it is ${describe(tensor)}`);
  // By name: a Buffer, or an array of another realm, is no instance of this realm's classes.
  const got = value.constructor.name;
  if (![ARRAYS[tensor.dtype], 'Uint8Array', 'Buffer'].includes(got)) {
    throw new MaeError('MAE_ARGUMENT', `run: input '${name}' must be ${describe(tensor)} in a ${ARRAYS[tensor.dtype]}, got ${got}`);
  }
  if (value.byteLength !== bytesOf(tensor)) {
    throw new MaeError(
      'MAE_SHAPE',
      `run: input '${name}' must be ${describe(tensor)}, ${bytesOf(tensor)} bytes; got ${value.byteLength} bytes`,
    );
  }
}

export class Program {
  readonly trace: Trace;
  readonly plan: Plan;
  readonly workspaceBytes: number;
  readonly inputBytes: number;
  readonly microBatches: number;
  /** The gradients' layout, where their memory is lent to activations. */
  readonly lent: Layout | undefined;
  private readonly store: Store;
  private readonly inputOffsets = new Map<string, number>();
  private readonly segmentNames: readonly string[];
  private readonly handle: NativeProgram;
  private inFlight: Promise<unknown>[] = [];
  private disposed = false;

  /** Plans `trace` and allocates its memory. @throws MaeError MAE_MEMORY when it does not fit the device */
  constructor(trace: Trace, store: Store, options: ProgramOptions = {}) {
    this.trace = trace;
    this.store = store;
    this.microBatches = options.microBatches ?? 1;
    this.lent = options.lendGradients && !options.unshared ? store.layout : undefined;
    this.plan = plan(trace, !options.unshared, this.lent);
    let offset = 0;
    for (const input of trace.inputs) {
      this.inputOffsets.set((input.place as { name: string }).name, offset);
      offset += align(bytesOf(input));
    }
    this.inputBytes = offset;
    this.segmentNames = Object.keys(trace.segments);

    const buffers: NativeBuffer[] = [];
    const spaces = new Map<string, number>();
    for (const name of STORE_BUFFERS) {
      if (!store.has(name)) continue;
      spaces.set(name, SPACE.firstBuffer + buffers.length);
      buffers.push(store.buffer(name));
    }
    const code = new Float64Array(trace.launches.flatMap((launch) => this.encode(launch, spaces)));
    const labels = trace.launches.map((launch) => launch.label);
    this.workspaceBytes = align(store.device.workspaces(code, labels).reduce((most, bytes) => Math.max(most, bytes), 0));
    requireMemory(store.deviceKind, store.device, {
      activations: this.plan.arenaBytes,
      workspace: this.workspaceBytes,
      inputs: this.bytes - this.plan.arenaBytes - this.workspaceBytes,
    });
    this.handle = new (native().Program)(store.device, {
      code,
      labels,
      segments: Int32Array.from(Object.values(trace.segments).flat()),
      buffers,
      arenaBytes: this.plan.arenaBytes,
      inputBytes: this.inputBytes,
      workspaceBytes: this.workspaceBytes,
      microBatches: this.microBatches,
      replay: replayMode(options.replay, store.deviceKind),
      poison: options.poison ?? false,
    });
  }

  /** Device bytes of this program: arena, workspace and inputs; the store's come on top. */
  get bytes(): number {
    return this.plan.arenaBytes + this.workspaceBytes + 2 * this.microBatches * this.inputBytes;
  }

  /**
   * Takes the inputs and puts one run on the device's queue. Resolves when they are taken (at most two runs are in flight), with a promise
   * of the tensors in `reads`.
   * @param inputs  per micro-batch, every input of the trace by name
   */
  async run(
    inputs: readonly Inputs[],
    stages: readonly Stage[],
    reads: readonly Tensor[] = [],
  ): Promise<{ results: Promise<ArrayBuffer[]> }> {
    while (this.inFlight.length >= 2) await Promise.race(this.inFlight);
    this.checkAlive('run');
    const places = reads.flatMap((tensor) => {
      const { space, offset } = this.placeOf(tensor, undefined);
      return [space, offset, bytesOf(tensor)];
    });
    const results = this.handle.run(this.nativeInputs(inputs), this.nativeStages(stages, inputs.length), Float64Array.from(places));
    const settled: Promise<unknown> = results.then(
      () => this.forget(settled),
      () => this.forget(settled),
    );
    this.inFlight.push(settled);
    return { results };
  }

  /**
   * On CUDA: times the implementations of every matrix product of `stages` that has no choice yet, and keeps the fastest. Before the first run;
   * whatever the stages write is undefined afterwards.
   */
  async tune(stages: readonly Stage[]): Promise<void> {
    this.checkAlive('tune');
    await this.handle.tune(this.nativeStages(stages, this.microBatches));
  }

  /** Runs op by op with a wait after each: seconds per launch, in the order of the stages. Blocks the thread. */
  profile(inputs: readonly Inputs[], stages: readonly Stage[]): Float64Array {
    this.checkAlive('profile');
    return this.handle.profile(this.nativeInputs(inputs), this.nativeStages(stages, inputs.length));
  }

  /** Waits until no run is in flight. */
  async idle(): Promise<void> {
    while (this.inFlight.length > 0) await Promise.race(this.inFlight);
  }

  /** Frees the arena and inputs now. Runs in flight finish first. */
  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.handle.dispose();
  }

  private checkAlive(what: string): void {
    if (this.disposed) throw new MaeError('MAE_DISPOSED', `${what}: this program was disposed; make a new one`);
    this.store.checkAlive(what);
  }

  private forget(run: Promise<unknown>): void {
    this.inFlight = this.inFlight.filter((other) => other !== run);
  }

  private nativeInputs(inputs: readonly Inputs[]): unknown[] {
    if (inputs.length > this.microBatches) {
      throw new MaeError('MAE_ARGUMENT', `run: this program takes ${this.microBatches} micro-batches, got ${inputs.length}`);
    }
    return inputs.flatMap((values, microBatch) => {
      const unknown = Object.keys(values).find((name) => !this.inputOffsets.has(name));
      if (unknown) {
        throw new MaeError(
          'MAE_ARGUMENT',
          `run: this program has no input '${unknown}'; it takes ${[...this.inputOffsets.keys()].join(', ')}`,
        );
      }
      return this.trace.inputs.flatMap((tensor) => {
        const { name } = tensor.place as { name: string };
        checkInput(name, tensor, values[name]);
        return [microBatch, this.inputOffsets.get(name)!, values[name]];
      });
    });
  }

  private nativeStages(stages: readonly Stage[], microBatches: number): Int32Array {
    return Int32Array.from(
      stages.flatMap(({ segment, microBatch = 0, accumulate = false }) => {
        const index = this.segmentNames.indexOf(segment);
        if (index < 0) throw new MaeError('MAE_GRAPH', `run: there is no segment '${segment}' (${this.segmentNames.join(', ')})`);
        if (accumulate && this.lent) {
          throw new MaeError(
            'MAE_GRAPH',
            `run: '${segment}' is to add to gradients whose memory is lent: make the program without lendGradients`,
          );
        }
        if (this.inputBytes > 0 && !(microBatch >= 0 && microBatch < microBatches)) {
          throw new MaeError('MAE_ARGUMENT', `run: a stage reads micro-batch ${microBatch}, but inputs were given for ${microBatches}`);
        }
        return [index, microBatch, Number(accumulate)];
      }),
    );
  }

  /** [kernel, (space, offset, dtype, flags) per operand, dims, reals], the order of kernels.def. */
  private encode(launch: Launch, spaces: ReadonlyMap<string, number>): number[] {
    const signature = signatureOf(launch.kernel);
    const check = (kind: string, given: readonly string[], known: readonly string[]): void => {
      const unknown = given.filter((name) => !known.includes(name));
      if (unknown.length > 0)
        throw new MaeError('MAE_GRAPH', `${launch.label}: kernel '${launch.kernel}' has no ${kind} ${unknown.join(', ')}`);
    };
    check('operand', Object.keys(launch.operands), signature.operands);
    check('dim', Object.keys(launch.dims), signature.dims);
    check('real', Object.keys(launch.reals), signature.reals);
    const value = (kind: string, values: Readonly<Record<string, number>>, name: string): number => {
      if (!Number.isFinite(values[name]))
        throw new MaeError('MAE_GRAPH', `${launch.label}: kernel '${launch.kernel}' needs the ${kind} ${name}`);
      return values[name];
    };
    const operands = signature.operands.flatMap((name) => {
      const tensor = launch.operands[name];
      if (!tensor) return [SPACE.absent, 0, 0, 0];
      const { space, offset } = this.placeOf(tensor, spaces);
      return [space, offset, dtypeCode[tensor.dtype], ACCUMULATE[launch.accumulate[name] ?? 'no']];
    });
    const dims = signature.dims.map((name) => value('dim', launch.dims, name));
    const reals = signature.reals.map((name) => value('real', launch.reals, name));
    return [signature.index, ...operands, ...dims, ...reals];
  }

  private placeOf(tensor: Tensor, spaces: ReadonlyMap<string, number> | undefined): { space: number; offset: number } {
    const { place } = tensor;
    const inStore = (buffer: string, offset: number): { space: number; offset: number } => {
      const space = spaces?.get(buffer);
      if (space === undefined) throw new MaeError('MAE_GRAPH', `${tensor.name}: the store has no ${buffer}`);
      return { space, offset };
    };
    switch (place.kind) {
      case 'arena': {
        const lent = this.plan.lent.get(tensor);
        if (lent !== undefined) return inStore('gradients', lent);
        const offset = this.plan.offsets.get(tensor);
        if (offset === undefined) throw new MaeError('MAE_GRAPH', `${tensor.name} is not a tensor of this program`);
        return { space: SPACE.arena, offset };
      }
      case 'input':
        return { space: SPACE.inputs, offset: this.inputOffsets.get(place.name)! };
      case 'parameter': {
        const low = tensor.dtype === 'bf16';
        return inStore(low ? 'low' : 'parameters', this.store.offsetOf(place.parameter) * (low ? 2 : 4));
      }
      case 'gradient':
        return inStore('gradients', this.store.offsetOf(place.parameter) * 4);
      case 'constant':
        return inStore('constants', this.store.offsetOfConstant(place.constant));
      case 'store':
        return inStore(place.buffer, 0);
    }
  }
}
