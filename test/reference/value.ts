/** What the reference computes with: float64 values in row-major order, and how a naive computation would round them. */
import type { Attributes } from '../../lib/graph/op';
import type { Shape } from '../../lib/graph/tensor';

export interface Value {
  readonly shape: Shape;
  readonly values: Float64Array;
}

/** Operands or results of a row by name; an absent operand is missing. */
export type Values = Readonly<Record<string, Value>>;

/**
 * What happens to an intermediate tensor that a program stores in its compute dtype: nothing in the exact reference, rounding to bf16 in
 * the naive computation that a bf16 kernel is measured against.
 */
export type Round = (values: Float64Array) => Float64Array;

/** One row of the op table in float64. */
export type Reference = (x: Values, attributes: Attributes, low: Round) => Record<string, Value>;

export function sizeOf(shape: Shape): number {
  return shape.reduce((product, n) => product * n, 1);
}

export function zeros(shape: Shape): Value {
  return { shape, values: new Float64Array(sizeOf(shape)) };
}

/** [rows, width] of a tensor whose last dimension is the width. */
export function matrixOf({ shape }: Value): [rows: number, width: number] {
  const width = shape[shape.length - 1];
  return [sizeOf(shape) / width, width];
}

/** The index at [b, j] of an index operand [batch, patches]; absent: the identity. */
export function indexAt(indices: Value | undefined, b: number, patches: number, j: number): number {
  return indices ? indices.values[b * patches + j] : j;
}

/** Words of the control buffer (lib/graph/control.ts), as the harness hands them to the reference. */
export const Control = { lr: 0, bias1: 1, bias2: 2, gradScale: 3, maxNorm: 4, epoch: 5, step: 6 } as const;
