/** Position tables: the fixed two-dimensional sine-cosine table, and resizing a table to another grid. */
import { MaeError } from '../errors';

/**
 * The sine-cosine table of a grid of patches, as the reference implementation makes it. With d = width/4 and ω_k = 10000^(−k/d), the
 * row of the patch at (row, column) is [sin(column·ω) | cos(column·ω) | sin(row·ω) | cos(row·ω)]: the column comes first. Patches
 * are numbered row by row. Computed in float64, rounded once.
 *
 * @param width  of a token, a multiple of 4
 * @param gridHeight, gridWidth  patches down and across; need not be equal
 * @param withCls  put a row of zeros in front, for the class token
 * @returns float32 [(1 +) gridHeight·gridWidth, width]
 * @throws MaeError MAE_ARGUMENT
 */
export function sinCosPosEmbed2d(width: number, gridHeight: number, gridWidth: number, withCls: boolean): Float32Array {
  if (!Number.isInteger(width) || width <= 0 || width % 4 !== 0) {
    throw new MaeError(
      'MAE_ARGUMENT',
      `sinCosPosEmbed2d: the width must be a positive multiple of 4 (two axes, sine and cosine), got ${width}`,
    );
  }
  requireGrid('sinCosPosEmbed2d', gridHeight, gridWidth);
  const frequencies = width / 4;
  const omega = Float64Array.from({ length: frequencies }, (_, k) => 10000 ** (-k / frequencies));
  const first = withCls ? 1 : 0;
  const table = new Float32Array((first + gridHeight * gridWidth) * width);
  for (let row = 0; row < gridHeight; row++) {
    for (let column = 0; column < gridWidth; column++) {
      const at = (first + row * gridWidth + column) * width;
      for (let k = 0; k < frequencies; k++) {
        table[at + k] = Math.sin(column * omega[k]);
        table[at + frequencies + k] = Math.cos(column * omega[k]);
        table[at + 2 * frequencies + k] = Math.sin(row * omega[k]);
        table[at + 3 * frequencies + k] = Math.cos(row * omega[k]);
      }
    }
  }
  return table;
}

/** Rows and columns of patches. */
export interface Grid {
  height: number;
  width: number;
}

/**
 * Resizes a position table to another grid, bicubic with a = −0.75: source = (i + 0.5)·from/to − 0.5, borders clamped, no antialiasing
 * (PyTorch's `interpolate(mode='bicubic', align_corners=False)`, which the reference's fine-tuning uses). Neither grid need be square.
 *
 * @param table  float32 [extraTokens + from.height·from.width, width]
 * @param extraTokens  rows in front that are copied as they are (the class token's)
 * @returns float32 [extraTokens + to.height·to.width, width]
 * @throws MaeError MAE_ARGUMENT, MAE_SHAPE when the table does not have that many values
 */
export function interpolatePosEmbed(table: Float32Array, width: number, from: Grid, to: Grid, extraTokens = 1): Float32Array {
  requireGrid('interpolatePosEmbed', from.height, from.width);
  requireGrid('interpolatePosEmbed', to.height, to.width);
  const extra = extraTokens * width;
  const needed = extra + from.height * from.width * width;
  if (table.length !== needed) {
    const shape = `[${extraTokens} + ${from.height}x${from.width}, ${width}]`;
    throw new MaeError('MAE_SHAPE', `interpolatePosEmbed: a table ${shape} has ${needed} values, got ${table.length}`);
  }
  const rows = cubicTaps(from.height, to.height);
  const columns = cubicTaps(from.width, to.width);
  const out = new Float32Array(extra + to.height * to.width * width);
  out.set(table.subarray(0, extra));
  for (let y = 0; y < to.height; y++) {
    for (let x = 0; x < to.width; x++) {
      const at = extra + (y * to.width + x) * width;
      for (let c = 0; c < width; c++) {
        let sum = 0;
        for (const [row, rowWeight] of rows[y]) {
          for (const [column, weight] of columns[x]) sum += rowWeight * weight * table[extra + (row * from.width + column) * width + c];
        }
        out[at + c] = sum;
      }
    }
  }
  return out;
}

// The four neighbours [index, weight] that each of `to` places reads among `from`.
function cubicTaps(from: number, to: number): [number, number][][] {
  return Array.from({ length: to }, (_, i) => {
    const source = (i + 0.5) * (from / to) - 0.5;
    const left = Math.floor(source);
    return [-1, 0, 1, 2].map((offset) => [clamp(left + offset, 0, from - 1), cubicKernel(source - left - offset)]);
  });
}

// Keys' cubic convolution kernel.
function cubicKernel(distance: number): number {
  const a = -0.75;
  const d = Math.abs(distance);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}

function requireGrid(where: string, height: number, width: number): void {
  if (!Number.isInteger(height) || !Number.isInteger(width) || height < 1 || width < 1) {
    throw new MaeError('MAE_ARGUMENT', `${where}: a grid needs at least 1x1 patches, got ${height}x${width}`);
  }
}
