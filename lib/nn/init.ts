/** The reference's initialisation. Drawn on the host: the same seed gives the same weights on every machine and device. */
import type { Parameter, Shape } from '../graph/tensor';
import { native } from '../native';
import { Purpose, RandomStream } from '../random';

/** Fills a parameter's values from the stream (seed, init, number). */
export type Init = (values: Float32Array, shape: Shape, seed: number, number: number) => void;

/** U(±√(6 / (fanIn + fanOut))) of the matrix [shape[0], everything else]: qkv counts as one matrix, the patch convolution as a linear layer. */
export const xavierUniform: Init = (values, shape, seed, number) => {
  const fanOut = shape[0];
  uniform(values, Math.sqrt(6 / (values.length / fanOut + fanOut)), seed, number);
};

/** U(±1/√fanIn): PyTorch's default for a convolution's bias, which the reference keeps for the patch embedding. */
export const convBias =
  (fanIn: number): Init =>
  (values, _, seed, number) =>
    uniform(values, 1 / Math.sqrt(fanIn), seed, number);

export const normal =
  (std: number): Init =>
  (values, _, seed, number) => {
    const stream = new RandomStream(seed, Purpose.init, number);
    for (let i = 0; i < values.length; i++) values[i] = std * stream.normal();
  };

export const constant =
  (value: number): Init =>
  (values) =>
    values.fill(value);

function uniform(values: Float32Array, bound: number, seed: number, number: number): void {
  native().fillUniform(values, bound, seed, Purpose.init, number);
}

/** Makes a model's parameters: each draws from a stream of its own, numbered in the order of making. */
export class ParameterFactory {
  readonly parameters: Parameter[] = [];

  constructor(private readonly seed: number) {}

  make(name: string, shape: Shape, init: Init): Parameter {
    const number = this.parameters.length;
    const parameter: Parameter = { name, shape, init: (values) => init(values, shape, this.seed, number) };
    this.parameters.push(parameter);
    return parameter;
  }
}
