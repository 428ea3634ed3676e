/** The PyTorch peer: a Python process that answers one line of JSON with another (bench/peers/mae_torch.py). */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';
import { MaeError } from '../errors';
import { packageRoot } from './machine';

const SCRIPT = path.join(packageRoot, 'bench/peers/mae_torch.py');
/** torch.compile alone may take minutes. */
const TIMEOUT_MS = 15 * 60_000;

export interface PeerAbout {
  readonly torch: string;
  readonly sdpa: boolean;
  readonly fusedAdamw: boolean;
  readonly bf16: boolean;
  readonly compile: boolean;
  readonly threads: number;
}

/** The first Python that has PyTorch: the one given, MAE_PYTHON, python3, the system's. Undefined if there is none. */
export function findPython(given?: string): string | undefined {
  const candidates = given ? [given] : [process.env.MAE_PYTHON, 'python3', '/usr/bin/python3'];
  return candidates.find((python) => {
    try {
      if (python) execFileSync(python, ['-c', 'import torch'], { stdio: 'ignore' });
      return Boolean(python);
    } catch {
      return false;
    }
  });
}

/** How the peer's threads are set up; which is faster depends on its build and on what else runs. */
export interface PeerThreads {
  readonly count: number;
  /** Threads that wait go to sleep instead of spinning: better where PyTorch and its BLAS have threads of their own each. */
  readonly sleeping: boolean;
}

export class PeerProcess implements Disposable {
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly lines: AsyncIterator<string>;
  private errors = '';

  private constructor(python: string, threads: PeerThreads) {
    const count = String(threads.count);
    const numbers = { OMP_NUM_THREADS: count, OPENBLAS_NUM_THREADS: count, MKL_NUM_THREADS: count };
    const env = { ...process.env, ...numbers, ...(threads.sleeping ? { OMP_WAIT_POLICY: 'PASSIVE' } : {}) };
    this.child = spawn(python, [SCRIPT, count], { env });
    this.lines = readline.createInterface(this.child.stdout)[Symbol.asyncIterator]();
    this.child.stderr.on('data', (text: Buffer) => (this.errors = (this.errors + text.toString()).slice(-4000)));
    // A peer that dies answers no more: `ask` then says what it printed. Its standard input breaking adds nothing.
    this.child.on('error', (error) => (this.errors += error.message));
    this.child.stdin.on('error', () => undefined);
  }

  static async start(python: string, threads: PeerThreads): Promise<{ peer: PeerProcess; about: PeerAbout }> {
    const peer = new PeerProcess(python, threads);
    return { peer, about: (await peer.answer('start')) as PeerAbout };
  }

  /** @throws MaeError MAE_ARGUMENT with the peer's own words when it fails */
  async ask<T>(request: { readonly do: string } & Readonly<Record<string, unknown>>): Promise<T> {
    this.child.stdin.write(`${JSON.stringify(request)}\n`);
    return (await this.answer(request.do)) as T;
  }

  [Symbol.dispose](): void {
    this.child.kill();
  }

  private async answer(what: string): Promise<unknown> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new MaeError('MAE_ARGUMENT', `the PyTorch peer has not answered '${what}' for 15 minutes`)),
        TIMEOUT_MS,
      );
    });
    const { value, done } = await Promise.race([this.lines.next(), timeout]).finally(() => clearTimeout(timer));
    const answer = done ? { error: `it ended: ${this.errors.trim().split('\n').slice(-3).join(' | ')}` } : JSON.parse(value as string);
    if ('error' in answer) throw new MaeError('MAE_ARGUMENT', `the PyTorch peer failed at '${what}': ${answer.error}`);
    return answer;
  }
}
