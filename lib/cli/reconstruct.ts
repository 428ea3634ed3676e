/** `mae reconstruct`: what a trained model makes of pictures. */
import { statSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { openDataset } from '../data/open';
import type { Dataset } from '../data/dataset';
import { PictureFiles } from '../data/files';
import { MaeError } from '../errors';
import { writeFileAtomic } from '../io/atomic';
import { describeWeights } from '../io/weightsReport';
import { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import { ladderPicture, reconstructionPicture, somePictures } from '../train/evaluation';
import { statisticsLabels, type StatisticsSource } from '../view/patchStatistics';
import { positiveInteger } from './pack';

interface Flags {
  checkpoint: string;
  out: string;
  count: number;
  maskRatio?: string;
  ladder?: string | boolean;
  statistics: StatisticsSource;
  seed: string;
  device: string;
}

export function reconstructCommand(program: Command): void {
  program
    .command('reconstruct')
    .description('draw masked | reconstruction | original for pictures, or a ladder of mask ratios as the paper does')
    .argument('[pictures...]', 'picture files, or one folder or .maepack file')
    .requiredOption('--checkpoint <path>', 'run folder, checkpoint folder or .safetensors file')
    .option('--out <file>', 'PNG to write', 'reconstructions.png')
    .option('--count <pictures>', 'at most so many pictures of a folder', positiveInteger, 8)
    .option('--mask-ratio <ratio>', "default: the model's")
    .option('--ladder [ratios]', 'one column pair for each mask ratio (paper, figure 4); default 0.5,0.75,0.9')
    .addOption(
      new Option(
        '--statistics <source>',
        "norm-pix models: patch statistics from 'visible' patches, the 'target' (uses the original) or 'raw'",
      )
        .choices(Object.keys(statisticsLabels))
        .default('visible'),
    )
    .option('--seed <number>', 'of the masks', '0')
    .option('--device <device>', 'auto, cpu, cuda or cuda:<number>', 'auto')
    .action(async (given: string[], flags: Flags) => {
      const pictures = takeFromLadder(given, flags);
      if (pictures.length === 0) throw new MaeError('MAE_ARGUMENT', 'reconstruct: name picture files, or one folder or .maepack file');
      const { model, report } = MaskedAutoencoder.load(flags.checkpoint, { device: flags.device, seed: Number(flags.seed) });
      try {
        for (const line of describeWeights(report)) console.error(`note: ${line}`);
        await writeFileAtomic(flags.out, await draw(model, pictures, flags));
        console.log(`wrote ${flags.out}`);
      } finally {
        model.dispose();
      }
    });
}

/** `--ladder pictures/`: what follows the flag is a picture, unless it is a list of ratios. */
function takeFromLadder(pictures: readonly string[], flags: Flags): string[] {
  if (typeof flags.ladder !== 'string' || /^[\d.,]+$/.test(flags.ladder)) return [...pictures];
  const first = flags.ladder;
  flags.ladder = true;
  return [first, ...pictures];
}

async function draw(model: MaskedAutoencoder, pictures: readonly string[], flags: Flags): Promise<Buffer> {
  const dataset = open(pictures);
  const images = await somePictures(model, dataset, flags.count, { spread: false, broken: 'stop' });
  const { statistics, ladder } = flags;
  if (!ladder)
    return reconstructionPicture(model, images, {
      statistics,
      maskRatio: flags.maskRatio === undefined ? undefined : ratio(flags.maskRatio),
    });
  return ladderPicture(model, images, (ladder === true ? '0.5,0.75,0.9' : String(ladder)).split(',').map(ratio), statistics);
}

function open(pictures: readonly string[]): Dataset {
  const [first] = pictures;
  const isFile = statSync(first, { throwIfNoEntry: false })?.isFile() && !first.endsWith('.maepack');
  return isFile ? new PictureFiles(pictures) : openDataset(first, { cacheBytes: 0, log: () => undefined });
}

function ratio(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value < 1)) throw new MaeError('MAE_ARGUMENT', `reconstruct: a mask ratio must lie between 0 and 1, got '${text}'`);
  return value;
}
