/** How much a frozen encoder knows: classification by nearest neighbours in feature space (Wu et al. 2018, the usual probe without training). */
import type { Dataset } from '../data/dataset';
import { Loader } from '../data/loader';
import { MaeError } from '../errors';
import { openDevice } from '../graph/device';
import { Program } from '../graph/program';
import { Store } from '../graph/store';
import { Tape } from '../graph/tape';
import type { Parameter } from '../graph/tensor';
import type { MaskedAutoencoder } from '../nn/maskedAutoencoder';

/** One row for each picture, and its class. */
export interface LabelledFeatures {
  readonly features: Float32Array;
  readonly width: number;
  readonly labels: Int32Array;
}

export type Featurise = (images: Uint8Array) => Promise<Float32Array>;

/** Features of a whole labelled data set, resized and centre-cropped. @throws MaeError MAE_DATA for pictures without class */
export async function labelledFeatures(
  dataset: Dataset,
  imageSize: readonly [number, number],
  featurise: Featurise,
  onProgress?: (done: number, total: number) => void,
): Promise<LabelledFeatures> {
  if (dataset.classes.length < 2) {
    throw new MaeError('MAE_DATA', `${dataset.name} has no classes: pictures are needed in one folder for each class`);
  }
  const batchSize = Math.min(100, dataset.length);
  const loader = new Loader(dataset, { batchSize, imageSize, epochs: 1, shuffle: false, dropLast: false, augment: 'eval' });
  let features = new Float32Array(0);
  const labels = new Int32Array(dataset.length);
  let done = 0;
  for await (const batch of loader) {
    const rows = await featurise(batch.images as Uint8Array);
    const width = rows.length / batch.indices.length;
    if (done === 0) features = new Float32Array(dataset.length * width);
    features.set(rows, done * width);
    labels.set(batch.labels!, done);
    done += batch.indices.length;
    onProgress?.(done, dataset.length);
  }
  return { features, width: features.length / dataset.length, labels };
}

/** Mean of the encoder's patch tokens. */
export const encoderFeatures =
  (model: MaskedAutoencoder): Featurise =>
  (images) =>
    model.features(images);

/** The picture itself at the model's size: what an encoder has to beat. */
export const pixelFeatures: Featurise = (images) => Promise.resolve(Float32Array.from(images, (value) => value / 255));

/** Queries of one matrix product. */
const QUERIES = 250;
/** Weight of a neighbour of cosine similarity s: exp(s / temperature), Wu et al.'s. */
const TEMPERATURE = 0.07;

/**
 * Share of `test` whose class is the one that its `k` nearest rows of `train` vote for: cosine similarity of features centred by the
 * training mean, votes weighted by exp(similarity / 0.07).
 */
export async function nearestNeighbourAccuracy(train: LabelledFeatures, test: LabelledFeatures, k = 20, device = 'auto'): Promise<number> {
  const { width } = train;
  const mean = columnMean(train);
  const keys: Parameter = {
    name: 'keys',
    shape: [train.labels.length, width],
    init: (values) => values.set(directions(train.features, width, mean)),
  };
  const opened = openDevice(device);
  const store = new Store(opened.id, opened.handle, 'f32', [keys], []);
  const t = new Tape({ compute: 'f32', device: opened.kind, training: false });
  const queries = t.input('queries', [QUERIES, width], 'f32');
  const similarity = t.keep(t.call('linear', { x: queries, w: t.weight(keys) }).y);
  const program = new Program(t.finish(), store);
  try {
    const directionsOfTest = directions(test.features, width, mean);
    let right = 0;
    for (let first = 0; first < test.labels.length; first += QUERIES) {
      const count = Math.min(QUERIES, test.labels.length - first);
      const block = new Float32Array(QUERIES * width);
      block.set(directionsOfTest.subarray(first * width, (first + count) * width));
      const { results } = await program.run([{ queries: block }], [{ segment: 'run' }], [similarity]);
      const rows = new Float32Array((await results)[0]);
      for (let i = 0; i < count; i++) {
        const row = rows.subarray(i * train.labels.length, (i + 1) * train.labels.length);
        if (vote(row, train.labels, k) === test.labels[first + i]) right++;
      }
    }
    return right / test.labels.length;
  } finally {
    program.dispose();
    store.dispose();
  }
}

function columnMean({ features, width }: LabelledFeatures): Float64Array {
  const mean = new Float64Array(width);
  for (let i = 0; i < features.length; i++) mean[i % width] += (features[i] * width) / features.length;
  return mean;
}

/** Rows minus the mean, at length one. */
function directions(features: Float32Array, width: number, mean: Float64Array): Float32Array {
  const out = new Float32Array(features.length);
  for (let row = 0; row < features.length; row += width) {
    let square = 0;
    for (let i = 0; i < width; i++) {
      out[row + i] = features[row + i] - mean[i];
      square += out[row + i] ** 2;
    }
    const scale = 1 / (Math.sqrt(square) || 1);
    for (let i = 0; i < width; i++) out[row + i] *= scale;
  }
  return out;
}

function vote(similarities: Float32Array, labels: Int32Array, k: number): number {
  // The k largest by insertion: most values fail the first comparison.
  const best = new Float32Array(k).fill(-Infinity);
  const classes = new Int32Array(k);
  for (let i = 0; i < similarities.length; i++) {
    if (similarities[i] <= best[k - 1]) continue;
    let at = k - 1;
    for (; at > 0 && best[at - 1] < similarities[i]; at--) {
      best[at] = best[at - 1];
      classes[at] = classes[at - 1];
    }
    best[at] = similarities[i];
    classes[at] = labels[i];
  }
  const votes = new Map<number, number>();
  best.forEach((similarity, i) => votes.set(classes[i], (votes.get(classes[i]) ?? 0) + Math.exp((similarity - 1) / TEMPERATURE)));
  return [...votes].sort((a, b) => b[1] - a[1])[0][0];
}
