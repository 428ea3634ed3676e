/** The demo's own pictures: little landscapes, every one different, each drawn from nothing but a seed and its number. */
import { Canvas } from './canvas';
import { Dice } from './dice';
import { scenes } from './scenes';

/** Pixels of a side. */
export const PICTURE_SIZE = 64;

/**
 * Draws one picture: a lake, hills, a town, the sea, balloons, a viaduct or a field, in turn, at some time of some day.
 * @param seed  unsigned 32-bit
 * @param index  number of the picture
 * @returns uint8 [64, 64, 3]; the same bytes on every machine
 */
export function drawPicture(seed: number, index: number): Uint8Array {
  const canvas = new Canvas(PICTURE_SIZE, PICTURE_SIZE);
  scenes[index % scenes.length](canvas, new Dice(seed, index));
  return canvas.pixels();
}
