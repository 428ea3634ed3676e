/** Alternating runs: every subject once a round, so that a machine that gets slower or faster meanwhile does so for all of them. */

export interface Subject {
  /** Runs once and returns the seconds of it. */
  run(): Promise<number>;
}

export interface Budget {
  /** Rounds before the ones that count: first use of memory, caches, clock rates. */
  readonly warmup: number;
  readonly minRounds: number;
  readonly maxRounds: number;
  /** No further round is begun after so many seconds, warm-up included, once there are minRounds. */
  readonly seconds: number;
}

/**
 * Every second round goes backwards through the subjects (A B C, C B A): none always profits from its predecessor.
 * @returns seconds [subject][round]
 */
export async function alternate(
  subjects: readonly Subject[],
  { warmup, minRounds, maxRounds, seconds }: Budget,
  now: () => number = () => performance.now() / 1000,
): Promise<number[][]> {
  const started = now();
  const times = subjects.map((): number[] => []);
  const order = subjects.map((_, i) => i);
  for (let round = -warmup; round < maxRounds; round++) {
    if (round >= minRounds && now() - started > seconds) break;
    for (const i of round % 2 === 0 ? order : order.toReversed()) {
      const time = await subjects[i].run();
      if (round >= 0) times[i].push(time);
    }
  }
  return times;
}
