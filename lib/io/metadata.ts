/** The facts that weights do not carry in their shapes, kept as strings in a file's `__metadata__`; every value is JSON. */
import { MaeError } from '../errors';

/** What a model is, in the reference's terms. */
export interface WeightsConfig {
  /** [height, width] in pixels. */
  imageSize: readonly [number, number];
  patchSize: number;
  inChans: number;
  embedDim: number;
  depth: number;
  numHeads: number;
  mlpRatio: number;
  decoderEmbedDim: number;
  decoderDepth: number;
  decoderNumHeads: number;
  maskRatio: number;
  normPixLoss: boolean;
  /** Epsilon of every LayerNorm: 1e-6 in the reference, 1e-12 in Hugging Face's files. */
  layerNormEps: number;
  /** Of the pictures, per channel, on the scale 0–1. */
  mean: readonly number[];
  std: readonly number[];
}

type Kind = 'number' | 'boolean' | 'numbers' | 'size';

const fields: { [K in keyof WeightsConfig]: readonly [key: string, kind: Kind] } = {
  imageSize: ['img_size', 'size'],
  patchSize: ['patch_size', 'number'],
  inChans: ['in_chans', 'number'],
  embedDim: ['embed_dim', 'number'],
  depth: ['depth', 'number'],
  numHeads: ['num_heads', 'number'],
  mlpRatio: ['mlp_ratio', 'number'],
  decoderEmbedDim: ['decoder_embed_dim', 'number'],
  decoderDepth: ['decoder_depth', 'number'],
  decoderNumHeads: ['decoder_num_heads', 'number'],
  maskRatio: ['mask_ratio', 'number'],
  normPixLoss: ['norm_pix_loss', 'boolean'],
  layerNormEps: ['layer_norm_eps', 'number'],
  mean: ['mean', 'numbers'],
  std: ['std', 'numbers'],
};

/** `__metadata__` for weights of this configuration; `format: 'pt'` is what loaders of the PyTorch world ask for. */
export function toMetadata(config: Partial<WeightsConfig>, extra: Readonly<Record<string, string>> = {}): Record<string, string> {
  const metadata: Record<string, string> = { ...extra, format: 'pt' };
  for (const [field, [key]] of Object.entries(fields)) {
    const value = config[field as keyof WeightsConfig];
    if (value !== undefined) metadata[key] = JSON.stringify(value);
  }
  return metadata;
}

/**
 * What the metadata says of the model; fields that are absent stay absent (files of others have none).
 *
 * @param path  the file, for the message
 * @throws MaeError MAE_FORMAT when a value is not of its kind
 */
export function fromMetadata(metadata: Readonly<Record<string, string>>, path: string): Partial<WeightsConfig> {
  const config: Record<string, unknown> = {};
  for (const [field, [key, kind]] of Object.entries(fields)) {
    if (metadata[key] === undefined) continue;
    const value = parse(metadata[key], kind);
    if (value === undefined) throw new MaeError('MAE_FORMAT', `${path}: its metadata say ${key} = ${metadata[key]}, not a ${kind}`);
    config[field] = value;
  }
  return config as Partial<WeightsConfig>;
}

function parse(text: string, kind: Kind): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const numbers = Array.isArray(value) && value.every((each) => typeof each === 'number');
  if (kind === 'size') return typeof value === 'number' ? [value, value] : numbers && (value as number[]).length === 2 ? value : undefined;
  if (kind === 'numbers') return numbers ? value : undefined;
  return typeof value === kind ? value : undefined;
}
