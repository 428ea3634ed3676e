/** Places on an axis where people expect a number. */

/**
 * Round values (1, 2, 2.5 or 5 times a power of ten apart) inside [min, max], about `count` of them.
 *
 * @returns the ticks, rising, and the decimals that tell them apart
 */
export function niceTicks(min: number, max: number, count: number): { ticks: number[]; decimals: number } {
  const step = niceStep((max - min) / count);
  const first = Math.ceil(min / step - 1e-9);
  const last = Math.floor(max / step + 1e-9);
  const ticks = Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  const decimals = Math.max(0, ...ticks.map((tick) => (String(tick).split('.')[1] ?? '').length));
  return { ticks, decimals };
}

function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 2.5, 5, 10].find((nice) => nice >= (rough / power) * (1 - 1e-9)) ?? 10;
  return factor * power;
}
