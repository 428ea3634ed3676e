/** What stands in a scene. Each is drawn from its foot (x, y) upwards, `size` pixels high or wide, as it looks from `distance` (0–1). */
import { type Canvas, clamp, type Color, disc, ellipse, mix, polygon, rectangle, rgb, type Shape, stroke, union } from './canvas';
import type { Light } from './light';

const dark: Color = [0.1, 0.12, 0.2];
const white: Color = [1, 1, 1];
const lamp = rgb(0xffd977);

/** Glass: a lit lamp by night, sky by day. */
export const windowColor = (light: Light): Color => mix(light.on(rgb(0x4a6a8c)), lamp, clamp(1.6 * light.night));

/** Bright on the side of the sun: what to mix a colour with, from −1 (far side) to 1. */
function shaded(color: Color, side: number): Color {
  return side > 0 ? mix(color, white, 0.22 * side) : mix(color, dark, -0.4 * side);
}

const sunSide = (light: Light, x: number): number => (light.x < x ? -1 : 1);

export function drawFir(canvas: Canvas, light: Light, x: number, y: number, size: number, color: Color, distance = 0): void {
  canvas.fill(rectangle(x - 0.06 * size, y - 0.15 * size, x + 0.06 * size, y), light.on(rgb(0x5a4030), distance));
  const side = sunSide(light, x);
  for (const [foot, top, half] of [
    [0.1, 0.55, 0.3],
    [0.34, 0.78, 0.24],
    [0.58, 1, 0.17],
  ]) {
    canvas.fill(polygon([x, y - top * size], [x + half * size, y - foot * size], [x - half * size, y - foot * size]), (px) =>
      light.on(shaded(color, clamp((side * (px - x)) / (0.2 * size), -1, 1)), distance),
    );
  }
}

export function drawTree(canvas: Canvas, light: Light, x: number, y: number, size: number, color: Color, distance = 0): void {
  canvas.fill(rectangle(x - 0.055 * size, y - 0.45 * size, x + 0.055 * size, y), light.on(rgb(0x5f4634), distance));
  const crown = union(
    disc(x, y - 0.7 * size, 0.3 * size),
    disc(x - 0.2 * size, y - 0.52 * size, 0.22 * size),
    disc(x + 0.2 * size, y - 0.52 * size, 0.22 * size),
  );
  const side = sunSide(light, x);
  canvas.fill(crown, (px, py) => {
    const toSun = (side * (px - x) - (py - (y - 0.6 * size))) / (0.45 * size);
    return light.on(shaded(color, clamp(toSun, -1, 1)), distance);
  });
}

export function drawHouse(canvas: Canvas, light: Light, x: number, y: number, size: number, wall: Color, roof: Color): void {
  const [half, eaves] = [0.62 * size, y - 0.58 * size];
  canvas.fill(rectangle(x + 0.28 * size, y - 1.02 * size, x + 0.42 * size, eaves), light.on(mix(roof, dark, 0.3)));
  canvas.fill(rectangle(x - half, eaves, x + half, y), light.on(wall));
  canvas.fill(
    polygon([x - 0.42 * size, y - size], [x + 0.42 * size, y - size], [x + half + 0.1 * size, eaves], [x - half - 0.1 * size, eaves]),
    light.on(roof),
  );
  canvas.fill(rectangle(x - 0.09 * size, y - 0.36 * size, x + 0.09 * size, y), light.on(mix(roof, dark, 0.45)));
  for (const side of [-1, 1]) {
    const centre = x + side * 0.37 * size;
    canvas.fill(rectangle(centre - 0.11 * size, y - 0.42 * size, centre + 0.11 * size, y - 0.18 * size), windowColor(light));
  }
}

/** A boat under sail, and its image in the water. */
export function drawBoat(
  canvas: Canvas,
  light: Light,
  x: number,
  y: number,
  size: number,
  hull: Color,
  sail: Color,
  heading: 1 | -1,
): void {
  for (const up of [-1, 1]) {
    const at = (dx: number, dy: number): readonly [number, number] => [x + heading * dx * size, y - up * dy * size];
    const shape = (...corners: (readonly [number, number])[]) => polygon(...(heading * up < 0 ? corners.reverse() : corners));
    const opacity = up > 0 ? 1 : 0.28;
    canvas.fill(stroke(...at(0, 0.1), ...at(0, 1), Math.max(0.5, 0.05 * size)), light.on(rgb(0x6b4a34)), opacity);
    canvas.fill(shape(at(0.05, 0.98), at(0.45, 0.24), at(0.05, 0.24)), light.on(sail), opacity);
    canvas.fill(shape(at(-0.05, 0.88), at(-0.05, 0.24), at(-0.36, 0.24)), light.on(mix(sail, dark, 0.16)), opacity);
    canvas.fill(shape(at(-0.42, 0.18), at(0.54, 0.18), at(0.36, 0), at(-0.32, 0)), light.on(hull), opacity);
  }
}

