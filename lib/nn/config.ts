/** What a masked autoencoder is: sizes, masking and target; checked once, here. */
import { z } from 'zod';
import { MaeError } from '../errors';
import { describeIssues } from '../issues';
import type { WeightsConfig } from '../io/metadata';

/** A complete configuration, in the reference's terms. */
export interface MaeConfig extends WeightsConfig {
  /** Keep mask tokens in the encoder (the paper's "w/ [M]", Table 1c): 3.3 times the FLOPs, for comparison only. */
  maskTokensInEncoder: boolean;
}

/** What a user may give: a picture size as one number, everything but the sizes optional. */
export interface MaeOptions extends Partial<Omit<MaeConfig, 'imageSize'>> {
  /** Side in pixels, or [height, width]. */
  imageSize?: number | readonly [number, number];
}

const positive = z.number().int().positive();
/** For messages. */
export const SIZE = 'expected a whole number of pixels or [height, width]';
const schema = z.strictObject({
  imageSize: z
    .union([positive, z.tuple([positive, positive])], { error: SIZE })
    .default(224)
    .transform((size): [number, number] => (typeof size === 'number' ? [size, size] : size)),
  patchSize: positive.default(16),
  inChans: positive.default(3),
  embedDim: positive.default(768),
  depth: positive.default(12),
  numHeads: positive.default(12),
  mlpRatio: z.number().positive().default(4),
  decoderEmbedDim: positive.default(512),
  decoderDepth: positive.default(8),
  decoderNumHeads: positive.default(16),
  maskRatio: z.number().gte(0).lt(1).default(0.75),
  normPixLoss: z.boolean().default(false),
  layerNormEps: z.number().positive().default(1e-6),
  mean: z.array(z.number()).optional(),
  std: z.array(z.number().positive()).optional(),
  maskTokensInEncoder: z.boolean().default(false),
});

/** Every option of a model's sizes, masking and target, for checkNames. */
export const configNames = Object.fromEntries(Object.keys(schema.shape).map((name) => [name, true])) as Record<keyof MaeOptions, true>;

/** ImageNet's statistics, the reference's normalisation. */
export const IMAGENET_MEAN = [0.485, 0.456, 0.406];
export const IMAGENET_STD = [0.229, 0.224, 0.225];

/** Fills in the defaults (those of ViT-B/16) and checks that the parts fit. @throws MaeError MAE_ARGUMENT */
export function resolveConfig(options: MaeOptions): MaeConfig {
  const parsed = schema.safeParse(options);
  if (!parsed.success)
    throw new MaeError('MAE_ARGUMENT', `MaskedAutoencoder: ${describeIssues(parsed.error, options, Object.keys(schema.shape))}`);
  const config = parsed.data;
  const isRgb = config.inChans === 3;
  const resolved: MaeConfig = {
    ...config,
    mean: config.mean ?? (isRgb ? IMAGENET_MEAN : Array<number>(config.inChans).fill(0)),
    std: config.std ?? (isRgb ? IMAGENET_STD : Array<number>(config.inChans).fill(1)),
  };
  const refuse = (message: string): never => {
    throw new MaeError('MAE_ARGUMENT', `MaskedAutoencoder: ${message}`);
  };
  const [height, width] = resolved.imageSize;
  if (height % resolved.patchSize || width % resolved.patchSize) {
    refuse(`imageSize ${height}x${width} must be a multiple of patchSize ${resolved.patchSize} in both directions`);
  }
  for (const [dim, heads, names] of [
    [resolved.embedDim, resolved.numHeads, 'embedDim and numHeads'],
    [resolved.decoderEmbedDim, resolved.decoderNumHeads, 'decoderEmbedDim and decoderNumHeads'],
  ] as const) {
    if (dim % heads) refuse(`${names} must divide, got ${dim} and ${heads}`);
    if ((dim / heads) % 8 || dim / heads > 128)
      refuse(`${names} must give heads of a multiple of 8 up to 128 wide, got ${dim} / ${heads} = ${dim / heads}`);
  }
  for (const name of ['mean', 'std'] as const) {
    if (resolved[name].length !== resolved.inChans)
      refuse(`${name} needs one value for each of the ${resolved.inChans} channels, got ${resolved[name].length}`);
  }
  for (const [name, dim] of [
    ['embedDim', resolved.embedDim],
    ['decoderEmbedDim', resolved.decoderEmbedDim],
  ] as const) {
    if (!Number.isInteger(dim * resolved.mlpRatio)) refuse(`${name} · mlpRatio must be whole, got ${dim} · ${resolved.mlpRatio}`);
  }
  if (resolved.normPixLoss && patchDim(resolved) < 2) {
    refuse('normPixLoss divides by the standard deviation of a patch, which one of a single value has not: raise patchSize');
  }
  if (numVisible(resolved) < 1) refuse(`maskRatio ${resolved.maskRatio} keeps none of the ${numPatches(resolved)} patches: lower it`);
  return resolved;
}

/** Patches along [height, width]. */
export function gridSize({ imageSize, patchSize }: Pick<MaeConfig, 'imageSize' | 'patchSize'>): [number, number] {
  return [imageSize[0] / patchSize, imageSize[1] / patchSize];
}

/** L: patches of a picture. */
export function numPatches(config: Pick<MaeConfig, 'imageSize' | 'patchSize'>): number {
  const [rows, columns] = gridSize(config);
  return rows * columns;
}

/** Patches that stay visible: int(L·(1 − maskRatio)) in double precision, as the reference truncates. */
export function numVisible(config: Pick<MaeConfig, 'imageSize' | 'patchSize' | 'maskRatio'>): number {
  return Math.trunc(numPatches(config) * (1 - config.maskRatio));
}

/** Values of one patch: patch·patch·channels. */
export function patchDim({ patchSize, inChans }: Pick<MaeConfig, 'patchSize' | 'inChans'>): number {
  return patchSize * patchSize * inChans;
}
