/**
 * Every row of the op table, alone: against float64 loops (test/reference), its gradient against finite differences of them, and the promises
 * about bits. With MAE_DEVICE=cuda the same cases run on a GPU; MAE_CPU chooses an instruction set.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { openDevice, type OpenDevice } from '../lib/graph/device';
import type { OpRow } from '../lib/graph/op';
import { ops, type OpName } from '../lib/graph/ops';
import { native } from '../lib/native';
import { cases, cudaCases, learnable, randomCases, type OpCase } from './cases';
import { Draw } from './helpers/draw';
import { alongDirection, deviceGradients, gradientProblem, numericGradients, slopeAlong, type Gradients } from './helpers/gradients';
import { relativeError } from './helpers/parity';
import { compare, float32Tolerance, runOp, runReference, testDevices, type DeviceResults, type ReferenceResults } from './helpers/runOp';
import { references, type Value } from './reference';
import { erfc } from './reference/math';

const rows = Object.entries(ops) as [OpName, OpRow][];
const titled = cases.map((test): [string, OpCase] => [`${test.op}: ${test.title}`, test]);
const differentiable = titled.filter(([, test]) => learnable[test.op] && test.training);

const namesOf = new Map<OpCase, ReadonlySet<string>>();
function operandNames(test: OpCase): ReadonlySet<string> {
  const names = namesOf.get(test) ?? new Set(Object.keys(test.draw(1).operands));
  namesOf.set(test, names);
  return names;
}

/** Names of the results whose bits differ. */
const differing = (a: DeviceResults, b: DeviceResults): string[] =>
  [...a.outputs].filter(([name, { bytes }]) => Buffer.compare(bytes, b.outputs.get(name)!.bytes) !== 0).map(([name]) => name);

describe('coverage', () => {
  test('every row has cases, in both dtypes where it has a compute dtype, and a float64 reference', () => {
    const withCase = new Set(cases.map(({ op }) => op));
    expect(rows.map(([op]) => op).filter((op) => !withCase.has(op) || !references[op])).toEqual([]);
    const integersOrFloat32 = ['random_mask', 'grad_norm'];
    const withBf16 = new Set(cases.filter(({ compute }) => compute === 'bf16').map(({ op }) => op));
    expect(rows.map(([op]) => op).filter((op) => !withBf16.has(op))).toEqual(integersOrFloat32);
  });

  test('every operand of every row is present in one case; every optional one is absent in another', () => {
    const never: string[] = [];
    for (const [op, { inputs }] of rows) {
      const used = cases.filter((test) => test.op === op).map((test) => [...operandNames(test)]);
      for (const declared of inputs) {
        const name = declared.replace('?', '');
        if (!used.some((names) => names.includes(name))) never.push(`${op} with ${name}`);
        if (name !== declared && used.every((names) => names.includes(name))) never.push(`${op} without ${name}`);
      }
    }
    expect(never).toEqual([]);
  });

  test('every row with a gradient rule is checked against finite differences, with every operand that may have a gradient', () => {
    expect(rows.filter(([, row]) => row.grad !== 'none').map(([op]) => op)).toEqual(rows.map(([op]) => op).filter((op) => learnable[op]));
    const never = Object.entries(learnable).flatMap(([op, { leaves }]) =>
      Object.keys(leaves)
        .filter((leaf) => !differentiable.some(([, test]) => test.op === op && operandNames(test).has(leaf)))
        .map((leaf) => `${op}.${leaf}`),
    );
    expect(never).toEqual([]);
  });

  test('titles are different', () => {
    expect(new Set(titled.map(([title]) => title)).size).toBe(titled.length);
  });
});

