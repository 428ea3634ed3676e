/** Part of a data set kept out of training, so that reconstructions show what was learnt and not what was remembered. */
import type { Dataset, PictureSource } from '../data/dataset';

/** At most so many pictures are held out. */
const MOST = 200;

/**
 * Every tenth picture (fewer of a large set, spread over it) is held out, the others are for training. Closing the parts is closing `whole`.
 * @returns no held-out part where there are fewer than ten pictures
 */
export function holdOut(whole: Dataset): { training: Dataset; heldOut?: Dataset } {
  const count = Math.min(MOST, Math.floor(whole.length / 10));
  if (count === 0) return { training: whole };
  const chosen = new Set(Array.from({ length: count }, (_, i) => Math.floor((i * whole.length) / count)));
  const all = Array.from({ length: whole.length }, (_, i) => i);
  return {
    training: new Part(
      whole,
      all.filter((i) => !chosen.has(i)),
    ),
    heldOut: new Part(
      whole,
      all.filter((i) => chosen.has(i)),
    ),
  };
}

class Part implements Dataset {
  readonly name: string;
  readonly length: number;
  readonly channels: number;
  readonly dtype: Dataset['dtype'];
  readonly classes: readonly string[];
  readonly labels: Int32Array;

  constructor(
    private readonly whole: Dataset,
    private readonly members: readonly number[],
  ) {
    this.name = `${whole.name} (${members.length} of its ${whole.length} pictures)`;
    this.length = members.length;
    this.channels = whole.channels;
    this.dtype = whole.dtype;
    this.classes = whole.classes;
    this.labels = Int32Array.from(members, (index) => whole.labels[index]);
  }

  pathOf(index: number): string {
    return this.whole.pathOf(this.members[index]);
  }

  fetch(indices: ArrayLike<number>): Promise<PictureSource[]> {
    return this.whole.fetch(Array.from(indices, (index) => this.members[index]));
  }

  close(): void {
    this.whole.close();
  }
}
