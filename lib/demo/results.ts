/** The pictures that the demo ends with. */
import path from 'node:path';
import type { Dataset } from '../data/dataset';
import { writeFileAtomic } from '../io/atomic';
import { MaskedAutoencoder, type ModelOptions } from '../nn/maskedAutoencoder';
import { ladderPicture, reconstructionPicture, somePictures } from '../train/evaluation';
import type { PretrainResult } from '../train/pretrain';

const IN_GRID = 12;
const IN_LADDER = 6;
const MASK_RATIOS = [0.5, 0.75, 0.9];

/**
 * Writes reconstructions.png and mask-ratios.png into the run folder, of different pictures where there are enough.
 * @returns their paths
 */
export async function drawResults(
  { out, checkpoint }: PretrainResult,
  dataset: Dataset,
  options: ModelOptions,
): Promise<{ grid: string; ladder: string }> {
  const { model } = MaskedAutoencoder.load(checkpoint, options);
  try {
    const images = await somePictures(model, dataset, IN_GRID + IN_LADDER, { spread: false });
    const [height, width] = model.config.imageSize;
    const size = height * width * model.config.inChans;
    const grid = path.join(out, 'reconstructions.png');
    await writeFileAtomic(grid, await reconstructionPicture(model, images.subarray(0, IN_GRID * size)));
    const ladder = path.join(out, 'mask-ratios.png');
    await writeFileAtomic(ladder, await ladderPicture(model, images.subarray(-IN_LADDER * size), MASK_RATIOS));
    return { grid, ladder };
  } finally {
    model.dispose();
  }
}
