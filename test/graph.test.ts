/** The graph: what a tape refuses, gradients that meet, the planner's promises, programs and their memory; and a model that is no MAE. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import * as graph from '../lib/graph';
import { Tape, type Launch, type Trace } from '../lib/graph/tape';
import { layoutOf } from '../lib/graph/layout';
import { align, plan } from '../lib/graph/plan';
import { bytesOf, type Constant, type DType, type Parameter, type Shape, size, type Tensor } from '../lib/graph/tensor';
import { native } from '../lib/native';
import { MaskedAutoencoder } from '../lib/nn/maskedAutoencoder';
import { Draw } from './helpers/draw';
import { errorOf } from './helpers/errors';
import { slopes } from './helpers/gradients';
import { relativeError } from './helpers/parity';
import { float32Tolerance } from './helpers/runOp';
import { references, type Value } from './reference';
import { product } from './reference/linear';

/** Collects garbage and lets finalizers run. */
async function collect(): Promise<void> {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  await new Promise((resolve) => setTimeout(resolve, 10));
}

const info = { compute: 'f32', device: 'cpu', training: true } as const;
const { Program, Store, openDevice } = graph;

function parameter(name: string, shape: Shape, seed = 1): Parameter {
  const values = new Draw(seed, 'f32').f32(shape, 0.5).data;
  return { name, shape, init: (to) => to.set(values) };
}

function storeOf(parameters: readonly Parameter[], constants: readonly Constant[] = []): graph.Store {
  const { id, handle } = openDevice('cpu');
  return new Store(id, handle, 'f32', parameters, constants);
}

/** A loss of a result [batch, count, width]: its squared distance from the input `target`. */
function squaredError(t: Tape, pred: Tensor): Tensor {
  const [batch, count, width] = pred.shape;
  const one = t.input('one', [width], 'f32');
  const zero = t.input('zero', [width], 'f32');
  const images = t.input('target', [batch, count, 1, width], 'f32');
  const control = t.input('control', [16], 'f32');
  const attributes = { patch: 1, first: 0, counted: batch * count, normPix: false };
  return t.call('masked_mse', { pred, images, scale: one, shift: zero, control }, attributes).loss;
}

const lossInputs = (target: Float32Array, width: number): Record<string, ArrayBufferView> => ({
  target,
  one: new Float32Array(width).fill(1),
  zero: new Float32Array(width),
  control: graph.encodeControl({}),
});

