/** Mean and standard deviation of a data set's channels, for normalising pictures that are not like ImageNet's. */
import { MaeError } from '../errors';
import { checkNames } from '../issues';
import type { Dataset, Picture } from './dataset';
import { isBroken, readPixels } from './dataset';

export interface ChannelStatistics {
  /** Per channel; uint8 values count as value / 255, float32 ones as they are. */
  mean: number[];
  std: number[];
  /** Pictures that were looked at. */
  pictures: number;
}

/** Sums over the pixels of pictures. */
export class ChannelSums {
  private readonly sum: Float64Array;
  private readonly squares: Float64Array;
  private pixels = 0;
  private pictures = 0;

  constructor(private readonly channels: number) {
    this.sum = new Float64Array(channels);
    this.squares = new Float64Array(channels);
  }

  /** Adds a picture; of a large one every n-th pixel, so that at most some 250,000 are read. */
  add({ height, width, data }: Picture): void {
    const { channels, sum, squares } = this;
    const stride = Math.ceil((height * width) / 250_000);
    const unit = data instanceof Uint8Array ? 1 / 255 : 1;
    for (let c = 0; c < channels; ++c) {
      let total = 0;
      let totalSquares = 0;
      for (let i = c; i < data.length; i += stride * channels) {
        total += data[i];
        totalSquares += data[i] * data[i];
      }
      sum[c] += total * unit;
      squares[c] += totalSquares * unit * unit;
    }
    this.pixels += Math.ceil((height * width) / stride);
    this.pictures++;
  }

  result(): ChannelStatistics {
    const mean = Array.from(this.sum, (sum) => sum / this.pixels);
    const std = Array.from(this.squares, (squares, c) => Math.sqrt(Math.max(0, squares / this.pixels - mean[c] ** 2)));
    return { mean, std, pictures: this.pictures };
  }
}

/**
 * Mean and standard deviation (over all pixels, population) of each channel.
 * @param samples  pictures to look at, evenly spaced over the data set; broken ones are left out
 * @throws MaeError MAE_DATA when none of them can be decoded
 */
export async function statistics(dataset: Dataset, options: { samples?: number } = {}): Promise<ChannelStatistics> {
  checkNames('statistics', options, { samples: true });
  const { samples = 1000 } = options;
  if (!(samples >= 1)) throw new MaeError('MAE_ARGUMENT', `statistics: samples needs a number of pictures from 1, got ${samples}`);
  const count = Math.min(Math.floor(samples), dataset.length);
  const sums = new ChannelSums(dataset.channels);
  const atOnce = 32;
  for (let first = 0; first < count; first += atOnce) {
    const indices = Array.from({ length: Math.min(atOnce, count - first) }, (_, i) => Math.floor(((first + i) * dataset.length) / count));
    const sources = await dataset.fetch(indices);
    for (const source of sources) if (!isBroken(source)) sums.add(await readPixels(dataset, source));
  }
  const result = sums.result();
  if (result.pictures === 0) throw new MaeError('MAE_DATA', `statistics: none of ${count} pictures of ${dataset.name} can be decoded`);
  return result;
}
