/** One kernel launch by itself, timed as the best of several: what it can do when nothing disturbs it. */
import { bfloat16FromFloat32 } from '../halfPrecision';
import { dtypeOf, type OpenDevice, type Precision } from '../graph/device';
import { Program } from '../graph/program';
import { Store } from '../graph/store';
import { Tape, type Trace } from '../graph/tape';
import type { Tensor } from '../graph/tensor';
import { ParameterFactory, xavierUniform } from '../nn/init';
import type { Products } from './result';

/** How often something is run: until the seconds are over, but `least` times and `most`. */
export interface Runs {
  readonly least: number;
  readonly most: number;
  readonly seconds: number;
}

/** A product of a layer that takes [rows, k] to [rows, n]. */
export type Product = Omit<Products['products'][number], 'seconds'>;

/** Seconds of the trace's only launch. Releases the store. */
export function bestSeconds(trace: Trace, store: Store, inputs: Readonly<Record<string, ArrayBufferView>>, runs: Runs): number {
  const program = new Program(trace, store);
  try {
    const times: number[] = [];
    const started = performance.now();
    while (times.length < runs.least || (times.length < runs.most && performance.now() - started < runs.seconds * 1000)) {
      times.push(program.profile([inputs], [{ segment: 'run' }])[0]);
    }
    return Math.min(...times);
  } finally {
    program.dispose();
    store.dispose();
  }
}

/** Seconds of a matrix product, without what a model adds to it. */
export function productSeconds({ pass, rows, n, k }: Product, device: OpenDevice, precision: Precision, runs: Runs): number {
  const compute = dtypeOf(precision);
  const make = new ParameterFactory(0);
  const weight = make.make('w', [n, k], xavierUniform);
  const store = new Store(device.id, device.handle, compute, make.parameters, []);
  const t = new Tape({ compute, device: device.kind, training: false });
  const inputs: Record<string, ArrayBufferView> = {};
  const input = (name: string, width: number): Tensor => {
    const values = new Float32Array(rows * width);
    xavierUniform(values, [rows, width], 0, 1);
    inputs[name] = compute === 'bf16' ? bfloat16FromFloat32(values) : values;
    return t.input(name, [rows, width], compute);
  };
  if (pass === 'forward') t.call('linear', { x: input('x', k), w: t.weight(weight) });
  else if (pass === 'input gradient') t.call('linear_grad_input', { dy: input('dy', n), w: t.weight(weight) });
  else t.call('linear_grad_weight', { x: input('x', k), dy: input('dy', n) });
  return bestSeconds(t.finish(), store, inputs, runs);
}
