/**
 * A small rasteriser: shapes are signed distances, edges are smoothed by the share of a pixel that they cover. Nothing but + − · / √, which
 * IEEE 754 rounds the same way everywhere: a picture has the same bytes on every machine.
 */

/** Red, green, blue, 0–1, as they are stored (sRGB). */
export type Color = readonly [red: number, green: number, blue: number];
/** A colour for each point, in pixels. */
export type Paint = Color | ((x: number, y: number) => Color);

export interface Shape {
  /** Nothing of the shape lies outside: left, top, right, bottom in pixels. */
  readonly box: readonly [number, number, number, number];
  /** Pixels from a point to the edge, negative inside. */
  distance(x: number, y: number): number;
}

export class Canvas {
  /** [height, width, 3] */
  private readonly values: Float64Array;

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.values = new Float64Array(width * height * 3);
  }

  /** Paints a shape over what is there. */
  fill(shape: Shape, paint: Paint, opacity = 1): void {
    const [left, top, right, bottom] = shape.box;
    for (let row = Math.max(0, Math.floor(top - 1)); row < Math.min(this.height, bottom + 1); row++) {
      for (let column = Math.max(0, Math.floor(left - 1)); column < Math.min(this.width, right + 1); column++) {
        const [x, y] = [column + 0.5, row + 0.5];
        const cover = clamp(0.5 - shape.distance(x, y)) * opacity;
        if (cover > 0) this.blend(row, column, typeof paint === 'function' ? paint(x, y) : paint, cover);
      }
    }
  }

  /** Paints everything; `opacity` may differ from point to point. */
  wash(paint: Paint, opacity: (x: number, y: number) => number = () => 1): void {
    for (let row = 0; row < this.height; row++) {
      for (let column = 0; column < this.width; column++) {
        const cover = clamp(opacity(column + 0.5, row + 0.5));
        if (cover > 0) this.blend(row, column, typeof paint === 'function' ? paint(column + 0.5, row + 0.5) : paint, cover);
      }
    }
  }

  /** The colour at a point, between the pixels' centres by bilinear interpolation; the edge continues outside. */
  at(x: number, y: number): Color {
    const { width, height, values } = this;
    const [u, v] = [clamp(x - 0.5, 0, width - 1), clamp(y - 0.5, 0, height - 1)];
    const [column, row] = [Math.min(Math.floor(u), width - 2), Math.min(Math.floor(v), height - 2)];
    const [right, down] = [u - column, v - row];
    const value = (c: number): number => {
      const at = (row * width + column) * 3 + c;
      const above = values[at] + (values[at + 3] - values[at]) * right;
      const below = values[at + width * 3] + (values[at + width * 3 + 3] - values[at + width * 3]) * right;
      return above + (below - above) * down;
    };
    return [value(0), value(1), value(2)];
  }

  /** uint8 [height, width, 3] */
  pixels(): Uint8Array {
    return Uint8Array.from(this.values, (value) => Math.floor(clamp(value) * 255 + 0.5));
  }

  private blend(row: number, column: number, color: Color, cover: number): void {
    const at = (row * this.width + column) * 3;
    for (let c = 0; c < 3; c++) this.values[at + c] += (color[c] - this.values[at + c]) * cover;
  }
}

export const clamp = (value: number, low = 0, high = 1): number => Math.min(high, Math.max(low, value));

/** From a to b, by a share of 0–1. */
export function mix(a: Color, b: Color, share: number): Color {
  const s = clamp(share);
  return [a[0] + (b[0] - a[0]) * s, a[1] + (b[1] - a[1]) * s, a[2] + (b[2] - a[2]) * s];
}

/** 0x3f8fe0 as a colour. */
export function rgb(hex: number): Color {
  return [(hex >>> 16) / 255, ((hex >>> 8) & 255) / 255, (hex & 255) / 255];
}

// --- shapes --------------------------------------------------------------------------------------------------------------------------

