/**
 * Traces a program: model code calls ops on symbolic tensors, the tape notes the kernel launches and, for `backward`, how to go back.
 * Nothing runs and no memory exists until a Program is made of the trace.
 */
import { MaeError } from '../errors';
import type { Attributes, GradientContext, Operands, OpRow, TraceInfo } from './op';
import { ops } from './ops';
import {
  bytesOf,
  describe,
  size,
  type Constant,
  type DType,
  type Parameter,
  type Place,
  type Shape,
  type StoreBuffer,
  type Tensor,
} from './tensor';

/** When an output adds to what is there: never, always, or from the second micro-batch of a step on. */
export type Accumulate = 'no' | 'always' | 'after-first';

/** One kernel launch of a traced program; operands by the names of native/kernels.def. */
export interface Launch {
  readonly kernel: string;
  readonly operands: Record<string, Tensor | null>;
  readonly accumulate: Record<string, Accumulate>;
  readonly dims: Readonly<Record<string, number>>;
  readonly reals: Readonly<Record<string, number>>;
  /** "encoder.blocks.3.attention", for messages and profiles. */
  readonly label: string;
  /** [output, input] pairs that may share memory. */
  readonly inPlace: readonly (readonly [string, string])[];
  /** Outputs that are dropped when nothing reads them. */
  readonly prunable: readonly string[];
}

/** One traced op, with what it costs. */
export interface TracedOp {
  readonly op: string;
  readonly label: string;
  readonly flops: number;
  readonly bytes: number;
  /** Index of its first launch and the one after its last. */
  readonly launches: readonly [number, number];
}

/** A traced program: what plan.ts lays out. */
export interface Trace {
  readonly info: TraceInfo;
  readonly launches: readonly Launch[];
  readonly ops: readonly TracedOp[];
  /** Named, as ranges of launches. */
  readonly segments: Readonly<Record<string, readonly [number, number]>>;
  readonly inputs: readonly Tensor[];
  /** Tensors that hold from one segment to the next or are read back: their memory is never reused. */
  readonly kept: readonly Tensor[];
}

interface Node {
  readonly op: string;
  readonly row: OpRow;
  readonly x: Record<string, Tensor>;
  readonly y: Record<string, Tensor>;
  readonly attributes: Attributes;
  readonly scope: readonly string[];
  /** All nodes that one Tape.recompute covers, this one among them. */
  group?: readonly Node[];
}

/** What one backward pass knows. */
interface BackwardPass {
  /** Of the tensors of the forward pass that have one so far. */
  readonly gradients: Map<Tensor, Tensor>;
  /** Tensors that a parameter's value reaches: only they get gradients. */
  readonly needed: ReadonlySet<Tensor>;
  /** From a result of the forward pass to the same one computed again. */
  readonly again: Map<Tensor, Tensor>;
}

export class Tape {
  readonly info: TraceInfo;
  private readonly launches: Launch[] = [];
  private readonly traced: TracedOp[] = [];
  private readonly nodes: Node[] = [];
  private readonly segments: Record<string, [number, number]> = {};
  private readonly inputs: Tensor[] = [];
  private readonly kept = new Set<Tensor>();
  private readonly leaves = new Map<unknown, Map<DType, Tensor>>();
  private readonly lowTwin = new Map<Tensor, Tensor>();
  private readonly writtenGradients = new Set<Tensor>();
  private scopes: string[] = [];
  private nextId = 0;

  constructor(info: TraceInfo) {
    this.info = info;
  }

  // --- leaves --------------------------------------------------------------------------------------------------------------------
  /** A value given with every run. */
  input(name: string, shape: Shape, dtype: DType): Tensor {
    const tensor = this.tensor(shape, dtype, { kind: 'input', name }, name);
    this.inputs.push(tensor);
    return tensor;
  }

  /** A parameter in fp32: biases, norms, tokens. */
  parameter(parameter: Parameter): Tensor {
    return this.once(parameter, 'f32', () => this.tensor(parameter.shape, 'f32', { kind: 'parameter', parameter }, parameter.name));
  }

  /** A parameter in the compute dtype: the matrices that GEMMs read. */
  weight(parameter: Parameter): Tensor {
    const dtype = this.info.compute;
    return this.once(parameter, dtype, () => this.tensor(parameter.shape, dtype, { kind: 'parameter', parameter }, parameter.name));
  }

