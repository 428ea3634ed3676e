/** How time and FLOPs go with the mask ratio, the decoder's depth and width, and the batch size. */
import type { MaeOptions } from '../nn/config';
import { trainFlops } from '../nn/flops';
import { type PresetName, presets } from '../nn/presets';
import type { Context } from './context';
import { measure, type Point } from './measure';
import type { Sweep, SweepPoint } from './result';

type Over = Sweep['over'];

/** Mask ratios of the paper's Figure 5 with the ends; depths and widths of its Table 1(a) and (b). Quick runs take a few. */
const VALUES: Readonly<
  Record<Over, { readonly quick: readonly number[]; readonly full: readonly number[]; readonly cuda?: readonly number[] }>
> = {
  maskRatio: { quick: [0, 0.25, 0.5, 0.75, 0.9], full: [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95] },
  decoderDepth: { quick: [1, 4, 8], full: [1, 2, 4, 8, 12] },
  decoderWidth: { quick: [128, 256, 512], full: [128, 256, 512, 768, 1024] },
  batchSize: { quick: [1, 4, 16], full: [1, 2, 4, 8, 16, 32], cuda: [1, 4, 16, 64, 128, 256, 512, 1024] },
};

export const sweepsOver = Object.keys(VALUES) as Over[];

/** Seconds of a quick run for one sweep. */
const SECONDS = 8;
/** Width of a decoder's head, the paper's: 512 / 16. */
const DECODER_HEAD = 32;

export async function measureSweep(context: Context, preset: PresetName, over: Over): Promise<Sweep> {
  const { quick, full, cuda } = VALUES[over];
  const values = !context.full ? quick : context.device.kind === 'cuda' ? (cuda ?? full) : full;
  const batchSize = context.batchOf(preset);
  const points = values.map((value): Point => ({
    options: { ...presets[preset], ...(over === 'batchSize' ? {} : varied(over, value)) },
    batchSize: over === 'batchSize' ? value : batchSize,
  }));
  const { alternated, measured } = await measure(context, points, ['forward', 'step'], SECONDS);
  const rows = measured.flatMap((row, i): SweepPoint[] =>
    row
      ? [
          {
            value: values[i],
            batchSize: row.batchSize,
            referenceFlops: trainFlops(row.config),
            memoryBytes: row.memoryBytes,
            forwardCosts: row.forwardCosts,
            forward: row.times.forward!,
            stepCosts: row.stepCosts,
            step: row.times.step,
          },
        ]
      : [],
  );
  return { preset, precision: context.precision, batchSize, over, alternated, points: rows };
}

function varied(over: Exclude<Over, 'batchSize'>, value: number): MaeOptions {
  switch (over) {
    case 'maskRatio':
      return { maskRatio: value };
    case 'decoderDepth':
      return { decoderDepth: value };
    case 'decoderWidth':
      return { decoderEmbedDim: value, decoderNumHeads: value / DECODER_HEAD };
  }
}
