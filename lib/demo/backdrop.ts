/** What lies behind everything: sky, clouds, ridges, water. */
import { below, type Canvas, clamp, type Color, disc, ellipse, mix, rectangle, rgb, union, without } from './canvas';
import type { Dice } from './dice';
import type { Light } from './light';

const white: Color = [1, 1, 1];

/** Gradient, stars, sun or moon with its glow, clouds. */
export function drawSky(canvas: Canvas, dice: Dice, light: Light, horizon: number): void {
  const [top, middle, low] = light.sky;
  canvas.wash((_, y) => (y < 0.55 * horizon ? mix(top, middle, y / (0.55 * horizon)) : mix(middle, low, (y / horizon - 0.55) / 0.45)));
  const stars = Math.round(10 * clamp(2 * light.night - 1));
  for (let i = 0; i < stars; i++) {
    const [x, y] = [dice.between(0, canvas.width), dice.between(0, 0.75 * horizon)];
    canvas.fill(disc(x, y, dice.between(0.4, 0.7)), white, 0.9);
  }
  const isMoon = light.night > 0.8 || light.night + light.height > 1.2;
  const radius = 5;
  const reach = radius * (isMoon ? 2.2 : 3.4);
  canvas.wash(light.disc, (x, y) => {
    const far = ((x - light.x) * (x - light.x) + (y - light.y) * (y - light.y)) / (reach * reach);
    return (isMoon ? 0.35 : 0.75) / ((1 + far) * (1 + far));
  });
  const full = disc(light.x, light.y, radius);
  const side = light.x < canvas.width / 2 ? 0.55 : -0.55;
  canvas.fill(
    isMoon && dice.chance(0.6) ? without(full, disc(light.x + side * radius, light.y - 0.25 * radius, 0.9 * radius)) : full,
    light.disc,
  );
  const clouds = dice.integer(0, 2);
  for (let i = 0; i < clouds; i++) drawCloud(canvas, dice, light, horizon);
}

function drawCloud(canvas: Canvas, dice: Dice, light: Light, horizon: number): void {
  const [x, y] = [dice.place(0, canvas.width), dice.place(6, 0.6 * horizon)];
  const size = 8 - y / 8;
  const color = mix(light.on(white), light.sky[2], 0.25);
  const shape = union(
    ellipse(x - 0.8 * size, y, 0.75 * size, 0.32 * size),
    ellipse(x, y - 0.25 * size, 0.7 * size, 0.5 * size),
    ellipse(x + 0.8 * size, y - 0.02 * size, 0.8 * size, 0.36 * size),
  );
  // Flat underneath, a little darker towards it.
  canvas.fill(
    without(shape, rectangle(0, y + 0.14 * size, canvas.width, y + size)),
    (_, py) => mix(color, light.sky[1], 0.35 * clamp((py - y + 0.5 * size) / size)),
    0.88,
  );
}

/** Heights of a rolling line: three waves of halving length around y. */
export function hillLine(dice: Dice, width: number, y: number, amplitude: number, length: number): Float64Array {
  const heights = new Float64Array(width + 1).fill(y);
  for (let octave = 0; octave < 3; octave++) {
    const [step, high] = [length / (1 << octave), amplitude / (octave === 0 ? 1 : 3 << octave)];
    const phase = dice.between(0, 1);
    const knots = Array.from({ length: Math.ceil(width / step) + 3 }, () => dice.between(-high, high));
    for (let x = 0; x <= width; x++) {
      const at = x / step + phase;
      const share = at - Math.floor(at);
      const smooth = share * share * (3 - 2 * share);
      heights[x] += knots[Math.floor(at)] + (knots[Math.floor(at) + 1] - knots[Math.floor(at)]) * smooth;
    }
  }
  return heights;
}

/** A hill with a soft light on its crest. */
export function drawHill(canvas: Canvas, heights: Float64Array, color: Color, light: Light, distance: number): void {
  const [near, crest] = [light.on(color, distance), light.on(mix(color, white, 0.18), distance)];
  const top = Math.min(...heights);
  canvas.fill(below(heights, canvas.height), (_, y) => mix(crest, near, (y - top) / 14));
}

/** A range of mountains: each has a bright and a dark flank, by the side of the sun, and snow above a height. */
export function drawMountains(canvas: Canvas, dice: Dice, light: Light, foot: number, highest: number, distance: number): void {
  const { width } = canvas;
  const count = 3;
  const rock = mix(rgb(0x6b7a99), rgb(0x8a7468), dice.between(0, 1));
  const snow = foot - 0.6 * highest;
  const peaks = Array.from({ length: count }, (_, i) => ({
    x: dice.place(((i + 0.2) * width) / count, ((i + 0.8) * width) / count),
    y: foot - highest + dice.place(0, 0.45 * highest),
    slope: 0.95,
    ridge: 0.15,
  })).sort((a, b) => a.y - b.y);
  for (const { x, y, slope, ridge } of peaks) {
    const heights = Float64Array.from({ length: width + 1 }, (_, px) => y + slope * Math.abs(px - x));
    const sunSide = light.x < x ? -1 : 1;
    canvas.fill(below(heights, foot), (px, py) => {
      const zigzag = Math.abs((((py - y) / 5) % 2) - 1) * 2.2;
      const bright = clamp(0.5 + sunSide * (px - x - ridge * (py - y) - zigzag + 1.1));
      const line = snow + 2.4 * Math.abs((((px + 64) / 5) % 2) - 1);
      const ground = mix(rock, [0.95, 0.97, 1], clamp(line - py + 0.5));
      return light.on(mix(mix(ground, [0.16, 0.18, 0.32], 0.42), ground, bright), distance);
    });
  }
}

/** Still water under the horizon: what is above it upside down, darker with depth, shaken a little. */
export function drawMirror(canvas: Canvas, light: Light, horizon: number): void {
  const deep = light.on(rgb(0x1d4a6b), 0.1);
  canvas.fill(rectangle(0, horizon, canvas.width, canvas.height), (x, y) => {
    const depth = (y - horizon) / (canvas.height - horizon);
    const wave = Math.abs(((y * 0.5) % 2) - 1) - 0.5;
    return mix(canvas.at(x + wave * 2.4 * depth, 2 * horizon - y), deep, 0.18 + 0.34 * depth);
  });
  canvas.fill(rectangle(0, horizon - 0.4, canvas.width, horizon + 0.4), light.on(white, 0.4), 0.35);
}

/** Open water, with the path of the sun on it. */
export function drawSea(canvas: Canvas, light: Light, horizon: number, color: Color): void {
  const [far, near] = [light.on(color, 0.45), light.on(mix(color, [0, 0.08, 0.2], 0.35), 0)];
  canvas.fill(rectangle(0, horizon, canvas.width, canvas.height), (x, y) => {
    const depth = (y - horizon) / (canvas.height - horizon);
    const water = mix(far, near, depth);
    const wide = 2.5 + 9 * depth;
    const ripple = Math.abs((((y - horizon) / (1.4 + 1.6 * depth)) % 2) - 1);
    const path = clamp(1.15 - Math.abs(x - light.x) / (wide * (0.55 + 0.6 * ripple)));
    return mix(water, light.disc, path * (0.25 + 0.45 * ripple) * (1 - 0.35 * depth));
  });
}
