/** The masked autoencoder (He et al. 2021, section 3): parameters, encoder, decoder and loss, as the paper says them. */
import type { Tape } from '../graph/tape';
import type { Constant, Parameter, Tensor } from '../graph/tensor';
import { gridSize, type MaeConfig, numPatches, numVisible, patchDim } from './config';
import { convBias, normal, ParameterFactory, xavierUniform } from './init';
import { type Block, blocks, type LayerNorm, layerNorm, type Linear, linear, makeBlock, makeLayerNorm, makeLinear } from './layers';
import { sinCosPosEmbed2d } from './posEmbed';

/** Every parameter and table of a model, under the reference's names. */
export interface Mae {
  readonly config: MaeConfig;
  readonly parameters: readonly Parameter[];
  readonly constants: readonly Constant[];
  readonly patchEmbed: Linear;
  readonly clsToken: Parameter;
  readonly posEmbed: Constant;
  readonly blocks: readonly Block[];
  readonly norm: LayerNorm;
  /** Only in the model that keeps mask tokens in its encoder. */
  readonly encoderMaskToken?: Parameter;
  readonly decoderEmbed: Linear;
  readonly maskToken: Parameter;
  readonly decoderPosEmbed: Constant;
  readonly decoderBlocks: readonly Block[];
  readonly decoderNorm: LayerNorm;
  readonly decoderPred: Linear;
  /** value·scale + shift normalises a picture's value (0–255 for uint8, 0–1 for float32). */
  readonly scale: Constant;
  readonly shift: Constant;
}

/** Declares a model; its initial weights are drawn when a store is made of it. */
export function makeMae(config: MaeConfig, seed: number, imageDType: 'u8' | 'f32' = 'u8'): Mae {
  const make = new ParameterFactory(seed);
  const { embedDim, decoderEmbedDim, patchSize, inChans, mlpRatio } = config;
  const [rows, columns] = gridSize(config);
  const table = (name: string, width: number): Constant => ({
    name,
    shape: [rows * columns + 1, width],
    values: sinCosPosEmbed2d(width, rows, columns, true),
  });
  const perChannel = (name: string, value: (channel: number) => number): Constant => ({
    name,
    shape: [inChans],
    values: Float32Array.from({ length: inChans }, (_, channel) => value(channel)),
  });
  const full = imageDType === 'u8' ? 255 : 1;

  const encoder = {
    clsToken: make.make('cls_token', [1, 1, embedDim], normal(0.02)),
    patchEmbed: {
      weight: make.make('patch_embed.proj.weight', [embedDim, inChans, patchSize, patchSize], xavierUniform),
      bias: make.make('patch_embed.proj.bias', [embedDim], convBias(patchDim(config))),
    },
    blocks: Array.from({ length: config.depth }, (_, i) => makeBlock(make, `blocks.${i}`, embedDim, config.numHeads, mlpRatio)),
    norm: makeLayerNorm(make, 'norm', embedDim),
    posEmbed: table('pos_embed', embedDim),
  };
  const decoder = {
    decoderEmbed: makeLinear(make, 'decoder_embed', embedDim, decoderEmbedDim),
    maskToken: make.make('mask_token', [1, 1, decoderEmbedDim], normal(0.02)),
    decoderBlocks: Array.from({ length: config.decoderDepth }, (_, i) =>
      makeBlock(make, `decoder_blocks.${i}`, decoderEmbedDim, config.decoderNumHeads, mlpRatio),
    ),
    decoderNorm: makeLayerNorm(make, 'decoder_norm', decoderEmbedDim),
    decoderPred: makeLinear(make, 'decoder_pred', decoderEmbedDim, patchDim(config)),
    decoderPosEmbed: table('decoder_pos_embed', decoderEmbedDim),
  };
  const encoderMaskToken = config.maskTokensInEncoder ? make.make('encoder_mask_token', [1, 1, embedDim], normal(0.02)) : undefined;
  const scale = perChannel('scale', (channel) => 1 / (full * config.std[channel]));
  const shift = perChannel('shift', (channel) => -config.mean[channel] / config.std[channel]);
  const constants = [encoder.posEmbed, decoder.decoderPosEmbed, scale, shift];
  return { config, parameters: make.parameters, constants, ...encoder, ...decoder, encoderMaskToken, scale, shift };
}

/** Which patches stay visible. ids [batch, L] in shuffled order, restore its inverse, mask [batch, L] 0 = kept, 1 = removed. */
export interface Mask {
  readonly ids: Tensor;
  readonly restore: Tensor;
  readonly mask: Tensor;
}