describe('what a tape refuses', () => {
  const tape = (): Tape => new Tape(info);
  const f32 = (t: Tape, ...shape: number[]): Tensor => t.input('it', shape, 'f32');
  const typed = (t: Tape, dtype: DType, ...shape: number[]): Tensor => t.input('it', shape, dtype);
  const picture = (t: Tape, height = 8): Record<string, Tensor> => ({
    images: typed(t, 'u8', 2, height, 8, 3),
    scale: f32(t, 3),
    shift: f32(t, 3),
  });
  const embedding = (t: Tape): Record<string, Tensor> => ({ ...picture(t), w: f32(t, 16, 48), bias: f32(t, 16), cls: f32(t, 16) });
  const loss = (t: Tape): Record<string, Tensor> => ({ ...picture(t), control: f32(t, 16), pred: f32(t, 2, 4, 48) });

  const calls: [string, (t: Tape) => unknown, string][] = [
    ['unknown op', (t) => t.call('lineer', {}), "MAE_GRAPH .*no op 'lineer'.*linear"],
    ['missing operand', (t) => t.call('linear', { x: f32(t, 2, 3) }), "MAE_GRAPH linear: operand 'w' is missing"],
    [
      'operand of another name',
      (t) => t.call('add', { a: f32(t, 1), b: f32(t, 1), c: f32(t, 1) }),
      "MAE_GRAPH add: .*no operand 'c'.*a, b",
    ],
    [
      'linear: columns',
      (t) => t.call('linear', { x: f32(t, 2, 3), w: f32(t, 5, 4) }),
      'MAE_SHAPE linear: .*4 columns of w.*\\[2, 3\\].*\\[5, 4\\]',
    ],
    ['linear: matrix', (t) => t.call('linear', { x: f32(t, 2, 3), w: f32(t, 3) }), 'MAE_SHAPE linear: w must be \\[n, k\\]'],
    [
      'linear: bias',
      (t) => t.call('linear', { x: f32(t, 2, 3), w: f32(t, 5, 3), bias: f32(t, 4) }),
      'MAE_SHAPE linear: bias must be \\[5\\]',
    ],
    [
      'linear: residual',
      (t) => t.call('linear', { x: f32(t, 2, 3), w: f32(t, 5, 3), residual: f32(t, 2, 4) }),
      'MAE_SHAPE linear: residual must be \\[2, 5\\]',
    ],
    [
      'linear: dtypes',
      (t) => t.call('linear', { x: f32(t, 2, 3), w: typed(t, 'bf16', 5, 3) }),
      'MAE_SHAPE linear: x and w must have one dtype',
    ],
    [
      'mlp',
      (t) => t.call('mlp', { x: f32(t, 2, 3), w1: f32(t, 5, 3), b1: f32(t, 5), w2: f32(t, 3, 4), b2: f32(t, 3), residual: f32(t, 2, 3) }),
      'MAE_SHAPE mlp: w2 must be \\[any, 5\\]',
    ],
    [
      'linear_grad_input',
      (t) => t.call('linear_grad_input', { dy: f32(t, 2, 5), w: f32(t, 5, 3), pre: f32(t, 2, 4) }),
      'MAE_SHAPE .*pre must be \\[2, 3\\]',
    ],
    [
      'linear_grad_weight',
      (t) => t.call('linear_grad_weight', { x: f32(t, 2, 5), dy: typed(t, 'bf16', 2, 5) }),
      'MAE_SHAPE .*dy must be f32',
    ],
    [
      'layer_norm',
      (t) => t.call('layer_norm', { x: f32(t, 2, 5), weight: f32(t, 4), bias: f32(t, 5) }),
      'MAE_SHAPE layer_norm: weight must be \\[5\\]',
    ],
    [
      'layer_norm_grad',
      (t) => t.call('layer_norm_grad', { x: f32(t, 2, 5), dy: f32(t, 2, 4), weight: f32(t, 5), mean: f32(t, 2), rstd: f32(t, 2) }),
      'MAE_SHAPE layer_norm_grad: dy must be \\[2, 5\\]',
    ],
    ['attention', (t) => t.call('attention', { qkv: f32(t, 2, 5, 20) }, { heads: 2 }), 'MAE_SHAPE attention: qkv must be .*3·2 heads'],
    [
      'unshuffle without ids',
      (t) => t.call('unshuffle', { x: f32(t, 2, 3, 8), pos: f32(t, 10, 8), restore: typed(t, 'i32', 2, 9) }),
      'MAE_SHAPE unshuffle: .*ids and a mask_token',
    ],
    ['unshuffle of some', (t) => t.call('unshuffle', { x: f32(t, 2, 3, 8), pos: f32(t, 10, 8) }), 'MAE_SHAPE unshuffle: .*all 9 patches'],
    [
      'select_tokens',
      (t) => t.call('select_tokens', { x: f32(t, 2, 10, 8) }, { first: 3, count: 7 }),
      'MAE_SHAPE select_tokens: patches 3 … 10 of 9',
    ],
    [
      'random_mask: none kept',
      (t) => t.call('random_mask', { control: f32(t, 16), indices: typed(t, 'i32', 2) }, { patches: 4, visible: 0, seed: 0 }),
      'MAE_SHAPE random_mask: .*between 1 and all 4.*mask ratio',
    ],
    [
      'random_mask: noise',
      (t) =>
        t.call(
          'random_mask',
          { control: f32(t, 16), indices: typed(t, 'i32', 2), noise: f32(t, 2, 5) },
          { patches: 4, visible: 1, seed: 0 },
        ),
      'MAE_SHAPE random_mask: noise must be \\[2, 4\\]',
    ],
    [
      'patch_embed: size',
      (t) => t.call('patch_embed', { ...embedding(t), ...picture(t, 9) }, { patch: 4, visible: 4 }),
      'MAE_SHAPE patch_embed: .*9x8 .*4x4',
    ],
    [
      'patch_embed: w',
      (t) => t.call('patch_embed', { ...embedding(t), w: f32(t, 16, 47) }, { patch: 4, visible: 4 }),
      'MAE_SHAPE patch_embed: w must be \\[any, 48\\]',
    ],
    [
      'patch_embed: pos',
      (t) => t.call('patch_embed', { ...embedding(t), pos: f32(t, 4, 16) }, { patch: 4, visible: 4 }),
      'MAE_SHAPE patch_embed: pos must be \\[5, 16\\]',
    ],
    [
      'patch_embed: dtype',
      (t) => t.call('patch_embed', { ...embedding(t), images: typed(t, 'i32', 2, 8, 8, 3) }, { patch: 4, visible: 4 }),
      'MAE_SHAPE patch_embed: images must be u8 or f32',
    ],
    [
      'masked_mse: pred',
      (t) => t.call('masked_mse', { ...loss(t), pred: f32(t, 2, 4, 47) }, { patch: 4 }),
      'MAE_SHAPE masked_mse: pred must be \\[2, any, 48\\]',
    ],
    [
      'masked_mse: mask',
      (t) => t.call('masked_mse', { ...loss(t), mask: f32(t, 2, 5) }, { patch: 4 }),
      'MAE_SHAPE masked_mse: mask must be \\[2, 4\\]',
    ],
    [
      'add',
      (t) => t.call('add', { a: f32(t, 2), b: typed(t, 'bf16', 2) }),
      'MAE_SHAPE add: a and b must be alike, got f32 \\[2\\].*bf16 \\[2\\]',
    ],
    [
      'a result into other memory',
      (t) => t.call('add', { a: f32(t, 2), b: f32(t, 2) }, {}, { y: f32(t, 3) }),
      'MAE_SHAPE add: y is f32 \\[2\\], but goes into f32 \\[3\\]',
    ],
    ['view', (t) => t.view(f32(t, 2, 3), [5]), 'MAE_SHAPE view: .*\\[2, 3\\].*\\[5\\]'],
  ];
  test.each(calls)('%s', async (_, call, message) => {
    expect(await errorOf(() => call(tape()))).toMatch(new RegExp(`^${message}`));
  });

  test('a loss that is no root', async () => {
    const t = tape();
    const x = f32(t, 1, 2, 3);
    const y = t.call('linear', { x, w: t.weight(parameter('w', [4, 3])) }).y;
    expect(await errorOf(() => t.backward(y))).toMatch(/^MAE_GRAPH backward: .*masked_mse.*linear\.y of linear/);
    expect(await errorOf(() => t.backward(x))).toMatch(/^MAE_GRAPH backward: .*masked_mse.*got it$/);
    const loss = squaredError(t, y);
    const sum = t.call('add', { a: loss, b: loss }).y;
    expect(await errorOf(() => t.backward(sum))).toMatch(/^MAE_GRAPH backward: .*add\.y of add/);
  });

  test('a row without gradient between a parameter and the loss', async () => {
    const t = tape();
    const y = t.scope('head', () => t.call('linear_grad_input', { dy: f32(t, 1, 2, 4), w: t.weight(parameter('w', [4, 3])) }).dx);
    expect(await errorOf(() => t.backward(squaredError(t, y)))).toMatch(
      /^MAE_GRAPH backward: 'linear_grad_input' \(head\.linear_grad_input\) has no gradient/,
    );
  });

  test('a parameter where a row gives no gradient to one: as an activation, or as a fixed table', async () => {
    const t = tape();
    const p = t.parameter(parameter('p', [1, 2, 3]));
    expect(await errorOf(() => t.backward(squaredError(t, t.call('add', { a: f32(t, 1, 2, 3), b: p }).y)))).toMatch(
      /^MAE_GRAPH backward: 'add' gives no gradient .*'b' \(p\)/,
    );
    const learnt = tape();
    const pos = learnt.parameter(parameter('pos', [4, 8]));
    const y = learnt.call('unshuffle', { x: f32(learnt, 1, 4, 8), pos }).y;
    expect(await errorOf(() => learnt.backward(squaredError(learnt, y)))).toMatch(
      /^MAE_GRAPH backward: 'unshuffle' gives no gradient .*'pos' \(pos\)/,
    );
  });

  test('a weight that is no parameter', async () => {
    const t = tape();
    const h = t.call('linear', { x: f32(t, 1, 2, 3), w: t.weight(parameter('w', [4, 3])) }).y;
    const y = t.call('linear', { x: h, w: f32(t, 5, 4) }).y;
    expect(await errorOf(() => t.backward(squaredError(t, y)))).toMatch(/^MAE_GRAPH linear: 'w' must be a parameter/);
  });

  test('operands and dims that a kernel has not got', async () => {
    const store = storeOf([]);
    const launch = { kernel: 'add', operands: {}, accumulate: {}, dims: { count: 1 }, reals: {}, label: 'here', inPlace: [], prunable: [] };
    const made = (change: Partial<Launch>): unknown => {
      const trace: Trace = { info, launches: [{ ...launch, ...change }], ops: [], segments: { run: [0, 1] }, inputs: [], kept: [] };
      return new Program(trace, store);
    };
    expect(await errorOf(() => made({ kernel: 'adder' }))).toMatch(/^MAE_GRAPH .*no kernel 'adder'/);
    expect(await errorOf(() => made({ operands: { z: null } }))).toMatch(/^MAE_GRAPH here: kernel 'add' has no operand z/);
    expect(await errorOf(() => made({ dims: { size: 1 } }))).toMatch(/^MAE_GRAPH here: kernel 'add' has no dim size/);
    expect(await errorOf(() => made({ dims: {} }))).toMatch(/^MAE_GRAPH here: kernel 'add' needs the dim count/);
    store.dispose();
  });
});

