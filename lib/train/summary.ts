/** What a run is going to be, in words, before it starts. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { plan } from '../graph/plan';
import type { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import { numPatches, numVisible } from '../nn/config';
import { forwardMacs, trainFlops } from '../nn/flops';
import { traceTrainStep, type TrainStep } from '../nn/trainStep';
import { peakLearningRate } from '../optim/schedule';
import { formatBytes, formatCount, formatLearningRate, groupDigits } from '../format';
import type { ResolvedOptions } from './options';

export interface RunPlan {
  readonly lines: string[];
  /** For config.json: versions, device, memory. */
  readonly about: Record<string, unknown>;
}

export function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(path.join(__dirname, '../../package.json'), 'utf8')) as { version: string };
  return version;
}

/** The paper's base learning rate (Table 8), and how many steps it needs before much is to be seen. */
const PAPER_BLR = 1.5e-4;
const FEW_STEPS = 10_000;

export function describePlan(
  model: MaskedAutoencoder,
  step: TrainStep,
  options: ResolvedOptions,
  pictures: number,
  stepsPerEpoch: number,
): RunPlan {
  const { config } = model;
  const lr = peakLearningRate({ lr: options.lr, blr: options.blr, effectiveBatch: step.effectiveBatch });
  const { program } = step;
  const executed = program.trace.ops.reduce((sum, op) => sum + op.flops, 0) / step.batchSize;
  const bytes = program.bytes + model.store.bytes;
  const other = { batchSize: step.batchSize, recompute: !options.recompute };
  const otherwise = plan(traceTrainStep(model, step.optimizer, other).trace, true, program.lent).arenaBytes;
  const head = (name: string, width: number, depth: number, heads: number): string =>
    `${name} ${width} wide, ${depth} deep, ${heads} heads`;
  const lines = [
    `model     ${options.preset}: ${formatCount(model.parameterCount)} parameters; ${head('encoder', config.embedDim, config.depth, config.numHeads)}; ` +
      head('decoder', config.decoderEmbedDim, config.decoderDepth, config.decoderNumHeads),
    `pictures  ${groupDigits(pictures)} of ${config.imageSize.join('x')} px in ${numPatches(config)} patches, ${numVisible(config)} visible; ` +
      `target ${config.normPixLoss ? 'normalised pixels' : 'pixels'}`,
    `step      ${options.batchSize}${options.accumIter > 1 ? ` x ${options.accumIter}` : ''} pictures, peak lr ${formatLearningRate(lr)}; ` +
      `${stepsPerEpoch} step${stepsPerEpoch === 1 ? '' : 's'} an epoch, ${options.epochs} epochs`,
    `work      ${(trainFlops(config) / 1e9).toFixed(2)} GFLOP a picture (${(executed / 1e9).toFixed(2)} executed)`,
    `memory    ${formatBytes(bytes)}, activations ${formatBytes(program.plan.arenaBytes)} of it (${formatBytes(program.plan.unplannedBytes)} before planning, ` +
      `${formatBytes(otherwise)} ${options.recompute ? 'without' : 'with'} recompute)`,
    `device    ${model.device.handle.name}, ${model.precision}${model.residualPrecision === 'bf16' ? ', bf16 residual stream' : ''}`,
  ];
  const allSteps = stepsPerEpoch * options.epochs;
  if (allSteps < FEW_STEPS && options.blr !== undefined && options.blr <= PAPER_BLR) {
    lines.push(
      `note      ${groupDigits(allSteps)} steps are few for blr ${formatLearningRate(options.blr)}, the paper's for hundreds of thousands: ` +
        `--blr 1.5e-3 learns faster (--recipe small-pictures)`,
    );
  }
  const about = {
    nodeMae: packageVersion(),
    node: process.version,
    device: model.device.handle.name,
    precision: model.precision,
    parameters: model.parameterCount,
    forwardMacs: forwardMacs(config).total,
    memoryBytes: bytes,
  };
  return { lines, about };
}
