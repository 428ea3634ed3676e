/** `config.json` and `preprocessor_config.json`, the two files that Hugging Face ViTMAE wants beside the weights. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { MaeError } from '../errors';
import { fromMetadata, type WeightsConfig } from './metadata';
import type { NameStyle } from './names';

/**
 * The contents of `config.json` (model type `vit_mae`). LayerNorm's epsilon is written out: the default there is 1e-12, not 1e-6.
 *
 * @throws MaeError MAE_ARGUMENT for pictures that are not square: ViTMAE does not take them (transformers issue 35280)
 */
export function toHuggingFaceConfig(config: WeightsConfig, options: { encoderOnly?: boolean } = {}): Record<string, unknown> {
  const [height, width] = config.imageSize;
  if (height !== width) {
    throw new MaeError('MAE_ARGUMENT', `Hugging Face ViTMAE takes square pictures only, got ${height}x${width}: use the 'reference' names`);
  }
  return {
    architectures: [options.encoderOnly ? 'ViTMAEModel' : 'ViTMAEForPreTraining'],
    model_type: 'vit_mae',
    image_size: height,
    patch_size: config.patchSize,
    num_channels: config.inChans,
    hidden_size: config.embedDim,
    num_hidden_layers: config.depth,
    num_attention_heads: config.numHeads,
    intermediate_size: config.embedDim * config.mlpRatio,
    hidden_act: 'gelu',
    hidden_dropout_prob: 0,
    attention_probs_dropout_prob: 0,
    initializer_range: 0.02,
    layer_norm_eps: config.layerNormEps,
    qkv_bias: true,
    decoder_hidden_size: config.decoderEmbedDim,
    decoder_num_hidden_layers: config.decoderDepth,
    decoder_num_attention_heads: config.decoderNumHeads,
    decoder_intermediate_size: config.decoderEmbedDim * config.mlpRatio,
    mask_ratio: config.maskRatio,
    norm_pix_loss: config.normPixLoss,
    torch_dtype: 'float32',
  };
}

/** The contents of `preprocessor_config.json`; resample 3 is bicubic, as the pictures were in training. */
export function toPreprocessorConfig({ imageSize: [height, width], mean, std }: WeightsConfig): Record<string, unknown> {
  return {
    image_processor_type: 'ViTImageProcessor',
    do_resize: true,
    size: { height, width },
    resample: 3,
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
    image_mean: mean,
    image_std: std,
  };
}

/**
 * What a `config.json` of ViTMAE says of the model, with Hugging Face's defaults for what it leaves out; mean and std are in
 * `preprocessor_config.json`, which may be given too.
 *
 * @throws MaeError MAE_FORMAT when it is of another model type or a value is not a number
 */
export function fromHuggingFaceConfig(config: Record<string, unknown>, preprocessor: Record<string, unknown> = {}): Partial<WeightsConfig> {
  if (config.model_type !== 'vit_mae') {
    throw new MaeError('MAE_FORMAT', `config.json is of model type ${String(config.model_type)}, vit_mae is needed`);
  }
  const number = (key: string, missing: number): number => {
    const value = config[key] ?? missing;
    if (typeof value !== 'number') throw new MaeError('MAE_FORMAT', `config.json: ${key} must be a number, got ${JSON.stringify(value)}`);
    return value;
  };
  const size = number('image_size', 224);
  const embedDim = number('hidden_size', 768);
  const { image_mean: mean, image_std: std } = preprocessor as { image_mean?: number[]; image_std?: number[] };
  return {
    imageSize: [size, size],
    patchSize: number('patch_size', 16),
    inChans: number('num_channels', 3),
    embedDim,
    depth: number('num_hidden_layers', 12),
    numHeads: number('num_attention_heads', 12),
    mlpRatio: number('intermediate_size', 3072) / embedDim,
    decoderEmbedDim: number('decoder_hidden_size', 512),
    decoderDepth: number('decoder_num_hidden_layers', 8),
    decoderNumHeads: number('decoder_num_attention_heads', 16),
    maskRatio: number('mask_ratio', 0.75),
    normPixLoss: config.norm_pix_loss === true,
    layerNormEps: number('layer_norm_eps', 1e-12),
    ...(mean && { mean }),
    ...(std && { std }),
  };
}

/**
 * What is known of the model whose weights are in `file`: the metadata, or for Hugging Face's own files, which have none, the
 * `config.json` and `preprocessor_config.json` beside them.
 *
 * @throws MaeError MAE_FORMAT
 */
export function configOf(file: string, style: NameStyle, metadata: Readonly<Record<string, string>>): Partial<WeightsConfig> {
  const config = fromMetadata(metadata, file);
  const beside = (name: string): Record<string, unknown> => {
    const path = join(dirname(file), name);
    try {
      return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>) : {};
    } catch (error) {
      throw new MaeError('MAE_FORMAT', `${path} cannot be read: ${(error as Error).message}`, { cause: error });
    }
  };
  if (config.embedDim !== undefined || style !== 'huggingface' || !existsSync(join(dirname(file), 'config.json'))) return config;
  return fromHuggingFaceConfig(beside('config.json'), beside('preprocessor_config.json'));
}