  constant(constant: Constant): Tensor {
    return this.once(constant, 'f32', () => this.tensor(constant.shape, 'f32', { kind: 'constant', constant }, constant.name));
  }

  /** The same memory under another shape; for parameters and constants. */
  view(tensor: Tensor, shape: Shape): Tensor {
    if (size(shape) !== size(tensor.shape))
      throw new MaeError('MAE_SHAPE', `view: ${describe(tensor)} (${tensor.name}) has not the size of [${shape.join(', ')}]`);
    return this.once(`${tensor.id} as ${shape.join('x')}`, tensor.dtype, () => this.tensor(shape, tensor.dtype, tensor.place, tensor.name));
  }

  /** A flat buffer of the store, for the optimizer's rows. */
  store(buffer: StoreBuffer, shape: Shape, dtype: DType): Tensor {
    return this.tensor(shape, dtype, { kind: 'store', buffer }, buffer);
  }

  // --- tracing -------------------------------------------------------------------------------------------------------------------
  /** Names what `body` traces: labels read "encoder.blocks.3.attention". */
  scope<T>(name: string, body: () => T): T {
    this.scopes.push(name);
    try {
      return body();
    } finally {
      this.scopes.pop();
    }
  }

  /** Everything that `body` traces becomes one named segment, which a run can ask for. */
  segment<T>(name: string, body: () => T): T {
    const first = this.launches.length;
    const result = body();
    this.segments[name] = [first, this.launches.length];
    return result;
  }

  /**
   * Activation checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): with info.recompute the memory of what
   * `body` traces is free until the backward pass, which runs it again from its inputs; the same kernels on the same values, so the same bits.
   */
  recompute<T>(body: () => T): T {
    const first = this.nodes.length;
    const result = body();
    const group = this.nodes.slice(first);
    if (this.info.recompute) for (const node of group) node.group = group;
    return result;
  }

  /** Keeps a tensor's memory until the next run: for read-backs and for what a later segment reads. */
  keep(tensor: Tensor): Tensor {
    this.kept.add(tensor);
    return tensor;
  }

  /**
   * Traces one row of the table.
   * @param into  tensors that outputs are written to instead of new ones (parameters' gradients, the optimizer's state)
   * @throws MaeError MAE_SHAPE when the operands do not fit, MAE_GRAPH for an unknown op or a missing operand
   */
  call(op: string, operands: Operands, attributes: Attributes = {}, into: Operands = {}): Record<string, Tensor> {
    const row = (ops as Record<string, OpRow>)[op];
    if (!row) throw new MaeError('MAE_GRAPH', `there is no op '${op}'; the table (lib/graph/ops.ts) has ${Object.keys(ops).join(', ')}`);
    const x = this.checkOperands(op, row, operands);
    const y: Record<string, Tensor> = {};
    const prefix = [...this.scopes, op].join('.');
    const specs = row.outputs(x, attributes, this.info);
    for (const [name, spec] of Object.entries(specs)) {
      const given = into[name];
      if (given) {
        // A gradient may have more dimensions than the matrix that the row sees (patch_embed.proj.weight [D, C, p, p]).
        if (spec && size(given.shape) !== size(spec.shape)) {
          throw new MaeError(
            'MAE_SHAPE',
            `${op}: ${name} is ${describe({ shape: spec.shape, dtype: spec.dtype })}, but goes into ${describe(given)} (${given.name})`,
          );
        }
        y[name] = given;
      } else if (spec) {
        y[name] = this.tensor(spec.shape, spec.dtype, { kind: 'arena' }, `${prefix}.${name}`);
      }
    }
    const first = this.launches.length;
    const bytes =
      row.bytes === 'operands'
        ? [...Object.values(x), ...Object.values(y)].reduce((sum, t) => sum + bytesOf(t), 0)
        : row.bytes(x, y, attributes);
    row.launch((kernel, given, dims, reals = {}) => this.emit(kernel, given, dims, reals, prefix, row), x, y, attributes);
    this.traced.push({ op, label: prefix, flops: row.flops(x, attributes), bytes, launches: [first, this.launches.length] });
    this.nodes.push({ op, row, x, y, attributes, scope: [...this.scopes] });
    return y;
  }

