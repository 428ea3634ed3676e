/** The reference's initialisation (MAE.md 1.4). Drawn on the host: the same seed gives the same weights on every machine and device. */
import type { Parameter, Shape } from '../graph/tensor';
import { size } from '../graph/tensor';
import { Purpose, RandomStream } from '../random';

export type Init = (stream: RandomStream, values: Float32Array, shape: Shape) => void;

/** U(±√(6 / (fanIn + fanOut))) of the matrix [shape[0], everything else]: qkv counts as one matrix, the patch convolution as a linear layer. */
export const xavierUniform: Init = (stream, values, shape) => {
  const fanOut = shape[0];
  uniform(stream, values, Math.sqrt(6 / (values.length / fanOut + fanOut)));
};

/** U(±1/√fanIn): PyTorch's default for a convolution's bias, which the reference keeps for the patch embedding. */
export const convBias =
  (fanIn: number): Init =>
  (stream, values) =>
    uniform(stream, values, 1 / Math.sqrt(fanIn));

export const normal =
  (std: number): Init =>
  (stream, values) => {
    for (let i = 0; i < values.length; i++) values[i] = std * stream.normal();
  };

export const constant =
  (value: number): Init =>
  (_, values) =>
    values.fill(value);

function uniform(stream: RandomStream, values: Float32Array, bound: number): void {
  for (let i = 0; i < values.length; i++) values[i] = bound * (2 * stream.uniform() - 1);
}

/** Makes a model's parameters: each draws from a stream of its own, numbered in the order of making. */
export class ParameterFactory {
  readonly parameters: Parameter[] = [];

  constructor(private readonly seed: number) {}

  make(name: string, shape: Shape, init: Init): Parameter {
    const stream = new RandomStream(this.seed, Purpose.init, this.parameters.length);
    const parameter: Parameter = { name, shape, init: (values) => init(stream, values, shape) };
    this.parameters.push(parameter);
    return parameter;
  }

  /** Total number of values so far. */
  get count(): number {
    return this.parameters.reduce((sum, { shape }) => sum + size(shape), 0);
  }
}
