/**
 * The seven kinds of picture. Each is large and regular where a few patches can tell the rest (mirror images, rows, symmetry, perspective),
 * and free where they cannot lie (time of day, colours, where things stand).
 */
import { below, type Canvas, clamp, type Color, disc, heightAt, mix, polygon, rectangle, rgb, union, without } from './canvas';
import { drawHill, drawMirror, drawMountains, drawSea, drawSky, hillLine } from './backdrop';
import type { Dice } from './dice';
import { drawLight, type Light } from './light';
import { drawBalloon, drawBoat, drawFir, drawHouse, drawLighthouse, drawRock, drawTrain, drawTree, windowColor } from './things';

export type Scene = (canvas: Canvas, dice: Dice) => void;

/** Colours of the land: far hills, near hills, crowns of trees. */
const seasons: readonly { far: Color; near: Color; crown: Color }[] = [
  { far: rgb(0x7fae6a), near: rgb(0x4f9447), crown: rgb(0x3b7d3a) },
  { far: rgb(0x9cbf5a), near: rgb(0x6fae3f), crown: rgb(0xe59bb5) },
  { far: rgb(0xc9a54f), near: rgb(0xa9752f), crown: rgb(0xc8552b) },
  { far: rgb(0xdfe8f2), near: rgb(0xf4f8ff), crown: rgb(0x3f6f66) },
];
const walls = [0xf3e9d6, 0xe7b08a, 0xf0d27a].map(rgb);
const roofs = [0xb5482f, 0x44566e].map(rgb);
const facades = [0xd9634c, 0xe9a23b, 0x6fae8f, 0x4f8fb8, 0xe8e0cf].map(rgb);
const sails = [0xffffff, 0xe4572e, 0x2f7fb8, 0xf2b134].map(rgb);
const hulls = [0x7a2e2a, 0x23395b].map(rgb);
const silks = [0xe4432f, 0xf6a723, 0x2e86c1, 0x27ae60].map(rgb);
const cream = rgb(0xfdf6e3);
const crops = [
  [0x8d6cc9, 0x5f8a4a],
  [0xe0564e, 0x4f8f45],
  [0xf0b93a, 0x6f9a3f],
  [0x79b84d, 0x8a6a44],
].map((pair) => pair.map(rgb));

/** Mountains and firs, twice: the second time upside down in the water. */
export const lake: Scene = (canvas, dice) => {
  const horizon = 36;
  const light = drawLight(dice, canvas.width, horizon);
  drawSky(canvas, dice, light, horizon);
  drawMountains(canvas, dice, light, horizon, 27, 0.28);
  canvas.fill(below(hillLine(dice, canvas.width, horizon - 3, 1.5, 32), horizon), light.on(rgb(0x3f6a55), 0.15));
  const x = dice.place(8, 44);
  for (let i = 0; i < 3; i++) drawFir(canvas, light, x + 6 * i, horizon - 0.5, i === 1 ? 18 : 14, rgb(0x35694d));
  drawMirror(canvas, light, horizon);
};

/** Hills in layers, paler with distance; a house, and trees from small to large. */
export const hills: Scene = (canvas, dice) => {
  const horizon = 30;
  const light = drawLight(dice, canvas.width, horizon);
  const season = dice.pick(seasons);
  drawSky(canvas, dice, light, horizon);
  const houseLeft = dice.chance(0.5);
  const tree = dice.chance(0.5) ? drawFir : drawTree;
  for (const near of [0, 0.5, 1]) {
    const heights = hillLine(dice, canvas.width, horizon + 18 * near, 3, 32);
    drawHill(canvas, heights, mix(season.far, season.near, near), light, 0.5 * (1 - near));
    const height = heightAt(heights);
    const at = (x: number): number => (houseLeft ? canvas.width - x : x);
    if (near === 0.5) {
      drawHouse(canvas, light, at(46), height(at(46)) + 2.5, 14, dice.pick(walls), dice.pick(roofs));
      tree(canvas, light, at(29), height(at(29)) + 1, 13, season.crown, 0.15);
    }
    if (near === 1) tree(canvas, light, at(14), height(at(14)) + 2, 28, season.crown);
  }
};

/** Rows of flowers or corn that meet at the horizon. */
export const field: Scene = (canvas, dice) => {
  const horizon = 32;
  const light = drawLight(dice, canvas.width, horizon);
  drawSky(canvas, dice, light, horizon);
  const [row, gap] = dice.pick(crops);
  drawHill(canvas, hillLine(dice, canvas.width, horizon - 4, 3, 32), mix(gap, rgb(0x6a86a0), 0.4), light, 0.45);
  const vanish = dice.pick([24, 40]);
  canvas.fill(rectangle(0, horizon, canvas.width, canvas.height), (x, y) => {
    const depth = y - horizon;
    const pitch = 0.55 * depth; // pixels from a row to the next
    const at = (x - vanish) / pitch;
    const wave = 4 * Math.abs(at - Math.floor(at) - 0.5) - 1; // 1 on a row, −1 between two
    const share = 0.5 + 0.5 * clamp(wave * Math.max(1, 0.35 * pitch), -1, 1) * clamp(pitch / 2.5 - 0.4);
    return light.on(mix(gap, row, share), 0.4 * clamp(1 - depth / 18));
  });
  const x = dice.place(16, 48);
  drawHouse(canvas, light, x, horizon + 1.5, 13, dice.pick(walls), dice.pick(roofs));
  for (const side of [-1, 1]) drawTree(canvas, light, x + 15 * side, horizon + 1, 15, rgb(0x477a3c), 0.05);
};

