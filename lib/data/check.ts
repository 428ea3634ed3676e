/** What is in a data set, and what in it would disturb a training run. */
import { MaeError } from '../errors';
import { IMAGENET_MEAN, IMAGENET_STD } from '../nn/config';
import { formatBytes, groupDigits } from '../format';
import { checkNames } from '../issues';
import type { Dataset } from './dataset';
import { isBroken, readPixels } from './dataset';
import { decodeConcurrency, readHeader } from './decode';
import { ImageFolder } from './folder';
import { openDataset } from './open';
import { ChannelSums } from './statistics';

export interface CheckOptions {
  /** Side of the pictures that the model will be given; for the advice. Default 224. */
  imageSize?: number;
  /** Look at this many pictures, evenly spaced, instead of all. */
  sample?: number;
  onProgress?: (done: number, total: number) => void;
}

export interface CheckReport {
  path: string;
  kind: 'folder' | 'packed';
  pictures: number;
  /** Pictures that were decoded: all, or the sample. */
  checked: number;
  /** Pictures of each class, of all pictures. */
  classes: { name: string; pictures: number }[];
  /** Of the checked pictures: file formats, and what is converted when they are read. Empty for a packed data set. */
  formats: Record<string, number>;
  converted: { greyscale: number; cmyk: number; sixteenBit: number; alpha: number; rotated: number };
  /** Files of a folder that are no pictures by their names, by extension: not looked at. */
  passedOver: Record<string, number>;
  /** Of the readable ones: [height, width] of the smallest and largest by area, and how many have a short side in [from, to). */
  smallest: [number, number];
  largest: [number, number];
  shortSides: { from: number; to: number | null; pictures: number }[];
  broken: { path: string; reason: string }[];
  /** Channel mean and standard deviation, values / 255. */
  mean: number[];
  std: number[];
  decodedPerSecond: number;
  /** Of all pictures, decoded: extrapolated if a sample was taken. */
  decodedBytes: number;
  availableMemory: number;
  imageSize: number;
  /** Readable pictures with a side shorter than imageSize. */
  smallerThanImageSize: number;
  advice: string[];
}

const SHORT_SIDES = [0, 32, 64, 128, 224, 256, 512, 1024, Infinity];

/**
 * Decodes the pictures of a folder or packed data set once and reports on them. Broken pictures are listed, not thrown.
 * @throws MaeError MAE_DATA, MAE_FILE or MAE_FORMAT when there is no data set at the path
 */
export async function checkData(path: string, options: CheckOptions = {}): Promise<CheckReport> {
  checkNames('checkData', options, { imageSize: true, sample: true, onProgress: true });
  const { imageSize = 224, sample = Infinity, onProgress } = options;
  for (const [name, value] of Object.entries({ imageSize, sample })) {
    if (!(value >= 1)) throw new MaeError('MAE_ARGUMENT', `checkData: ${name} needs a number from 1, got ${value}`);
  }
  const dataset = openDataset(path, { cacheBytes: 0 });
  try {
    const count = Math.min(Math.floor(sample), dataset.length);
    const sizes: [number, number][] = [];
    const formats: Record<string, number> = {};
    const converted = { greyscale: 0, cmyk: 0, sixteenBit: 0, alpha: 0, rotated: 0 };
    const broken: { index: number; path: string; reason: string }[] = [];
    const sums = new ChannelSums(dataset.channels);
    const start = performance.now();
    let started = 0;
    let done = 0;
    const look = async (index: number): Promise<void> => {
      const [source] = await dataset.fetch([index]);
      if (isBroken(source)) {
        broken.push({ index, path: dataset.pathOf(index), reason: source.reason });
        return;
      }
      sizes.push([source.height, source.width]);
      sums.add(await readPixels(dataset, source));
      if (!(dataset instanceof ImageFolder)) return;
      const { format, space, depth, hasAlpha, orientation = 1 } = await readHeader(dataset.pathOf(index));
      formats[format] = (formats[format] ?? 0) + 1;
      if (space === 'b-w' || space === 'grey16') converted.greyscale++;
      if (space === 'cmyk') converted.cmyk++;
      if (depth === 'ushort') converted.sixteenBit++;
      if (hasAlpha) converted.alpha++;
      if (orientation > 1) converted.rotated++;
    };
    const lookAtNext = async (): Promise<void> => {
      while (started < count) {
        await look(Math.floor((started++ * dataset.length) / count));
        onProgress?.(++done, count);
      }
    };
    await Promise.all(Array.from({ length: decodeConcurrency() }, lookAtNext));
    const seconds = (performance.now() - start) / 1000;
    broken.sort((a, b) => a.index - b.index);

    const area = ([height, width]: [number, number]): number => height * width;
    sizes.sort((a, b) => area(a) - area(b));
    const decoded = sizes.reduce((sum, size) => sum + area(size) * dataset.channels, 0);
    const { mean, std } = sums.result();
    const report: CheckReport = {
      path,
      kind: dataset instanceof ImageFolder ? 'folder' : 'packed',
      pictures: dataset.length,
      checked: count,
      classes: countClasses(dataset),
      formats,
      converted,
      passedOver: dataset instanceof ImageFolder ? { ...dataset.passedOver } : {},
      smallest: sizes[0] ?? [0, 0],
      largest: sizes[sizes.length - 1] ?? [0, 0],
      shortSides: histogram(sizes.map((size) => Math.min(...size))),
      broken: broken.map(({ path: file, reason }) => ({ path: file, reason })),
      mean,
      std,
      decodedPerSecond: count / seconds,
      decodedBytes: Math.round((decoded / count) * dataset.length),
      availableMemory: process.availableMemory(),
      imageSize,
      smallerThanImageSize: sizes.filter((size) => Math.min(...size) < imageSize).length,
      advice: [],
    };
    report.advice = adviceFor(report);
    return report;
  } finally {
    dataset.close();
  }
}

