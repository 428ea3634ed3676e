/** Lines over a quantity, on linear or logarithmic axes. */
import { px, sideways, text } from '../../view/svg';
import { niceTicks } from '../../view/ticks';
import { colorOf, grey, HEAD, type Heading, page } from './frame';

export interface LineSeries {
  readonly name: string;
  /** In rising x. */
  readonly points: readonly { readonly x: number; readonly y: number; readonly low?: number; readonly high?: number }[];
  /** For what is computed rather than measured. */
  readonly dashed?: boolean;
  /** Default: by place in the list. Lines that belong together share one. */
  readonly color?: number;
}

export interface LineChartOptions extends Heading {
  readonly series: readonly LineSeries[];
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xLog?: boolean;
  readonly yLog?: boolean;
  readonly formatX?: (x: number) => string;
}

/** Data value to pixels. */
type Scale = (value: number) => number;

interface Axis {
  readonly at: Scale;
  readonly ticks: readonly { readonly value: number; readonly label: string }[];
}

const WIDTH = 960;
const HEIGHT = 520;
const AREA = { left: 84, right: WIDTH - 32, top: HEAD + 4, bottom: HEIGHT - 58 };

export function lineChart(options: LineChartOptions): string {
  const { series, xLabel, yLabel, formatX = String } = options;
  const points = series.flatMap((line) => line.points);
  const places = [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b);
  const x = (options.xLog ? logScale : linearScale)(places[0], places[places.length - 1], AREA.left, AREA.right);
  const ys = points.flatMap(({ y, low, high }) => [y, low ?? y, high ?? y]);
  const y = options.yLog ? decadeAxis(ys, AREA.bottom, AREA.top) : linearAxis(0, 1.05 * Math.max(...ys), AREA.bottom, AREA.top);
  const marks = spaced(places, x);
  const parts = [
    ...y.ticks.map(({ value }) => `<path d="M${AREA.left} ${px(y.at(value))}H${AREA.right}" stroke="#e5e7eb"/>`),
    ...y.ticks.map(({ value, label }) => text(AREA.left - 10, px(y.at(value) + 4.5), label, `fill="${grey}" text-anchor="end"`)),
    ...marks.map((place) => `<path d="M${px(x(place))} ${AREA.bottom}v5" stroke="#9ca3af"/>`),
    ...marks.map((place) => text(px(x(place)), AREA.bottom + 20, formatX(place), `fill="${grey}" text-anchor="middle"`)),
    `<path d="M${AREA.left} ${AREA.bottom}H${AREA.right}" stroke="#9ca3af"/>`,
    text((AREA.left + AREA.right) / 2, AREA.bottom + 44, xLabel, `fill="${grey}" text-anchor="middle"`),
    sideways(24, (AREA.top + AREA.bottom) / 2, yLabel, `fill="${grey}" text-anchor="middle"`),
    ...series.flatMap((line, i) => lineParts(line, colorOf(line.color ?? i), x, y)),
  ];
  const legend = series.map(({ name, dashed, color }, i) => ({ name, dashed, color: colorOf(color ?? i) }));
  return page(WIDTH, HEIGHT, options, legend, parts);
}

function lineParts({ points, dashed }: LineSeries, color: string, x: Scale, y: Axis): string[] {
  const at = points.map((point) => ({ x: px(x(point.x)), y: px(y.at(point.y)), low: point.low, high: point.high }));
  const path = at.map((point, i) => `${i ? 'L' : 'M'}${point.x} ${point.y}`).join('');
  const dash = dashed ? ' stroke-dasharray="6 5"' : '';
  const whiskers = at.flatMap(({ x: left, low, high }) =>
    low === undefined || high === undefined
      ? []
      : [`<path d="M${left} ${px(y.at(low))}V${px(y.at(high))}" stroke="${color}" stroke-width="5" stroke-opacity="0.3"/>`],
  );
  const dots = dashed ? [] : at.map((point) => `<circle cx="${point.x}" cy="${point.y}" r="3.5" fill="${color}"/>`);
  return [...whiskers, `<path d="${path}" fill="none" stroke="${color}" stroke-width="2"${dash}/>`, ...dots];
}

function linearScale(min: number, max: number, from: number, to: number): Scale {
  const range = max - min || 1;
  return (value) => from + ((value - min) / range) * (to - from);
}

function logScale(min: number, max: number, from: number, to: number): Scale {
  const linear = linearScale(Math.log(min), Math.log(max), from, to);
  return (value) => linear(Math.log(value));
}

function linearAxis(min: number, max: number, from: number, to: number): Axis {
  const { ticks, decimals } = niceTicks(min, max, 6);
  return { at: linearScale(min, max, from, to), ticks: ticks.map((value) => ({ value, label: value.toFixed(decimals) })) };
}

/** From the power of ten below to the one above. */
function decadeAxis(values: readonly number[], from: number, to: number): Axis {
  const first = Math.floor(Math.log10(Math.min(...values)));
  const last = Math.max(first + 1, Math.ceil(Math.log10(Math.max(...values))));
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => ({ value: 10 ** (first + i), label: short(10 ** (first + i)) }));
  return { at: logScale(10 ** first, 10 ** last, from, to), ticks };
}

function short(value: number): string {
  if (value >= 1e6) return `${value / 1e6} M`;
  return value >= 1e3 ? `${value / 1e3} k` : String(value);
}

/** Those whose numbers do not run into each other. */
function spaced(places: readonly number[], at: Scale): number[] {
  let last = -Infinity;
  return places.filter((place) => {
    const free = at(place) - last >= 34;
    if (free) last = at(place);
    return free;
  });
}
