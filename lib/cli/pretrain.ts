/** `mae pretrain`: the whole job on the user's own pictures. */
import type { Command } from 'commander';
import { Loader } from '../data/loader';
import { openDataset } from '../data/open';
import { MaeError } from '../errors';
import { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import { initialiseFrom } from '../train/initialise';
import { modelOptions, resolveOptions, stepOptions } from '../train/options';
import { pretrain, type PretrainResult } from '../train/pretrain';
import { savedOptions } from '../train/runFolder';
import { describePlan } from '../train/summary';
import { formatDuration, formatPercent, formatRate } from '../format';
import { addPretrainFlags, collectOptions } from './flags';
import { interruptible } from './interrupt';

export function pretrainCommand(program: Command): void {
  const command = program
    .command('pretrain')
    .description('pre-train a masked autoencoder on a folder of pictures')
    .option('--config <file>', 'YAML or JSON file with the same options; flags override it')
    .option('--resume [run or checkpoint]', 'go on with the run in --out, or from another run folder or checkpoint')
    .option('--dry-run', 'show the resolved options, parameters, FLOPs and memory, time one step, train nothing')
    .option('--quiet', 'print errors only');
  addPretrainFlags(command);
  command.action(async (flags: Record<string, unknown>) => {
    const resume = flags.resume as boolean | string | undefined;
    // A run that is resumed needs none of its options again.
    const own = resume ? savedOptions(String(typeof resume === 'string' && !flags.out ? resume : (flags.out ?? ''))) : undefined;
    if (resume === true && !flags.out && !flags.config) {
      throw new MaeError('MAE_CONFIG', 'pretrain --resume needs the run to go on with: --resume runs/a, or --out runs/a --resume');
    }
    const options = collectOptions(flags, command, own);
    if (resume && typeof resume === 'string' && !options.out) options.out = resume;
    if (flags.dryRun) return dryRun(options, Boolean(resume));
    using interrupt = interruptible((line) => process.stderr.write(`\n${line}\n`));
    const result = await pretrain({ ...options, resume, signal: interrupt.signal, quiet: Boolean(flags.quiet) });
    if (!flags.quiet) describe(result);
    if (result.ended === 'interrupted') process.exitCode = interrupt.exitCode();
  });
}

/** What is worth looking at, at the end. */
export function describe(result: PretrainResult): void {
  const loss = [Number.isNaN(result.loss) ? 'nothing left to do' : `loss ${result.loss.toFixed(4)}`];
  if (result.validationLoss !== undefined) loss.push(`validation ${result.validationLoss.toFixed(4)}`);
  const speed = Number.isFinite(result.imagesPerSecond)
    ? `, ${formatRate(result.imagesPerSecond, 'img')}, waiting for pictures ${formatPercent(result.dataWait)} of the time`
    : '';
  const ended = { done: 'done', 'max-steps': 'stopped at --max-steps', 'max-minutes': 'stopped at --max-minutes', interrupted: 'stopped' }[
    result.ended
  ];
  console.log(`${ended} after ${result.steps} steps: ${loss.join(', ')}${speed}`);
  console.log(`  weights          ${result.checkpoint}/model.safetensors`);
  console.log(`  curve            ${result.curve}`);
  if (result.reconstructions) console.log(`  reconstructions  ${result.reconstructions}`);
  const further = result.ended === 'max-steps' ? ' --max-steps <more>' : '';
  if (result.ended !== 'done') console.log(`  go on with       mae pretrain --out ${result.out} --resume${further}`);
}

async function dryRun(given: Parameters<typeof resolveOptions>[0], resumes: boolean): Promise<void> {
  const options = resolveOptions(given);
  const dataset = openDataset(options.data, { cacheBytes: 0, log: () => undefined });
  using model = new MaskedAutoencoder(modelOptions(options));
  const step = model.trainStep(stepOptions(options));
  const { stepsPerEpoch } = new Loader(dataset, { batchSize: step.effectiveBatch, imageSize: model.config.imageSize });
  console.log(JSON.stringify(options, null, 2));
  if (options.initFrom !== undefined && !resumes) for (const line of initialiseFrom(options.initFrom, model)) console.log(line);
  for (const line of describePlan(model, step, options, dataset.length, stepsPerEpoch).lines) console.log(line);
  const { imageSize, inChans } = model.config;
  const images = Uint8Array.from({ length: step.effectiveBatch * imageSize[0] * imageSize[1] * inChans }, (_, i) => (i * 7919) % 256);
  await (
    await step.run({ images }, { lr: 0 })
  ).loss; // warm-up: first use of the memory
  const started = performance.now();
  await (
    await step.run({ images }, { lr: 0 })
  ).loss;
  const seconds = (performance.now() - started) / 1000;
  const total = seconds * stepsPerEpoch * options.epochs;
  console.log(
    `one step  ${formatDuration(seconds)}, ${formatRate(step.effectiveBatch / seconds, 'img')}: ${options.epochs} epochs take about ${formatDuration(total)}`,
  );
  dataset.close();
}
