/** The paper's own figures (He et al. 2021, arXiv 2111.06377), for the tables to stand beside. */
import type { PresetName } from '../nn/presets';

/** One of the four models of Table 1(c) and Table 2. */
export interface Variant {
  readonly maskTokens: boolean;
  readonly decoderDepth: number;
}

export const variants: readonly Variant[] = [
  { maskTokens: true, decoderDepth: 8 },
  { maskTokens: false, decoderDepth: 8 },
  { maskTokens: true, decoderDepth: 1 },
  { maskTokens: false, decoderDepth: 1 },
];

export function nameOf({ maskTokens, decoderDepth }: Variant): string {
  return `${maskTokens ? 'with' : 'without'} [M], decoder ${decoderDepth}`;
}

/** Table 2: hours of 800 epochs on 128 TPU-v3 cores. 119.6 is the paper's estimate from 10 epochs. */
export const paperHours: readonly (Variant & { readonly preset: PresetName; readonly hours: number; readonly speedup: number })[] = [
  { preset: 'vit-large/16', maskTokens: true, decoderDepth: 8, hours: 42.4, speedup: 1 },
  { preset: 'vit-large/16', maskTokens: false, decoderDepth: 8, hours: 15.4, speedup: 2.8 },
  { preset: 'vit-large/16', maskTokens: false, decoderDepth: 1, hours: 11.6, speedup: 3.7 },
  { preset: 'vit-huge/14', maskTokens: true, decoderDepth: 8, hours: 119.6, speedup: 1 },
  { preset: 'vit-huge/14', maskTokens: false, decoderDepth: 8, hours: 34.5, speedup: 3.5 },
  { preset: 'vit-huge/14', maskTokens: false, decoderDepth: 1, hours: 29.3, speedup: 4.1 },
];

/** Table 1(c), ViT-L/16: FLOPs with [M] over those without. */
export const paperFlopRatio = { preset: 'vit-large/16', ratio: 3.3 } as const;

/** What the hours of Table 2 are of: ImageNet-1K, 800 epochs at a batch of 4096, 128 cores. */
export const paperRun = { pictures: 1281167, epochs: 800, batchSize: 4096, cores: 128 } as const;

/** The paper's speed-up of a variant over the encoder with [M], where Table 2 has it. */
export function paperSpeedup(preset: string, variant: Variant): number | undefined {
  return paperHours.find(
    (row) => row.preset === preset && row.maskTokens === variant.maskTokens && row.decoderDepth === variant.decoderDepth,
  )?.speedup;
}
