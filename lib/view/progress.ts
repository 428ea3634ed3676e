/** What a person sees of a training run: one line that keeps itself up to date on a terminal, a line now and then elsewhere. */
import { formatBytes, formatDuration, formatLearningRate, formatPercent, formatRate } from '../format';

/** What is written to: `process.stderr` or `process.stdout`, or anything like them. */
export interface ProgressStream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
  on?(event: 'error', listener: (error: Error) => void): unknown;
}

export interface ProgressOptions {
  totalSteps: number;
  totalEpochs: number;
  /** The step that a resumed run goes on from, so that the time left is right; default 0. */
  startStep?: number;
  /** Default `process.stderr`: the results of a command can then be piped while it reports. */
  stream?: ProgressStream;
  /** Print nothing at all. */
  quiet?: boolean;
  /** Without a terminal: a line after so many seconds, default 15 … */
  everySeconds?: number;
  /** … or, when given, after so many steps instead. */
  everySteps?: number;
  /** Seconds on a clock that never goes back; for tests. */
  now?: () => number;
}

export interface ProgressUpdate {
  /** Optimizer steps done. */
  step: number;
  /** Fractional epochs done. */
  epoch: number;
  /** What is undefined is left out of the line. */
  loss?: number;
  lr?: number;
  imagesPerSecond?: number;
  /** Share of the time that was spent waiting for pictures, 0–1. */
  dataWait?: number;
  /** Peak memory of the device. */
  memoryBytes?: number;
}

/** Progress of one training run. Nothing it does can fail the run: a closed pipe silences it. */
export class TrainingProgress {
  private readonly stream: ProgressStream;
  private readonly live: boolean;
  private readonly now: () => number;
  private readonly started: number;
  private drawnAt = -Infinity;
  private printedStep: number;
  private last: ProgressUpdate | undefined;
  private lineIsOpen = false;
  private silent: boolean;

  constructor(private readonly options: ProgressOptions) {
    this.stream = options.stream ?? process.stderr;
    this.live = Boolean(this.stream.isTTY) && process.env.TERM !== 'dumb';
    this.silent = options.quiet ?? false;
    this.now = options.now ?? (() => performance.now() / 1000);
    this.started = this.now();
    this.printedStep = options.startStep ?? 0;
    guard(this.stream);
  }

  /** Tells how far the run is. Cheap: call it after every step, it draws at most ten times a second. */
  update(update: ProgressUpdate): void {
    this.last = update;
    if (this.isDue(update.step)) this.draw(update);
  }

  /** Prints a line of its own (a checkpoint was written, a picture is broken) above the progress. */
  note(message: string): void {
    this.eraseLine();
    this.write(message + '\n');
    if (this.live && this.last) this.draw(this.last);
  }

  /** Draws the last state and leaves it on the screen. */
  finish(): void {
    if (this.last && (this.live || this.last.step !== this.printedStep)) this.draw(this.last);
    if (this.lineIsOpen) this.write('\n');
    this.lineIsOpen = false;
    this.silent = true;
  }

  private isDue(step: number): boolean {
    const { everySteps, everySeconds = 15 } = this.options;
    if (this.live) return this.now() - this.drawnAt >= 0.1 || step >= this.options.totalSteps;
    if (everySteps !== undefined) return step - this.printedStep >= everySteps;
    return this.now() - this.drawnAt >= everySeconds;
  }

  private draw(update: ProgressUpdate): void {
    const fields = describe(update, this.options, this.secondsLeft(update.step));
    if (this.live) {
      // The last column stays free: writing into it makes some terminals wrap.
      this.write(`\r${fitLine(fields, (this.stream.columns || 80) - 1, update.step / this.options.totalSteps)}\u001b[K`);
      this.lineIsOpen = true;
    } else {
      this.write(fields.map(({ text }) => text).join('  ') + '\n');
    }
    this.drawnAt = this.now();
    this.printedStep = update.step;
  }

  private secondsLeft(step: number): number | undefined {
    const done = step - (this.options.startStep ?? 0);
    if (done <= 0) return undefined;
    return ((this.now() - this.started) / done) * Math.max(0, this.options.totalSteps - step);
  }

  private eraseLine(): void {
    if (this.lineIsOpen) this.write('\r\u001b[K');
    this.lineIsOpen = false;
  }

  private write(text: string): void {
    if (this.silent || broken.has(this.stream)) return;
    try {
      this.stream.write(text);
    } catch {
      this.silent = true;
    }
  }
}

// A pipe that its reader closed (`mae pretrain | head`) reports by an event, maybe after the run; unheard it would end the process.
const guarded = new WeakSet<ProgressStream>();
const broken = new WeakSet<ProgressStream>();

function guard(stream: ProgressStream): void {
  if (guarded.has(stream)) return;
  guarded.add(stream);
  stream.on?.('error', () => broken.add(stream));
}

interface Field {
  text: string;
  /** What is least worth a place on a narrow terminal goes first: the highest rank. */
  rank: number;
}

function describe(update: ProgressUpdate, { totalSteps, totalEpochs }: ProgressOptions, secondsLeft: number | undefined): Field[] {
  const { step, epoch, loss, lr, imagesPerSecond, dataWait, memoryBytes } = update;
  const current = Math.max(1, Math.min(Math.ceil(epoch), Math.ceil(totalEpochs)));
  const fields: (Field | false)[] = [
    { text: `epoch ${current}/${Math.ceil(totalEpochs)}`, rank: 2 },
    { text: `step ${step}/${totalSteps}`, rank: 4 },
    loss !== undefined && { text: `loss ${loss.toFixed(4)}`, rank: 0 },
    lr !== undefined && { text: `lr ${formatLearningRate(lr)}`, rank: 6 },
    imagesPerSecond !== undefined && { text: formatRate(imagesPerSecond, 'img'), rank: 3 },
    dataWait !== undefined && { text: `data wait ${formatPercent(dataWait)}`, rank: 5 },
    memoryBytes !== undefined && { text: formatBytes(memoryBytes), rank: 7 },
    secondsLeft !== undefined && { text: step >= totalSteps ? 'done' : `${formatDuration(secondsLeft)} left`, rank: 1 },
  ];
  return fields.filter((field): field is Field => field !== false);
}

const barWidth = 16;

// Fields in their order, without those of the highest ranks that do not fit; a bar in front when there is room for it.
function fitLine(fields: readonly Field[], columns: number, share: number): string {
  let kept = fields;
  const join = () => kept.map(({ text }) => text).join('  ');
  while (kept.length > 1 && join().length > columns) {
    const leastWorth = Math.max(...kept.map(({ rank }) => rank));
    kept = kept.filter(({ rank }) => rank !== leastWorth);
  }
  const line = join();
  return line.length + barWidth + 3 <= columns ? `${bar(share)} ${line}` : line.slice(0, Math.max(0, columns));
}

// Eighths of a block: 16 columns show 128 states.
function bar(share: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * barWidth * 8);
  const full = Math.floor(eighths / 8);
  const part = eighths % 8 ? ' ▏▎▍▌▋▊▉'[eighths % 8] : '';
  return `▕${('█'.repeat(full) + part).padEnd(barWidth)}▏`;
}
