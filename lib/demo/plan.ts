/** How much training fits into the minutes that there are. */
import { MaskedAutoencoder, type ModelOptions } from '../nn/maskedAutoencoder';

/** What the loader, validation and pictures in between take of the time. */
const OVERHEAD = 0.08;
/** Pictures seen after which a fast machine stops: more of them hardly sharpens the reconstructions. */
const ENOUGH = 400_000;

/** Pictures per second of training steps on this machine, from a few seconds of them. */
export async function measureSpeed(options: ModelOptions, batchSize: number, seconds: number): Promise<number> {
  using model = new MaskedAutoencoder(options);
  const step = model.trainStep({ batchSize });
  const [height, width] = model.config.imageSize;
  const images = new Uint8Array(batchSize * height * width * model.config.inChans);
  const run = async (): Promise<void> => void (await (await step.run({ images }, { lr: 0 })).loss);
  for (let i = 0; i < 3; i++) await run(); // first use of the memory
  const started = performance.now();
  let steps = 0;
  let elapsed = 0;
  while (elapsed < seconds) {
    await run();
    steps++;
    elapsed = (performance.now() - started) / 1000;
  }
  return (steps * batchSize) / elapsed;
}

/** Whole epochs of `pictures` that fit into so many minutes at a speed; at least one. */
export function epochsFor(minutes: number, imagesPerSecond: number, pictures: number): number {
  const seen = Math.min(ENOUGH, imagesPerSecond * minutes * 60 * (1 - OVERHEAD));
  return Math.max(1, Math.floor(seen / pictures));
}