/** Section 3 "Masking": a random permutation of the patches of every picture; the first quarter (maskRatio 0.75) stays. */
export function randomMask(t: Tape, { config }: Mae, control: Tensor, indices: Tensor, seed: number, noise?: Tensor): Mask {
  const attributes = { patches: numPatches(config), visible: numVisible(config), seed };
  const { ids, restore, mask } = t.call('random_mask', { control, indices, noise }, attributes);
  return { ids, restore, mask };
}

/**
 * Section 3 "MAE encoder": a ViT on the visible patches only; images [batch, H, W, C] → latent [batch, visible + 1, embedDim], cls first.
 * Without a mask every patch is encoded.
 */
export function encode(t: Tape, mae: Mae, images: Tensor, mask?: Mask): Tensor {
  return t.scope('encoder', () => {
    const { config } = mae;
    const visible = mask ? numVisible(config) : numPatches(config);
    const withMaskTokens = mask && mae.encoderMaskToken;
    const { tokens } = t.call(
      'patch_embed',
      {
        images,
        ids: mask?.ids,
        scale: t.constant(mae.scale),
        shift: t.constant(mae.shift),
        w: flat(t, mae.patchEmbed.weight),
        bias: t.parameter(mae.patchEmbed.bias),
        cls: vector(t, mae.clsToken),
        pos: withMaskTokens ? null : t.constant(mae.posEmbed),
      },
      { patch: config.patchSize, visible },
    );
    const stream = withMaskTokens ? restoreOrder(t, tokens, mae.encoderMaskToken!, mae.posEmbed, mask) : tokens;
    return layerNorm(t, mae.norm, blocks(t, mae.blocks, stream, config.layerNormEps), config.layerNormEps);
  });
}

/**
 * Section 3 "MAE decoder": mask tokens fill the places of the removed patches, positions are added to all, a small Transformer follows.
 * latent → stream [batch, L + 1, decoderEmbedDim], before the decoder's norm.
 */
export function decode(t: Tape, mae: Mae, latent: Tensor, mask: Mask): Tensor {
  const embedded = linear(t, mae.decoderEmbed, latent);
  const stream = mae.encoderMaskToken
    ? t.call('unshuffle', { x: embedded, pos: t.constant(mae.decoderPosEmbed) }).y
    : restoreOrder(t, embedded, mae.maskToken, mae.decoderPosEmbed, mask);
  return blocks(t, mae.decoderBlocks, stream, mae.config.layerNormEps);
}

/** Predicted pixels [batch, count, p·p·C] of the removed patches (count = L − visible), or of all L in order. */
export function predict(t: Tape, mae: Mae, stream: Tensor, mask: Mask, which: 'removed' | 'all'): Tensor {
  const patches = numPatches(mae.config);
  const visible = numVisible(mae.config);
  const { y } =
    which === 'removed'
      ? t.call('select_tokens', { x: stream, ids: mask.ids, restore: mask.restore }, { first: visible, count: patches - visible })
      : t.call('select_tokens', { x: stream }, { first: 0, count: patches });
  return linear(t, mae.decoderPred, layerNorm(t, mae.decoderNorm, y, mae.config.layerNormEps));
}

/** Section 3 "Reconstruction target": mean squared error over the removed patches [1], pixels or per-patch-normalised pixels. */
export function reconstructionLoss(
  t: Tape,
  mae: Mae,
  pred: Tensor,
  images: Tensor,
  control: Tensor,
  mask: Mask,
  which: 'removed' | 'all',
): Tensor {
  const { config } = mae;
  const visible = numVisible(config);
  const removed = numPatches(config) - visible;
  const patchesOf = which === 'removed' ? { ids: mask.ids } : { mask: mask.mask };
  return t.call(
    'masked_mse',
    { pred, images, scale: t.constant(mae.scale), shift: t.constant(mae.shift), control, ...patchesOf },
    { patch: config.patchSize, first: which === 'removed' ? visible : 0, counted: images.shape[0] * removed, normPix: config.normPixLoss },
  ).loss;
}

function restoreOrder(t: Tape, x: Tensor, maskToken: Parameter, pos: Constant, mask: Mask): Tensor {
  return t.call('unshuffle', { x, mask_token: vector(t, maskToken), pos: t.constant(pos), ids: mask.ids, restore: mask.restore }).y;
}

/** A token parameter [1, 1, D] as the vector [D] that kernels read. */
function vector(t: Tape, parameter: Parameter): Tensor {
  return t.view(t.parameter(parameter), [parameter.shape[2]]);
}

/** The patch convolution's weight [D, C, p, p] as the matrix [D, C·p·p]. */
function flat(t: Tape, weight: Parameter): Tensor {
  const [outputs, ...inner] = weight.shape;
  return t.view(t.weight(weight), [outputs, inner.reduce((product, n) => product * n, 1)]);
}