/** A sailing boat in the path of the light, and a lighthouse on the other side. */
export const sea: Scene = (canvas, dice) => {
  const horizon = 32;
  const light = drawLight(dice, canvas.width, horizon);
  drawSky(canvas, dice, light, horizon);
  drawSea(canvas, light, horizon, mix(rgb(0x2f86b8), rgb(0x2aa39a), dice.between(0, 1)));
  const left = dice.chance(0.5);
  const at = (x: number): number => (left ? x : canvas.width - x);
  if (dice.chance(0.6)) {
    drawRock(canvas, light, at(12), horizon + 7, 12, 6);
    drawLighthouse(canvas, light, at(12), horizon + 3, 30, dice.pick([rgb(0xd8402f), rgb(0x2f5f9c)]));
  }
  drawBoat(canvas, light, at(dice.place(36, 48)), dice.place(48, 52), 30, dice.pick(hulls), dice.pick(sails), left ? -1 : 1);
};

/** A striped balloon over low hills, sometimes another one far off. */
export const balloons: Scene = (canvas, dice) => {
  const horizon = 52;
  const light = drawLight(dice, canvas.width, horizon);
  const season = dice.pick(seasons);
  drawSky(canvas, dice, light, horizon);
  for (const near of [0, 1]) {
    drawHill(
      canvas,
      hillLine(dice, canvas.width, horizon + 6 * near, 2.5, 32),
      mix(season.far, season.near, near),
      light,
      0.4 * (1 - near),
    );
  }
  const colors = (): Color[] => [dice.pick(silks), cream];
  const x = dice.place(20, 44);
  if (dice.chance(0.4)) drawBalloon(canvas, light, x < 32 ? 56 : 8, dice.place(24, 40), 18, colors());
  drawBalloon(canvas, light, x, dice.place(44, 52), 42, colors());
};

/** Gabled houses in two colours on a quay, and their image in the canal. */
export const town: Scene = (canvas, dice) => {
  const quay = 44;
  const light = drawLight(dice, canvas.width, quay);
  drawSky(canvas, dice, light, quay);
  const colors = [dice.pick(facades), dice.pick(facades)];
  const width = 16;
  const shift = dice.place(0, 2 * width - 4);
  for (let i = 0; i < 6; i++) {
    const left = i * width - shift;
    drawFacade(canvas, light, left, left + width, i % 2 ? 14 : 19, quay - 2, colors[i % 2]);
  }
  canvas.fill(rectangle(0, quay - 2, canvas.width, quay), light.on(rgb(0x8b8078)));
  drawMirror(canvas, light, quay);
};

function drawFacade(canvas: Canvas, light: Light, left: number, right: number, top: number, foot: number, wall: Color): void {
  const centre = (left + right) / 2;
  const roof = light.on(mix(wall, [0.25, 0.15, 0.15], 0.65));
  canvas.fill(polygon([centre, top - 8], [right, top], [left, top]), roof);
  canvas.fill(rectangle(left, top, right, foot), (x) => light.on(mix(wall, [0.1, 0.1, 0.2], x > right - 1 ? 0.35 : 0)));
  const glass = windowColor(light);
  for (const x of [centre - 4, centre + 4]) {
    for (let y = foot - 15; y > top; y -= 8) canvas.fill(rectangle(x - 2, y, x + 2, y + 4.5), glass);
    canvas.fill(rectangle(x - 2, foot - 6.5, x + 2, foot - 2), glass);
  }
  canvas.fill(rectangle(centre - 1.5, foot - 5.5, centre + 1.5, foot), roof);
}

/** A viaduct, all its arches alike, with a train on it; over a river that shows them again. */
export const viaduct: Scene = (canvas, dice) => {
  const water = 48;
  const light = drawLight(dice, canvas.width, water - 14);
  const season = dice.pick(seasons);
  drawSky(canvas, dice, light, water - 8);
  drawHill(canvas, hillLine(dice, canvas.width, water - 13, 4, 32), season.far, light, 0.4);
  drawHill(canvas, hillLine(dice, canvas.width, water - 4, 2, 32), season.near, light, 0.12);
  const [deck, pitch, radius] = [water - 22, 16, 6];
  const phase = dice.place(0, pitch - 4);
  const arches = Array.from({ length: 6 }, (_, i) => {
    const x = (i - 1) * pitch + phase;
    return union(disc(x, deck + 4 + radius, radius), rectangle(x - radius, deck + 4 + radius, x + radius, canvas.height));
  });
  const stone = rgb(0xb3a08a);
  canvas.fill(without(rectangle(-2, deck, canvas.width + 2, water), union(...arches)), light.on(mix(stone, [0.15, 0.15, 0.25], 0.18)));
  canvas.fill(rectangle(-2, deck - 0.6, canvas.width + 2, deck + 1.4), light.on(mix(stone, [1, 1, 1], 0.25)));
  const heading = dice.pick([1, -1] as const);
  drawTrain(
    canvas,
    light,
    canvas.width / 2 + heading * dice.place(8, 24),
    deck - 0.6,
    dice.pick([rgb(0xc0392b), rgb(0x1f618d), rgb(0x1e8449)]),
    heading,
  );
  drawMirror(canvas, light, water);
};

export const scenes: readonly Scene[] = [lake, hills, town, sea, balloons, viaduct, field];