describe('gradients that meet', () => {
  const [width, rows] = [6, 4];
  const x = new Draw(3, 'f32').f32([1, rows, width]);
  const target = new Draw(4, 'f32').f32([1, rows, width]);
  const reals = (values: ArrayLike<number>, shape: Shape): Value => ({ shape, values: Float64Array.from(values) });
  const meanSquare = (y: Value): number => y.values.reduce((sum, v, i) => sum + (v - target.data[i]) ** 2, 0) / width / rows;

  /** Gradients of every parameter from one run, against differences of the float64 loss, taken for each value. */
  async function check(
    parameters: readonly Parameter[],
    model: (t: Tape, x: Tensor) => Tensor,
    loss: (p: Readonly<Record<string, Value>>) => number,
    microBatches = 1,
  ): Promise<void> {
    const t = new Tape({ ...info, recompute: true });
    t.backward(t.keep(squaredError(t, model(t, t.input('x', x.shape, 'f32')))));
    const store = storeOf(parameters);
    store.prepareTraining();
    store.buffer('gradients').fill(0xff);
    const program = new Program(t.finish(), store, { poison: true, microBatches });
    const inputs = Array.from({ length: microBatches }, () => ({ x: x.data, ...lossInputs(target.data as Float32Array, width) }));
    await (
      await program.run(
        inputs,
        inputs.map((_, microBatch) => ({ segment: 'run', microBatch, accumulate: microBatch > 0 })),
      )
    ).results;
    const values: Record<string, Value> = {};
    for (const p of parameters) values[p.name] = reals(await store.read(p), p.shape);
    for (const p of parameters) {
      const numeric = slopes(values, p.name, loss);
      const got = await store.read(p, 'gradients');
      // About eight kernels in a row, sums of up to 24 terms.
      const error = relativeError(
        got,
        numeric.map((g) => g * microBatches),
      );
      if (!(error < 8 * float32Tolerance(24))) throw new Error(`the gradient of ${p.name} is wrong by ${error}`);
    }
    program.dispose();
    store.dispose();
  }

  const w = parameter('w', [width, width], 5);
  const b = parameter('b', [width], 6);
  const input = reals(x.data, x.shape);

  test.each([1, 3])('one weight used twice, %i micro-batches', async (microBatches) => {
    await check(
      [w, b],
      (t, h) => {
        const layer = { w: t.weight(w), bias: t.parameter(b) };
        return t.call('linear', { x: t.call('linear', { x: h, ...layer }).y, ...layer }).y;
      },
      (p) => meanSquare(product(product(input, p.w, p.b), p.w, p.b)),
      microBatches,
    );
  });

  test.each([
    ['once', (_: Tape, body: () => Tensor) => body()],
    ['and again for the backward pass', (t: Tape, body: () => Tensor) => t.recompute(body)],
  ])('a tensor read by a norm, two layers, an addition and as a residual, computed %s', async (_, part) => {
    const parameters = [
      w,
      b,
      parameter('g', [width], 7),
      parameter('c', [width], 8),
      parameter('w2', [width, width], 9),
      parameter('w3', [4 * width, width], 10),
      parameter('b3', [4 * width], 11),
      parameter('w4', [width, 4 * width], 12),
    ];
    const [, , g, c, w2, w3, b3, w4] = parameters;
    await check(
      parameters,
      (t, in_) => {
        let [h, n, s] = [in_, in_, in_];
        part(t, () => {
          h = t.call('linear', { x: in_, w: t.weight(w), bias: t.parameter(b) }).y;
          n = t.call('layer_norm', { x: h, weight: t.parameter(g), bias: t.parameter(c) }, { eps: 1e-6 }).y;
          return (s = t.call('add', { a: h, b: n }).y);
        });
        return part(t, () => {
          const l = t.call('linear', { x: h, w: t.weight(w2), residual: h }).y;
          const m = t.call('mlp', { x: n, w1: t.weight(w3), b1: t.parameter(b3), w2: t.weight(w4), b2: t.parameter(b), residual: s }).y;
          return t.call('add', { a: l, b: m }).y;
        });
      },
      (p) => {
        const exactly = (v: Float64Array): Float64Array => v;
        const h = product(input, p.w, p.b);
        const n = references.layer_norm({ x: h, weight: p.g, bias: p.c }, { eps: 1e-6 }, exactly).y;
        const s = references.add({ a: h, b: n }, {}, exactly).y;
        const l = references.linear({ x: h, w: p.w2, residual: h }, {}, exactly).y;
        const m = references.mlp({ x: n, w1: p.w3, b1: p.b3, w2: p.w4, b2: p.b, residual: s }, {}, exactly).y;
        return meanSquare(references.add({ a: l, b: m }, {}, exactly).y);
      },
    );
  });

  test('what no parameter lies behind gets no gradient kernel; what no loss reads gets none either', () => {
    const t = new Tape(info);
    const h = t.input('x', [1, 2, 3], 'f32');
    const y = t.call('linear', { x: h, w: t.weight(parameter('w', [3, 3])) }).y;
    t.call('linear', { x: y, w: t.weight(parameter('unused', [3, 3])) });
    t.backward(squaredError(t, y));
    expect(t.finish().launches.map(({ kernel }) => kernel)).toEqual(['linear', 'linear', 'masked_mse', 'linear_grad_weight']);
  });
});

