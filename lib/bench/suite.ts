/** The benchmark suite: runs the sections that were asked for and gives one result. */
import path from 'node:path';
import { MaeError } from '../errors';
import type { Precision } from '../graph/device';
import { writeFileAtomic } from '../io/atomic';
import type { PresetName } from '../nn/presets';
import { measureCeilings } from './ceilings';
import { chartsOf } from './charts';
import { makeContext } from './context';
import { measureData } from './data';
import { describeMachine } from './machine';
import { measureMasking } from './masking';
import { comparePeers } from './peers';
import { measureProducts } from './products';
import { measureProfile } from './profile';
import { reportOf } from './report';
import { type BenchResult, readResult, SCHEMA } from './result';
import { scalingOf } from './scaling';
import { measureSweep, sweepsOver } from './sweeps';

export const sections = ['masking', 'sweeps', 'peers', 'kernels', 'products', 'data', 'scaling'] as const;
export type Section = (typeof sections)[number];

export interface BenchOptions {
  /** All points, more rounds, larger presets: tens of minutes. Default: the quick run, under three minutes on two cores. */
  full?: boolean;
  /** Default: all. */
  only?: readonly Section[];
  /** Default: tiny and small on a CPU (base too in a full run); base on a GPU (large and huge too in a full run). */
  presets?: readonly PresetName[];
  /** Default: by preset and device. */
  batchSize?: number;
  device?: string;
  precision?: Precision;
  /** Folder of pictures for the loading paths. Default: pictures made for the occasion. */
  data?: string;
  /** The Python that has PyTorch. Default: MAE_PYTHON, python3, /usr/bin/python3, the first that has it. */
  python?: string;
  /** result.json of a GPU, whose measured steps the scaling model is fed with instead of this run's. */
  from?: string;
  /** Where progress goes. Default: nowhere. */
  say?: (line: string) => void;
}

/**
 * @throws MaeError MAE_ARGUMENT for an unknown device, MAE_FORMAT for a wrong `from`, MAE_INTERNAL when the peer's loss is not ours
 */
export async function bench(options: BenchOptions = {}): Promise<BenchResult> {
  const { only = sections, say = () => undefined } = options;
  const notes: string[] = [];
  const started = new Date();
  const context = makeContext(options, say, (line) => notes.push(line));
  const earlier = options.from === undefined ? undefined : readResult(options.from);
  const wanted = (section: Section): boolean => only.includes(section);
  const result: BenchResult = {
    schema: SCHEMA,
    started: started.toISOString(),
    seconds: 1,
    mode: context.full ? 'full' : 'quick',
    machine: describeMachine(context.device),
    ceilings: { ...(say("the machine's limits"), measureCeilings(context.device, context.precision)) },
    masking: [],
    sweeps: [],
    comparisons: [],
    profiles: [],
    products: [],
    notes,
  };
  // The smallest preset for what goes through many points in a quick run.
  const swept = context.full ? context.presets : context.presets.slice(0, 1);
  if (wanted('masking')) {
    for (const preset of context.presets) {
      say(`masked against unmasked: ${preset}`);
      const masking = await measureMasking(context, result.ceilings, preset);
      if (masking) result.masking.push(masking);
    }
  }
  if (wanted('sweeps')) {
    for (const preset of swept) {
      for (const over of sweepsOver) {
        say(`sweep over ${over}: ${preset}`);
        result.sweeps.push(await measureSweep(context, preset, over));
      }
    }
  }
  if (wanted('peers')) {
    for (const preset of swept) {
      say(`beside PyTorch: ${preset}`);
      const comparison = await comparePeers(context, preset, options.python);
      if (comparison) result.comparisons.push(comparison);
    }
  }
  if (wanted('kernels') || wanted('data')) {
    for (const preset of context.presets) {
      say(`a step op by op: ${preset}`);
      result.profiles.push(await measureProfile(context, preset));
    }
  }
  if (wanted('products')) {
    for (const preset of swept) {
      say(`matrix products alone: ${preset}`);
      result.products.push(measureProducts(context, result.ceilings, preset));
    }
  }
  if (wanted('data')) {
    say('loading pictures');
    const steps = result.profiles.map(({ preset, precision, batchSize, step }) => {
      return { preset, precision, batchSize, picturesPerSecond: batchSize / step.median };
    });
    result.data = await measureData(context, options.data, steps);
  }
  if (wanted('scaling')) {
    say('scaling on paper');
    result.scaling = scalingOf(earlier ?? result);
  }
  result.notes = [...new Set(notes)];
  result.seconds = (Date.now() - started.getTime()) / 1000;
  return result;
}

/** Writes result.json, report.md and the charts into a folder. @throws MaeError MAE_FILE */
export async function writeResult(result: BenchResult, folder: string): Promise<void> {
  const charts = chartsOf(result);
  await writeFileAtomic(path.join(folder, 'result.json'), `${JSON.stringify(result, null, 1)}\n`);
  for (const [name, svg] of charts) await writeFileAtomic(path.join(folder, name), svg);
  await writeFileAtomic(path.join(folder, 'report.md'), reportOf(result, [...charts.keys()]));
}

/** Names of sections, as a user gives them. @throws MaeError MAE_ARGUMENT */
export function parseSections(list: string): Section[] {
  return list.split(',').map((name) => {
    const section = sections.find((known) => known === name.trim());
    if (!section) throw new MaeError('MAE_ARGUMENT', `bench: there is no section '${name}'; there are ${sections.join(', ')}`);
    return section;
  });
}
