/** Weights, wherever a user says that they are: a file, or the folder of a checkpoint, a run or a model of Hugging Face. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { MaeError } from '../errors';
import { configOf } from './huggingFaceConfig';
import type { WeightsConfig } from './metadata';
import { fromNames, type NamedWeights } from './names';
import { readSafetensors } from './safetensors';

/** What the weights are called in every such folder. */
export const MODEL_FILE = 'model.safetensors';

/** Checkpoints of a run: checkpoints/step-N/. */
export const checkpointName = (step: number): string => `step-${step}`;

/** Steps of the checkpoints in a run folder, rising. Temporary and foreign folders are not among them. */
export function listCheckpoints(runFolder: string): number[] {
  const folder = path.join(runFolder, 'checkpoints');
  if (!existsSync(folder)) return [];
  const steps = readdirSync(folder).flatMap((name) => /^step-(\d+)$/.exec(name)?.slice(1).map(Number) ?? []);
  return steps.sort((a, b) => a - b);
}

/** The newest checkpoint of a run folder, or the checkpoint folder itself; undefined when a run has none yet. */
export function findCheckpoint(place: string): string | undefined {
  if (existsSync(path.join(place, 'state.json'))) return place;
  const latest = path.join(place, 'checkpoints', 'latest');
  if (existsSync(latest)) {
    const named = path.join(place, 'checkpoints', readFileSync(latest, 'utf8').trim());
    if (existsSync(path.join(named, 'state.json'))) return named;
  }
  // Killed between the folder and the pointer, or a pointer whose folder was removed by hand: the newest whole folder counts.
  const [newest] = listCheckpoints(place).reverse();
  return newest === undefined ? undefined : path.join(place, 'checkpoints', checkpointName(newest));
}

export interface Weights extends NamedWeights {
  /** The file that was read. */
  file: string;
  metadata: Readonly<Record<string, string>>;
  /** What is known of the model; empty for files that do not say. */
  config: Partial<WeightsConfig>;
}

/**
 * Reads a .safetensors file, or the `model.safetensors` of a checkpoint folder, of a run folder's newest checkpoint or of a folder of
 * Hugging Face.
 * @throws MaeError MAE_FILE, MAE_FORMAT, MAE_CHECKPOINT for a folder without weights
 */
export function readWeights(place: string): Weights {
  const file = weightsFile(place);
  const { tensors, metadata } = readSafetensors(file);
  const named = fromNames(tensors);
  return { file, ...named, metadata, config: configOf(file, named.style, metadata) };
}

function weightsFile(place: string): string {
  if (typeof place !== 'string') throw new MaeError('MAE_ARGUMENT', `weights: a path is needed, got ${String(place)}`);
  if (!statSync(place, { throwIfNoEntry: false })?.isDirectory()) return place; // reading says what is wrong with it
  const file = path.join(findCheckpoint(place) ?? place, MODEL_FILE);
  if (existsSync(file)) return file;
  throw new MaeError(
    'MAE_CHECKPOINT',
    `there is no checkpoint and no ${MODEL_FILE} in ${place}: give a run folder, a checkpoint folder, a .safetensors file or its folder`,
  );
}
