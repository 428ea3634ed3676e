/** What the charts share. */

export const fonts = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif";
export const palette: readonly string[] = ['#2563eb', '#ea580c', '#059669', '#9333ea', '#dc2626', '#0891b2'];

/** Text for the inside of an SVG element. */
export function escapeXml(content: string): string {
  return content.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
}

/** A coordinate, to a tenth of a pixel. */
export function px(value: number): number {
  return Number(value.toFixed(1));
}

export function text(x: number, y: number, content: string, attributes: string): string {
  return `<text x="${x}" y="${y}" ${attributes}>${escapeXml(content)}</text>`;
}

/** Text that reads upwards, around its own middle. */
export function sideways(x: number, y: number, content: string, attributes: string): string {
  return text(x, y, content, `${attributes} transform="rotate(-90 ${x} ${y})"`);
}
