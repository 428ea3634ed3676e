/** Two results side by side: which differences are larger than the noise. */
import { formatPercent } from '../format';
import { markdownTable } from '../view/table';
import { nameOf } from './paper';
import { formatTiming } from './report';
import type { BenchResult, Timing } from './result';
import { noiseOf } from './stats';

/** Runs of the same code differ so much from one process to the next (memory layout, clock rates), which no spread within a run shows. */
const BETWEEN_RUNS = 0.01;

export interface Difference {
  readonly name: string;
  readonly before: Timing;
  readonly after: Timing;
  /** after / before − 1 of the medians: negative is faster. */
  readonly change: number;
  /** What a change must exceed to count: both medians' 95 % intervals and the difference between runs, added as independent errors. */
  readonly noise: number;
}

/** What both results have, in the order of the first. */
export function differencesOf(before: BenchResult, after: BenchResult): Difference[] {
  const others = timingsOf(after);
  return [...timingsOf(before)].flatMap(([name, timing]): Difference[] => {
    const other = others.get(name);
    if (!other) return [];
    const noise = Math.hypot(noiseOf(timing), noiseOf(other), BETWEEN_RUNS);
    return [{ name, before: timing, after: other, change: other.median / timing.median - 1, noise }];
  });
}

/** Every timing of a result under a name that says what was measured. */
export function timingsOf(result: BenchResult): Map<string, Timing> {
  const timings = new Map<string, Timing>();
  const of = ({ preset, batchSize, precision }: { preset: string; batchSize: number; precision: string }): string =>
    `${preset} b${batchSize} ${precision}`;
  for (const masking of result.masking) {
    for (const variant of masking.variants) {
      for (const phase of ['forward', 'backward', 'step'] as const)
        timings.set(`${of(masking)}, ${nameOf(variant)}: ${phase}`, variant[phase]);
    }
  }
  for (const sweep of result.sweeps) {
    for (const point of sweep.points) {
      const name = `${of(sweep)}, ${sweep.over} ${point.value}`;
      timings.set(`${name}: forward`, point.forward);
      if (point.step) timings.set(`${name}: step`, point.step);
    }
  }
  for (const comparison of result.comparisons) {
    timings.set(`${of(comparison)}, beside peers: step`, comparison.ours);
    for (const { name, step } of comparison.peers) timings.set(`${of(comparison)}, ${name}: step`, step);
  }
  for (const profile of result.profiles) timings.set(`${of(profile)}: step`, profile.step);
  return timings;
}

export function compareReport(before: BenchResult, after: BenchResult): string {
  const differences = differencesOf(before, after);
  const clear = differences.filter(({ change, noise }) => Math.abs(change) > noise).sort((a, b) => a.change - b.change);
  const lines: string[] = [];
  for (const key of ['device', 'processor'] as const) {
    const [a, b] = [before.machine[key], after.machine[key]];
    if (a !== b) lines.push(`Warning: different machines, so the differences are theirs too: ${key} '${a}' and '${b}'.`);
  }
  if (differences.length === 0) return [...lines, 'The two results have no measurement in common.'].join('\n');
  const count = `${clear.length} of ${differences.length} measurements`;
  const summary = `${count} differ by more than the noise; the others are the same as far as these runs can tell.`;
  if (clear.length === 0) return [...lines, summary].join('\n');
  const rows = clear.map(({ name, before: a, after: b, change, noise }) => [
    name,
    formatTiming(a),
    formatTiming(b),
    `${formatPercent(Math.abs(change))} ${change < 0 ? 'faster' : 'slower'}`,
    `± ${formatPercent(noise)}`,
  ]);
  return [...lines, summary, '', markdownTable(['measurement', 'before', 'after', 'change', 'noise'], rows)].join('\n');
}