  /**
   * Appends the backward pass of `loss`, the output of a root row: every parameter that it depends on has its gradient in the store after it.
   * @throws MaeError MAE_GRAPH for a loss that is no root, a path through a row without gradient, or a parameter as an operand that gets none
   */
  backward(loss: Tensor): void {
    const last = this.nodes.findIndex((node) => Object.values(node.y).includes(loss));
    const root = this.nodes[last];
    if (!root?.row.root) {
      throw new MaeError(
        'MAE_GRAPH',
        `backward: the loss must come from a loss row (masked_mse), got ${loss.name}${root ? ` of ${root.op}` : ''}`,
      );
    }
    const forward = this.nodes.slice(0, last + 1);
    const pass: BackwardPass = { gradients: new Map(), needed: this.dependsOnParameters(forward), again: new Map() };
    const { gradients, needed } = pass;
    const groups = new Set<readonly Node[]>();
    for (const node of forward.reverse()) {
      const isRoot = node === root;
      if (!isRoot && !Object.values(node.y).some((tensor) => gradients.has(tensor))) continue;
      if (!Object.values(node.x).some((tensor) => needed.has(tensor))) continue;
      if (node.row.grad === 'none') {
        throw new MaeError(
          'MAE_GRAPH',
          `backward: '${node.op}' (${[...node.scope, node.op].join('.')}) has no gradient, but parameters lie behind it`,
        );
      }
      const outer = this.scopes;
      if (node.group && !groups.has(node.group)) {
        // The last group's values are read soon after they are there: to compute them again would free a few percent of the arena at most.
        if (groups.size > 0) this.computeAgain(node.group, pass.again);
        groups.add(node.group);
      }
      this.scopes = [...node.scope];
      const intoParameters = new Set<string>();
      const results = node.row.grad(this.gradientContext(node, pass, intoParameters));
      for (const [name, input] of Object.entries(node.x)) {
        if (!needed.has(input) || intoParameters.has(name)) continue;
        const gradient = results[name];
        // A gradient that went nowhere would leave a parameter untrained without a word.
        if (!gradient || input.place.kind === 'parameter') {
          const label = [...node.scope, node.op].join('.');
          throw new MaeError(
            'MAE_GRAPH',
            `backward: '${label}' gives no gradient to a parameter as (or behind) its operand '${name}' (${input.name})`,
          );
        }
        this.contribute(gradients, input, gradient);
      }
      this.scopes = outer;
    }
  }

  /** The finished trace. */
  finish(): Trace {
    this.prune();
    return {
      info: this.info,
      launches: this.launches,
      ops: this.traced,
      segments: Object.keys(this.segments).length > 0 ? this.segments : { run: [0, this.launches.length] },
      inputs: this.inputs,
      kept: [...this.kept],
    };
  }

  // --- inner ---------------------------------------------------------------------------------------------------------------------
  private tensor(shape: Shape, dtype: DType, place: Place, name: string): Tensor {
    return { id: this.nextId++, shape, dtype, place, name };
  }

  private once(key: unknown, dtype: DType, make: () => Tensor): Tensor {
    const byType = this.leaves.get(key) ?? new Map<DType, Tensor>();
    this.leaves.set(key, byType);
    const tensor = byType.get(dtype) ?? make();
    byType.set(dtype, tensor);
    return tensor;
  }

  private checkOperands(op: string, row: OpRow, operands: Operands): Record<string, Tensor> {
    const x: Record<string, Tensor> = {};
    const names = new Set<string>();
    for (const declared of row.inputs) {
      const name = declared.replace('?', '');
      names.add(name);
      const tensor = operands[name];
      if (tensor) x[name] = tensor;
      else if (name === declared)
        throw new MaeError('MAE_GRAPH', `${op}: operand '${name}' is missing (it needs ${row.inputs.join(', ')})`);
    }
    for (const name of Object.keys(operands)) {
      if (!names.has(name)) throw new MaeError('MAE_GRAPH', `${op}: there is no operand '${name}' (it takes ${row.inputs.join(', ')})`);
    }
    return x;
  }

