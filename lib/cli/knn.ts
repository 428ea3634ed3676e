/** `mae knn`: nearest-neighbour accuracy of a frozen encoder, beside the untrained one's and that of raw pixels. */
import { SingleBar } from 'cli-progress';
import type { Command } from 'commander';
import { openDataset } from '../data/open';
import { MaeError } from '../errors';
import { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import { encoderFeatures, type Featurise, labelledFeatures, nearestNeighbourAccuracy, pixelFeatures } from '../train/nearestNeighbours';
import { formatDuration, formatPercent } from '../format';
import { positiveInteger } from './pack';

export function knnCommand(program: Command): void {
  program
    .command('knn')
    .description(
      'classify test pictures by their nearest training pictures in feature space: trained encoder, untrained encoder, raw pixels',
    )
    .requiredOption('--train <path>', 'pictures in one folder for each class, or a .maepack file')
    .requiredOption('--test <path>', 'likewise, with the same classes')
    .requiredOption('--checkpoint <path>', 'run folder, checkpoint folder or .safetensors file')
    .option('--k <neighbours>', 'that vote', positiveInteger, 20)
    .option('--device <device>', 'auto, cpu, cuda or cuda:<number>', 'auto')
    .option('--json', 'print the accuracies as JSON')
    .action(async (flags: { train: string; test: string; checkpoint: string; k: number; device: string; json?: boolean }) => {
      const log = (): void => undefined;
      const [train, test] = [openDataset(flags.train, { log }), openDataset(flags.test, { log })];
      if (String(train.classes) !== String(test.classes)) {
        throw new MaeError(
          'MAE_DATA',
          `knn: ${train.name} and ${test.name} must have the same classes, got ${train.classes.join(', ')} and ${test.classes.join(', ')}`,
        );
      }
      const { model } = MaskedAutoencoder.load(flags.checkpoint, { device: flags.device });
      using untrained = new MaskedAutoencoder({ ...model.config, device: flags.device });
      using trained = model;
      const accuracies: Record<string, number> = {};
      const contestants: [string, Featurise][] = [
        ['trained encoder', encoderFeatures(trained)],
        ['untrained encoder', encoderFeatures(untrained)],
        ['raw pixels', pixelFeatures],
      ];
      for (const [name, featurise] of contestants) {
        const started = performance.now();
        const features = async (dataset: typeof train) => {
          const bar = new SingleBar({ format: `${name} {bar} {value}/{total} {eta_formatted}`, clearOnComplete: true });
          bar.start(dataset.length, 0);
          return labelledFeatures(dataset, model.config.imageSize, featurise, (done) => bar.update(done)).finally(() => bar.stop());
        };
        accuracies[name] = await nearestNeighbourAccuracy(await features(train), await features(test), flags.k, flags.device);
        if (!flags.json) {
          console.log(
            `${name.padEnd(18)} ${formatPercent(accuracies[name])} of ${test.length} (${formatDuration((performance.now() - started) / 1000)})`,
          );
        }
      }
      if (flags.json) console.log(JSON.stringify({ k: flags.k, train: train.length, test: test.length, accuracies }, null, 2));
    });
}
