/** The folder of a run: what is written where, and that two runs never share one by accident. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path, { join } from 'node:path';
import { fileError, MaeError } from '../errors';
import { writeFileAtomic } from '../io/atomic';
import { makeFolder } from '../io/makeFolder';
import { findCheckpoint } from '../io/weights';
import { lossCurve } from '../view/curve';
import { EventWriter } from '../view/tensorboard';
import { metricPoints, MetricsLog, type MetricsRecord, readMetrics } from './metrics';
import type { ResolvedOptions } from './options';

export class RunFolder {
  private readonly metrics: MetricsLog;
  private readonly events: EventWriter | undefined;

  private constructor(
    readonly path: string,
    resumeStep: number | undefined,
    tensorboard: boolean,
  ) {
    this.metrics = MetricsLog.open(join(path, 'metrics.jsonl'), { resumeStep });
    this.events = tensorboard ? new EventWriter(path, { purgeStep: resumeStep === undefined ? undefined : resumeStep + 1 }) : undefined;
  }

  /**
   * Makes or opens a run folder.
   * @param resumeStep  the step that the run goes on from; absent for a new run
   * @throws MaeError MAE_FILE when it cannot be written
   */
  static open(folder: string, resumeStep: number | undefined, tensorboard: boolean): RunFolder {
    try {
      makeFolder(join(folder, 'reconstructions'));
      // A disk that is full or read-only is found now, not at the first checkpoint.
      writeFileSync(join(folder, '.writable'), 'x');
      rmSync(join(folder, '.writable'));
    } catch (error) {
      throw fileError('write', folder, error);
    }
    return new RunFolder(folder, resumeStep, tensorboard);
  }

  /** The resolved options, with what is needed to tell where a run came from. */
  async writeConfig(options: ResolvedOptions, about: Record<string, unknown>): Promise<void> {
    await writeFileAtomic(join(this.path, 'config.json'), `${JSON.stringify({ ...options, about }, null, 2)}\n`);
  }

  /** One line of metrics.jsonl, and its numbers as TensorBoard scalars. */
  record(record: MetricsRecord): void {
    this.metrics.append(record);
    for (const [name, value] of Object.entries(record)) {
      if (typeof value === 'number' && name !== 'step') this.events?.scalar(TAGS[name] ?? `train/${name}`, record.step, value);
    }
  }

  /** reconstructions/step-N.png, and the same picture in TensorBoard. @returns its path */
  async writeReconstructions(step: number, png: Buffer): Promise<string> {
    const file = join(this.path, 'reconstructions', `step-${String(step).padStart(6, '0')}.png`);
    await writeFileAtomic(file, png);
    this.events?.image('reconstructions', step, png);
    return file;
  }

  /** curves.svg of all that metrics.jsonl holds. @returns its path */
  async writeCurve(subtitle: string): Promise<string> {
    const records = readMetrics(this.metrics.path);
    const validation = metricPoints(records, 'step', 'validationLoss');
    const svg = lossCurve({
      title: 'Reconstruction loss',
      subtitle,
      series: [
        { name: 'training', points: metricPoints(records, 'step', 'loss') },
        ...(validation.length > 0 ? [{ name: 'validation', points: validation }] : []),
      ],
      learningRate: metricPoints(records, 'step', 'lr'),
    });
    const file = join(this.path, 'curves.svg');
    await writeFileAtomic(file, svg);
    return file;
  }

  close(): void {
    this.metrics.close();
    this.events?.close();
  }
}

const TAGS: Record<string, string> = {
  loss: 'train/loss',
  lr: 'train/lr',
  gradNorm: 'train/grad_norm',
  validationLoss: 'validation/loss',
  imagesPerSecond: 'speed/images_per_second',
  dataWait: 'speed/data_wait',
};

/**
 * Where a run goes on from: `resume` is a run folder or a checkpoint, true the run's own folder. Undefined: from the beginning.
 * @throws MaeError MAE_CHECKPOINT when there is nothing to resume, or a run is there that was not asked to go on
 */
export function resumePoint(folder: string, resume: boolean | string | undefined): string | undefined {
  const own = findCheckpoint(folder);
  if (!resume) {
    if (own) {
      throw new MaeError(
        'MAE_CHECKPOINT',
        `${folder} already holds a run (${path.basename(own)}): --resume continues it, another --out starts a new one`,
      );
    }
    return undefined;
  }
  const from = typeof resume === 'string' ? findCheckpoint(resume) : own;
  if (!from) {
    const place = typeof resume === 'string' ? resume : folder;
    throw new MaeError('MAE_CHECKPOINT', `there is no checkpoint in ${place} to resume from: start without --resume`);
  }
  return from;
}

/** The options that a run folder was started with, for `--resume` without repeating them; undefined when there are none. */
export function savedOptions(folder: string): Record<string, unknown> | undefined {
  const file = join(folder, 'config.json');
  if (!existsSync(file)) return undefined;
  try {
    const { about: _, ...options } = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
    return options;
  } catch (error) {
    throw new MaeError('MAE_CONFIG', `${file} is damaged: ${(error as Error).message}. Give the options again`, { cause: error });
  }
}
