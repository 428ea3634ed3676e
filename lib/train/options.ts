/** Everything `mae pretrain` can be told, in one strict schema: the API, the flags and the configuration file share it. */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { fileError, MaeError } from '../errors';
import { describeIssues } from '../issues';
import { SIZE } from '../nn/config';
import type { ModelOptions } from '../nn/maskedAutoencoder';
import { type PresetName, presets } from '../nn/presets';
import type { TrainStepOptions } from '../nn/trainStep';
import { type RecipeName, recipes } from './recipes';

const positive = z.number().int().positive();
const natural = z.number().int().nonnegative();
const range = z.tuple([z.number().positive(), z.number().positive()]);

/** Sizes, masking and target; resolveConfig checks how they go together. */
const modelFields = {
  imageSize: z
    .union([positive, z.tuple([positive, positive])], { error: SIZE })
    .describe('side in pixels, or height and width: 224 or 160x224'),
  patchSize: positive.describe('side of a patch in pixels; this and the other sizes: default of the preset'),
  inChans: positive.describe('channels of a picture; picture files have 3'),
  embedDim: positive.describe('width of the encoder'),
  depth: positive.describe('blocks of the encoder'),
  numHeads: positive.describe('attention heads of the encoder'),
  mlpRatio: z.number().positive().describe('hidden width of the MLPs over the width'),
  decoderEmbedDim: positive.describe('width of the decoder'),
  decoderDepth: positive.describe('blocks of the decoder'),
  decoderNumHeads: positive.describe('attention heads of the decoder'),
  maskRatio: z.number().gt(0).lt(1).describe('share of the patches that is removed; default 0.75'),
  normPixLoss: z.boolean().describe('predict the pixels of each patch normalised by its own mean and deviation; default off'),
  layerNormEps: z.number().positive().describe('default 1e-6'),
  mean: z.array(z.number()).describe("of the pictures, for each channel, scale 0–1; default ImageNet's"),
  std: z.array(z.number().positive()).describe('likewise'),
  maskTokensInEncoder: z.boolean().describe('do not leave removed patches out of the encoder: slow, for comparison'),
};
const modelKeys = Object.keys(modelFields) as (keyof typeof modelFields)[];

export const pretrainSchema = z.strictObject({
  data: z.string().describe('folder of pictures, or a .maepack file made by `mae pack`'),
  valData: z.string().optional().describe('held-out pictures: their loss is measured every few epochs'),
  out: z.string().optional().describe('run folder; default runs/<preset>-<date>'),
  preset: z
    .enum(Object.keys(presets) as PresetName[])
    .default('vit-base/16')
    .describe('sizes of the model'),
  initFrom: z
    .string()
    .optional()
    .describe('weights to start from, with or without a decoder (a run, a checkpoint, a .safetensors file); not read by --resume'),
  recipe: z
    .enum(Object.keys(recipes) as RecipeName[])
    .optional()
    .describe('training settings by name'),
  ...z.object(modelFields).partial().shape,
  batchSize: positive.default(64).describe('pictures of one micro-batch'),
  accumIter: positive.default(1).describe('micro-batches of one optimizer step'),
  epochs: positive.default(400).describe('passes over the pictures'),
  warmupEpochs: z.number().nonnegative().optional().describe('epochs of linear warm-up; default 40, at most a tenth of the epochs'),
  blr: z.number().positive().optional().describe('base learning rate: lr = blr · effective batch / 256; default 1.5e-4'),
  lr: z.number().positive().optional().describe('learning rate itself, instead of blr'),
  minLr: z.number().nonnegative().default(0).describe('learning rate at the end of the cosine'),
  weightDecay: z.number().nonnegative().default(0.05).describe('of AdamW; not on biases and norms'),
  betas: z
    .tuple([z.number().gte(0).lt(1), z.number().gte(0).lt(1)])
    .default([0.9, 0.95])
    .describe('of AdamW'),
  clipGrad: z.number().nonnegative().default(0).describe('clip gradients to this norm; 0 = off, as the paper'),
  seed: natural.max(0xffffffff).default(0).describe('of weights, masks, order and crops'),
  device: z.string().default('auto').describe('auto, cpu, cuda or cuda:<number>'),
  precision: z.enum(['fp32', 'bf16']).optional().describe('default: bf16 on CUDA, fp32 on the CPU'),
  residualPrecision: z
    .enum(['fp32', 'bf16'])
    .default('fp32')
    .describe('of the residual stream; bf16, with precision bf16, moves less memory and rounds more'),
  recompute: z
    .boolean()
    .default(false)
    .describe('run the Transformer blocks again in the backward pass: less memory, more work, same bits'),
  augment: z
    .enum(['random-resized-crop', 'eval', 'none'])
    .default('random-resized-crop')
    .describe('eval: resize and centre crop; none: pictures have the size already'),
  scale: range.default([0.2, 1]).describe('share of the area that a random crop covers'),
  ratio: range.default([3 / 4, 4 / 3]).describe('width : height of a random crop'),
  flip: z.number().min(0).max(1).optional().describe('probability of a mirrored picture; default 0.5'),
  workers: positive.optional().describe('threads that crop; default one per core'),
  cacheMib: natural.optional().describe('memory for decoded pictures in MiB; default half of what is free'),
  broken: z.enum(['replace', 'stop']).default('replace').describe('what to do with pictures that cannot be decoded'),
  logEvery: positive.optional().describe('steps from one line of metrics.jsonl to the next; default 1 in short runs, else 20'),
  saveEvery: positive.default(20).describe('epochs from one checkpoint to the next'),
  keep: positive.default(3).describe('checkpoints that are kept'),
  reconstructEvery: natural.default(10).describe('epochs from one picture of reconstructions to the next; 0 = none'),
  valEvery: positive.default(5).describe('epochs from one validation to the next'),
  maxSteps: positive.optional().describe('stop after so many optimizer steps'),
  maxMinutes: z.number().positive().optional().describe('stop after so many minutes, with a checkpoint'),
  overfit: positive.optional().describe('train on the first so many batches again and again, without augmentation'),
  tensorboard: z.boolean().default(true).describe('write TensorBoard events'),
});

