/** What leaving masked patches out of the encoder saves: the paper's Table 1(c) and Table 2 as measurements. */
import { resolveConfig } from '../nn/config';
import { trainFlops } from '../nn/flops';
import { type PresetName, presets } from '../nn/presets';
import { peakOf, type Ceilings } from './ceilings';
import type { Context } from './context';
import { measure } from './measure';
import { nameOf, paperSpeedup, variants } from './paper';
import { type Masking, type MaskingVariant, speedupOf } from './result';

/** Seconds of a quick run for one preset. */
const SECONDS = 25;

export async function measureMasking(context: Context, ceilings: Ceilings, preset: PresetName): Promise<Masking | undefined> {
  const batchSize = context.batchOf(preset);
  const points = variants.map((variant) => {
    const { maskTokens, decoderDepth } = variant;
    return { options: { ...presets[preset], maskTokensInEncoder: maskTokens, decoderDepth }, batchSize };
  });
  const { alternated, measured } = await measure(context, points, ['forward', 'backward', 'step'], SECONDS);
  const [base] = measured;
  if (!base) {
    context.note(`${preset}: ${nameOf(variants[0])} does not fit this machine, so nothing can be compared with it`);
    return undefined;
  }
  const { precision } = context;
  const rows = measured.flatMap((row, i): MaskingVariant[] => {
    if (!row) return [];
    const referenceFlops = trainFlops(resolveConfig(points[i].options));
    const { forward, backward, step } = row.times as Required<typeof row.times>;
    const stepCosts = row.stepCosts!;
    const picturesPerSecond = batchSize / step.median;
    const peak = peakOf(ceilings, precision);
    const executedRatio = base.stepCosts!.flops / stepCosts.flops;
    const speedup = speedupOf(base.times.step!, step);
    return [
      {
        ...variants[i],
        parameters: row.parameters,
        memoryBytes: row.memoryBytes,
        referenceFlops,
        forwardCosts: row.forwardCosts,
        stepCosts,
        forward,
        backward,
        step,
        picturesPerSecond,
        mfu: peak && (referenceFlops * picturesPerSecond) / peak,
        referenceRatio: trainFlops(resolveConfig(points[0].options)) / referenceFlops,
        executedRatio,
        speedup,
        arrived: i === 0 ? undefined : arrivedShare(executedRatio, speedup.median),
        paperSpeedup: paperSpeedup(preset, variants[i]),
      },
    ];
  });
  return { preset, precision, batchSize, alternated, variants: rows };
}

/**
 * How much of the FLOPs saved was also saved as time: (1 − 1/speedup) / (1 − 1/flopRatio). 1: time fell as FLOPs did; 0: none arrived.
 * For ViT-L in the paper (3.23 times fewer FLOPs by this count, 42.4 h to 15.4 h) it is 92 %.
 */
export function arrivedShare(flopRatio: number, speedup: number): number {
  return (1 - 1 / speedup) / (1 - 1 / flopRatio);
}
