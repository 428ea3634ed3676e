/** Layers: their parameters under the reference's names, and what they trace. */
import type { Tape } from '../graph/tape';
import type { Parameter, Tensor } from '../graph/tensor';
import { constant, type ParameterFactory, xavierUniform } from './init';

export interface Linear {
  readonly weight: Parameter;
  readonly bias: Parameter;
}

/** weight [outputs, inputs] xavier-uniform, bias [outputs] zero. */
export function makeLinear(make: ParameterFactory, name: string, inputs: number, outputs: number): Linear {
  return { weight: make.make(`${name}.weight`, [outputs, inputs], xavierUniform), bias: make.make(`${name}.bias`, [outputs], constant(0)) };
}

/** x [..., inputs] → [..., outputs], + residual where given (then in the residual's dtype). */
export function linear(t: Tape, layer: Linear, x: Tensor, residual?: Tensor): Tensor {
  return t.call('linear', { x, w: t.weight(layer.weight), bias: t.parameter(layer.bias), residual }).y;
}

export interface LayerNorm {
  readonly weight: Parameter;
  readonly bias: Parameter;
}

export function makeLayerNorm(make: ParameterFactory, name: string, width: number): LayerNorm {
  return { weight: make.make(`${name}.weight`, [width], constant(1)), bias: make.make(`${name}.bias`, [width], constant(0)) };
}

/** x [..., width] → the same shape in the compute dtype. */
export function layerNorm(t: Tape, layer: LayerNorm, x: Tensor, eps: number): Tensor {
  return t.call('layer_norm', { x, weight: t.parameter(layer.weight), bias: t.parameter(layer.bias) }, { eps }).y;
}

/** A pre-norm Transformer block (ViT): x += attention(LN(x)); x += mlp(LN(x)). */
export interface Block {
  readonly heads: number;
  readonly norm1: LayerNorm;
  readonly qkv: Linear;
  readonly proj: Linear;
  readonly norm2: LayerNorm;
  readonly fc1: Linear;
  readonly fc2: Linear;
}

export function makeBlock(make: ParameterFactory, name: string, width: number, heads: number, mlpRatio: number): Block {
  const hidden = width * mlpRatio;
  return {
    heads,
    norm1: makeLayerNorm(make, `${name}.norm1`, width),
    qkv: makeLinear(make, `${name}.attn.qkv`, width, 3 * width),
    proj: makeLinear(make, `${name}.attn.proj`, width, width),
    norm2: makeLayerNorm(make, `${name}.norm2`, width),
    fc1: makeLinear(make, `${name}.mlp.fc1`, width, hidden),
    fc2: makeLinear(make, `${name}.mlp.fc2`, hidden, width),
  };
}

/** x [batch, tokens, width], the residual stream. */
export function block(t: Tape, layer: Block, x: Tensor, eps: number): Tensor {
  const qkv = linear(t, layer.qkv, layerNorm(t, layer.norm1, x, eps));
  const { out } = t.call('attention', { qkv }, { heads: layer.heads });
  const attended = linear(t, layer.proj, out, x);
  return mlp(t, layer, layerNorm(t, layer.norm2, attended, eps), attended);
}

function mlp(t: Tape, { fc1, fc2 }: Block, x: Tensor, residual: Tensor): Tensor {
  const [w1, w2] = [t.weight(fc1.weight), t.weight(fc2.weight)];
  return t.call('mlp', { x, w1, b1: t.parameter(fc1.bias), w2, b2: t.parameter(fc2.bias), residual }).y;
}

/** A stack of blocks, labelled blocks.0, blocks.1, …; with the tape's `recompute` only the streams between them are kept for backward. */
export function blocks(t: Tape, layers: readonly Block[], x: Tensor, eps: number): Tensor {
  return layers.reduce((stream, layer, i) => t.scope(`blocks.${i}`, () => t.recompute(() => block(t, layer, stream, eps))), x);
}