export type PretrainOptions = z.input<typeof pretrainSchema>;
export type ResolvedOptions = z.output<typeof pretrainSchema> & { warmupEpochs: number };

/** camelCase of --mask-ratio, mask_ratio and maskRatio alike. */
export function optionKey(name: string): string {
  return name.replace(/^--/, '').replace(/[-_]+(\w)/g, (_, letter: string) => letter.toUpperCase());
}

/**
 * Fills in recipe and defaults.
 * @throws MaeError MAE_CONFIG naming every wrong key and value
 */
export function resolveOptions(options: PretrainOptions, origin = 'pretrain'): ResolvedOptions {
  const recipe: Partial<PretrainOptions> | undefined = options.recipe && recipes[options.recipe];
  const given = { ...recipe, ...withoutUndefined(options) };
  // The user's lr replaces a recipe's blr.
  if (options.lr !== undefined && options.blr === undefined) delete (given as Partial<PretrainOptions>).blr;
  const parsed = pretrainSchema.safeParse(given);
  if (!parsed.success) {
    const issues = describeIssues(parsed.error, given, Object.keys(pretrainSchema.shape));
    throw new MaeError('MAE_CONFIG', `${origin}: the options are not right\n${issues}`);
  }
  const resolved = parsed.data;
  if (resolved.blr !== undefined && resolved.lr !== undefined)
    throw new MaeError('MAE_CONFIG', `${origin}: give either lr or blr, got both`);
  if (resolved.blr === undefined && resolved.lr === undefined) resolved.blr = 1.5e-4;
  const warmupEpochs = resolved.warmupEpochs ?? Math.min(40, resolved.epochs / 10);
  if (warmupEpochs > resolved.epochs) {
    throw new MaeError('MAE_CONFIG', `${origin}: warmupEpochs must be at most the ${resolved.epochs} epochs, got ${warmupEpochs}`);
  }
  return { ...resolved, warmupEpochs };
}

/** The model's part of the options, over its preset. */
export function modelOptions(options: ResolvedOptions): ModelOptions {
  const overrides = Object.fromEntries(modelKeys.filter((key) => options[key] !== undefined).map((key) => [key, options[key]]));
  const { device, precision, residualPrecision, seed } = options;
  return { ...presets[options.preset], ...overrides, device, precision, residualPrecision, seed };
}

/** The training step's part of the options. */
export function stepOptions({ batchSize, accumIter, betas, weightDecay, clipGrad, recompute }: ResolvedOptions): TrainStepOptions {
  return { batchSize, accumIter, optimizer: { betas, weightDecay }, clipGrad, recompute };
}

/**
 * A configuration file, YAML or JSON, with the options' names in any of the usual spellings.
 * @throws MaeError MAE_FILE, MAE_CONFIG with line and column
 */
export function readConfigFile(path: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw fileError('read', path, error);
  }
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- loaded only when there is a file: 30 ms
  const yaml = require('yaml') as typeof import('yaml');
  let parsed: unknown;
  try {
    parsed = yaml.parse(text); // JSON is YAML
  } catch (error) {
    throw new MaeError('MAE_CONFIG', `${path} is neither YAML nor JSON: ${(error as Error).message}`, { cause: error });
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new MaeError(
      'MAE_CONFIG',
      `${path}: expected a list of options such as "epochs: 100", got ${Array.isArray(parsed) ? 'a list' : typeof parsed}`,
    );
  }
  const { about: _, ...options } = parsed as Record<string, unknown>; // the config.json of a run is one too
  return Object.fromEntries(Object.entries(options).map(([key, value]) => [optionKey(key), value]));
}

function withoutUndefined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as T;
}
