/** Looking at a model in the middle of its training: the loss on held-out pictures, and reconstructions. */
import type { Dataset } from '../data/dataset';
import { Loader, type LoaderOptions } from '../data/loader';
import { checkNames } from '../issues';
import type { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import { maskRatioLadder, reconstruct, reconstructionGrid, type Reconstruction, type ReconstructOptions } from '../view/reconstruction';

/** Loss over all pictures of a data set, resized and centre-cropped, each with the mask of epoch 0: comparable from one time to the next. */
export async function validationLoss(
  model: MaskedAutoencoder,
  dataset: Dataset,
  batchSize: number,
  options: Pick<LoaderOptions, 'workers' | 'log'> = {},
): Promise<number> {
  checkNames('validationLoss', options, { workers: true, log: true });
  const loader = new Loader(dataset, {
    batchSize: Math.min(batchSize, dataset.length),
    imageSize: model.config.imageSize,
    epochs: 1,
    shuffle: false,
    dropLast: false,
    augment: 'eval',
    ...options,
  });
  let sum = 0;
  for await (const { images, indices } of loader) sum += (await model.forward(images, { indices })).loss * indices.length;
  return sum / dataset.length;
}

/** Some pictures of a data set as the model takes them, in its order or spread over it (the same ones every time). uint8 [count, H, W, C] */
export async function somePictures(
  model: MaskedAutoencoder,
  dataset: Dataset,
  count: number,
  { spread, broken, log }: { spread: boolean } & Pick<LoaderOptions, 'broken' | 'log'>,
): Promise<Uint8Array> {
  const loader = new Loader(dataset, {
    batchSize: Math.min(count, dataset.length),
    imageSize: model.config.imageSize,
    epochs: 1,
    shuffle: spread,
    augment: 'eval',
    copy: true,
    broken,
    log,
  });
  for await (const { images } of loader) return images as Uint8Array;
  throw new Error('unreachable: a loader gives at least one batch');
}

/** Pictures of what the model sees and makes of it, one for each of `images`. */
export async function reconstructions(
  model: MaskedAutoencoder,
  images: Uint8Array,
  options: PictureOptions & { indices?: Int32Array } = {},
): Promise<Reconstruction[]> {
  checkNames<PictureOptions & { indices?: Int32Array }>('reconstructions', options, { maskRatio: true, statistics: true, indices: true });
  const { imageSize, inChans, patchSize, mean, std, normPixLoss } = model.config;
  const [height, width] = imageSize;
  const perPicture = height * width * inChans;
  const count = images.length / perPicture;
  const { pred, mask } = await model.forward(images, { maskRatio: options.maskRatio, indices: options.indices });
  const patches = mask.length / count;
  const shape = { height, width, channels: inChans, patch: patchSize };
  return Array.from({ length: count }, (_, i) =>
    reconstruct(
      images.subarray(i * perPicture, (i + 1) * perPicture),
      pred.subarray((i * pred.length) / count, ((i + 1) * pred.length) / count),
      mask.subarray(i * patches, (i + 1) * patches),
      { shape, mean, std, normPixLoss, statistics: options.statistics },
    ),
  );
}

/** What a picture of reconstructions may differ in from the model's own way. */
export interface PictureOptions {
  /** Default: the model's. */
  maskRatio?: number;
  /** For norm-pix models; default 'visible'. */
  statistics?: ReconstructOptions['statistics'];
}

/** Rows of (masked | reconstruction | original) as a PNG. */
export async function reconstructionPicture(model: MaskedAutoencoder, images: Uint8Array, options: PictureOptions = {}): Promise<Buffer> {
  const pictures = await reconstructions(model, images, options);
  const [height, width] = model.config.imageSize;
  return reconstructionGrid({
    originals: pictures.map(({ original }) => original),
    masked: pictures.map(({ masked }) => masked),
    reconstructions: pictures.map(({ pasted }) => pasted),
    shape: { height, width, channels: model.config.inChans },
    labels: ['masked', pictures[0].label, 'original'],
  });
}

/** The original, then masked and reconstructed at each ratio, a row for each picture, as a PNG. */
export async function ladderPicture(
  model: MaskedAutoencoder,
  images: Uint8Array,
  maskRatios: readonly number[],
  statistics?: ReconstructOptions['statistics'],
): Promise<Buffer> {
  const [height, width] = model.config.imageSize;
  const steps = [];
  let originals: Uint8Array[] = [];
  for (const maskRatio of maskRatios) {
    const pictures = await reconstructions(model, images, { maskRatio, statistics });
    originals = pictures.map(({ original }) => original);
    steps.push({ maskRatio, masked: pictures.map(({ masked }) => masked), reconstructions: pictures.map(({ pasted }) => pasted) });
  }
  return maskRatioLadder({ originals, steps, shape: { height, width, channels: model.config.inChans } });
}
