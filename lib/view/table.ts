/** Tables of text: aligned for a terminal, or Markdown. */

export interface Column {
  title: string;
  /** Default: right when every cell that is not empty is a number, or a number with a unit, else left. */
  align?: 'left' | 'right';
}

export type Cell = string | number | undefined;

/** Columns aligned with spaces, two between them, a rule under the titles; no space at the ends of lines. */
export function textTable(columns: readonly (Column | string)[], rows: readonly (readonly Cell[])[]): string {
  const { titles, cells, aligns } = prepare(columns, rows);
  const widths = columnWidths([titles, ...cells]);
  const padded = (row: readonly string[]) => row.map((cell, i) => pad(cell, widths[i], aligns[i]));
  const line = (row: readonly string[]) => padded(row).join('  ').trimEnd();
  return [line(titles), widths.map((width) => '─'.repeat(width)).join('  '), ...cells.map(line)].join('\n');
}

/** A Markdown table whose source is aligned too; `|` in cells is escaped. */
export function markdownTable(columns: readonly (Column | string)[], rows: readonly (readonly Cell[])[]): string {
  const { titles, cells, aligns } = prepare(columns, rows, (text) => text.replace(/\|/g, '\\|').replace(/\n/g, ' '));
  const widths = columnWidths([titles, ...cells, titles.map(() => '---')]);
  const line = (row: readonly string[]) => `| ${row.map((cell, i) => pad(cell, widths[i], aligns[i])).join(' | ')} |`;
  const rule = widths.map((width, i) => (aligns[i] === 'right' ? '-'.repeat(width - 1) + ':' : '-'.repeat(width)));
  return [line(titles), line(rule), ...cells.map(line)].join('\n');
}

function prepare(columns: readonly (Column | string)[], rows: readonly (readonly Cell[])[], escape = (text: string) => text) {
  const full = columns.map((column) => (typeof column === 'string' ? { title: column } : column));
  const cells = rows.map((row) => full.map((_, i) => escape(String(row[i] ?? ''))));
  const aligns = full.map(({ align }: Column, i) => align ?? (cells.every((row) => looksNumeric(row[i])) ? 'right' : 'left'));
  return { titles: full.map(({ title }) => escape(title)), cells, aligns };
}

function looksNumeric(cell: string): boolean {
  return cell === '' || cell === '–' || /^[-+−]?\d/.test(cell);
}

function columnWidths(lines: readonly (readonly string[])[]): number[] {
  return lines[0].map((_, i) => Math.max(...lines.map((line) => displayWidth(line[i]))));
}

function pad(cell: string, width: number, align: 'left' | 'right'): string {
  const space = ' '.repeat(Math.max(0, width - displayWidth(cell)));
  return align === 'right' ? space + cell : cell + space;
}

// Code points; combining marks take no place, colour escapes neither.
function displayWidth(text: string): number {
  return [...text.replace(/\p{Cc}\[[\d;]*m/gu, '').replace(/\p{M}/gu, '')].length;
}