describe('the planner', () => {
  interface Lifetime {
    readonly tensor: Tensor;
    readonly first: number;
    readonly last: number;
  }

  function lifetimes(trace: Trace): Lifetime[] {
    const found = new Map<Tensor, Lifetime>();
    trace.launches.forEach(({ operands }, i) => {
      for (const tensor of Object.values(operands)) {
        if (tensor?.place.kind === 'arena') found.set(tensor, { tensor, first: found.get(tensor)?.first ?? i, last: i });
      }
    });
    return [...found.values()].map((life) => (trace.kept.includes(life.tensor) ? { ...life, first: 0, last: Infinity } : life));
  }

  /** Pairs of tensors that share memory while both are alive, in-place pairs of the launch where one ends and the other begins aside. */
  function conflicts(trace: Trace, offsets: ReadonlyMap<Tensor, number>): string[] {
    const allowed = (a: Lifetime, b: Lifetime): boolean =>
      a.last === b.first &&
      trace.launches[b.first].inPlace.some(([output, input]) => {
        const { operands } = trace.launches[b.first];
        const readOnce = Object.values(operands).filter((tensor) => tensor === a.tensor).length === 1;
        return operands[output] === b.tensor && operands[input] === a.tensor && readOnce && bytesOf(a.tensor) <= align(bytesOf(b.tensor));
      });
    const all = lifetimes(trace);
    return all.flatMap((a, i) =>
      all.slice(i + 1).flatMap((b) => {
        const together = a.first <= b.last && b.first <= a.last;
        const [from, to] = [offsets.get(a.tensor)!, offsets.get(b.tensor)!];
        const overlap = from < to + bytesOf(b.tensor) && to < from + bytesOf(a.tensor);
        return together && overlap && !allowed(a, b) && !allowed(b, a) ? [`${a.tensor.name} and ${b.tensor.name}`] : [];
      }),
    );
  }

  /** Launches that read some tensors that are there and write new ones, some in place; some tensors are kept. */
  const traces = fc
    .array(
      fc.record({
        reads: fc.array(fc.nat(1000), { maxLength: 4 }),
        writes: fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1, maxLength: 3 }),
        inPlace: fc.boolean(),
        keep: fc.integer({ min: 0, max: 9 }),
      }),
      { minLength: 1, maxLength: 40 },
    )
    .map((steps): Trace => {
      const tensors: Tensor[] = [];
      const kept: Tensor[] = [];
      const launches = steps.map(({ reads, writes, inPlace, keep }, i): Launch => {
        const read = tensors.length ? reads.map((which) => tensors[which % tensors.length]) : [];
        const written = writes.map((elements, j): Tensor => {
          const shape = inPlace && j === 0 && read[0] ? read[0].shape : [elements];
          return { id: tensors.length + j, shape, dtype: 'f32', place: { kind: 'arena' }, name: `${i}.${j}` };
        });
        tensors.push(...written);
        if (keep === 0) kept.push(written[0]);
        const operands = Object.fromEntries([
          ...read.map((t, j) => [`in${j}`, t] as const),
          ...written.map((t, j) => [`out${j}`, t] as const),
        ]);
        return {
          kernel: 'k',
          operands,
          accumulate: {},
          dims: {},
          reals: {},
          label: '',
          inPlace: inPlace && read[0] ? [['out0', 'in0']] : [],
          prunable: [],
        };
      });
      return { info, launches, ops: [], segments: { run: [0, launches.length] }, inputs: [], kept };
    });

  test('no two tensors that are alive together overlap, and all lie inside the arena', () => {
    fc.assert(
      fc.property(traces, fc.boolean(), (trace, share) => {
        const { offsets, arenaBytes, unplannedBytes } = plan(trace, share);
        expect(conflicts(trace, offsets)).toEqual([]);
        for (const { tensor } of lifetimes(trace)) {
          expect(offsets.get(tensor)! % 256).toBe(0);
          expect(offsets.get(tensor)! + bytesOf(tensor)).toBeLessThanOrEqual(arenaBytes);
        }
        expect(arenaBytes).toBeLessThanOrEqual(unplannedBytes);
      }),
      { numRuns: 300 },
    );
  });

  /** Tensors in lent memory that overlap a parameter's gradient once it is written, or the padding, which must stay zero. */
  function overwritten(trace: Trace, parameters: readonly Parameter[], lent: ReadonlyMap<Tensor, number>): string[] {
    const { offsets, count } = layoutOf(parameters);
    const firstWrite = new Map<Parameter, number>();
    trace.launches.forEach(({ operands }, i) => {
      for (const tensor of Object.values(operands)) {
        if (tensor?.place.kind !== 'gradient' || firstWrite.has(tensor.place.parameter)) continue;
        firstWrite.set(tensor.place.parameter, i);
      }
    });
    /** The launch before which each element may be lent. */
    const until = new Float64Array(count).fill(-1);
    for (const [p, offset] of offsets) until.fill(firstWrite.get(p) ?? -1, offset, offset + size(p.shape));
    const wrong = lifetimes(trace).filter(({ tensor, last }) => {
      const offset = lent.get(tensor);
      if (offset === undefined) return false;
      return (
        offset % 256 !== 0 ||
        offset + bytesOf(tensor) > count * 4 ||
        until.subarray(offset / 4, (offset + bytesOf(tensor)) / 4).some((i) => last >= i)
      );
    });
    return wrong.map(({ tensor }) => tensor.name);
  }

  test('memory of gradients is lent to tensors that are dead before the gradient is written, and only whole', () => {
    const parameters = [300, 5000, 64, 129, 2000].map((n, i) => parameter(`p${i}`, [n]));
    let borrowed = 0;
    fc.assert(
      fc.property(traces, fc.array(fc.nat(39), { minLength: 4, maxLength: 4 }), (trace, writers) => {
        // The last parameter has no gradient here: its memory is never lent.
        writers.forEach((at, i) => {
          const place = { kind: 'gradient', parameter: parameters[i] } as const;
          const launch = trace.launches[at % trace.launches.length];
          launch.operands[`dw${i}`] = { id: -1 - i, shape: parameters[i].shape, dtype: 'f32', place, name: `dw${i}` };
        });
        const { offsets, lent, arenaBytes } = plan(trace, true, layoutOf(parameters));
        expect(conflicts(trace, offsets)).toEqual([]);
        expect(conflicts(trace, lent)).toEqual([]);
        expect(overwritten(trace, parameters, lent)).toEqual([]);
        for (const { tensor } of lifetimes(trace)) expect(offsets.has(tensor)).not.toBe(lent.has(tensor));
        for (const [tensor, offset] of offsets) expect(offset + bytesOf(tensor)).toBeLessThanOrEqual(arenaBytes);
        borrowed += lent.size;
      }),
      { numRuns: 300 },
    );
    expect(borrowed).toBeGreaterThan(300);
  });

  const model = new MaskedAutoencoder({
    imageSize: 32,
    patchSize: 8,
    embedDim: 32,
    depth: 3,
    numHeads: 2,
    decoderEmbedDim: 16,
    decoderDepth: 2,
    decoderNumHeads: 2,
    device: 'cpu',
  });
  const step = model.trainStep({ batchSize: 4 });
  afterAll(() => model.dispose());

  test('a training step: no overlap, and less memory than without sharing', () => {
    const { trace, plan: made } = step.program;
    expect(conflicts(trace, made.offsets)).toEqual([]);
    // Activations of the forward pass wait for the backward pass; gradients of activations come and go.
    expect(made.arenaBytes).toBeLessThan(0.7 * made.unplannedBytes);
    const apart = plan(trace, false);
    expect(conflicts(trace, apart.offsets)).toEqual([]);
  });

  test('a training step borrows the memory of its gradients, unless it accumulates', async () => {
    const { trace, plan: made } = step.program;
    expect(made.lent.size).toBeGreaterThan(10);
    expect(conflicts(trace, made.lent)).toEqual([]);
    expect(overwritten(trace, model.store.parameters, made.lent)).toEqual([]);
    expect(made.arenaBytes).toBeLessThan(plan(trace).arenaBytes);
    const stages = [{ segment: 'backward', accumulate: true }];
    expect(await errorOf(() => step.program.run([], stages))).toMatch(/'backward' is to add to gradients whose memory is lent/);
    const accumulating = model.trainStep({ batchSize: 4, accumIter: 2 });
    expect(accumulating.program.plan.lent.size).toBe(0);
    accumulating.dispose();
  });

  test('recompute: of all blocks but the last decoder block nothing but the stream is kept, and all but fc2 is computed again', () => {
    const again = model.trainStep({ batchSize: 4, recompute: true }).program;
    expect(conflicts(again.trace, again.plan.offsets)).toEqual([]);
    const loss = again.trace.launches.findIndex(({ kernel }) => kernel === 'masked_mse');
    // What is made before the loss and read after it. A block's other tensors have names of their own: blocks.0.attention.out.
    const waiting = lifetimes(again.trace).filter(({ first, last }) => first < loss && last > loss);
    const inBlocks = waiting
      .map(({ tensor: { name } }) => name)
      .filter((name) => name.includes('blocks.') && !name.startsWith('decoder.blocks.1'));
    expect(inBlocks).toEqual(['encoder.blocks.0.mlp.y', 'encoder.blocks.1.mlp.y', 'encoder.blocks.2.mlp.y', 'decoder.blocks.0.mlp.y']);
    expect(again.plan.arenaBytes).toBeLessThan(0.7 * step.program.plan.arenaBytes);
    // Multiply-adds of n tokens of width d: qkv 3·n·d², scores and their product with v 2·n²·d, proj n·d², fc1 4·n·d².
    const macs = (n: number, d: number): number => 8 * n * d ** 2 + 2 * n ** 2 * d;
    const flops = (of: Trace): number => of.ops.reduce((sum, op) => sum + op.flops, 0);
    expect(flops(again.trace) - flops(step.program.trace)).toBe(4 * 2 * (3 * macs(5, 32) + macs(17, 16)));
    again.dispose();
  });

  test.each([
    ['fp32', 'whoever makes a gradient writes the bf16 copy that the GEMMs read'],
    ['bf16', 'a gradient is its own copy'],
  ] as const)('bf16 with a residual stream in %s: %s; nothing is cast', (residualPrecision, _) => {
    using rounded = new MaskedAutoencoder({ ...model.config, device: 'cpu', precision: 'bf16', residualPrecision });
    const { launches } = rounded.trainStep({ batchSize: 4 }).program.trace;
    expect(launches.filter(({ kernel }) => kernel === 'cast').map(({ label }) => label)).toEqual([]);
    const copies = launches.filter(({ operands }) => operands.dx_low);
    expect(copies.length > 0).toBe(residualPrecision === 'fp32');
  });

  test('the gradient of a residual stream is updated in place', () => {
    const { trace, plan: made } = step.program;
    const norms = trace.launches.filter(({ kernel, operands }) => kernel === 'layer_norm_grad' && operands.acc);
    expect(norms.length).toBeGreaterThanOrEqual(2 * (3 + 2));
    expect(norms.filter(({ operands }) => made.offsets.get(operands.dx!) !== made.offsets.get(operands.acc!))).toEqual([]);
  });

  test('not in place where the kernel reads the same memory under another name too', () => {
    const t = new Tape(info);
    const arena = (): Tensor => t.call('add', { a: t.input('a', [4], 'f32'), b: t.input('b', [4], 'f32') }).y;
    const [apart, same] = [arena(), arena()];
    t.keep(t.call('add', { a: apart, b: t.input('c', [4], 'f32') }).y);
    const once = t.call('add', { a: arena(), b: arena() });
    const twice = t.call('add', { a: same, b: same });
    t.call('add', { a: once.y, b: twice.y });
    const trace = t.finish();
    const { offsets } = plan(trace);
    const shares = ({ operands }: Launch): boolean => offsets.get(operands.y!) === offsets.get(operands.a!);
    const launchOf = (y: Tensor): Launch => trace.launches.find(({ operands }) => operands.y === y)!;
    expect([shares(launchOf(once.y)), shares(launchOf(twice.y))]).toEqual([true, false]);
  });

  test('results that nothing reads are dropped where the row allows it', () => {
    const t = new Tape({ ...info, compute: 'bf16' });
    const dy = t.input('dy', [1, 5, 4], 'f32');
    const { dx, dx_low: dxLow } = t.call('select_tokens_grad', { dy }, { first: 0, count: 5, patches: 5 });
    const { dx_low: read } = t.call('select_tokens_grad', { dy }, { first: 0, count: 5, patches: 5 });
    t.call('cast', { x: t.keep(read) }, { f32: true });
    const [dropped, kept] = t.finish().launches;
    expect([dropped.operands.dx, dropped.operands.dx_low, kept.operands.dx_low]).toEqual([dx, null, read]);
    expect(dxLow).toBeDefined();
  });
});

