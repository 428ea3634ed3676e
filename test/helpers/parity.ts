/** The PyTorch reference numbers of test/parity (its README says how they were made), and how far from them is right. */
import path from 'node:path';
import type { ModelOptions } from '../../lib/nn/maskedAutoencoder';
import { readSafetensors, type HostTensor } from '../../lib/io/safetensors';

export interface ParityFile {
  readonly options: ModelOptions;
  readonly metadata: Record<string, unknown>;
  /** Tensors without a prefix: images, noise, latent, …. */
  readonly values: Map<string, HostTensor>;
  readonly weights: Map<string, HostTensor>;
  readonly gradients: Map<string, HostTensor>;
  /** Weights after the training steps. */
  readonly after: Map<string, HostTensor>;
}

export function readParity(name: string): ParityFile {
  const { tensors, metadata } = readSafetensors(path.join(__dirname, '../parity', `${name}.safetensors`));
  const parsed: Record<string, unknown> = Object.fromEntries(
    Object.entries(metadata).map(([key, value]) => [key, JSON.parse(value) as unknown]),
  );
  const config = parsed.config as Record<string, number>;
  const withPrefix = (prefix: string): Map<string, HostTensor> =>
    new Map([...tensors].filter(([key]) => key.startsWith(prefix)).map(([key, value]) => [key.slice(prefix.length), value]));
  return {
    options: {
      imageSize: config.img_size,
      patchSize: config.patch_size,
      inChans: config.in_chans,
      embedDim: config.embed_dim,
      depth: config.depth,
      numHeads: config.num_heads,
      decoderEmbedDim: config.decoder_embed_dim,
      decoderDepth: config.decoder_depth,
      decoderNumHeads: config.decoder_num_heads,
      maskRatio: config.mask_ratio,
      normPixLoss: parsed.norm_pix_loss as boolean,
      mean: parsed.mean as number[],
      std: parsed.std as number[],
    },
    metadata: parsed,
    values: new Map([...tensors].filter(([key]) => !/^[wga]\./.test(key))),
    weights: withPrefix('w.'),
    gradients: withPrefix('g.'),
    after: withPrefix('a.'),
  };
}

/** ‖a − b‖ / ‖b‖, in double precision. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  return Math.sqrt(difference / (norm || 1));
}
