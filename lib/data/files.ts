/** A handful of picture files named one by one. */
import type { Dataset, PictureSource } from './dataset';
import { decodePicture, reasonOf } from './decode';

export class PictureFiles implements Dataset {
  readonly name = 'the given files';
  readonly channels = 3;
  readonly dtype = 'uint8';
  readonly classes: readonly string[] = [];
  readonly labels: Int32Array;
  readonly length: number;

  constructor(private readonly paths: readonly string[]) {
    this.length = paths.length;
    this.labels = new Int32Array(paths.length).fill(-1);
  }

  pathOf(index: number): string {
    return this.paths[index];
  }

  fetch(indices: ArrayLike<number>): Promise<PictureSource[]> {
    const decode = (index: number): Promise<PictureSource> =>
      decodePicture(this.paths[index]).catch((error: unknown) => ({ reason: reasonOf(error) }));
    return Promise.all(Array.from(indices, decode));
  }

  close(): void {}
}