describe('programs', () => {
  /** y = a + b on four values. */
  function adder(options: graph.ProgramOptions = {}): { program: graph.Program; y: Tensor; store: graph.Store } {
    const t = new Tape(info);
    const y = t.keep(t.call('add', { a: t.input('a', [4], 'f32'), b: t.input('b', [4], 'f32') }).y);
    const store = storeOf([]);
    return { program: new Program(t.finish(), store, options), y, store };
  }
  const run = [{ segment: 'run' }];
  const four = (v: number): Float32Array => new Float32Array(4).fill(v);
  const sum = async (results: Promise<ArrayBuffer[]>): Promise<number> => new Float32Array((await results)[0])[3];

  test('inputs are checked at every run', async () => {
    const { program, y } = adder({ microBatches: 2 });
    for (let i = 0; i < 2; i++) {
      const refused = (inputs: unknown[], stages: graph.Stage[] = run): Promise<string> =>
        errorOf(() => program.run(inputs as graph.Inputs[], stages, [y]));
      expect(await refused([{ a: four(1) }])).toMatch(/^MAE_ARGUMENT run: input 'b' is missing; it is f32 \[4\]/);
      expect(await refused([{ a: four(1), b: new Float32Array(3) }])).toMatch(
        /^MAE_SHAPE run: input 'b' must be f32 \[4\], 16 bytes; got 12 bytes/,
      );
      expect(await refused([{ a: four(1), b: new Int32Array(4) }])).toMatch(
        /^MAE_ARGUMENT run: input 'b' must be f32 \[4\] in a Float32Array, got Int32Array/,
      );
      expect(await refused([{ a: four(1), b: new Float64Array(2) }])).toMatch(/^MAE_ARGUMENT .*got Float64Array/);
      expect(await refused([{ a: four(1), b: [1, 2, 3, 4] }])).toMatch(/^MAE_ARGUMENT .*got Array/);
      expect(await refused([{ a: four(1), b: four(1), c: four(1) }])).toMatch(/^MAE_ARGUMENT run: .*no input 'c'; it takes a, b/);
      const good = { a: four(1), b: four(2) };
      expect(await refused([good, good, good])).toMatch(/^MAE_ARGUMENT run: .*takes 2 micro-batches, got 3/);
      expect(await refused([good], [{ segment: 'run', microBatch: 1 }])).toMatch(
        /^MAE_ARGUMENT run: a stage reads micro-batch 1, but inputs were given for 1/,
      );
      expect(await refused([good], [{ segment: 'forward' }])).toMatch(/^MAE_GRAPH run: there is no segment 'forward' \(run\)/);
      expect(await sum((await program.run([good], run, [y])).results)).toBe(3);
      expect(await sum((await program.run([{ a: four(1), b: Buffer.from(four(4).buffer) }], run, [y])).results)).toBe(5);
    }
    program.dispose();
  });

  test('only tensors of the program can be read', async () => {
    const { program } = adder();
    const { y } = adder();
    expect(await errorOf(() => program.run([{ a: four(1), b: four(2) }], run, [y]))).toMatch(
      /^MAE_GRAPH .*is not a tensor of this program/,
    );
  });

  test('many runs asked for at once come back in order, each with its own inputs', async () => {
    const { program, y } = adder();
    const runs = Array.from({ length: 9 }, async (_, i) => sum((await program.run([{ a: four(i), b: four(100) }], run, [y])).results));
    expect(await Promise.all(runs)).toEqual([100, 101, 102, 103, 104, 105, 106, 107, 108]);
    await program.idle();
    program.dispose();
  });

  test('inputs are taken before run resolves: the caller may overwrite them', async () => {
    const { program, y } = adder();
    const a = four(1);
    const { results } = await program.run([{ a, b: four(1) }], run, [y]);
    a.fill(50);
    expect(await sum(results)).toBe(2);
    program.dispose();
  });

  test('dispose: a run in flight still answers, later ones are refused, twice is once', async () => {
    const { program, y } = adder();
    const good = [{ a: four(1), b: four(2) }];
    const { results } = await program.run(good, run, [y]);
    program.dispose();
    program.dispose();
    expect(await sum(results)).toBe(3);
    expect(await errorOf(() => program.run(good, run, [y]))).toMatch(/^MAE_DISPOSED run: this program was disposed/);
    expect(await errorOf(() => program.profile(good, run))).toMatch(/^MAE_DISPOSED profile: this program was disposed/);
  });

  test('a program whose store is gone is refused', async () => {
    const { program, y, store } = adder();
    store.dispose();
    expect(await errorOf(() => program.run([{ a: four(1), b: four(2) }], run, [y]))).toMatch(/^MAE_DISPOSED run: this model was disposed/);
    expect(await errorOf(() => store.buffer('parameters'))).toMatch(/^MAE_DISPOSED/);
    program.dispose();
  });

  test('profile: seconds of every launch', () => {
    const { program } = adder();
    const seconds = program.profile([{ a: four(1), b: four(2) }], run);
    expect(seconds).toHaveLength(1);
    expect(seconds[0]).toBeGreaterThan(0);
    program.dispose();
  });

  test('MAE_REPLAY is 0, 1 or 2', async () => {
    process.env.MAE_REPLAY = 'fast';
    try {
      expect(await errorOf(() => adder())).toMatch(/^MAE_ARGUMENT MAE_REPLAY must be 0, 1 or 2, got 'fast'/);
    } finally {
      delete process.env.MAE_REPLAY;
    }
  });

  test('a store refuses what it does not know', async () => {
    const known = parameter('known', [3]);
    const store = storeOf([known]);
    expect(await errorOf(() => store.read(parameter('other', [3])))).toMatch(/^MAE_GRAPH other is not a parameter of this store/);
    expect(await errorOf(() => store.read(known, 'gradients'))).toMatch(
      /^MAE_GRAPH the store has no gradients: make a training step first/,
    );
    expect(await errorOf(() => store.write(known, new Float32Array(4)))).toMatch(/^MAE_SHAPE known has 3 values \[3\], got 4/);
    store.dispose();
  });

  const smallest = {
    imageSize: 8,
    patchSize: 4,
    embedDim: 8,
    depth: 1,
    numHeads: 1,
    decoderEmbedDim: 8,
    decoderDepth: 1,
    decoderNumHeads: 1,
    device: process.env.MAE_DEVICE || 'cpu',
  };

  test('a training step that was disposed is forgotten by its model', async () => {
    const made = new MaskedAutoencoder(smallest);
    const disposed = ((): WeakRef<object> => {
      const step = made.trainStep({ batchSize: 1 });
      step.dispose();
      return new WeakRef(step);
    })();
    await new Promise(setImmediate); // what a WeakRef was made of in this turn of the event loop outlives it
    await collect();
    expect(disposed.deref()).toBeUndefined();
    made.dispose();
  });

  test('memory: everything is given back, and steps by the thousand need no more', async () => {
    await collect(); // what other tests have left behind
    const before = native().stats().deviceBytes;
    const model = new MaskedAutoencoder(smallest);
    const step = model.trainStep({ batchSize: 1 });
    const batch = { images: new Uint8Array(8 * 8 * 3) };
    const steps = async (count: number): Promise<{ device: number; resident: number }> => {
      for (let i = 0; i < count; i++) await (await step.run(batch, { lr: 1e-4 })).loss;
      await collect();
      return { device: native().stats().deviceBytes, resident: process.memoryUsage().rss };
    };
    const seen = [await steps(200)];
    for (let round = 0; round < 4; round++) seen.push(await steps(2000));
    for (const { device } of seen) expect(device).toBe(seen[0].device);
    // A leak of 4 KiB a step, one page, is 8 MiB in every round; V8's heap grows by megabytes as well, but not in each.
    const growth = seen.slice(1).map(({ resident }, i) => resident - seen[i].resident);
    expect(Math.min(...growth)).toBeLessThan(8 * 2 ** 20);
    model.dispose();
    expect(native().stats().deviceBytes).toBe(before);
  });
});

