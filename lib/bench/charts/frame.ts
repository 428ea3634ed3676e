/** What the benchmark's charts have in common: page, heading, legend. */
import { fonts, palette, px, text } from '../../view/svg';

export const ink = '#111827';
export const grey = '#6b7280';

export interface Heading {
  readonly title: string;
  /** Smaller, under the title: what was measured on what. */
  readonly subtitle: string;
}

export interface LegendEntry {
  readonly name: string;
  readonly color: string;
  readonly dashed?: boolean;
}

/** Height that heading and legend take. */
export const HEAD = 96;

export function colorOf(index: number): string {
  return palette[index % palette.length];
}

/** Roughly, at 13 px. */
export function textWidth(content: string): number {
  return content.length * 7;
}

export function page(
  width: number,
  height: number,
  { title, subtitle }: Heading,
  legend: readonly LegendEntry[],
  parts: readonly string[],
) {
  const size = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="${fonts}" font-size="13">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(24, 34, title, `fill="${ink}" font-size="19" font-weight="600"`),
    text(24, 56, subtitle, `fill="${grey}"`),
    ...legendParts(legend),
    ...parts,
    '</svg>\n',
  ].join('\n');
}

function legendParts(entries: readonly LegendEntry[]): string[] {
  let x = 24;
  return entries.map(({ name, color, dashed }) => {
    const mark = dashed
      ? `<path d="M${px(x)} 76h18" stroke="${color}" stroke-width="2.5" stroke-dasharray="5 4"/>`
      : `<rect x="${px(x)}" y="70" width="18" height="11" rx="2" fill="${color}"/>`;
    const named = text(px(x + 25), 80, name, 'fill="#374151"');
    x += 25 + textWidth(name) + 20;
    return mark + named;
  });
}
