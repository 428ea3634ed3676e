/** Pictures of what a masked autoencoder sees, makes of it and should have made. */
import { MaeError } from '../errors';
import { Panel, drawGrid } from './grid';
import { formatPercent } from '../format';
import { checkNames } from '../issues';
import { Normalisation, PictureShape, maskPicture, normalise, pasteVisible, patchGrid, patchify, toUint8, unpatchify } from './patches';
import { StatisticsSource, applyStatistics, estimateStatistics, patchStatistics, statisticsLabels } from './patchStatistics';

export interface ReconstructOptions extends Normalisation {
  shape: PictureShape;
  /** Whether the model was trained with normalised pixels (`norm_pix_loss`). */
  normPixLoss: boolean;
  /** For such a model only; default 'visible'. */
  statistics?: StatisticsSource;
}

/** uint8 pictures [height, width, channels]. */
export interface Reconstruction {
  original: Uint8Array;
  /** The original, grey where patches were removed. */
  masked: Uint8Array;
  /** The prediction of every patch. */
  reconstruction: Uint8Array;
  /** The prediction where patches were removed, the original elsewhere: what to look at, since visible patches are not trained. */
  pasted: Uint8Array;
  /** What the reconstruction is; names the source of the patch statistics for a norm-pix model. */
  label: string;
}

/**
 * The pictures of one prediction.
 *
 * @param original  uint8 [height, width, channels]
 * @param prediction  all patches [patches, patch·patch·channels], as the model gives them
 * @param mask  [patches]: 0 kept, 1 removed
 * @throws MaeError MAE_SHAPE
 */
export function reconstruct(
  original: Uint8Array,
  prediction: Float32Array,
  mask: ArrayLike<number>,
  options: ReconstructOptions,
): Reconstruction {
  const { shape, normPixLoss, statistics = 'visible' } = options;
  if (!Object.hasOwn(statisticsLabels, statistics)) {
    const sources = Object.keys(statisticsLabels).join(', ');
    throw new MaeError('MAE_ARGUMENT', `reconstruct: statistics must be one of ${sources}, got '${String(statistics)}'`);
  }
  const { size } = patchGrid(shape);
  let patches = prediction;
  if (normPixLoss && statistics !== 'raw') {
    const truth = patchify(normalise(original, options), shape);
    const fromOriginal = () => patchStatistics(truth, size);
    const fromVisible = () => estimateStatistics(truth, prediction, mask, shape);
    patches = applyStatistics(prediction, statistics === 'target' ? fromOriginal() : fromVisible());
  }
  const reconstruction = toUint8(unpatchify(patches, shape), options);
  return {
    original,
    masked: maskPicture(original, mask, shape),
    reconstruction,
    pasted: pasteVisible(reconstruction, original, mask, shape),
    label: normPixLoss ? statisticsLabels[statistics] : 'reconstruction',
  };
}

export interface ReconstructionGridOptions {
  /** uint8 [height, width, channels], one for each picture; all lists are equally long. */
  originals: readonly Uint8Array[];
  masked: readonly Uint8Array[];
  reconstructions: readonly Uint8Array[];
  shape: Omit<PictureShape, 'patch'>;
  /** Over the columns; default masked, reconstruction, original. */
  labels?: readonly [masked: string, reconstruction: string, original: string];
  /** Triples side by side; default 1 up to 4 pictures, then 2, then 3 from 13 on. */
  triplesPerRow?: number;
}

/**
 * Rows of (masked | reconstruction | original), the paper's figures 2 and 3.
 *
 * @returns a PNG
 * @throws MaeError MAE_SHAPE
 */
export async function reconstructionGrid(options: ReconstructionGridOptions): Promise<Buffer> {
  checkNames<ReconstructionGridOptions>('reconstructionGrid', options, {
    originals: true,
    masked: true,
    reconstructions: true,
    shape: true,
    labels: true,
    triplesPerRow: true,
  });
  const { originals, masked, reconstructions, shape, labels = ['masked', 'reconstruction', 'original'] } = options;
  const count = originals.length;
  if (count === 0 || masked.length !== count || reconstructions.length !== count) {
    const got = `${count} originals, ${masked.length} masked and ${reconstructions.length} reconstructions`;
    throw new MaeError(
      'MAE_SHAPE',
      `reconstructionGrid: needs as many originals, masked pictures and reconstructions (at least one), got ${got}`,
    );
  }
  const perRow = Math.min(count, options.triplesPerRow ?? (count <= 4 ? 1 : count <= 12 ? 2 : 3));
  if (!(Number.isInteger(perRow) && perRow >= 1)) {
    throw new MaeError('MAE_ARGUMENT', `reconstructionGrid: triplesPerRow must be a positive whole number, got ${options.triplesPerRow}`);
  }
  const groups = Array.from({ length: count }, (_, i) => [masked[i], reconstructions[i], originals[i]]);
  const rows: Panel[][][] = [];
  for (let i = 0; i < count; i += perRow) rows.push(groups.slice(i, i + perRow));
  return drawGrid({ rows, labels: Array.from({ length: perRow }, () => labels), shape });
}

export interface MaskRatioLadderOptions {
  originals: readonly Uint8Array[];
  /** For each mask ratio, one pair for each picture. */
  steps: readonly { maskRatio: number; masked: readonly Uint8Array[]; reconstructions: readonly Uint8Array[] }[];
  shape: Omit<PictureShape, 'patch'>;
}

/**
 * The original, then masked and reconstructed at each mask ratio: how far a model can go (the paper's figure 4).
 *
 * @returns a PNG
 * @throws MaeError MAE_SHAPE
 */
export async function maskRatioLadder(options: MaskRatioLadderOptions): Promise<Buffer> {
  checkNames('maskRatioLadder', options, { originals: true, steps: true, shape: true });
  const { originals, steps, shape } = options;
  const count = originals.length;
  for (const { maskRatio, masked, reconstructions } of steps) {
    if (masked.length === count && reconstructions.length === count) continue;
    const got = `${masked.length} masked and ${reconstructions.length} reconstructions`;
    throw new MaeError('MAE_SHAPE', `maskRatioLadder: at mask ratio ${maskRatio}, ${count} pictures need as many of both, got ${got}`);
  }
  const rows = originals.map((original, i) => [[original], ...steps.map(({ masked, reconstructions }) => [masked[i], reconstructions[i]])]);
  const labels = [['original'], ...steps.map(({ maskRatio }) => [`${formatPercent(maskRatio)} masked`, 'reconstruction'])];
  return drawGrid({ rows, labels, shape });
}
