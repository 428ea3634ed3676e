/**
 * Checkpoints: checkpoints/step-N/ with model.safetensors, optimizer.safetensors and state.json, written whole or not at all;
 * checkpoints/latest names the newest and is moved last.
 */
import { readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { fileError, MaeError } from '../errors';
import { writeFileAtomic, writeFolderAtomic } from '../io/atomic';
import { toMetadata } from '../io/metadata';
import { type HostTensor, readSafetensors, writeSafetensors } from '../io/safetensors';
import { checkpointName, listCheckpoints, MODEL_FILE } from '../io/weights';
import type { MaskedAutoencoder } from '../nn/maskedAutoencoder';

const stateSchema = z.object({
  /** Optimizer steps done. */
  step: z.number().int().nonnegative(),
  /** The next batch: epoch and step within it. */
  epoch: z.number().int().nonnegative(),
  stepInEpoch: z.number().int().nonnegative(),
  optimizerStep: z.number().int().nonnegative(),
  seed: z.number(),
  /** What the bits depend on; a resume elsewhere says that they will differ. */
  device: z.string(),
  precision: z.string(),
  residualPrecision: z.string().default('fp32'),
  batchSize: z.number(),
  accumIter: z.number(),
  /** On CUDA: lib/graph/gemmChoices.ts. */
  gemmChoices: z.object({ gpu: z.string(), cublasLt: z.string(), table: z.string() }).optional(),
});
export type CheckpointState = z.infer<typeof stateSchema>;

/** Writes a checkpoint and then removes the oldest ones beyond `keep`. @returns its folder. @throws MaeError MAE_FILE */
export async function saveCheckpoint(runFolder: string, model: MaskedAutoencoder, state: CheckpointState, keep: number): Promise<string> {
  const folder = path.join(runFolder, 'checkpoints');
  const target = path.join(folder, checkpointName(state.step));
  // All reads are enqueued before anything else runs, so they see one moment of the training.
  const [weights, { moment1, moment2 }] = await Promise.all([model.weights(), model.moments()]);
  const moments = new Map<string, HostTensor>();
  for (const [name, tensor] of moment1) moments.set(`moment1.${name}`, tensor);
  for (const [name, tensor] of moment2) moments.set(`moment2.${name}`, tensor);
  await writeFolderAtomic(target, async (temporary) => {
    await writeSafetensors(path.join(temporary, MODEL_FILE), weights, toMetadata(model.config));
    await writeSafetensors(path.join(temporary, 'optimizer.safetensors'), moments, { optimizerStep: String(model.store.optimizerStep) });
    await writeFileAtomic(path.join(temporary, 'state.json'), `${JSON.stringify(state, null, 2)}\n`);
  });
  await writeFileAtomic(path.join(folder, 'latest'), `${checkpointName(state.step)}\n`);
  for (const old of listCheckpoints(runFolder).slice(0, -keep))
    rmSync(path.join(folder, checkpointName(old)), { recursive: true, force: true });
  return target;
}

/** Reads the counters of a checkpoint. @throws MaeError MAE_CHECKPOINT, MAE_FILE */
export function readState(checkpoint: string): CheckpointState {
  const file = path.join(checkpoint, 'state.json');
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw fileError('read', file, error);
  }
  try {
    return stateSchema.parse(JSON.parse(text));
  } catch (error) {
    const reason = error instanceof z.ZodError ? z.prettifyError(error) : (error as Error).message;
    throw new MaeError('MAE_CHECKPOINT', `${file} is damaged: ${reason}. Resume from an older checkpoint beside it`, { cause: error });
  }
}

/** Puts weights, moments and the optimizer's count of a checkpoint into a model. @throws MaeError MAE_CHECKPOINT, MAE_FORMAT, MAE_FILE */
export function loadCheckpoint(checkpoint: string, model: MaskedAutoencoder): CheckpointState {
  const state = readState(checkpoint);
  const modelFile = path.join(checkpoint, MODEL_FILE);
  const report = model.setWeights(readSafetensors(modelFile).tensors, modelFile);
  if (report.missing.length > 0) {
    throw new MaeError('MAE_CHECKPOINT', `${modelFile} lacks ${report.missing.join(', ')}: a run cannot go on from it`);
  }
  const optimizerFile = path.join(checkpoint, 'optimizer.safetensors');
  const { tensors } = readSafetensors(optimizerFile);
  for (const moment of ['moment1', 'moment2'] as const) {
    const own = [...tensors]
      .filter(([name]) => name.startsWith(`${moment}.`))
      .map(([name, tensor]) => [name.slice(moment.length + 1), tensor] as const);
    model.setMoments(moment, new Map(own));
  }
  model.store.optimizerStep = state.optimizerStep;
  return state;
}