function countClasses({ classes, labels }: Dataset): { name: string; pictures: number }[] {
  const counts = new Float64Array(classes.length);
  for (const label of labels) if (label >= 0) counts[label]++;
  return classes.map((name, i) => ({ name, pictures: counts[i] }));
}

function histogram(shortSides: number[]): CheckReport['shortSides'] {
  const bins = SHORT_SIDES.slice(0, -1).map((from, i) => {
    const to = SHORT_SIDES[i + 1];
    return { from, to: to === Infinity ? null : to, pictures: shortSides.filter((side) => side >= from && side < to).length };
  });
  return bins.filter(({ pictures }) => pictures > 0);
}

function adviceFor(report: CheckReport): string[] {
  const { path, kind, pictures, broken, checked, decodedBytes, availableMemory, decodedPerSecond, imageSize, smallerThanImageSize } =
    report;
  const advice: string[] = [];
  const readable = checked - broken.length;
  if (readable === 0) return ['No picture can be decoded: is this the right folder?'];
  if (broken.length > 0)
    advice.push(`Broken files are replaced by other pictures during training; remove or repair them to be rid of the warnings.`);
  if (kind === 'folder' && decodedBytes > availableMemory / 2) {
    advice.push(
      `Decoded, the pictures take ${formatBytes(decodedBytes)}, more than half of the memory (${formatBytes(availableMemory)}): part of them would be ` +
        `decoded anew in every epoch. Decode once: mae pack ${path} --out pictures.maepack${imageSize <= 224 ? ' --size 256' : ''}`,
    );
  } else if (kind === 'folder') {
    advice.push(
      `Decoded, the pictures take ${formatBytes(decodedBytes)} and fit in memory: only the first epoch decodes (about ` +
        `${Math.ceil(pictures / decodedPerSecond)} s). mae pack saves that too, for repeated runs.`,
    );
  }
  if (smallerThanImageSize > readable / 10) {
    advice.push(
      `${groupDigits(smallerThanImageSize)} of ${groupDigits(readable)} pictures are smaller than ${imageSize}x${imageSize} and would be enlarged; ` +
        'a smaller --image-size trains faster on them.',
    );
  }
  if (report.mean.some((mean, c) => Math.abs(mean - IMAGENET_MEAN[c]) > 0.1 || Math.abs(report.std[c] - IMAGENET_STD[c]) > 0.1)) {
    const list = (values: number[]): string => values.map((value) => value.toFixed(4)).join(',');
    advice.push(`The channels differ from ImageNet's: --mean ${list(report.mean)} --std ${list(report.std)}`);
  }
  return advice;
}