describe('a model that is no MAE, made of what node-mae/graph exports', () => {
  /** A denoising autoencoder: patches of a noisy picture through one Transformer block to the clean picture's. */
  const [side, patch, width, batch] = [16, 4, 32, 16];
  const patches = (side / patch) ** 2;

  function picture(d: Draw, clean: Float32Array, noisy: Float32Array): void {
    const [fx, fy, phase] = [d.uniform(), d.uniform(), 6 * d.uniform()];
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        clean[y * side + x] = 0.5 + 0.4 * Math.sin(fx * x + fy * y + phase);
        noisy[y * side + x] = clean[y * side + x] + 0.3 * (d.uniform() + d.uniform() - 1);
      }
    }
  }

  function pictures(d: Draw): { clean: Float32Array; noisy: Float32Array } {
    const [clean, noisy] = [new Float32Array(batch * side * side), new Float32Array(batch * side * side)];
    for (let b = 0; b < batch; b++) {
      const range: [number, number] = [b * side * side, (b + 1) * side * side];
      picture(d, clean.subarray(...range), noisy.subarray(...range));
    }
    return { clean, noisy };
  }

  test('its loss falls below the noise', async () => {
    const make = new graph.ParameterFactory(1);
    const embed = graph.makeLinear(make, 'embed', patch * patch, width);
    const cls = make.make('cls', [width], graph.normal(0.02));
    const block = graph.makeBlock(make, 'block', width, 2, 4);
    const norm = graph.makeLayerNorm(make, 'norm', width);
    const head = graph.makeLinear(make, 'head', width, patch * patch);
    const table = (name: string, values: Float32Array, shape: Shape = [values.length]): Constant => ({ name, shape, values });
    const [one, zero] = [table('one', Float32Array.of(1)), table('zero', Float32Array.of(0))];
    const places = new Draw(2, 'f32').centred((patches + 1) * width, 0.5);
    const pos = table('pos', places, [patches + 1, width]);

    const device = graph.openDevice('cpu');
    const store = new graph.Store(device.id, device.handle, 'f32', make.parameters, [one, zero, pos]);
    store.prepareTraining();
    const segmentTable = store.segmentTable(make.parameters.map((each) => ({ parameter: each, weightDecay: 0, lrScale: 1 })));

    const t = new graph.Tape({ compute: 'f32', device: device.kind, training: true });
    const image = (name: string): Tensor => t.input(name, [batch, side, side, 1], 'f32');
    const [clean, noisy, control] = [image('clean'), image('noisy'), t.input('control', [graph.CONTROL_BYTES / 4], 'f32')];
    const pixels = { scale: t.constant(one), shift: t.constant(zero) };
    const loss = t.segment('backward', () => {
      const weights = { w: t.weight(embed.weight), bias: t.parameter(embed.bias), cls: t.parameter(cls), pos: t.constant(pos) };
      const { tokens } = t.call('patch_embed', { images: noisy, ...pixels, ...weights }, { patch, visible: patches });
      const stream = graph.block(t, block, tokens, 1e-6);
      const { y } = t.call('select_tokens', { x: stream }, { first: 0, count: patches });
      const pred = graph.linear(t, head, graph.layerNorm(t, norm, y, 1e-6));
      const counted = batch * patches;
      const made = t.call('masked_mse', { pred, images: clean, ...pixels, control }, { patch, first: 0, counted, normPix: false }).loss;
      t.backward(t.keep(made));
      return made;
    });
    t.segment('update', () => {
      const flat = (buffer: 'parameters' | 'gradients' | 'moment1' | 'moment2'): Tensor => t.store(buffer, [store.count], 'f32');
      const grads = flat('gradients');
      const { report } = t.call('grad_norm', { grads, loss, control });
      const segments = t.input('segments', [make.parameters.length, 4], 'i32');
      const state = { params: flat('parameters'), m: flat('moment1'), v: flat('moment2') };
      t.call('adamw', { control, report, segments, grads }, { beta1: 0.9, beta2: 0.95, eps: 1e-8 }, state);
    });
    const program = new graph.Program(t.finish(), store);

    const d = new Draw(7, 'f32');
    const betas = [0.9, 0.95] as const;
    const losses: number[] = [];
    for (let step = 1; step <= 150; step++) {
      const given = { ...pictures(d), segments: segmentTable, control: graph.encodeControl({ lr: 5e-3, optimizerStep: step, betas }) };
      const { results } = await program.run([given], [{ segment: 'backward' }, { segment: 'update' }], [loss]);
      losses.push(new Float32Array((await results)[0])[0]);
    }
    program.dispose();
    store.dispose();
    const last = losses.slice(-10).reduce((a, b) => a + b) / 10;
    // New pictures at every step: the noise's variance, 2·0.3²/12, is what a model that copies its input would reach.
    expect(losses[0]).toBeGreaterThan(0.1);
    expect(last).toBeLessThan(0.8 * ((2 * 0.3 ** 2) / 12));
  });
});
