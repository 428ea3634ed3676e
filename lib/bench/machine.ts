/** What was measured on what: a figure without its machine means nothing. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { OpenDevice } from '../graph/device';
import { packageVersion } from '../train/summary';
import type { BenchResult } from './result';

/** The package's own folder. */
export const packageRoot = path.join(__dirname, '../..');

export function describeMachine(device: OpenDevice): BenchResult['machine'] {
  return {
    device: device.handle.name,
    processor: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    system: `${os.type()} ${os.release()} ${process.arch}`,
    node: process.version,
    nodeMae: packageVersion(),
    commit: commit(),
    loadBefore: os.loadavg()[0],
  };
}

/** Threads of the CPU backend, which its name tells: "cpu (avx2, 8 threads)". */
export function threadsOf(device: string): number {
  return Number(/(\d+) threads/.exec(device)?.[1] ?? os.availableParallelism());
}

/** The commit in a clone of the repository, with '+' where files differ from it. */
function commit(): string | undefined {
  if (!existsSync(path.join(packageRoot, '.git'))) return undefined;
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: packageRoot, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') ? '+' : '');
  } catch {
    return undefined;
  }
}
