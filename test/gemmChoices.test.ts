/** The choices of matrix products that a run on CUDA keeps: what is stored, and what is taken over where. No GPU is needed. */
import type { OpenDevice } from '../lib/graph/device';
import { gemmChoices } from '../lib/graph/gemmChoices';
import { native, type NativeAddon } from '../lib/native';
import { MaskedAutoencoder } from '../lib/nn/maskedAutoencoder';
import { errorOf } from './helpers/errors';
import { tinySizes } from './helpers/tinyModel';

type Module = typeof import('../lib/graph/gemmChoices');

const gpu = (name: string): OpenDevice => ({
  id: 'cuda:0',
  kind: 'cuda',
  handle: { name } as OpenDevice['handle'],
  defaultPrecision: 'bf16',
});
const cpu: OpenDevice = { ...gpu('cpu (portable, 2 threads)'), id: 'cpu', kind: 'cpu' };

/** lib/graph/gemmChoices.ts over an addon that holds `table` for a H200 and has the library `version`, or none. */
function over(table: number[], version: string | undefined): { choices: Module; added: [gpu: string, lines: number[]][] } {
  const added: [string, number[]][] = [];
  const addon: Partial<NativeAddon> = {
    gemmChoices: (name) => Int32Array.from(name === 'NVIDIA H200' ? table : []),
    addGemmChoices: (name, lines) => void added.push([name, [...lines]]),
    cublasLt: () =>
      version ? { found: true, description: `${version} (libcublasLt.so)` } : { found: false, description: 'not found (…)' },
  };
  let choices: Module | undefined;
  jest.isolateModules(() => {
    jest.doMock('../lib/native', () => ({ native: () => addon }));
    // eslint-disable-next-line @typescript-eslint/no-require-imports
    choices = require('../lib/graph/gemmChoices') as Module;
  });
  jest.dontMock('../lib/native');
  return { choices: choices!, added };
}

test('what one process stored another takes over, whatever number the GPU has', () => {
  const table = [0, 1, 1, 3, -5, 2 ** 31 - 1];
  const stored = over(table, '13.1.0').choices.gemmChoices(gpu('cuda:1 NVIDIA H200'))!;
  expect(stored).toMatchObject({ gpu: 'NVIDIA H200', cublasLt: '13.1.0' });
  const { choices, added } = over([], '13.1.0');
  expect(choices.restoreGemmChoices(gpu('cuda:0 NVIDIA H200'), JSON.parse(JSON.stringify(stored)) as typeof stored)).toBeUndefined();
  expect(added).toEqual([['NVIDIA H200', table]]);
});

test.each([
  ['another GPU', 'cuda:0 NVIDIA H100 80GB HBM3', '13.1.0', 'they are of NVIDIA H200, this is NVIDIA H100 80GB HBM3'],
  ['another library', 'cuda:0 NVIDIA H200', '12.9.1', 'they were made with cuBLASLt 13.1.0, here it is 12.9.1'],
  ['no library', 'cuda:0 NVIDIA H200', undefined, 'they were made with cuBLASLt 13.1.0, here it is none'],
])('%s: ignored, and why', (_, name, version, why) => {
  const stored = over([1, 2, 3], '13.1.0').choices.gemmChoices(gpu('cuda:0 NVIDIA H200'))!;
  const { choices, added } = over([], version);
  expect(choices.restoreGemmChoices(gpu(name), stored)).toBe(why);
  expect(added).toEqual([]);
});

test('the CPU has none, and takes none', () => {
  const { choices, added } = over([1], '13.1.0');
  expect(choices.gemmChoices(cpu)).toBeUndefined();
  expect(choices.restoreGemmChoices(cpu, { gpu: 'NVIDIA H200', cublasLt: 'none', table: 'AQAAAA==' })).toMatch(/this run is on the CPU/);
  expect(added).toEqual([]);
});

const addon = native();
(addon.gemmChoices ? describe : describe.skip)('the table of a build with CUDA', () => {
  // [layout, operands, dtype of c, epilogue, m, n, k, implementation, 16 numbers of the library]
  const line = (m: number, implementation: number): number[] => [0, 1, 0, 1, m, 768, 768, implementation, ...Array<number>(16).fill(m)];

  test('lines come back sorted; a line of the same product replaces the one before; other models of GPU have their own', () => {
    addon.addGemmChoices!('one', Int32Array.from([...line(256, 8), ...line(128, 4)]));
    addon.addGemmChoices!('one', Int32Array.from(line(256, 5)));
    addon.addGemmChoices!('other', Int32Array.from(line(256, 2)));
    expect([...addon.gemmChoices!('one')]).toEqual([...line(128, 4), ...line(256, 5)]);
    expect([...addon.gemmChoices!('other')]).toEqual(line(256, 2));
    expect([...addon.gemmChoices!('third')]).toEqual([]);
  });

  // By MAE_GEMM=rule nothing is chosen.
  const chooses = process.env.MAE_DEVICE?.startsWith('cuda') && process.env.MAE_GEMM !== 'rule';
  (chooses ? test : test.skip)('what a training step chose is in the table of its GPU', async () => {
    using model = new MaskedAutoencoder({ ...tinySizes, device: process.env.MAE_DEVICE });
    const bytes = (): number => Buffer.from(gemmChoices(model.device)!.table, 'base64').length;
    expect(bytes()).toBe(0);
    await (
      await model.trainStep({ batchSize: 1 }).run({ images: new Uint8Array(768) }, { lr: 0 })
    ).loss;
    expect(bytes()).toBeGreaterThan(0);
  });

  test('what is no table is refused', async () => {
    expect(await errorOf(() => addon.addGemmChoices!('one', new Int32Array(23)))).toMatch(
      /^MAE_CONFIG .*multiple of 24 integers and have 23.*state\.json/,
    );
    expect(await errorOf(() => addon.addGemmChoices!('one', Int32Array.from(line(1, 10))))).toMatch(/^MAE_CONFIG .*implementation 10/);
  });

  test('cuBLASLt: found with its version, or where it was looked for', () => {
    const { found, description } = addon.cublasLt!();
    expect(description).toMatch(found ? /^\d+\.\d+\.\d+ \(.*libcublasLt/ : /^not found \(.*MAE_CUBLASLT/);
  });
});
