/**
 * Every row of the op table in float64: plain loops, written from the formulas. The oracle of test/ops.test.ts; kernels share nothing with it
 * but lib/random.ts, whose twin in native code has published test vectors of its own.
 */
import type { OpName } from '../../lib/graph/ops';
import { attention, attentionGrad } from './attention';
import { add, cast } from './elementwise';
import { linear, linearGradInput, linearGradWeight, mlp } from './linear';
import { maskedMse } from './loss';
import { patchEmbed, patchEmbedGrad, randomMask } from './masking';
import { layerNorm, layerNormGrad } from './norm';
import { adamw, gradNorm } from './optimizer';
import { selectTokens, selectTokensGrad, unshuffle, unshuffleGrad } from './tokens';
import type { Reference } from './value';

export const references: Record<OpName, Reference> = {
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
};

export { Control, type Reference, type Round, type Value, type Values } from './value';
