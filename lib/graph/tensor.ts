/** Symbolic tensors: while a program is traced they are shapes and names, never memory. */
import { MaeError } from '../errors';

/** Element types; the numbers are native/kernel.h's. */
export type DType = 'f32' | 'bf16' | 'u8' | 'i32';
export const dtypeCode: Record<DType, number> = { f32: 0, bf16: 1, u8: 2, i32: 3 };
export const dtypeBytes: Record<DType, number> = { f32: 4, bf16: 2, u8: 1, i32: 4 };

export type Shape = readonly number[];

/** A trainable weight: fp32 master, optionally a bf16 copy, a gradient and optimizer moments in the model's store. */
export interface Parameter {
  readonly name: string;
  readonly shape: Shape;
  /** Fills the fp32 values at creation. */
  readonly init: (values: Float32Array, name: string) => void;
}

/** A fixed table that programs read: position embeddings, mean and standard deviation. */
export interface Constant {
  readonly name: string;
  readonly shape: Shape;
  readonly values: Float32Array;
}

/** Where a tensor's memory is: planned per program, given with every run, or in the model's store. */
export type Place =
  | { readonly kind: 'arena' }
  | { readonly kind: 'input'; readonly name: string }
  | { readonly kind: 'parameter'; readonly parameter: Parameter }
  | { readonly kind: 'gradient'; readonly parameter: Parameter }
  | { readonly kind: 'constant'; readonly constant: Constant }
  | { readonly kind: 'store'; readonly buffer: StoreBuffer };

/** The flat buffers of a store that the optimizer works on as a whole. */
export type StoreBuffer = 'parameters' | 'low' | 'gradients' | 'moment1' | 'moment2';

export interface Tensor {
  readonly id: number;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly place: Place;
  /** For people: "encoder.blocks.3.attention.qkv". */
  readonly name: string;
}

/** Number of elements. */
export function size(shape: Shape): number {
  return shape.reduce((product, n) => product * n, 1);
}

export function bytesOf(tensor: Pick<Tensor, 'shape' | 'dtype'>): number {
  return size(tensor.shape) * dtypeBytes[tensor.dtype];
}

/** "f32 [8, 50, 768]". */
export function describe(tensor: Pick<Tensor, 'shape' | 'dtype'>): string {
  return `${tensor.dtype} [${tensor.shape.join(', ')}]`;
}

/** Throws MAE_SHAPE unless `tensor` has `shape`; a null dimension matches anything. */
export function expectShape(op: string, argument: string, tensor: Tensor, shape: readonly (number | null)[]): void {
  const fits = tensor.shape.length === shape.length && shape.every((n, i) => n === null || n === tensor.shape[i]);
  if (!fits) {
    const wanted = shape.map((n) => n ?? 'any').join(', ');
    throw new MaeError('MAE_SHAPE', `${op}: ${argument} must be [${wanted}], got ${describe(tensor)} (${tensor.name})`);
  }
}

/** Throws MAE_SHAPE unless `tensor` has one of `dtypes`. */
export function expectDType(op: string, argument: string, tensor: Tensor, dtypes: readonly DType[]): void {
  if (!dtypes.includes(tensor.dtype)) {
    throw new MaeError('MAE_SHAPE', `${op}: ${argument} must be ${dtypes.join(' or ')}, got ${describe(tensor)} (${tensor.name})`);
  }
}
