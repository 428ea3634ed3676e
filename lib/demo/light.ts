/** Time of day: the colours of the sky, and what they make of everything under it. */
import { clamp, type Color, mix, rgb } from './canvas';
import type { Dice } from './dice';

/** A moment of the day. */
interface Hour {
  /** The sky at the top, half-way and over the horizon. */
  sky: readonly [Color, Color, Color];
  /** Sun, or moon. */
  disc: Color;
  /** What the light leaves of a white wall. */
  tint: Color;
  /** Height of the sun, 0 at the horizon, 1 at the top. */
  height: number;
  /** How dark it is: windows are lit and stars are out at 1. */
  night: number;
}

const hour = (sky: [number, number, number], disc: number, tint: number, height: number, night: number): Hour => ({
  sky: [rgb(sky[0]), rgb(sky[1]), rgb(sky[2])],
  disc: rgb(disc),
  tint: rgb(tint),
  height,
  night,
});

/** Round the clock; between two of them everything is mixed. */
const day: readonly Hour[] = [
  hour([0x0b1437, 0x1c2f66, 0x3f5f9c], 0xf4f1dc, 0x6678ab, 0.75, 1),
  hour([0x5b7fc0, 0xf0b5b0, 0xffe3b3], 0xfff3cf, 0xf6dcd6, 0.12, 0.1),
  hour([0x4a93dc, 0xa9d6f2, 0xf6f0d8], 0xfff8dc, 0xfff6ea, 0.5, 0),
  hour([0x2f7fd6, 0x86c3f0, 0xdcf0f6], 0xfffbe6, 0xffffff, 0.8, 0),
  hour([0x4f97d8, 0xbfdcdf, 0xffeab5], 0xfff4c4, 0xfff3d8, 0.5, 0),
  hour([0x3d3b82, 0xd8607c, 0xffb659], 0xffe08a, 0xe8a391, 0.14, 0.25),
  hour([0x1b2150, 0x604b90, 0xe093a0], 0xffd0b0, 0x8a7fb0, 0.02, 0.75),
];

export interface Light extends Hour {
  /** Of sun or moon, in pixels. */
  x: number;
  y: number;
  /** A colour as it looks at a distance of 0 (here) to 1 (all but lost in the haze over the horizon). */
  on(color: Color, distance?: number): Color;
}

export function drawLight(dice: Dice, width: number, horizon: number): Light {
  const time = dice.between(0, day.length);
  const [a, b] = [day[Math.floor(time)], day[(Math.floor(time) + 1) % day.length]];
  const share = time - Math.floor(time);
  const number = (key: 'height' | 'night'): number => a[key] + (b[key] - a[key]) * share;
  const sky = [0, 1, 2].map((i) => mix(a.sky[i], b.sky[i], share)) as unknown as Hour['sky'];
  const tint = mix(a.tint, b.tint, share);
  return {
    sky,
    disc: mix(a.disc, b.disc, share),
    tint,
    height: number('height'),
    night: number('night'),
    x: dice.place(8, width - 8),
    y: 4 * Math.round((horizon * (1 - clamp(number('height'), 0.03, 0.8))) / 4),
    on: ([red, green, blue], distance = 0) => mix([red * tint[0], green * tint[1], blue * tint[2]], sky[2], distance),
  };
}