describe('the reference', () => {
  test('erfc: values of Abramowitz & Stegun (table 7.1) and of the far tail', () => {
    const table: [number, number][] = [
      [0, 1],
      [0.5, 0.4795001221869535],
      [1, 0.15729920705028513],
      [2, 0.004677734981047266],
      [3, 2.2090496998585445e-5],
      [5, 1.5374597944280349e-12],
      [-1, 1.8427007929497148],
    ];
    for (const [x, value] of table) expect(Math.abs(erfc(x) / value - 1)).toBeLessThan(1e-13);
  });

  /** Backward rows against finite differences of the forward rows: ⟨u, J·v⟩ = ⟨Jᵀ·u, v⟩. */
  const pairs: {
    back: OpName;
    forward: OpName;
    output: string;
    gradient: string;
    of: Record<string, string>;
    wants: Record<string, string>;
  }[] = [
    { back: 'linear_grad_input', forward: 'linear', output: 'y', gradient: 'dy', of: { w: 'w' }, wants: { x: 'dx' } },
    { back: 'linear_grad_weight', forward: 'linear', output: 'y', gradient: 'dy', of: { x: 'x' }, wants: { w: 'dw', bias: 'dbias' } },
    {
      back: 'layer_norm_grad',
      forward: 'layer_norm',
      output: 'y',
      gradient: 'dy',
      of: { x: 'x', weight: 'weight' },
      wants: { x: 'dx', weight: 'dweight', bias: 'dbias' },
    },
    { back: 'attention_grad', forward: 'attention', output: 'out', gradient: 'dout', of: { qkv: 'qkv' }, wants: { qkv: 'dqkv' } },
    {
      back: 'unshuffle_grad',
      forward: 'unshuffle',
      output: 'y',
      gradient: 'dy',
      of: { ids: 'ids' },
      wants: { x: 'dx', mask_token: 'dmask_token' },
    },
    { back: 'select_tokens_grad', forward: 'select_tokens', output: 'y', gradient: 'dy', of: { restore: 'restore' }, wants: { x: 'dx' } },
    {
      back: 'patch_embed_grad',
      forward: 'patch_embed',
      output: 'tokens',
      gradient: 'dtokens',
      of: {},
      wants: { w: 'dw', bias: 'dbias', cls: 'dcls' },
    },
  ];
  test.each(pairs)('$back is the transpose of the forward row', ({ back, forward, output, gradient, of, wants }) => {
    const exactly = (v: Float64Array): Float64Array => v;
    const test =
      cases.find(({ op, compute, training }) => op === forward && compute === 'f32' && training && op !== 'linear') ??
      cases.find(({ title }) => title === '[2,5]x7 → 9 f32')!;
    const drawn = test.draw(3);
    const operands: Record<string, Value> = Object.fromEntries(
      Object.entries(drawn.operands).map(([name, { shape, data }]) => [name, { shape, values: Float64Array.from(data) }]),
    );
    const y = references[forward](operands, test.attributes, exactly);
    const d = new Draw(4, 'f32');
    const u: Value = { shape: y[output].shape, values: Float64Array.from(d.centred(y[output].values.length)) };
    const v = new Map(Object.keys(wants).map((name) => [name, Float64Array.from(d.centred(operands[name].values.length))]));
    const numeric = slopeAlong(operands, v, (at) =>
      references[forward](at, test.attributes, exactly)[output].values.reduce((sum, x, i) => sum + x * u.values[i], 0),
    );
    const saved = { mean: y.mean, rstd: y.rstd, patches: y.patches };
    const backOperands = { ...saved, ...Object.fromEntries(Object.entries(of).map(([to, from]) => [to, operands[from]])), [gradient]: u };
    const attributes = { ...test.attributes, visible: (operands.x?.shape[1] ?? 0) - 1, patches: (operands.x?.shape[1] ?? 0) - 1 };
    const results = references[back](backOperands, attributes, exactly);
    const analytic = Object.entries(wants).reduce(
      (sum, [name, dName]) => sum + v.get(name)!.reduce((s, x, i) => s + x * results[dName].values[i], 0),
      0,
    );
    expect(Math.abs(numeric / analytic - 1)).toBeLessThan(1e-8);
  });
});

/** Runs a case; its results must be the reference's, whatever memory they go to, and add up over micro-batches. */
async function check(device: OpenDevice, test: OpCase): Promise<void> {
  const drawn = test.draw(1);
  const first = runReference(test, drawn);
  const faults = (results: DeviceResults, { exact, naive }: ReferenceResults): string[] =>
    [...results.outputs].flatMap(([name, got]) => {
      const fault = compare(got, exact[name], naive[name], float32Tolerance(test.terms), test.exact.includes(name));
      return fault ? [`${test.op}, ${test.title}: ${name}: ${fault}`] : [];
    });
  const run = await runOp(device, test, drawn);
  expect(faults(run, first)).toEqual([]);

  // Given memory instead of the arena: the same bits, and nothing written beside them.
  const guarded = await runOp(device, test, drawn, { guarded: true });
  expect(differing(guarded, run)).toEqual([]);
  expect(guarded.guardsIntact).toBe(true);

  // A second micro-batch adds to gradients and loss; everything else is the second one's.
  const adding = new Set(Object.entries(drawn.into ?? {}).flatMap(([name, { adds }]) => (adds ? [name] : [])));
  if ((ops[test.op] as OpRow).root) adding.add('loss');
  if (adding.size === 0) return;
  const then = test.draw(2);
  const second = runReference(test, then);
  const added = (a: Record<string, Value>, b: Record<string, Value>): Record<string, Value> =>
    Object.fromEntries(
      Object.entries(b).map(([name, { shape, values }]) => [
        name,
        { shape, values: adding.has(name) ? values.map((v, i) => v + a[name].values[i]) : values },
      ]),
    );
  const exact = added(first.exact, second.exact);
  const naive = second.naive === second.exact ? exact : added(first.naive, second.naive);
  expect(faults(await runOp(device, test, drawn, { then }), { exact, naive })).toEqual([]);
}

