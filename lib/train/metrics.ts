/** metrics.jsonl: what a run measured, one JSON object per line, in the order of its steps. */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { MaeError, fileError } from '../errors';
import { makeFolder } from '../io/makeFolder';

/** One line. `step` counts optimizer steps; the other fields are free (loss, lr, imagesPerSecond, validationLoss …). */
export interface MetricsRecord {
  step: number;
  [field: string]: unknown;
}

/** Appends to a metrics file. A line is one write, so a killed run leaves at most one half line, which the next open removes. */
export class MetricsLog {
  private fd: number | undefined;

  /**
   * Opens or creates the file, and its folder. A half-written last line is cut off.
   *
   * @param options.resumeStep  the run goes on after this step: records of later steps, which it will write anew, are cut off
   * @throws MaeError MAE_FILE when the system refuses, MAE_FORMAT when a whole line is not a record
   */
  static open(path: string, options: { resumeStep?: number } = {}): MetricsLog {
    return new MetricsLog(path, options.resumeStep ?? Infinity);
  }

  private constructor(
    readonly path: string,
    lastStep: number,
  ) {
    try {
      makeFolder(dirname(path));
      this.fd = openSync(path, 'a+');
      const content = readFileSync(this.fd);
      ftruncateSync(this.fd, keptLength(content, lastStep, path));
    } catch (error) {
      this.close();
      throw error instanceof MaeError ? error : fileError('open', path, error);
    }
  }

  /** Writes one line. JSON has no NaN and no infinities: they become null. @throws MaeError MAE_FILE, MAE_DISPOSED */
  append(record: MetricsRecord): void {
    if (this.fd === undefined) throw new MaeError('MAE_DISPOSED', `${this.path} is closed: open it again to append to it`);
    const line = Buffer.from(JSON.stringify(record) + '\n');
    try {
      for (let offset = 0; offset < line.length;) offset += writeSync(this.fd, line, offset);
    } catch (error) {
      throw fileError('write', this.path, error);
    }
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }
}

/**
 * Reads a metrics file, of a finished or a running run; a half-written last line is left out.
 *
 * @throws MaeError MAE_FILE when it cannot be read, MAE_FORMAT when a whole line is not a record
 */
export function readMetrics(path: string): MetricsRecord[] {
  let content: Buffer;
  try {
    content = readFileSync(path);
  } catch (error) {
    throw fileError('read', path, error);
  }
  return [...lines(content)].map(({ text, number }) => parseRecord(text, number, path));
}

/** The points (x, y) of those records that have both fields as finite numbers: what a curve is drawn from. */
export function metricPoints(records: Iterable<MetricsRecord>, x: string, y: string): [x: number, y: number][] {
  const points: [number, number][] = [];
  for (const record of records) {
    const [a, b] = [record[x], record[y]];
    if (typeof a === 'number' && typeof b === 'number') points.push([a, b]);
  }
  return points;
}

// Bytes up to the first record of a later step, or up to the end of the last whole line.
function keptLength(content: Buffer, lastStep: number, path: string): number {
  let kept = 0;
  for (const { text, number, end } of lines(content)) {
    if (parseRecord(text, number, path).step > lastStep) break;
    kept = end;
  }
  return kept;
}

function* lines(content: Buffer): Generator<{ text: string; number: number; end: number }> {
  for (let start = 0, number = 1; ; number++) {
    const newline = content.indexOf(10, start);
    if (newline < 0) return;
    yield { text: content.toString('utf8', start, newline), number, end: newline + 1 };
    start = newline + 1;
  }
}

function parseRecord(text: string, number: number, path: string): MetricsRecord {
  let record: unknown;
  try {
    record = JSON.parse(text);
  } catch {
    record = undefined;
  }
  if (typeof (record as MetricsRecord | undefined)?.step !== 'number') {
    throw new MaeError('MAE_FORMAT', `${path}:${number} is not a record of metrics (a JSON object with a step): ${text.slice(0, 80)}`);
  }
  return record as MetricsRecord;
}
