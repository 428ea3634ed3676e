/** Pictures that are in memory already. */
import { MaeError } from '../errors';
import { checkNames } from '../issues';
import type { Dataset, PictureSource } from './dataset';

export interface ArrayDatasetOptions {
  /**
   * [count, height, width, channels], row-major: uint8 (0 … 255) or float32 (any range; normalised by the mean and standard deviation that
   * the model is given).
   */
  images: Uint8Array | Float32Array;
  height: number;
  width: number;
  channels: number;
  /** Class of each picture, −1 for none. */
  labels?: ArrayLike<number>;
  classes?: readonly string[];
  name?: string;
}

/**
 * A data set over an array. uint8 pictures with up to 4 channels can be cropped and resized like files; float32 ones, and those with more
 * channels, are cut but not resized ('none', or 'eval' at their own size).
 */
export class ArrayDataset implements Dataset {
  readonly name: string;
  readonly length: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly dtype: 'uint8' | 'float32';
  readonly classes: readonly string[];
  readonly labels: Int32Array;
  private images: Uint8Array | Float32Array;

  /** @throws MaeError MAE_ARGUMENT when the sizes do not go together */
  constructor(options: ArrayDatasetOptions) {
    checkNames('ArrayDataset', options, {
      images: true,
      height: true,
      width: true,
      channels: true,
      labels: true,
      classes: true,
      name: true,
    });
    const { images, height, width, channels, labels, classes = [], name = 'ArrayDataset' } = options;
    const positive = (value: number): boolean => Number.isInteger(value) && value > 0;
    if (!positive(height) || !positive(width) || !positive(channels)) {
      throw new MaeError(
        'MAE_ARGUMENT',
        `${name}: height, width and channels need positive integers, got ${height}, ${width}, ${channels}`,
      );
    }
    if (!(images instanceof Uint8Array) && !(images instanceof Float32Array)) {
      throw new MaeError(
        'MAE_ARGUMENT',
        `${name}: images needs a Uint8Array or Float32Array, got ${Object.prototype.toString.call(images)}`,
      );
    }
    this.length = images.length / (height * width * channels);
    if (!positive(this.length)) {
      throw new MaeError(
        'MAE_ARGUMENT',
        `${name}: images needs a whole number of pictures of ${height}·${width}·${channels} = ${height * width * channels} values, got ${images.length} values`,
      );
    }
    if (labels && labels.length !== this.length) {
      throw new MaeError('MAE_ARGUMENT', `${name}: labels needs one number per picture (${this.length}), got ${labels.length}`);
    }
    const strange = Array.from(labels ?? []).findIndex((label) => !(Number.isInteger(label) && label >= -1));
    if (strange >= 0)
      throw new MaeError(
        'MAE_ARGUMENT',
        `${name}: labels needs whole numbers from 0, or −1 for none, got ${labels![strange]} at ${strange}`,
      );
    this.name = name;
    this.height = height;
    this.width = width;
    this.channels = channels;
    this.dtype = images instanceof Uint8Array ? 'uint8' : 'float32';
    this.images = images;
    this.labels = labels ? Int32Array.from(labels) : new Int32Array(this.length).fill(-1);
    const highest = this.labels.reduce((a, b) => Math.max(a, b), -1);
    this.classes = classes.length > 0 ? classes : Array.from({ length: highest + 1 }, (_, i) => String(i));
    if (highest >= this.classes.length) {
      throw new MaeError('MAE_ARGUMENT', `${name}: label ${highest} has no name among the ${this.classes.length} classes`);
    }
  }

  pathOf(index: number): string {
    return `${this.name}[${index}]`;
  }

  async fetch(indices: ArrayLike<number>): Promise<PictureSource[]> {
    const { height, width } = this;
    const size = height * width * this.channels;
    return Array.from(indices, (index) => ({ height, width, data: this.images.subarray(index * size, (index + 1) * size) }));
  }

  close(): void {
    this.images = this.images.subarray(0, 0);
  }
}