export function disc(x: number, y: number, radius: number): Shape {
  return ellipse(x, y, radius, radius);
}

export function ellipse(x: number, y: number, rx: number, ry: number): Shape {
  return {
    box: [x - rx, y - ry, x + rx, y + ry],
    // f / |∇f| for f = |(dx/rx, dy/ry)| − 1: exact for a circle, near enough at the edge of an ellipse.
    distance: (px, py) => {
      const [u, v] = [(px - x) / rx, (py - y) / ry];
      const length = Math.sqrt(u * u + v * v);
      if (length < 1e-9) return -Math.min(rx, ry);
      const slope = Math.sqrt((u * u) / (rx * rx) + (v * v) / (ry * ry)) / length;
      return (length - 1) / slope;
    },
  };
}

export function rectangle(left: number, top: number, right: number, bottom: number): Shape {
  return {
    box: [left, top, right, bottom],
    distance: (x, y) => Math.max(left - x, x - right, top - y, y - bottom),
  };
}

/** A convex polygon, its corners clockwise as they are seen. */
export function polygon(...corners: readonly (readonly [x: number, y: number])[]): Shape {
  const edges = corners.map(([x, y], i) => {
    const [nextX, nextY] = corners[(i + 1) % corners.length];
    const length = Math.sqrt((nextX - x) * (nextX - x) + (nextY - y) * (nextY - y));
    return { x, y, normalX: (nextY - y) / length, normalY: (x - nextX) / length };
  });
  const [xs, ys] = [corners.map(([x]) => x), corners.map(([, y]) => y)];
  return {
    box: [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)],
    distance: (x, y) => {
      let most = -Infinity;
      for (const edge of edges) most = Math.max(most, (x - edge.x) * edge.normalX + (y - edge.y) * edge.normalY);
      return most;
    },
  };
}

/** A straight stroke. */
export function stroke(x0: number, y0: number, x1: number, y1: number, width: number): Shape {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const squared = dx * dx + dy * dy;
  const half = width / 2;
  return {
    box: [Math.min(x0, x1) - half, Math.min(y0, y1) - half, Math.max(x0, x1) + half, Math.max(y0, y1) + half],
    distance: (x, y) => {
      const along = squared === 0 ? 0 : clamp(((x - x0) * dx + (y - y0) * dy) / squared);
      const [ex, ey] = [x - x0 - along * dx, y - y0 - along * dy];
      return Math.sqrt(ex * ex + ey * ey) - half;
    },
  };
}

/** All that lies under a line, whose height y is given at each whole x. */
export function below(heights: Float64Array, bottom: number): Shape {
  const height = heightAt(heights);
  return {
    box: [0, Math.min(...heights), heights.length - 1, bottom],
    distance: (x, y) => {
      const slope = height(x + 0.5) - height(x - 0.5);
      return Math.max((height(x) - y) / Math.sqrt(1 + slope * slope), y - bottom);
    },
  };
}

/** The height at any x of a line that is given at whole ones. */
export function heightAt(heights: Float64Array): (x: number) => number {
  return (x) => {
    const at = clamp(x, 0, heights.length - 1);
    const i = Math.min(Math.floor(at), heights.length - 2);
    return heights[i] + (heights[i + 1] - heights[i]) * (at - i);
  };
}

export function union(...shapes: readonly Shape[]): Shape {
  const side = (pick: (...values: number[]) => number, i: number): number => pick(...shapes.map(({ box }) => box[i]));
  return {
    box: [side(Math.min, 0), side(Math.min, 1), side(Math.max, 2), side(Math.max, 3)],
    distance: (x, y) => {
      let least = Infinity;
      for (const shape of shapes) least = Math.min(least, shape.distance(x, y));
      return least;
    },
  };
}

export function without(shape: Shape, hole: Shape): Shape {
  return { box: shape.box, distance: (x, y) => Math.max(shape.distance(x, y), -hole.distance(x, y)) };
}
