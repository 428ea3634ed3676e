/** Loss curves as SVG. */
import { formatLearningRate, groupDigits } from '../format';
import { fonts, palette, px, sideways, text } from './svg';
import { niceTicks } from './ticks';

export type Point = readonly [x: number, y: number];

export interface CurveSeries {
  name: string;
  /** In rising x; points that are not finite are left out. */
  points: readonly Point[];
  /** Any CSS colour; the default goes by the place in the list. */
  color?: string;
  /** Draw a smoothed line over the faint raw one. Default: when there are more than 60 points; fewer are drawn as dots on a line. */
  smooth?: boolean;
}

export interface CurveOptions {
  title?: string;
  /** A smaller line under the title: what was trained, on what. */
  subtitle?: string;
  series: readonly CurveSeries[];
  /** Drawn thin and dashed, with an axis of its own on the right. */
  learningRate?: readonly Point[];
  /** Default 'step'. */
  xLabel?: string;
  /** Default 'loss'. */
  yLabel?: string;
  /** Of the picture in pixels, default 960 x 540. */
  width?: number;
  height?: number;
}

/**
 * Draws loss curves: several series, round ticks, legend with the last values. The range of y is that of the smoothed lines and of the
 * middle 98% of the raw values, so a spike does not flatten the rest. Works with no points at all (and says so).
 *
 * @returns an SVG document
 */
