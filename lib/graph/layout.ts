/** The flat buffers of a store: every parameter's place in them is the same in weights, bf16 copies, gradients and moments. */
import { size, type Parameter } from './tensor';

/** Elements; keeps every parameter on a 256-byte boundary in its bf16 copy too. */
const ELEMENT_ALIGNMENT = 128;

export const alignElements = (n: number): number => Math.ceil(n / ELEMENT_ALIGNMENT) * ELEMENT_ALIGNMENT;

export interface Layout {
  /** First element of each parameter. */
  readonly offsets: ReadonlyMap<Parameter, number>;
  /** Elements of a buffer, padding included. */
  readonly count: number;
}

export function layoutOf(parameters: readonly Parameter[]): Layout {
  const offsets = new Map<Parameter, number>();
  let count = 0;
  for (const parameter of parameters) {
    offsets.set(parameter, count);
    count += alignElements(size(parameter.shape));
  }
  return { offsets, count };
}
