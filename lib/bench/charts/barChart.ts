/** Horizontal bars in groups, with the spread of each where it was measured. */
import { px, text } from '../../view/svg';
import { niceTicks } from '../../view/ticks';
import { colorOf, grey, HEAD, type Heading, page, textWidth } from './frame';

export interface Bar {
  /** Place in the list of series. */
  readonly series: number;
  readonly value: number;
  /** Quartiles, drawn as a whisker. */
  readonly low?: number;
  readonly high?: number;
  /** Behind the bar: the value with its unit. */
  readonly label: string;
}

export interface BarGroup {
  readonly label: string;
  readonly bars: readonly Bar[];
}

export interface BarChartOptions extends Heading {
  readonly series: readonly string[];
  readonly groups: readonly BarGroup[];
  readonly xLabel: string;
  /** A dashed line across all bars: what they are compared with. */
  readonly reference?: number;
}

const WIDTH = 960;
const BAR = 15;
const GROUP_GAP = 13;

export function barChart(options: BarChartOptions): string {
  const { series, groups, xLabel, reference } = options;
  const left = 24 + Math.max(60, ...groups.map(({ label }) => textWidth(label))) + 12;
  const right = WIDTH - 24 - Math.max(0, ...groups.flatMap(({ bars }) => bars.map(({ label }) => textWidth(label)))) - 8;
  const bottom = HEAD + groups.reduce((sum, { bars }) => sum + bars.length * BAR + GROUP_GAP, 0);
  const most = Math.max(reference ?? 0, ...groups.flatMap(({ bars }) => bars.map(({ value, high }) => Math.max(value, high ?? 0))));
  const x = (value: number): number => px(left + (value / most) * (right - left));
  const { ticks, decimals } = niceTicks(0, most, 8);
  const parts = [
    ...ticks.map((tick) => `<path d="M${x(tick)} ${HEAD}V${bottom}" stroke="#e5e7eb"/>`),
    ...ticks.map((tick) => text(x(tick), bottom + 18, tick.toFixed(decimals), `fill="${grey}" text-anchor="middle"`)),
  ];
  let y = HEAD + GROUP_GAP / 2;
  for (const { label, bars } of groups) {
    const middle = y + (bars.length * BAR) / 2;
    parts.push(text(left - 10, px(middle + 4.5), label, 'fill="#374151" text-anchor="end"'));
    for (const bar of bars) {
      parts.push(...barParts(bar, x, y));
      y += BAR;
    }
    y += GROUP_GAP;
  }
  parts.push(`<path d="M${left} ${HEAD}V${bottom}" stroke="#9ca3af"/>`);
  if (reference !== undefined) {
    parts.push(`<path d="M${x(reference)} ${HEAD}V${bottom}" stroke="${grey}" stroke-dasharray="4 4"/>`);
  }
  parts.push(text(px((left + right) / 2), bottom + 42, xLabel, `fill="${grey}" text-anchor="middle"`));
  const legend = series.length > 1 ? series.map((name, i) => ({ name, color: colorOf(i) })) : [];
  return page(WIDTH, bottom + 58, options, legend, parts);
}

function barParts({ series, value, low, high, label }: Bar, x: (value: number) => number, y: number): string[] {
  const middle = px(y + BAR / 2);
  const parts = [
    `<rect x="${x(0)}" y="${px(y + 1)}" width="${px(Math.max(1, x(value) - x(0)))}" height="${BAR - 2}" rx="2" fill="${colorOf(series)}"/>`,
    text(px(Math.max(x(value), x(high ?? 0)) + 7), middle + 4.5, label, 'fill="#374151"'),
  ];
  if (low !== undefined && high !== undefined) {
    const ends = [low, high].map((end) => `M${x(end)} ${middle - 4}v8`).join('');
    parts.push(`<path d="M${x(low)} ${middle}H${x(high)}${ends}" stroke="#111827" stroke-width="1.25"/>`);
  }
  return parts;
}