/** Stripes run from the top to the basket and close up towards the sides, as on a ball. */
export function drawBalloon(canvas: Canvas, light: Light, x: number, y: number, size: number, colors: readonly Color[]): void {
  const radius = 0.4 * size;
  const centre = y - size + radius;
  const bottom = y - 0.2 * size;
  const envelope = union(
    disc(x, centre, radius),
    polygon(
      [x - 0.86 * radius, centre + 0.5 * radius],
      [x + 0.86 * radius, centre + 0.5 * radius],
      [x + 0.2 * radius, bottom],
      [x - 0.2 * radius, bottom],
    ),
  );
  for (const side of [-1, 1]) {
    canvas.fill(stroke(x + side * 0.2 * radius, bottom, x + side * 0.16 * radius, y - 0.09 * size, 0.5), light.on(dark), 0.7);
  }
  canvas.fill(rectangle(x - 0.2 * radius, y - 0.1 * size, x + 0.2 * radius, y), light.on(rgb(0x8a5a34)));
  const toSun = sunSide(light, x);
  canvas.fill(envelope, (px, py) => {
    const below = clamp((py - centre - 0.5 * radius) / (bottom - centre - 0.5 * radius));
    const half =
      py < centre + 0.5 * radius ? Math.sqrt(Math.max(0.04, 1 - ((py - centre) / radius) * ((py - centre) / radius))) : 0.86 - 0.66 * below;
    const u = clamp((px - x) / (radius * half), -1, 1);
    const gores = Math.abs(u) < 0.26 ? 0 : Math.abs(u) < 0.72 ? 1 : 2;
    const color = colors[gores % colors.length];
    return light.on(shaded(color, clamp(0.15 + toSun * u * 0.9 - 0.4 * below, -1, 1)));
  });
}

/** Red and white bands on a rock; by night its beam goes out to the wider side. */
export function drawLighthouse(canvas: Canvas, light: Light, x: number, y: number, size: number, band: Color): void {
  const [foot, head] = [0.15 * size, 0.095 * size];
  const top = y - 0.78 * size;
  const to = x < canvas.width / 2 ? 1 : -1;
  if (light.night > 0.3) {
    const lantern = y - 0.86 * size;
    const corners = [
      [x, lantern - 0.5],
      [x + to * 70, lantern - 11],
      [x + to * 70, lantern + 7],
      [x, lantern + 0.5],
    ] as [number, number][];
    const beam = polygon(...(to > 0 ? corners : corners.reverse()));
    canvas.fill(beam, lamp, 0.4 * light.night);
  }
  canvas.fill(polygon([x - head, top], [x + head, top], [x + foot, y], [x - foot, y]), (px, py) => {
    const stripe = Math.floor((y - py) / (0.156 * size)) % 2 === 0 ? band : white;
    return light.on(shaded(stripe, clamp((sunSide(light, x) * (px - x)) / foot - 0.2, -1, 1)));
  });
  canvas.fill(
    rectangle(x - 0.1 * size, top - 0.14 * size, x + 0.1 * size, top),
    mix(light.on(rgb(0x9fc4d8)), lamp, clamp(0.2 + 1.5 * light.night)),
  );
  canvas.fill(rectangle(x - 0.15 * size, top - 0.03 * size, x + 0.15 * size, top + 0.03 * size), light.on(dark));
  canvas.fill(polygon([x, top - 0.26 * size], [x + 0.13 * size, top - 0.13 * size], [x - 0.13 * size, top - 0.13 * size]), light.on(band));
}

/** A small island of rock. */
export function drawRock(canvas: Canvas, light: Light, x: number, y: number, halfWidth: number, height: number): void {
  const stone = rgb(0x6d6a72);
  canvas.fill({ ...ellipse(x, y, halfWidth, height), box: [x - halfWidth, y - height, x + halfWidth, y] }, (px, py) =>
    light.on(shaded(stone, clamp((sunSide(light, x) * (px - x)) / halfWidth - (py - y + height) / (2 * height), -1, 1))),
  );
}

/** A steam train that ends at the edge of the picture; `front` is where it begins, `rail` the height it stands on. */
export function drawTrain(canvas: Canvas, light: Light, front: number, rail: number, color: Color, heading: 1 | -1): void {
  const box = (from: number, to: number, low: number, high: number): Shape => {
    const [a, b] = [front - heading * from, front - heading * to];
    return rectangle(Math.min(a, b), rail - high, Math.max(a, b), rail - low);
  };
  for (let puff = 0; puff < 4; puff++) {
    const [x, y] = [front - heading * (2.5 + 5.5 * puff), rail - 10 - 1.1 * puff];
    canvas.fill(disc(x, y, 2 + 0.8 * puff), light.on([0.96, 0.96, 0.97], 0.15), 0.75 - 0.14 * puff);
  }
  const engine = light.on(rgb(0x2c2f3a));
  canvas.fill(box(0, 6, 0.6, 4.4), engine);
  canvas.fill(box(1.4, 3.4, 4.4, 7), engine);
  canvas.fill(box(5.4, 9, 0.6, 7), light.on(color));
  for (let start = 10; start < canvas.width; start += 13) {
    canvas.fill(box(start, start + 12, 0.6, 6.6), light.on(color));
    canvas.fill(box(start, start + 12, 5.8, 6.8), light.on(mix(color, white, 0.35)));
    for (let w = 0; w < 3; w++) canvas.fill(box(start + 1.2 + 3.6 * w, start + 3.6 + 3.6 * w, 2.8, 5.2), windowColor(light));
  }
}
