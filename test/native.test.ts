/** The addon as it was built: its symbols, its lists of kernels and sources, and what its own classes refuse. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { MaeError } from '../lib/errors';
import { openDevice } from '../lib/graph/device';
import { Program } from '../lib/graph/program';
import { Store } from '../lib/graph/store';
import { Tape } from '../lib/graph/tape';
import { native } from '../lib/native';
import { cases } from './cases';
import { errorOf } from './helpers/errors';

const root = path.resolve(__dirname, '..');

/** Files below a folder, as paths from the repository's root, in order. */
function filesIn(folder: string, pattern: RegExp): string[] {
  if (!existsSync(path.join(root, folder))) return [];
  return readdirSync(path.join(root, folder), { withFileTypes: true })
    .flatMap((entry) => {
      const file = `${folder}/${entry.name}`;
      return entry.isDirectory() ? filesIn(file, pattern) : pattern.test(file) ? [file] : [];
    })
    .sort();
}

describe('instruction-set libraries', () => {
  // Each is compiled with flags that other processors have not got. A weak symbol (an inline function, a template) exists once in the linked
  // addon, and it might be the AVX-512 library's copy that a processor without AVX-512 is left with.
  const libraries = ['build', 'build-cmake'].flatMap((folder) => filesIn(folder, /obj\.target\/cpu_\w+\.a$|libcpu_\w+\.a$/));
  const nm = spawnSync('nm', ['--version']).status === 0;
  if (!nm || libraries.length === 0) {
    test.skip(nm ? 'no static library of this build is here' : 'there is no nm', () => undefined);
  } else {
    test.each(libraries)('%s defines strong symbols only, all in its own namespace', (library) => {
      const { stdout, status } = spawnSync('nm', ['--demangle', '--defined-only', '--extern-only', library], {
        cwd: root,
        encoding: 'utf8',
      });
      expect(status).toBe(0);
      const symbols = stdout.split('\n').flatMap((line) => {
        const match = /^[0-9a-f]+ (\w) (.+)$/.exec(line);
        return match ? [{ kind: match[1], name: match[2] }] : [];
      });
      const isa = /cpu_(\w+)\.a$/.exec(library)![1];
      expect(symbols.length).toBeGreaterThanOrEqual(2 * native().kernels().length);
      expect(symbols.filter(({ kind, name }) => kind !== 'T' || !name.startsWith(`mae::cpu::${isa}::`))).toEqual([]);
    });
  }
});

describe('lists', () => {
  test('every kernel is launched by a row of the op table or measures the processor, and every row’s kernel exists', () => {
    const measuring = ['peak_fma']; // lib/bench/ceilings.ts
    const launched = new Set<string>();
    for (const { op, compute, training, attributes, draw } of cases) {
      const tape = new Tape({ compute, device: 'cpu', training });
      const x = Object.entries(draw(1).operands).map(([name, { shape, dtype }]) => [name, tape.input(name, shape, dtype)] as const);
      tape.call(op, Object.fromEntries(x), attributes);
      for (const { kernel } of tape.finish().launches) launched.add(kernel);
    }
    const kernels = native()
      .kernels()
      .map(({ name }) => name);
    expect(kernels.filter((name) => !launched.has(name) && !measuring.includes(name))).toEqual([]);
    expect([...launched].filter((name) => !kernels.includes(name))).toEqual([]);
    expect(new Set(kernels).size).toBe(kernels.length);
  });

  test('sources.gypi is JSON and lists every source and header once', () => {
    const lists = (JSON.parse(readFileSync(path.join(root, 'sources.gypi'), 'utf8')) as { variables: Record<string, string[]> }).variables;
    const isKernel = (file: string): boolean => file.startsWith('native/cpu/kernels/');
    const sources = filesIn('native', /\.cc$/);
    const apart = /^cuda\/(lab|emulator)\//;
    const cuda = filesIn('cuda', /\.(cu|cc|cuh|h)$/).filter((file) => !apart.test(file));
    const wanted = {
      native_sources: sources.filter((file) => !isKernel(file)),
      cpu_kernel_sources: sources.filter(isKernel),
      cuda_sources: cuda.filter((file) => /\.(cu|cc)$/.test(file)),
      cuda_headers: cuda.filter((file) => /\.(cuh|h)$/.test(file)),
    };
    const sorted = Object.fromEntries(Object.entries(lists).map(([name, list]) => [name, [...list].sort()]));
    expect(sorted).toEqual(wanted);
  });
});

