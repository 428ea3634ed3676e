/** Pictures per second and the share of the time spent waiting for them, in the steady state: the first steps allocate, fault in and tune. */
const STEPS_LEFT_OUT = 3;
/** Steps before a rate means something. */
const LEAST_STEPS = 3;

export class Throughput {
  private steps = 0;
  private images = 0;
  private start = { ms: 0, waitMs: 0 };
  private latest = { ms: 0, waitMs: 0 };

  /**
   * A step is done.
   * @param images  pictures of the step
   * @param waitMs  the loader's waiting so far
   */
  step(images: number, waitMs: number): void {
    this.latest = { ms: performance.now(), waitMs };
    if (++this.steps <= STEPS_LEFT_OUT) this.start = this.latest;
    else this.images += images;
  }

  /** Empty before there are enough steps. */
  rates(): { imagesPerSecond?: number; dataWait?: number } {
    if (this.steps < STEPS_LEFT_OUT + LEAST_STEPS) return {};
    const elapsed = this.latest.ms - this.start.ms;
    return { imagesPerSecond: (1000 * this.images) / elapsed, dataWait: (this.latest.waitMs - this.start.waitMs) / elapsed };
  }
}