for (const { id, skip } of testDevices()) {
  if (skip) {
    describe(`rows on ${id}`, () => test.skip(skip, () => undefined));
    continue;
  }
  const device = openDevice(id);

  describe(`rows on ${id}`, () => {
    test.each(titled)('%s', (_, test) => check(device, test));

    if (device.kind === 'cuda') {
      test.each(cudaCases.map((test): [string, OpCase] => [`${test.op}: ${test.title}`, test]))('%s', (_, test) => check(device, test));
    }

    test('random sizes', async () => {
      for (let seed = 1; seed <= 6; seed++) for (const test of randomCases(seed)) await check(device, test);
    });
  });

  describe(`gradients through the tape on ${id}`, () => {
    /** Elements up to which the numeric gradient is taken one by one; beyond it, along a random direction. */
    const SMALL = 400;
    /**
     * fp32: forward, loss and backward kernels in a row, each within the tolerance. bf16: four roundings of at most 2⁻⁹ that all point
     * the same way (result, its gradient, the operand's gradient, an intermediate); a missing term is a hundred times that.
     */
    const allowed = (test: OpCase): number => (test.compute === 'f32' ? 3 * float32Tolerance(test.terms) : 2 ** -7);

    test.each(differentiable)('%s', async (_, test) => {
      const problem = gradientProblem(test, 5);
      const got = await deviceGradients(device, problem);
      const count = [...got.values()].reduce((sum, { length }) => sum + length, 0);
      if (count <= SMALL) {
        const errors = [...numericGradients(problem)].map(([name, want]) => [name, relativeError(got.get(name)!, want)] as const);
        expect(errors.filter(([, error]) => !(error <= allowed(test)))).toEqual([]);
      }
      const d = new Draw(6, 'f32');
      const direction: Gradients = new Map([...got].map(([name, { length }]) => [name, Float64Array.from(d.centred(length))]));
      let [along, square] = [0, 0];
      for (const [name, gradient] of got) {
        gradient.forEach((g, i) => {
          along += g * direction.get(name)![i];
          square += g * g;
        });
      }
      // An error e of the gradient shows as ⟨e, v⟩, of standard deviation ‖e‖.
      expect(Math.abs(along - alongDirection(problem, direction)) / Math.sqrt(square)).toBeLessThanOrEqual(4 * allowed(test));
    });
  });
}

const cpu = testDevices().some(({ id }) => id === 'cpu') ? describe : describe.skip;
cpu('bits on the CPU', () => {
  test('any number of threads gives the same bits', async () => {
    try {
      for (const [title, test] of titled) {
        const drawn = test.draw(1);
        const results: DeviceResults[] = [];
        for (const threads of [1, 2, 3, 64]) {
          expect(native().setThreads(threads)).toBe(threads);
          results.push(await runOp(openDevice('cpu'), test, drawn));
        }
        const [one, ...more] = results;
        expect([title, ...more.map((other) => differing(one, other))]).toEqual([title, ...more.map(() => [])]);
      }
    } finally {
      native().setThreads(0); // one per core again
    }
  });
});

/** In the order of what they need: a processor that has one has those before it. */
const instructionSets = ['portable', 'avx2', 'avx512', 'avx512bf16'];

cpu('rows with the other instruction sets', () => {
  const best = native()
    .devices()
    .find(({ id }) => id === 'cpu')!
    .detail.split(',')[0];
  const running = process.env.MAE_CPU || best;
  for (const isa of instructionSets) {
    if (isa === running) test.skip(`${isa}: all of the above ran with it`, () => undefined);
    else if (process.env.MAE_CPU) test.skip(`${isa}: MAE_CPU=${process.env.MAE_CPU} asks for another one`, () => undefined);
    else if (instructionSets.indexOf(isa) > instructionSets.indexOf(best))
      test.skip(`${isa}: this processor has not got it`, () => undefined);
    else {
      test(isa, () => {
        const jest = require.resolve('jest/bin/jest');
        const { stderr, status } = spawnSync(
          process.execPath,
          [jest, '--runTestsByPath', __filename, '--testNamePattern', '^rows on cpu'],
          {
            cwd: path.resolve(__dirname, '..'),
            env: { ...process.env, MAE_CPU: isa, MAE_DEVICE: 'cpu' },
            encoding: 'utf8',
          },
        );
        if (status !== 0) throw new Error(`MAE_CPU=${isa}:\n${stderr.slice(-8000)}`);
        expect(stderr).toMatch(new RegExp(`Tests: .* ${titled.length + 1} passed`));
      });
    }
  }
});
