/** Pictures in rows and columns, with small labels over the columns, as one PNG. */
import { MaeError } from '../errors';
import { escapeXml } from './svg';

/** uint8 [height, width, channels]. */
export type Panel = Uint8Array;

export interface GridOptions {
  /** Rows of groups of panels; groups stand further apart than the panels inside one. Rows may be shorter than the first. */
  rows: readonly (readonly (readonly Panel[])[])[];
  /** Over every column of every group of the first row. */
  labels?: readonly (readonly string[])[];
  /** 1 channel is drawn grey, 2 by the first, 3 in colour, more by the first three. */
  shape: { height: number; width: number; channels: number };
}

const margin = 12; // around everything
const gutter = 4; // between panels
const groupGutter = 16; // between groups
const headerHeight = 24;
const leastCell = 128; // smaller pictures are enlarged by whole numbers, so that pixels stay square and sharp

/** @returns a PNG on white. @throws MaeError MAE_SHAPE when a panel has not the shape's size */
export async function drawGrid({ rows, labels, shape }: GridOptions): Promise<Buffer> {
  const enlarge = Math.max(1, Math.ceil(leastCell / Math.min(shape.height, shape.width)));
  const [cellHeight, cellWidth] = [shape.height * enlarge, shape.width * enlarge];
  const left = columnOffsets(rows[0], cellWidth);
  const header = labels && (await fontsWork()) ? headerHeight : 0;
  const width = Math.max(...left.flat()) + cellWidth + margin;
  const height = margin + header + rows.length * (cellHeight + gutter) - gutter + margin;
  const canvas = new Uint8Array(width * height * 3).fill(255);
  rows.forEach((row, r) => {
    const top = margin + header + r * (cellHeight + gutter);
    row.forEach((group, g) => group.forEach((panel, p) => blit(canvas, width, left[g][p], top, panel, shape, enlarge)));
  });
  const picture = (await sharp())(canvas, { raw: { width, height, channels: 3 } });
  if (header) {
    const texts = labels!.flatMap((group, g) => group.map((label, p) => headerText(label, left[g][p] + cellWidth / 2, cellWidth)));
    picture.composite([{ input: svg(width, headerHeight, texts.join('')), left: 0, top: margin - 4 }]);
  }
  return picture.png({ compressionLevel: 9 }).toBuffer();
}

// The left edge of every panel of every group.
function columnOffsets(groups: readonly (readonly Panel[])[], cellWidth: number): number[][] {
  let x = margin - groupGutter;
  return groups.map((group) => {
    x += groupGutter - gutter;
    return group.map(() => {
      const at = x + gutter;
      x = at + cellWidth;
      return at;
    });
  });
}

function blit(
  canvas: Uint8Array,
  width: number,
  left: number,
  top: number,
  panel: Panel,
  shape: GridOptions['shape'],
  enlarge: number,
): void {
  const { height, width: panelWidth, channels } = shape;
  if (panel.length !== height * panelWidth * channels) {
    const size = `${height}x${panelWidth}x${channels}`;
    throw new MaeError('MAE_SHAPE', `a picture of ${size} has ${height * panelWidth * channels} values, got ${panel.length}`);
  }
  for (let y = 0; y < height * enlarge; y++) {
    let to = ((top + y) * width + left) * 3;
    const line = Math.floor(y / enlarge) * panelWidth;
    for (let x = 0; x < panelWidth * enlarge; x++) {
      const from = (line + Math.floor(x / enlarge)) * channels;
      for (let c = 0; c < 3; c++) canvas[to++] = panel[channels >= 3 ? from + c : from];
    }
  }
}

// At 13 px a character is about 7 px wide; what does not fit is set smaller.
function headerText(label: string, centre: number, room: number): string {
  const size = Math.min(13, (13 * room) / (7 * label.length));
  return `<text x="${centre}" y="16" font-size="${size.toFixed(1)}" text-anchor="middle" fill="#374151">${escapeXml(label)}</text>`;
}

function svg(width: number, height: number, content: string): Buffer {
  const family = "'DejaVu Sans', 'Helvetica Neue', Arial, sans-serif";
  return Buffer.from(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="${family}">${content}</svg>`,
  );
}

let fontsFound: Promise<boolean> | undefined;

// A container may have no fonts at all: text then comes out empty or as equal boxes, and a grid is better off without a header.
function fontsWork(): Promise<boolean> {
  fontsFound ??= Promise.all(['i', 'W'].map(renderLetter)).then(([i, w]) => !i.equals(w));
  return fontsFound;
}

async function renderLetter(letter: string): Promise<Buffer> {
  const drawing = svg(32, 24, `<text x="4" y="18" font-size="16">${letter}</text>`);
  return (await sharp())(drawing).raw().toBuffer();
}

// Loaded when a picture is drawn: it is large, and most commands draw none.
async function sharp() {
  return (await import('sharp')).default;
}