describe('the addon', () => {
  /** Runs a line of JavaScript with the addon as `addon` in a process of its own. */
  function run(line: string, environment: Record<string, string>): string {
    const build = `require('bindings')({ bindings: 'mae.node', module_root: ${JSON.stringify(root)} })`;
    const load = `const addon = process.env.MAE_ADDON ? require(process.env.MAE_ADDON) : ${build};`;
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', `${load}\n${line}`], {
      cwd: root,
      env: { ...process.env, ...environment },
      encoding: 'utf8',
    });
    return stdout + stderr;
  }

  test('MAE_CPU names an instruction set', () => {
    const open = "console.log(new addon.Device('cpu').name)";
    expect(run(open, { MAE_CPU: 'portable' })).toMatch(/^cpu \(portable, /);
    expect(run(open, { MAE_CPU: 'sse9' })).toMatch(/MAE_ARGUMENT: MAE_CPU must be portable, avx2, avx512 or avx512bf16, got 'sse9'/);
  });

  test('MAE_THREADS says how many threads', () => {
    expect(run("console.log(new addon.Device('cpu').name)", { MAE_THREADS: '3', MAE_CPU: 'portable' })).toMatch(
      /^cpu \(portable, 3 threads\)/,
    );
  });

  test('more threads than a program was planned for are refused while it lives', async () => {
    const device = openDevice('cpu');
    const tape = new Tape({ compute: 'f32', device: 'cpu', training: false });
    tape.call('add', { a: tape.input('a', [1], 'f32'), b: tape.input('b', [1], 'f32') });
    const store = new Store(device.id, device.handle, 'f32', [], []);
    native().setThreads(1);
    const program = new Program(tape.finish(), store);
    expect(await errorOf(() => native().setThreads(2))).toMatch(/^MAE_BUSY setThreads: more threads/);
    program.dispose();
    expect(native().setThreads(2)).toBe(2);
    store.dispose();
    native().setThreads(0);
  });

  test('buffers: zero when made, checked at their ends, refused when disposed', async () => {
    const { handle } = openDevice('cpu');
    const before = native().stats().deviceBytes;
    const buffer = new (native().Buffer)(handle, 64);
    expect(native().stats().deviceBytes).toBe(before + 64);
    expect(new Uint8Array((await buffer.read(0, 64))[0])).toEqual(new Uint8Array(64));
    buffer.fill(7);
    buffer.write(60, Uint8Array.of(1, 2, 3, 4));
    expect([...new Uint8Array((await buffer.read(58, 6))[0])]).toEqual([7, 7, 1, 2, 3, 4]);
    expect(await errorOf(() => buffer.read(60, 5))).toMatch(/^MAE_INTERNAL buffer access past its end/);
    expect(await errorOf(() => buffer.write(61, new Uint8Array(4)))).toMatch(/^MAE_INTERNAL buffer access past its end/);
    buffer.dispose();
    buffer.dispose();
    expect(native().stats().deviceBytes).toBe(before);
    expect(await errorOf(() => buffer.read(0, 1))).toMatch(/^MAE_DISPOSED this buffer was disposed/);
    expect(await errorOf(() => buffer.fill(0))).toMatch(/^MAE_DISPOSED/);
  });

  test('a device: its name and memory; an unknown one is refused', async () => {
    const { handle } = openDevice('cpu');
    expect(handle.name).toMatch(/^cpu \((portable|avx2|avx512|avx512bf16), \d+ threads\)$/);
    const { free, total } = handle.memory();
    expect(total).toBeGreaterThanOrEqual(free);
    expect(await errorOf(() => new (native().Device)('tpu'))).toMatch(/^MAE_NO_CUDA device 'tpu'/);
  });

  test('more memory than there is: the message says what to do', async () => {
    const { handle } = openDevice('cpu');
    expect(await errorOf(() => new (native().Buffer)(handle, 2 ** 52))).toMatch(
      /^MAE_MEMORY could not allocate \d+ MiB of memory: use recompute, a smaller batchSize/,
    );
  });

  test('absent or not loadable: the message names the command that builds it', () => {
    const { MAE_ADDON } = process.env;
    const load = (message: string, addon = ''): string => {
      let text = 'no error';
      process.env.MAE_ADDON = addon;
      jest.isolateModules(() => {
        jest.doMock('bindings', () => () => {
          throw new Error(message);
        });
        try {
          // eslint-disable-next-line @typescript-eslint/no-require-imports
          (require('../lib/native') as typeof import('../lib/native')).native();
        } catch (error) {
          const failure = error as MaeError; // of the isolated registry: another class than this file's
          text = `${failure.code} ${failure.message}`;
        }
      });
      jest.dontMock('bindings');
      if (MAE_ADDON === undefined) delete process.env.MAE_ADDON;
      else process.env.MAE_ADDON = MAE_ADDON;
      return text;
    };
    expect(load('Could not locate the bindings file. Tried: …')).toMatch(
      /^MAE_NOT_BUILT .*has not been built on this machine.*npx mae build.*npx mae doctor/s,
    );
    expect(load('libcudart.so.12: cannot open shared object file')).toMatch(
      /^MAE_NOT_BUILT .*was built but does not load: libcudart\.so\.12.*npx mae build/s,
    );
    expect(load('Could not locate the bindings file. Tried: …', 'no/such.node')).toMatch(
      /^MAE_NOT_BUILT .*MAE_ADDON names .*\/no\/such\.node, where there is no file/,
    );
  });
});
