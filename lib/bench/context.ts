/** What every section of the suite is given. */
import { openDevice, type OpenDevice, type Precision } from '../graph/device';
import { resolveConfig } from '../nn/config';
import { trainFlops } from '../nn/flops';
import { type PresetName, presets } from '../nn/presets';
import type { Budget } from './alternate';

export interface Context {
  readonly device: OpenDevice;
  readonly precision: Precision;
  readonly full: boolean;
  readonly presets: readonly PresetName[];
  readonly batchOf: (preset: PresetName) => number;
  /** Progress, for people. */
  readonly say: (line: string) => void;
  /** What was left out and why; goes into the result. */
  readonly note: (line: string) => void;
}

export interface ContextOptions {
  readonly device?: string;
  readonly precision?: Precision;
  readonly full?: boolean;
  readonly presets?: readonly PresetName[];
  readonly batchSize?: number;
}

/** FLOPs of a preset's step that its batch is chosen for, and the smallest batch: what fills the device and ends in reasonable time. */
const STEP = {
  quick: { flops: 40e9, atLeast: 4 },
  cpu: { flops: 160e9, atLeast: 8 },
  cuda: { flops: 15e12, atLeast: 16 },
};
const LARGEST_BATCH = 1024;

const DEFAULT_PRESETS: Readonly<Record<'cpu' | 'cuda', { readonly quick: PresetName[]; readonly full: PresetName[] }>> = {
  cpu: { quick: ['vit-tiny/16', 'vit-small/16'], full: ['vit-tiny/16', 'vit-small/16', 'vit-base/16'] },
  cuda: { quick: ['vit-base/16'], full: ['vit-base/16', 'vit-large/16', 'vit-huge/14'] },
};

export function makeContext(options: ContextOptions, say: (line: string) => void, note: (line: string) => void): Context {
  const device = openDevice(options.device);
  const full = options.full ?? false;
  const size = STEP[device.kind === 'cuda' ? 'cuda' : full ? 'cpu' : 'quick'];
  return {
    device,
    precision: options.precision ?? device.defaultPrecision,
    full,
    presets: options.presets ?? DEFAULT_PRESETS[device.kind][full ? 'full' : 'quick'],
    batchOf: (preset) => options.batchSize ?? batchFor(trainFlops(resolveConfig(presets[preset])), size),
    say,
    note,
  };
}

/** The power of two whose step comes nearest to the wanted FLOPs. */
function batchFor(flopsPerPicture: number, { flops, atLeast }: (typeof STEP)['cpu']): number {
  return Math.min(LARGEST_BATCH, Math.max(atLeast, 2 ** Math.round(Math.log2(flops / flopsPerPicture))));
}

/** `seconds` is a quick run's; a full run takes six times as long and more rounds. */
export function budgetOf({ full }: Pick<Context, 'full'>, seconds: number): Budget {
  return full ? { warmup: 1, minRounds: 5, maxRounds: 25, seconds: 6 * seconds } : { warmup: 1, minRounds: 3, maxRounds: 11, seconds };
}