export function lossCurve(options: CurveOptions): string {
  const { title, subtitle, width = 960, height = 540, xLabel = 'step', yLabel = 'loss' } = options;
  const lines = options.series.map((series, i) => prepareLine(series, palette[i % palette.length]));
  const learningRate = finite(options.learningRate ?? []);
  const area: Area = {
    left: 72,
    right: width - (learningRate.length ? 84 : 32),
    top: 36 + (title ? 26 : 0) + (subtitle ? 20 : 0) + 22,
    bottom: height - 58,
  };
  const x = xScale([...lines.map((line) => line.raw), learningRate], area);
  const y = yScale(lines, area);
  const parts = [
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    ...heading(title, subtitle, area),
    legend(lines, learningRate, area),
    ...horizontalAxis(x, xLabel, area),
    ...verticalAxis(y, yLabel, area),
  ];
  if (lines.every((line) => line.raw.length === 0))
    parts.push(text((area.left + area.right) / 2, (area.top + area.bottom) / 2, 'no data yet', muted));
  if (learningRate.length) parts.push(...learningRateLayer(learningRate, x, area));
  parts.push(`<g clip-path="url(#area)">${lines.map((line) => linePaths(line, x, y, area)).join('')}</g>`);
  // Air around the area: a line or a dot on the frame is not cut.
  const clip = `x="${area.left - 4}" y="${area.top - 4}" width="${area.right - area.left + 8}" height="${area.bottom - area.top + 8}"`;
  const size = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="${fonts}" font-size="13">`,
    `<clipPath id="area"><rect ${clip}/></clipPath>`,
    ...parts,
    '</svg>\n',
  ].join('\n');
}

interface Area {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

interface Line {
  name: string;
  color: string;
  raw: readonly Point[];
  /** Absent: the raw points are few and drawn as they are. */
  smoothed?: readonly Point[];
}

interface Scale {
  min: number;
  max: number;
  /** Data value → pixels. */
  at: (value: number) => number;
}

const ink = 'fill="#111827"';
const muted = 'fill="#6b7280" text-anchor="middle"';
const rateColor = '#64748b';

function prepareLine(series: CurveSeries, defaultColor: string): Line {
  const raw = finite(series.points);
  const smooth = series.smooth ?? raw.length > 60;
  return { name: series.name, color: series.color ?? defaultColor, raw, smoothed: smooth ? smoothCurve(raw) : undefined };
}

function finite(points: readonly Point[]): readonly Point[] {
  return points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
}

/**
 * Moving average, twice (a triangular window, about a sixtieth of the curve wide), centred so that it does not lag. At the beginning
 * the window shrinks, so the first fall of a loss is not flattened; at the end it is cut, so the last value is an average too.
 */
export function smoothCurve(points: readonly Point[]): Point[] {
  const half = Math.round(points.length / 120);
  const average = (values: Float64Array): Float64Array => {
    const sums = new Float64Array(values.length + 1);
    values.forEach((value, i) => (sums[i + 1] = sums[i] + value));
    return values.map((_, i) => {
      const from = i - Math.min(half, i);
      const to = Math.min(i + Math.min(half, i), values.length - 1) + 1;
      return (sums[to] - sums[from]) / (to - from);
    });
  };
  const smoothed = average(average(Float64Array.from(points, ([, y]) => y)));
  return points.map(([x], i) => [x, smoothed[i]]);
}

function xScale(all: readonly (readonly Point[])[], area: Area): Scale {
  const values = all.flatMap((points) => (points.length ? [points[0][0], points[points.length - 1][0]] : []));
  const [min, max] = values.length ? [Math.min(0, ...values), Math.max(...values)] : [0, 1];
  return scale(min, max > min ? max : min + 1, area.left, area.right);
}

function yScale(lines: readonly Line[], area: Area): Scale {
  let [min, max] = [Infinity, -Infinity];
  const include = (value: number): void => {
    min = Math.min(min, value);
    max = Math.max(max, value);
  };
  for (const { raw, smoothed } of lines) {
    if (!smoothed) raw.forEach(([, y]) => include(y));
    else {
      smoothed.forEach(([, y]) => include(y));
      const sorted = Float64Array.from(raw, ([, y]) => y).sort();
      for (const share of [0.01, 0.99]) if (sorted.length) include(sorted[Math.round(share * (sorted.length - 1))]);
    }
  }
  if (min > max) [min, max] = [0, 1];
  const air = (max - min) * 0.06 || Math.abs(max) * 0.1 || 1;
  return scale(min >= 0 ? Math.max(0, min - air) : min - air, max + air, area.bottom, area.top);
}

function scale(min: number, max: number, from: number, to: number): Scale {
  return { min, max, at: (value) => from + ((value - min) / (max - min)) * (to - from) };
}

function heading(title: string | undefined, subtitle: string | undefined, area: Area): string[] {
  const parts: string[] = [];
  if (title) parts.push(text(area.left, 36, title, `${ink} font-size="19" font-weight="600"`));
  if (subtitle) parts.push(text(area.left, title ? 58 : 32, subtitle, 'fill="#6b7280"'));
  return parts;
}

// One entry after the other on the line above the frame: a stroke, the name, the last value.
function legend(lines: readonly Line[], learningRate: readonly Point[], area: Area): string {
  const last = (points: readonly Point[]) => points[points.length - 1]?.[1];
  const entries = lines.map(({ name, color, raw, smoothed }) => {
    const value = last(smoothed ?? raw);
    return { color, dash: '', label: value === undefined ? name : `${name} ${value.toPrecision(4)}` };
  });
  if (learningRate.length) entries.push({ color: rateColor, dash: ' stroke-dasharray="5 4"', label: 'learning rate' });
  let x = area.left;
  const parts = entries.map(({ color, dash, label }) => {
    const stroke = `<path d="M${px(x)} ${area.top - 18}h22" stroke="${color}" stroke-width="2.5"${dash}/>`;
    const named = text(px(x) + 29, area.top - 14, label, 'fill="#374151"');
    x += 29 + label.length * 7.2 + 22; // 7.2: the mean width of a character at 13 px
    return stroke + named;
  });
  return parts.join('');
}

function horizontalAxis(x: Scale, label: string, area: Area): string[] {
  const { ticks, decimals } = niceTicks(x.min, x.max, 8);
  const numbers = ticks.map((tick) => text(px(x.at(tick)), area.bottom + 20, decimals ? tick.toFixed(decimals) : groupDigits(tick), muted));
  const marks = ticks.map((tick) => `M${px(x.at(tick))} ${area.bottom}v5`).join('');
  return [
    ...numbers,
    `<path d="M${area.left} ${area.bottom}H${area.right}${marks}" stroke="#9ca3af" fill="none"/>`,
    text((area.left + area.right) / 2, area.bottom + 44, label, muted),
  ];
}

function verticalAxis(y: Scale, label: string, area: Area): string[] {
  const { ticks, decimals } = niceTicks(y.min, y.max, 6);
  const grid = ticks.map((tick) => `M${area.left} ${px(y.at(tick))}H${area.right}`).join('');
  const numbers = ticks.map((tick) =>
    text(area.left - 10, px(y.at(tick)) + 4.5, tick.toFixed(decimals), 'fill="#6b7280" text-anchor="end"'),
  );
  return [`<path d="${grid}" stroke="#e5e7eb" fill="none"/>`, ...numbers, sideways(20, (area.top + area.bottom) / 2, label, muted)];
}

function learningRateLayer(points: readonly Point[], x: Scale, area: Area): string[] {
  const highest = points.reduce((most, [, y]) => Math.max(most, y), 0) || 1;
  const y = scale(0, highest * 1.06, area.bottom, area.top);
  const numbers = niceTicks(0, y.max, 4).ticks.map((tick) =>
    text(area.right + 10, px(y.at(tick)) + 4.5, formatLearningRate(tick), `fill="${rateColor}"`),
  );
  const line = strokePath(thin(points, x, area, false), x, y, `stroke="${rateColor}" stroke-dasharray="5 4" stroke-opacity="0.8"`);
  return [line, ...numbers, sideways(area.right + 74, (area.top + area.bottom) / 2, 'learning rate', muted)];
}

function linePaths({ color, raw, smoothed }: Line, x: Scale, y: Scale, area: Area): string {
  const stroke = (points: readonly Point[], attributes: string) =>
    strokePath(
      thin(points, x, area, points === raw),
      x,
      y,
      `stroke="${color}" stroke-linejoin="round" stroke-linecap="round" ${attributes}`,
    );
  if (smoothed) return stroke(raw, 'stroke-opacity="0.22" stroke-width="1"') + stroke(smoothed, 'stroke-width="2.25"');
  const dots = raw.map(([a, b]) => `<circle cx="${px(x.at(a))}" cy="${px(y.at(b))}" r="3" fill="${color}"/>`).join('');
  return stroke(raw, 'stroke-width="1.75"') + dots;
}

// Points that draw the same picture as all of them: for each column of pixels the first of a smooth line, and also the lowest, the
// highest and the last of a noisy one.
function thin(points: readonly Point[], x: Scale, area: Area, noisy: boolean): readonly Point[] {
  if (points.length <= 2 * (area.right - area.left)) return points;
  const out: Point[] = [];
  for (let start = 0; start < points.length;) {
    const column = Math.floor(x.at(points[start][0]));
    let [low, high, end] = [start, start, start];
    for (; end < points.length && Math.floor(x.at(points[end][0])) === column; end++) {
      if (points[end][1] < points[low][1]) low = end;
      if (points[end][1] > points[high][1]) high = end;
    }
    const kept = noisy ? [...new Set([start, Math.min(low, high), Math.max(low, high), end - 1])] : [start];
    out.push(...kept.map((i) => points[i]));
    start = end;
  }
  return noisy ? out : [...out, points[points.length - 1]];
}

function strokePath(points: readonly Point[], x: Scale, y: Scale, attributes: string): string {
  const path = points.map(([a, b], i) => `${i ? 'L' : 'M'}${px(x.at(a))} ${px(y.at(b))}`).join('');
  return `<path d="${path}" fill="none" ${attributes}/>`;
}
