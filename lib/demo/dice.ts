/** Random choices of a picture. */
import { Purpose, RandomStream } from '../random';

/** Draws of one picture: key (seed, scene), counter (index of the picture, ·, …). The order of the calls is part of the drawing. */
export class Dice {
  private readonly stream: RandomStream;

  constructor(seed: number, index: number) {
    this.stream = new RandomStream(seed, Purpose.scene, index);
  }

  /** Uniform in [from, to). */
  between(from: number, to: number): number {
    return from + (to - from) * this.stream.uniform();
  }

  /** A multiple of four pixels from `from` to `to`, both included: half a patch of the demo's model, so that what is drawn there recurs. */
  place(from: number, to: number): number {
    return 4 * this.integer(Math.ceil(from / 4), Math.floor(to / 4));
  }

  /** Whole number from `from` to `to`, both included. */
  integer(from: number, to: number): number {
    return Math.floor(this.between(from, to + 1));
  }

  chance(probability: number): boolean {
    return this.stream.uniform() < probability;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.integer(0, choices.length - 1)];
  }
}
