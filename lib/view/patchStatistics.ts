/**
 * Pictures from the predictions of a norm-pix model. Such a model predicts each patch relative to that patch's own mean and standard
 * deviation, which it does not predict; a picture needs them from somewhere, and the choice must be told.
 */
import { PictureShape, patchGrid } from './patches';

/**
 * Where the mean and the standard deviation of a removed patch come from:
 * `raw`: nowhere, the prediction is shown as if it were pixels; `visible`: estimated from the visible patches, all that the model
 * saw; `target`: the original patch itself, so the picture contains what was hidden.
 */
export type StatisticsSource = 'raw' | 'visible' | 'target';

/** What to write beside a picture made with each choice. */
export const statisticsLabels: Readonly<Record<StatisticsSource, string>> = {
  raw: 'raw prediction',
  visible: 'contrast from visible patches',
  target: 'contrast taken from the original',
};

/** Per patch, over all its values of all channels together. */
export interface PatchStatistics {
  mean: Float32Array;
  /** √(σ² + 1e-6), σ² unbiased: what the loss divides by (the reference's `norm_pix_loss`). */
  std: Float32Array;
}

/** @param patches  normalised, [count, size] */
export function patchStatistics(patches: Float32Array, size: number): PatchStatistics {
  const count = patches.length / size;
  const statistics = { mean: new Float32Array(count), std: new Float32Array(count) };
  for (let p = 0; p < count; p++) {
    const values = patches.subarray(p * size, (p + 1) * size);
    const mean = values.reduce((sum, value) => sum + value, 0) / size;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    statistics.mean[p] = mean;
    statistics.std[p] = Math.sqrt(squares / (size - 1) + 1e-6);
  }
  return statistics;
}

/**
 * Statistics of all patches as far as the visible ones tell. Visible patches have their own; those of a removed patch are chosen so
 * that its predicted borders meet its neighbours' (least squares over the pixels along all borders, held near the interpolation from
 * the visible patches).
 *
 * @param patches  the normalised picture [patches, size]; removed patches are not read
 * @param prediction  [patches, size] of a norm-pix model
 * @param mask  [patches], 0 = visible; with no visible patch mean 0 and std 1 are given
 */
export function estimateStatistics(
  patches: Float32Array,
  prediction: Float32Array,
  mask: ArrayLike<number>,
  shape: PictureShape,
): PatchStatistics {
  const { size } = patchGrid(shape);
  const own = patchStatistics(patches, size);
  const start = interpolateStatistics(own, mask, shape);
  const fitted = { mean: Float32Array.from(start.mean), std: Float32Array.from(start.std) };
  // Visible patches in the same terms as predicted ones: relative to their statistics.
  const relative = prediction.map((value, i) => {
    const p = Math.floor(i / size);
    return mask[p] === 0 ? (patches[i] - own.mean[p]) / own.std[p] : value;
  });
  const borders = borderPairs(shape);
  // Gauss-Seidel: one patch after the other takes its best two numbers given its neighbours'. What is left after 60 rounds is invisible.
  for (let round = 0; round < 60; round++) {
    for (let p = 0; p < borders.length; p++) if (mask[p] !== 0) fitPatch(p, borders[p], relative, size, start, fitted);
  }
  return fitted;
}

/** prediction·std + mean, patch by patch. @param prediction  [patches, size] */
export function applyStatistics(prediction: Float32Array, { mean, std }: PatchStatistics): Float32Array {
  const size = prediction.length / mean.length;
  return prediction.map((value, i) => value * std[Math.floor(i / size)] + mean[Math.floor(i / size)]);
}

// Removed patches get the mean of the visible ones weighted by distance⁻⁴ (Shepard's interpolation: with the fourth power, the many
// far patches together weigh less than the few near ones).
function interpolateStatistics(own: PatchStatistics, mask: ArrayLike<number>, shape: PictureShape): PatchStatistics {
  const { rows, columns } = patchGrid(shape);
  const visible = Array.from({ length: rows * columns }, (_, p) => p).filter((p) => mask[p] === 0);
  const out = { mean: Float32Array.from(own.mean), std: Float32Array.from(own.std) };
  for (let p = 0; p < rows * columns; p++) {
    if (mask[p] === 0) continue;
    let [weights, mean, std] = [0, 0, 0];
    for (const v of visible) {
      const squared = (Math.floor(p / columns) - Math.floor(v / columns)) ** 2 + ((p % columns) - (v % columns)) ** 2;
      const weight = squared ** -2;
      weights += weight;
      mean += weight * own.mean[v];
      std += weight * own.std[v];
    }
    out.mean[p] = weights ? mean / weights : 0;
    out.std[p] = weights ? std / weights : 1;
  }
  return out;
}

/** A border of a patch: the neighbour, and the offsets of the pixels that touch, in this patch and in the neighbour. */
interface Border {
  neighbour: number;
  here: number[];
  there: number[];
}

function borderPairs(shape: PictureShape): Border[][] {
  const { rows, columns } = patchGrid(shape);
  const { patch, channels } = shape;
  const line = (at: (i: number) => number) =>
    Array.from({ length: patch * channels }, (_, i) => at(Math.floor(i / channels)) * channels + (i % channels));
  const top = line((i) => i);
  const bottom = line((i) => (patch - 1) * patch + i);
  const left = line((i) => i * patch);
  const right = line((i) => i * patch + patch - 1);
  return Array.from({ length: rows * columns }, (_, p) => {
    const [row, column] = [Math.floor(p / columns), p % columns];
    const borders: Border[] = [];
    if (row > 0) borders.push({ neighbour: p - columns, here: top, there: bottom });
    if (row < rows - 1) borders.push({ neighbour: p + columns, here: bottom, there: top });
    if (column > 0) borders.push({ neighbour: p - 1, here: left, there: right });
    if (column < columns - 1) borders.push({ neighbour: p + 1, here: right, there: left });
    return borders;
  });
}

// The weight of staying at the start against one border's mean square: without it a patch could fade out to please its borders.
const holdMean = 0.02;
const holdStd = 0.1;

// Minimises Σ_borders mean_k (std·a_k + mean − b_k)² + holds over this patch's mean and std; a here, b the neighbour's pixels.
function fitPatch(
  p: number,
  borders: readonly Border[],
  relative: Float32Array,
  size: number,
  start: PatchStatistics,
  fitted: PatchStatistics,
): void {
  let [aa, a, n] = [holdStd, 0, holdMean];
  let [ab, b] = [holdStd * start.std[p], holdMean * start.mean[p]];
  for (const { neighbour, here, there } of borders) {
    const share = 1 / here.length;
    n += 1;
    for (let k = 0; k < here.length; k++) {
      const mine = relative[p * size + here[k]];
      const theirs = relative[neighbour * size + there[k]] * fitted.std[neighbour] + fitted.mean[neighbour];
      aa += share * mine * mine;
      a += share * mine;
      ab += share * mine * theirs;
      b += share * theirs;
    }
  }
  // The 2x2 normal equations; positive definite by the holds.
  const determinant = aa * n - a * a;
  fitted.std[p] = Math.max(1e-3, (ab * n - a * b) / determinant);
  fitted.mean[p] = (aa * b - a * ab) / determinant;
}
