/** Gradients of one row through Tape.backward, and the same from finite differences of the float64 reference. */
import type { OpenDevice } from '../../lib/graph/device';
import { Program } from '../../lib/graph/program';
import { Store } from '../../lib/graph/store';
import { Tape } from '../../lib/graph/tape';
import type { Parameter, Shape, Tensor } from '../../lib/graph/tensor';
import { learnable, type Drawn, type OpCase } from '../cases';
import { references, type Value, type Values } from '../reference';
import { Draw, float32Of, operandOf, type Operand } from './draw';
import { referenceOperands, toBf16 } from './runOp';

/** Gradients by operand name, in the operand's own shape. */
export type Gradients = ReadonlyMap<string, Float64Array>;

/** A row's differentiable operands, and the target of the squared error that makes a loss of its result (absent for a loss row). */
export interface GradientProblem {
  readonly test: OpCase;
  readonly drawn: Drawn;
  readonly leaves: readonly string[];
  readonly target: Operand | undefined;
}

export function gradientProblem(test: OpCase, seed: number): GradientProblem {
  const { output, leaves: kinds } = learnable[test.op]!;
  const { operands, into } = test.draw(seed);
  const leaves = Object.keys(kinds).filter((name) => operands[name]);
  // Activations come out of a bf16 matrix in a bf16 program: both sides take the rounded values.
  const rounded = Object.fromEntries(
    leaves
      .filter((name) => kinds[name] === 'activation' && test.compute === 'bf16' && operands[name].dtype === 'f32')
      .map((name) => [name, operandOf(toBf16(Float64Array.from(operands[name].data)), operands[name].shape, 'f32')]),
  );
  const drawn = { operands: { ...operands, ...rounded }, into };
  if (!output) return { test, drawn, leaves, target: undefined };
  const y = references[test.op](referenceOperands(drawn), test.attributes, (v) => v)[output];
  const [batch, count, width] = y.shape;
  return { test, drawn, leaves, target: new Draw(seed + 1, 'f32').f32([batch, count, 1, width]) };
}

/** Σ (y − target)² / width, or the row's own loss. */
export function referenceLoss({ test, target }: GradientProblem, operands: Values): number {
  const results = references[test.op](operands, test.attributes, (v) => v);
  if (!target) return results.loss.values[0];
  const y = results[learnable[test.op]!.output!];
  return y.values.reduce((sum, v, i) => sum + (v - target.data[i]) ** 2, 0) / y.shape[y.shape.length - 1];
}

/** Derivative of `f` at `operands` along `direction`: central differences of fourth order. */
export function slopeAlong(operands: Values, direction: Gradients, f: (operands: Values) => number): number {
  const at = (step: number): number => {
    const moved = [...direction].map(([name, v]): [string, Value] => [
      name,
      { shape: operands[name].shape, values: operands[name].values.map((x, i) => x + step * v[i]) },
    ]);
    return f({ ...operands, ...Object.fromEntries(moved) });
  };
  const h = 1e-3;
  return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
}

/** The same for every value of `name` by itself: for small shapes only. */
export function slopes(operands: Values, name: string, f: (operands: Values) => number): Float64Array {
  const { length } = operands[name].values;
  const unit = (i: number): Float64Array => Float64Array.from({ length }, (_, j) => Number(i === j));
  return Float64Array.from({ length }, (_, i) => slopeAlong(operands, new Map([[name, unit(i)]]), f));
}

/** Derivative of the reference's loss along `direction`. */
export function alongDirection(problem: GradientProblem, direction: Gradients): number {
  return slopeAlong(referenceOperands(problem.drawn), direction, (operands) => referenceLoss(problem, operands));
}

/** Element by element: for small shapes only. */
export function numericGradients(problem: GradientProblem): Gradients {
  const at = referenceOperands(problem.drawn);
  return new Map(problem.leaves.map((name) => [name, slopes(at, name, (operands) => referenceLoss(problem, operands))]));
}

/** [rows, columns] → [columns, rows]. */
function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c];
  return out;
}

/** The identity matrix [n, n]. */
function identityMatrix(n: number): Float32Array {
  const out = new Float32Array(n * n);
  for (let i = 0; i < n; i++) out[i * (n + 1)] = 1;
  return out;
}

/** Traces the row, a squared error behind it and the backward pass; runs it; reads the gradients. */
export async function deviceGradients(device: OpenDevice, { test, drawn, leaves, target }: GradientProblem): Promise<Gradients> {
  const tape = new Tape({ compute: test.compute, stream: test.stream, device: device.kind, training: true });
  const { output, leaves: kinds } = learnable[test.op]!;
  const inputs: Record<string, Operand['data']> = {};
  const input = (name: string, { shape, dtype, data }: Operand): Tensor => {
    inputs[name] = data;
    return tape.input(name, shape, dtype);
  };
  const parameters = new Map<string, Parameter>();
  const parameter = (name: string, shape: Shape, values: Float32Array): Parameter => {
    const made = { name, shape, init: (to: Float32Array) => to.set(values) };
    parameters.set(name, made);
    return made;
  };
  const operands = Object.entries(drawn.operands).map(([name, operand]): [string, Tensor] => {
    if (!leaves.includes(name)) return [name, input(name, operand)];
    const values = float32Of(operand);
    if (kinds[name] === 'weight') return [name, tape.weight(parameter(name, operand.shape, values))];
    if (kinds[name] === 'parameter') return [name, tape.parameter(parameter(name, operand.shape, values))];
    // An activation with a gradient: the identity matrix times a parameter that holds it transposed, which is exact in any precision.
    const width = operand.shape[operand.shape.length - 1];
    const rows = values.length / width;
    const identity = operandOf(identityMatrix(rows), [...operand.shape.slice(0, -1), rows], test.compute);
    const w = tape.weight(parameter(name, [width, rows], transpose(values, rows, width)));
    return [name, tape.call('linear', { x: input(`identity for ${name}`, identity), w }, { f32: operand.dtype === 'f32' }).y];
  });
  const y = tape.call(test.op, Object.fromEntries(operands), test.attributes);
  const loss = output ? squaredError(tape, input, y[output], target!) : y.loss;
  tape.backward(tape.keep(loss));

  const store = new Store(device.id, device.handle, test.compute, [...parameters.values()], []);
  store.prepareTraining();
  store.buffer('gradients').fill(0xff);
  const program = new Program(tape.finish(), store, { poison: true });
  try {
    await (
      await program.run([inputs], [{ segment: 'run' }])
    ).results;
    const read = leaves.map(async (name): Promise<[string, Float64Array]> => {
      const values = await store.read(parameters.get(name)!, 'gradients');
      const [width, rows] = parameters.get(name)!.shape;
      return [name, Float64Array.from(kinds[name] === 'activation' ? transpose(values, width, rows) : values)];
    });
    return new Map(await Promise.all(read));
  } finally {
    program.dispose();
    store.dispose();
  }
}

/** masked_mse over "pictures" of one column whose pixels are the values of a token: patches of 1 pixel, as many channels as the width. */
function squaredError(tape: Tape, input: (name: string, operand: Operand) => Tensor, pred: Tensor, target: Operand): Tensor {
  const [, , width] = pred.shape;
  return tape.call(
    'masked_mse',
    {
      pred,
      images: input('target', target),
      scale: input('one', operandOf(new Float32Array(width).fill(1), [width], 'f32')),
      shift: input('zero', operandOf(new Float32Array(width), [width], 'f32')),
      control: input('loss control', new Draw(0, 'f32').control()),
    },
    { patch: 1, first: 0, counted: 1, normPix: false },
  ).loss;
}
