/** What a row of the op table is. A row that lacks a column does not compile; a gradient that does not exist is the written word 'none'. */
import type { DType, Shape, Tensor } from './tensor';

export type Attributes = Readonly<Record<string, number | boolean>>;
/** Operands by name; an optional one that is absent is null or missing. */
export type Operands = Readonly<Record<string, Tensor | null | undefined>>;
export type OutputSpec = { readonly shape: Shape; readonly dtype: DType };

/** What a row may know about the program it is traced into. */
export interface TraceInfo {
  /** dtype of activations and GEMM operands. */
  readonly compute: 'f32' | 'bf16';
  /** dtype of the residual stream, which the embedding starts and norms read. Default f32. */
  readonly stream?: 'f32' | 'bf16';
  readonly device: 'cpu' | 'cuda';
  /** False: no backward follows, so nothing is saved for one. */
  readonly training: boolean;
  /** True: the backward pass computes what Tape.recompute covers once more instead of finding it kept. Default false. */
  readonly recompute?: boolean;
}

/** Adds one kernel launch: operands by the names of native/kernels.def, then dims, then reals. */
export type Emit = (
  kernel: string,
  operands: Operands,
  dims: Readonly<Record<string, number>>,
  reals?: Readonly<Record<string, number>>,
) => void;

/** What a gradient rule is given. */
export interface GradientContext {
  readonly info: TraceInfo;
  /** The forward row's operands, results (as computed last: see Tape.recompute) and attributes. */
  readonly x: Readonly<Record<string, Tensor>>;
  readonly y: Readonly<Record<string, Tensor>>;
  readonly attributes: Attributes;
  /** Gradient of an output; null where nothing depends on it. */
  d(output: string): Tensor | null;
  /** Traces another row, here usually a backward kernel's. */
  call(op: string, operands: Operands, attributes?: Attributes, into?: Operands): Record<string, Tensor>;
  /** The gradient that an input already has from elsewhere, for a kernel that can add it: the rule's result then includes it. Or null. */
  accumulated(input: string): Tensor | null;
  /** `gradient` in the compute dtype, for the GEMMs: its bf16 twin where its producer wrote one, else a cast. */
  low(gradient: Tensor): Tensor;
  /** States that `low` is `gradient` rounded to bf16. */
  setLow(gradient: Tensor, low: Tensor | undefined): void;
  /** The gradient buffer of an input that is a parameter, null for an absent input. */
  parameterGradient(input: string): Tensor | null;
  needs(input: string): boolean;
}

/** Returns the gradients of the inputs by name; parameters' gradients go into `parameterGradient` instead. */
export type GradientRule = (context: GradientContext) => Record<string, Tensor | null>;

export interface OpRow {
  /** Operand names in order; a trailing '?' marks an optional one. */
  readonly inputs: readonly string[];
  /** The shape rule: the outputs, or MaeError MAE_SHAPE naming op, argument, need and what it got. Undefined: not made this time. */
  readonly outputs: (
    x: Readonly<Record<string, Tensor>>,
    attributes: Attributes,
    info: TraceInfo,
  ) => Record<string, OutputSpec | undefined>;
  /** 2 per multiply-add of the matrix products; elementwise work counts nothing (the reference's convention). */
  readonly flops: (x: Readonly<Record<string, Tensor>>, attributes: Attributes) => number;
  /** Bytes that must move: 'operands' = every operand and result once. */
  readonly bytes:
    'operands' | ((x: Readonly<Record<string, Tensor>>, y: Readonly<Record<string, Tensor>>, attributes: Attributes) => number);
  /** The kernels that the row runs; workspace is asked of them when the program is planned. */
  readonly launch: (emit: Emit, x: Readonly<Record<string, Tensor>>, y: Readonly<Record<string, Tensor>>, attributes: Attributes) => void;
  readonly grad: 'none' | GradientRule;
  /** Outputs that are dropped when nothing reads them (bf16 twins). */
  readonly prunable?: readonly string[];
  /** [output, input] pairs that may share memory when the input dies here. */
  readonly inPlace?: readonly (readonly [string, string])[];
  /** The row computes the loss and its gradient together: the tape accepts it only as the root of the backward pass. */
  readonly root?: boolean;
}