  private emit(
    kernel: string,
    operands: Operands,
    dims: Readonly<Record<string, number>>,
    reals: Readonly<Record<string, number>>,
    label: string,
    row: OpRow,
  ): void {
    const accumulate: Record<string, Accumulate> = {};
    const all: Record<string, Tensor | null> = {};
    for (const [name, tensor] of Object.entries(operands)) {
      all[name] = tensor ?? null;
      // Parameters' gradients and the loss: written by the first micro-batch, added to by later ones and by a second use in one pass.
      const accumulates = tensor?.place.kind === 'gradient' || (row.root && name === 'loss');
      if (tensor && accumulates) {
        accumulate[name] = this.writtenGradients.has(tensor) ? 'always' : 'after-first';
        this.writtenGradients.add(tensor);
      }
    }
    this.launches.push({ kernel, operands: all, accumulate, dims, reals, label, inPlace: row.inPlace ?? [], prunable: row.prunable ?? [] });
  }

  private dependsOnParameters(nodes: readonly Node[]): Set<Tensor> {
    const needed = new Set<Tensor>();
    for (const node of nodes) {
      const inputs = Object.values(node.x);
      for (const tensor of inputs) if (tensor.place.kind === 'parameter') needed.add(tensor);
      if (inputs.some((tensor) => needed.has(tensor))) for (const tensor of Object.values(node.y)) needed.add(tensor);
    }
    return needed;
  }

  private contribute(gradients: Map<Tensor, Tensor>, input: Tensor, gradient: Tensor): void {
    const before = gradients.get(input);
    gradients.set(input, before ? this.call('add', { a: before, b: gradient }).y : gradient);
  }

  /** Traces the rows of a group once more, as far as gradients read them, and notes what came of it. */
  private computeAgain(group: readonly Node[], again: Map<Tensor, Tensor>): void {
    for (const { op, x, y, attributes, scope } of group) {
      this.scopes = [...scope, 'recompute'];
      const results = this.call(op, latest(x, again), { ...attributes, recompute: true });
      for (const [name, tensor] of Object.entries(results)) again.set(y[name], tensor);
    }
  }

  /** @param intoParameters  filled with the operands whose gradients the rule has written to the store */
  private gradientContext(node: Node, { gradients, needed, again }: BackwardPass, intoParameters: Set<string>): GradientContext {
    return {
      info: this.info,
      x: latest(node.x, again),
      y: latest(node.y, again),
      attributes: node.attributes,
      d: (output) => gradients.get(node.y[output]) ?? null,
      call: (op, operands, attributes, into) => this.call(op, operands, attributes, into),
      accumulated: (input) => {
        const before = gradients.get(node.x[input]) ?? null;
        gradients.delete(node.x[input]);
        return before;
      },
      low: (gradient) => {
        if (gradient.dtype === this.info.compute) return gradient;
        const twin = this.lowTwin.get(gradient) ?? this.call('cast', { x: gradient }).y;
        this.lowTwin.set(gradient, twin);
        return twin;
      },
      setLow: (gradient, low) => {
        if (low) this.lowTwin.set(gradient, low);
      },
      parameterGradient: (input) => {
        const place = node.x[input]?.place;
        if (!place) return null;
        if (place.kind !== 'parameter') {
          throw new MaeError(
            'MAE_GRAPH',
            `${node.op}: '${input}' must be a parameter of the model to have a gradient, got ${node.x[input].name}`,
          );
        }
        intoParameters.add(input);
        const { parameter } = place;
        const key = `gradient of ${parameter.name}`;
        return this.once(key, 'f32', () => this.tensor(parameter.shape, 'f32', { kind: 'gradient', parameter }, key));
      },
      needs: (input) => needed.has(node.x[input]),
    };
  }

  /** Drops the optional outputs that nothing reads. */
  private prune(): void {
    const uses = new Map<Tensor, number>();
    for (const launch of this.launches) {
      for (const tensor of Object.values(launch.operands)) if (tensor) uses.set(tensor, (uses.get(tensor) ?? 0) + 1);
    }
    for (const launch of this.launches) {
      for (const name of launch.prunable) {
        const tensor = launch.operands[name];
        if (tensor?.place.kind === 'arena' && uses.get(tensor) === 1 && !this.kept.has(tensor)) launch.operands[name] = null;
      }
    }
  }
}

/** The tensors as they were computed last. */
function latest(tensors: Readonly<Record<string, Tensor>>, again: ReadonlyMap<Tensor, Tensor>): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, again.get(tensor) ?? tensor]));
}
