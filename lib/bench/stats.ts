/** What repeated timings of one thing say. Medians and quartiles: an interruption by another program must not move a figure. */

export interface Spread {
  readonly median: number;
  /** First and third quartile. */
  readonly low: number;
  readonly high: number;
  readonly min: number;
  readonly runs: number;
}

/** @param values  at least one, in any order */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = Float64Array.from(values).sort();
  return {
    median: quantile(sorted, 0.5),
    low: quantile(sorted, 0.25),
    high: quantile(sorted, 0.75),
    min: sorted[0],
    runs: sorted.length,
  };
}

/** Round by round numerator / denominator: both sides of a pair ran one right after the other, so that the machine's drift cancels. */
export function ratioOf(numerators: readonly number[], denominators: readonly number[]): Spread {
  const rounds = Math.min(numerators.length, denominators.length);
  return spreadOf(Array.from({ length: rounds }, (_, i) => numerators[i] / denominators[i]));
}

/**
 * Half the 95 % interval of a median, as a share of it: 1.57 · (third quartile − first) / √runs (McGill, Tukey & Larsen 1978, "Variations
 * of box plots"). Two medians that lie farther apart than both their intervals differ.
 */
export function noiseOf({ median, low, high, runs }: Spread): number {
  return (1.57 * (high - low)) / Math.sqrt(runs) / median;
}

/** Linear interpolation between the neighbours of position q · (n − 1). */
function quantile(sorted: Float64Array, q: number): number {
  const position = q * (sorted.length - 1);
  const below = Math.floor(position);
  const above = Math.ceil(position);
  return sorted[below] + (sorted[above] - sorted[below]) * (position - below);
}
