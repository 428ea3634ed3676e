/** The table of ops: one row each (op.ts says what a row holds). Backward kernels are ordinary rows. docs/adding-an-op.md adds one. */
import type { OpRow } from './op';
import { attention, attentionGrad } from './ops/attention';
import { add, cast } from './ops/elementwise';
import { linear, linearGradInput, linearGradWeight, mlp } from './ops/linear';
import { maskedMse } from './ops/loss';
import { patchEmbed, patchEmbedGrad, randomMask } from './ops/masking';
import { layerNorm, layerNormGrad } from './ops/norm';
import { adamw, gradNorm } from './ops/optimizer';
import { selectTokens, selectTokensGrad, unshuffle, unshuffleGrad } from './ops/tokens';

export const ops = {
  random_mask: randomMask,
  patch_embed: patchEmbed,
  patch_embed_grad: patchEmbedGrad,
  linear,
  linear_grad_input: linearGradInput,
  linear_grad_weight: linearGradWeight,
  mlp,
  layer_norm: layerNorm,
  layer_norm_grad: layerNormGrad,
  attention,
  attention_grad: attentionGrad,
  unshuffle,
  unshuffle_grad: unshuffleGrad,
  select_tokens: selectTokens,
  select_tokens_grad: selectTokensGrad,
  masked_mse: maskedMse,
  cast,
  add,
  grad_norm: gradNorm,
  adamw,
} satisfies Record<string, OpRow>;

export type OpName = keyof typeof ops;
