/**
 * The cases of every row of the op table: small, odd and realistic shapes, optional operands present and absent, both dtypes. One list for
 * every device and instruction set; test/ops.test.ts says what is done with a case.
 */
import type { Attributes } from '../lib/graph/op';
import type { OpName } from '../lib/graph/ops';
import type { DType, Shape } from '../lib/graph/tensor';
import { Draw, float32Of, operandOf, type Operand } from './helpers/draw';

/** An output that is given its memory: a parameter's gradient, or the optimizer's state with what it holds before. */
export interface Into {
  readonly shape: Shape;
  readonly dtype: DType;
  readonly before?: Operand['data'];
  /** A gradient, which later micro-batches add to. */
  readonly adds?: boolean;
}

export interface Drawn {
  readonly operands: Readonly<Record<string, Operand>>;
  readonly into?: Readonly<Record<string, Into>>;
}

export interface OpCase {
  readonly op: OpName;
  readonly title: string;
  readonly compute: 'f32' | 'bf16';
  readonly attributes: Attributes;
  readonly training: boolean;
  /** Of the residual stream; default f32. */
  readonly stream?: Compute;
  /** Terms of the longest sum behind a value of a result: what the fp32 tolerance grows with. */
  readonly terms: number;
  /** Results that are copies or correctly rounded single operations: equal bit for bit. */
  readonly exact: readonly string[];
  readonly draw: (seed: number) => Drawn;
}

type Compute = 'f32' | 'bf16';
type Recipe = Omit<OpCase, 'op' | 'title' | 'compute' | 'training' | 'exact' | 'draw'> & {
  training?: boolean;
  exact?: readonly string[];
  draw: (d: Draw) => Drawn;
};

function make(op: OpName, title: string, compute: Compute, recipe: Recipe): OpCase {
  const { draw, training = true, exact = [], ...rest } = recipe;
  return { op, title: `${title} ${compute}`, compute, training, exact, ...rest, draw: (seed) => draw(new Draw(seed, compute)) };
}

/** In both dtypes. */
const both = (op: OpName, title: string, recipe: (compute: Compute) => Recipe): OpCase[] =>
  (['f32', 'bf16'] as const).map((compute) => make(op, title, compute, recipe(compute)));

/** Entries that are there or not. */
const when = <T>(condition: unknown, entries: Record<string, T>): Record<string, T> => (condition ? entries : {});

const gradient = (...shape: number[]): Into => ({ shape, dtype: 'f32', adds: true });

// --- masking and patches -----------------------------------------------------------------------------------------------------------
interface MaskDims {
  patches: number;
  visible: number;
  indices: number[];
  seed?: number;
  epoch?: number;
  noise?: 'distinct' | 'ties';
}

function mask({ patches, visible, indices, seed = 1, epoch = 0, noise }: MaskDims): OpCase {
  const title = `${indices.length} pictures, ${visible} of ${patches} kept${noise ? `, given noise (${noise})` : ''}`;
  return make('random_mask', title, 'f32', {
    attributes: { patches, visible, seed },
    terms: 1,
    exact: ['ids', 'restore', 'mask'],
    draw: (d) => {
      const shape = [indices.length, patches];
      const distinct = d.f32(shape);
      // Few different values, among them zeros of both signs: many ties.
      const ties = operandOf(
        (distinct.data as Float32Array).map((v) => Math.round(v)),
        shape,
        'f32',
      );
      const given = when(noise, { noise: noise === 'ties' ? ties : distinct });
      return { operands: { control: d.control({ epoch }), indices: d.i32(indices), ...given } };
    },
  });
}

interface PictureDims {
  batch: number;
  height: number;
  width: number;
  channels: number;
  patch: number;
  images: 'u8' | 'f32';
}

function picture(d: Draw, { batch, height, width, channels, images }: PictureDims): Record<string, Operand> {
  const shape = [batch, height, width, channels];
  const full = images === 'u8' ? 255 : 1;
  const scale = Float32Array.from({ length: channels }, (_, c) => 4 / full / (1 + 0.1 * c));
  const shift = Float32Array.from({ length: channels }, (_, c) => -2 + 0.1 * c);
  return {
    images: images === 'u8' ? d.u8(shape) : operandOf(d.uniforms(shape), shape, 'f32'),
    scale: operandOf(scale, [channels], 'f32'),
    shift: operandOf(shift, [channels], 'f32'),
  };
}

const describePicture = ({ batch, height, width, channels, patch, images }: PictureDims): string =>
  `${batch}x${height}x${width}x${channels} ${images}, patch ${patch}`;

const patchEmbed = (dims: PictureDims & { visible: number; d: number; ids: boolean; pos: boolean; tokens?: 'act' }): OpCase[] =>
  both(
    'patch_embed',
    `${describePicture(dims)}, ${dims.visible} visible → ${dims.d}${dims.ids ? '' : ', no ids'}${dims.pos ? '' : ', no pos'}${dims.tokens ? ', tokens act' : ''}`,
    (compute) => {
      const { batch, height, width, channels, patch, visible, d: width_out, ids, pos } = dims;
      const patches = (height / patch) * (width / patch);
      const inner = channels * patch * patch;
      return {
        attributes: { patch, visible },
        ...when(dims.tokens, { stream: compute }),
        terms: inner,
        draw: (d) => ({
          operands: {
            ...picture(d, dims),
            w: d.act([width_out, inner], inner ** -0.5),
            bias: d.f32([width_out]),
            cls: d.f32([width_out]),
            ...when(ids, { ids: d.shuffle(batch, patches).ids }),
            ...when(pos, { pos: d.f32([patches + 1, width_out]) }),
          },
        }),
      };
    },
  );

const patchEmbedGrad = (batch: number, visible: number, inner: number, width: number, dtokens: 'act' | 'f32' = 'f32'): OpCase[] =>
  both('patch_embed_grad', `${batch}x${visible}x${inner} → ${width}, dtokens ${dtokens}`, () => ({
    attributes: {},
    terms: batch * visible,
    draw: (d) => ({
      operands: {
        patches: d.act([batch, visible, inner]),
        dtokens: dtokens === 'act' ? d.act([batch, visible + 1, width]) : d.f32([batch, visible + 1, width]),
      },
      into: { dw: gradient(width, inner), dbias: gradient(width), dcls: gradient(width) },
    }),
  }));

// --- dense layers --------------------------------------------------------------------------------------------------------------------
interface LinearDims {
  lead: number[];
  k: number;
  n: number;
  bias?: boolean;
  residual?: 'f32' | 'act';
  f32?: boolean;
}

const linear = ({ lead, k, n, bias = true, residual, f32 }: LinearDims): OpCase[] =>
  both(
    'linear',
    `[${lead}]x${k} → ${n}${bias ? '' : ', no bias'}${residual ? `, + residual (${residual})` : ''}${f32 ? ', to f32' : ''}`,
    () => ({
      attributes: when(f32, { f32: true }),
      terms: k,
      draw: (d) => ({
        operands: {
          x: d.act([...lead, k]),
          w: d.act([n, k], k ** -0.5),
          ...when(bias, { bias: d.f32([n]) }),
          ...when(residual, { residual: residual === 'f32' ? d.f32([...lead, n]) : d.act([...lead, n]) }),
        },
      }),
    }),
  );

interface GradInputDims {
  lead: number[];
  n: number;
  k: number;
  pre?: boolean;
  acc?: 'f32' | 'act';
  f32?: boolean;
}

const linearGradInput = ({ lead, n, k, pre, acc, f32 }: GradInputDims): OpCase[] =>
  both(
    'linear_grad_input',
    `[${lead}]x${n} → ${k}${pre ? ', ∘ GELU′' : ''}${acc ? `, + acc (${acc})` : ''}${f32 ? ', to f32' : ''}`,
    () => ({
      attributes: when(f32, { f32: true }),
      terms: n,
      draw: (d) => ({
        operands: {
          dy: d.act([...lead, n]),
          w: d.act([n, k], n ** -0.5),
          ...when(pre, { pre: d.act([...lead, k], 4) }),
          ...when(acc, { acc: acc === 'f32' ? d.f32([...lead, k]) : d.act([...lead, k]) }),
        },
      }),
    }),
  );

const linearGradWeight = (lead: number[], n: number, k: number, bias = true): OpCase[] =>
  both('linear_grad_weight', `[${lead}]: ${n}x${k}${bias ? '' : ', no dbias'}`, () => ({
    attributes: {},
    terms: lead.reduce((a, b) => a * b, 1),
    draw: (d) => ({
      operands: { x: d.act([...lead, k]), dy: d.act([...lead, n]) },
      into: { dw: gradient(n, k), ...when(bias, { dbias: gradient(n) }) },
    }),
  }));

const mlp = (lead: number[], width: number, hidden: number, residual: 'f32' | 'act' = 'f32', training = true): OpCase[] =>
  both('mlp', `[${lead}]x${width} → ${hidden} → ${width}, residual ${residual}${training ? '' : ', not training'}`, () => ({
    attributes: {},
    training,
    // 16 for the polynomial inside GELU.
    terms: width + hidden + 16,
    draw: (d) => ({
      operands: {
        x: d.act([...lead, width]),
        w1: d.act([hidden, width], width ** -0.5),
        b1: d.f32([hidden]),
        w2: d.act([width, hidden], hidden ** -0.5),
        b2: d.f32([width]),
        residual: residual === 'f32' ? d.f32([...lead, width]) : d.act([...lead, width]),
      },
    }),
  }));

// --- LayerNorm -------------------------------------------------------------------------------------------------------------------------
const layerNorm = (lead: number[], width: number, options: { x?: 'act'; f32?: boolean; mean?: number; eps?: number } = {}): OpCase[] =>
  both(
    'layer_norm',
    `[${lead}]x${width}${options.x ? ', x act' : ''}${options.f32 ? ', to f32' : ''}${options.mean ? `, mean ${options.mean}` : ''}`,
    () => {
      const { x, f32, mean = 0, eps = 1e-6 } = options;
      return {
        attributes: { eps, ...when(f32, { f32 }) },
        terms: width,
        draw: (d) => ({
          operands: {
            x: x ? d.act([...lead, width]) : d.f32([...lead, width], 1, mean),
            weight: d.f32([width], 0.5, 1),
            bias: d.f32([width]),
          },
        }),
      };
    },
  );

const layerNormGrad = (lead: number[], width: number, options: { x?: 'act'; acc?: boolean } = {}): OpCase[] =>
  both('layer_norm_grad', `[${lead}]x${width}${options.x ? ', x act' : ''}${options.acc ? ', + acc' : ''}`, () => {
    const rows = lead.reduce((a, b) => a * b, 1);
    return {
      attributes: {},
      terms: rows + width,
      draw: (d) => {
        const draw = (): Operand => (options.x ? d.act([...lead, width]) : d.f32([...lead, width]));
        const x = draw();
        const weight = d.f32([width], 0.5, 1);
        const saved = (how: (row: Float32Array) => number): Operand =>
          operandOf(
            Array.from({ length: rows }, (_, r) => how(floats.subarray(r * width, (r + 1) * width))),
            lead,
            'f32',
          );
        const floats = float32Of(x);
        const mean = (row: Float32Array): number => row.reduce((sum, v) => sum + v, 0) / width;
        const rstd = (row: Float32Array): number => 1 / Math.sqrt(row.reduce((sum, v) => sum + (v - mean(row)) ** 2, 0) / width + 1e-6);
        return {
          operands: {
            x,
            dy: d.act([...lead, width]),
            weight,
            mean: saved(mean),
            rstd: saved(rstd),
            ...when(options.acc, { acc: draw() }),
          },
          into: { dweight: gradient(width), dbias: gradient(width) },
        };
      },
    };
  });

// --- attention -------------------------------------------------------------------------------------------------------------------------
const attention = (batch: number, tokens: number, heads: number, dim: number, training = true): OpCase[] =>
  both('attention', `${batch}x${tokens}, ${heads} heads of ${dim}${training ? '' : ', not training'}`, () => ({
    attributes: { heads },
    training,
    terms: dim + tokens,
    draw: (d) => ({ operands: { qkv: d.act([batch, tokens, 3 * heads * dim]) } }),
  }));

const attentionGrad = (batch: number, tokens: number, heads: number, dim: number): OpCase[] =>
  both('attention_grad', `${batch}x${tokens}, ${heads} heads of ${dim}`, () => ({
    attributes: { heads },
    terms: dim + tokens,
    draw: (d) => ({ operands: { qkv: d.act([batch, tokens, 3 * heads * dim]), dout: d.act([batch, tokens, heads * dim]) } }),
  }));

// --- tokens ------------------------------------------------------------------------------------------------------------------------------
const unshuffle = (batch: number, visible: number, patches: number, width: number, x: 'act' | 'f32' = 'act', y?: 'act'): OpCase[] =>
  both('unshuffle', `${batch}x(${visible} of ${patches})x${width}, x ${x}${y ? ', y act' : ''}`, (compute) => ({
    attributes: {},
    ...when(y, { stream: compute }),
    terms: 1,
    exact: ['y'],
    draw: (d) => ({
      operands: {
        x: x === 'act' ? d.act([batch, visible + 1, width]) : d.f32([batch, visible + 1, width]),
        pos: d.f32([patches + 1, width]),
        ...when(visible < patches, { mask_token: d.f32([width]), ...d.shuffle(batch, patches) }),
      },
    }),
  }));

interface UnshuffleGradDims {
  batch: number;
  visible: number;
  patches: number;
  width: number;
  f32: boolean;
  maskToken?: boolean;
  dy?: 'act';
}

const unshuffleGrad = ({ batch, visible, patches, width, f32, maskToken = true, dy }: UnshuffleGradDims): OpCase[] =>
  both(
    'unshuffle_grad',
    `${batch}x(${visible} of ${patches})x${width}${f32 ? ', to f32' : ''}${maskToken ? '' : ', no mask token'}${dy ? ', dy act' : ''}`,
    () => ({
      attributes: { visible, f32 },
      terms: batch * (patches - visible) + 1,
      exact: ['dx', 'dx_low'],
      draw: (d) => ({
        operands: {
          dy: dy ? d.act([batch, patches + 1, width]) : d.f32([batch, patches + 1, width]),
          ...when(visible < patches, { ids: d.shuffle(batch, patches).ids }),
        },
        into: when(maskToken, { dmask_token: gradient(width) }),
      }),
    }),
  );

const selectTokens = (
  batch: number,
  patches: number,
  first: number,
  count: number,
  width: number,
  x: 'act' | 'f32' = 'f32',
  ids = true,
): OpCase[] =>
  both('select_tokens', `${batch}x${count} from ${first} of ${patches}, x${width} ${x}${ids ? '' : ', no ids'}`, () => ({
    attributes: { first, count },
    terms: 1,
    exact: ['y'],
    draw: (d) => ({
      operands: {
        x: x === 'act' ? d.act([batch, patches + 1, width]) : d.f32([batch, patches + 1, width]),
        ...(ids ? d.shuffle(batch, patches) : {}),
      },
    }),
  }));

const selectTokensGrad = (
  batch: number,
  patches: number,
  first: number,
  count: number,
  width: number,
  dy: 'act' | 'f32' = 'f32',
  ids = true,
): OpCase[] =>
  both('select_tokens_grad', `${batch}x${count} from ${first} of ${patches}, x${width} ${dy}${ids ? '' : ', no ids'}`, () => ({
    attributes: { first, count, patches },
    terms: 1,
    exact: ['dx', 'dx_low'],
    draw: (d) => ({
      operands: {
        dy: dy === 'act' ? d.act([batch, count, width]) : d.f32([batch, count, width]),
        ...when(ids, { restore: d.shuffle(batch, patches).restore }),
      },
    }),
  }));

// --- loss --------------------------------------------------------------------------------------------------------------------------------
interface LossDims extends PictureDims {
  first?: number;
  count?: number;
  ids?: boolean;
  mask?: boolean;
  normPix: boolean;
  pred?: 'f32';
  gradScale?: number;
  training?: boolean;
}

const maskedMse = (dims: LossDims): OpCase[] => {
  const { batch, height, width, channels, patch, first = 0, ids, normPix, gradScale = 1, training = true } = dims;
  const patches = (height / patch) * (width / patch);
  const { count = patches - first } = dims;
  const dim = patch * patch * channels;
  const which = `${count} from ${first}${ids ? ' of ids' : ''}${dims.mask ? ', masked' : ''}`;
  return both(
    'masked_mse',
    `${describePicture(dims)}, ${which}${normPix ? ', norm_pix' : ''}${dims.pred ? ', pred f32' : ''}${training ? '' : ', not training'}`,
    () => ({
      attributes: { patch, first, counted: batch * count, normPix },
      training,
      terms: dim,
      draw: (d) => ({
        operands: {
          ...picture(d, dims),
          pred: dims.pred ? d.f32([batch, count, dim]) : d.act([batch, count, dim]),
          control: d.control({ gradScale }),
          ...when(ids, { ids: d.shuffle(batch, patches).ids }),
          ...when(dims.mask, { mask: d.mask(batch, patches) }),
        },
      }),
    }),
  );
};

// --- element by element, optimizer ---------------------------------------------------------------------------------------------------
const cast = (shape: number[], from: 'f32' | 'bf16', f32: boolean, compute: Compute): OpCase =>
  make('cast', `[${shape}] ${from} → ${f32 ? 'f32' : compute}`, compute, {
    attributes: { f32 },
    terms: 1,
    exact: ['y'],
    draw: (d) => ({ operands: { x: operandOf(d.centred(shape.reduce((a, b) => a * b, 1)), shape, from) } }),
  });

const add = (...shape: number[]): OpCase[] =>
  both('add', `[${shape}]`, () => ({
    attributes: {},
    terms: 1,
    exact: ['y'],
    draw: (d) => ({ operands: { a: d.act(shape), b: d.act(shape) } }),
  }));

const gradNorm = (title: string, count: number, maxNorm: number, loss = 0.75, broken?: number): OpCase =>
  make('grad_norm', title, 'f32', {
    attributes: {},
    terms: 1024,
    draw: (d) => {
      const grads = d.f32([count], count ** -0.5);
      if (broken !== undefined) grads.data[count - 1] = broken;
      return { operands: { grads, loss: operandOf([loss], [1], 'f32'), control: d.control({ maxNorm }) } };
    },
  });

/** Two parameters with a gap between them, as the store's padding leaves it. The learning rate is large, so that the update shows. */
const adamw = (title: string, sizes: readonly [number, number], report: readonly [number, number, number, number]): OpCase[] =>
  both('adamw', title, (compute) => ({
    attributes: { beta1: 0.9, beta2: 0.95, eps: 1e-8 },
    terms: 16,
    ...(report[3] ? {} : { exact: ['params', 'params_low', 'm', 'v'] }),
    draw: (d) => {
      const begin = Math.ceil(sizes[0] / 128) * 128;
      const count = begin + sizes[1];
      const table = new Int32Array([0, sizes[0], 0, 0, begin, count, 0, 0]);
      new Float32Array(table.buffer).set([0.5, 1], 2);
      new Float32Array(table.buffer).set([0, 0.25], 6);
      const params = d.f32([count]);
      const squares = d.f32([count]).data.map((v: number) => v * v);
      const state = (data: Operand['data'], dtype: DType = 'f32'): Into => ({ shape: [count], dtype, before: data });
      return {
        operands: {
          control: d.control({ lr: 0.1, optimizerStep: 3, betas: [0.9, 0.95] }),
          report: operandOf(report, [4], 'f32'),
          segments: { shape: [2, 4], dtype: 'i32', data: table },
          grads: d.f32([count]),
        },
        into: {
          params: state(params.data),
          ...(compute === 'bf16' ? { params_low: state(operandOf(params.data, [count], 'bf16').data, 'bf16') } : {}),
          m: state(d.f32([count], 0.1).data),
          v: state(squares),
        },
      };
    },
  }));

export const cases: readonly OpCase[] = [
  mask({ patches: 49, visible: 12, indices: [9, 0, 123456], seed: 7, epoch: 5 }),
  mask({ patches: 196, visible: 49, indices: Array.from({ length: 67 }, (_, i) => i), epoch: 1 }),
  mask({ patches: 1025, visible: 1, indices: [0x7fffffff], seed: 0xffffffff, epoch: 0xffffffff }),
  mask({ patches: 4, visible: 4, indices: [3, 3] }),
  mask({ patches: 1, visible: 1, indices: [0] }),
  mask({ patches: 64, visible: 16, indices: [0, 1, 2], noise: 'distinct' }),
  mask({ patches: 300, visible: 75, indices: [0, 1], noise: 'ties' }),

  patchEmbed({ batch: 2, height: 6, width: 9, channels: 3, patch: 3, images: 'u8', visible: 2, d: 20, ids: true, pos: true }),
  patchEmbed({ batch: 1, height: 8, width: 8, channels: 1, patch: 4, images: 'f32', visible: 4, d: 8, ids: false, pos: false }),
  patchEmbed({ batch: 3, height: 10, width: 5, channels: 5, patch: 5, images: 'f32', visible: 1, d: 33, ids: true, pos: true }),
  patchEmbed({ batch: 2, height: 8, width: 12, channels: 4, patch: 4, images: 'u8', visible: 6, d: 24, ids: false, pos: true }),
  patchEmbed({ batch: 2, height: 4, width: 4, channels: 3, patch: 2, images: 'u8', visible: 3, d: 16, ids: true, pos: false }),
  patchEmbed({
    batch: 2,
    height: 8,
    width: 12,
    channels: 3,
    patch: 4,
    images: 'u8',
    visible: 3,
    d: 40,
    ids: true,
    pos: true,
    tokens: 'act',
  }),
  patchEmbed({ batch: 3, height: 112, width: 112, channels: 3, patch: 16, images: 'u8', visible: 12, d: 192, ids: true, pos: true }),
  patchEmbed({ batch: 2, height: 28, width: 42, channels: 3, patch: 14, images: 'f32', visible: 2, d: 80, ids: true, pos: true }),

  patchEmbedGrad(1, 1, 1, 1),
  patchEmbedGrad(2, 3, 12, 20),
  patchEmbedGrad(3, 7, 75, 33),
  patchEmbedGrad(3, 4, 48, 40, 'act'),
  patchEmbedGrad(8, 16, 192, 96),

  linear({ lead: [1, 1], k: 1, n: 1 }),
  linear({ lead: [2, 5], k: 7, n: 9 }),
  linear({ lead: [2, 5], k: 7, n: 9, bias: false, f32: true }),
  linear({ lead: [3, 11], k: 33, n: 17, residual: 'f32' }),
  linear({ lead: [3, 11], k: 40, n: 130, residual: 'act' }),
  linear({ lead: [2, 50], k: 192, n: 576 }),
  linear({ lead: [1, 197], k: 96, n: 48, residual: 'f32' }),
  linear({ lead: [1, 13], k: 1500, n: 21, f32: true }),

  linearGradInput({ lead: [1, 1], n: 1, k: 1 }),
  linearGradInput({ lead: [2, 5], n: 9, k: 7, f32: true }),
  linearGradInput({ lead: [3, 11], n: 17, k: 33, pre: true }),
  linearGradInput({ lead: [3, 11], n: 130, k: 40, acc: 'f32' }),
  linearGradInput({ lead: [3, 11], n: 24, k: 40, acc: 'act' }),
  linearGradInput({ lead: [2, 50], n: 192, k: 576, pre: true }),
  linearGradInput({ lead: [1, 65], n: 1100, k: 30, acc: 'f32' }),

  linearGradWeight([1, 1], 1, 1),
  linearGradWeight([2, 5], 9, 7),
  linearGradWeight([3, 11], 17, 33, false),
  linearGradWeight([2, 50], 192, 96),
  linearGradWeight([4, 257], 24, 40),

  mlp([1, 3], 2, 5),
  mlp([2, 5], 8, 20),
  mlp([3, 7], 13, 41, 'act'),
  mlp([2, 5], 24, 96, 'f32', false),
  mlp([2, 50], 96, 384),

  layerNorm([2, 5], 33),
  layerNorm([1, 1], 8),
  layerNorm([2, 3], 17, { x: 'act', f32: true }),
  layerNorm([4, 7], 24, { mean: 2 }),
  layerNorm([3, 3], 40, { f32: true, eps: 1e-12 }),
  layerNorm([2, 50], 768),

  layerNormGrad([1, 1], 8),
  layerNormGrad([2, 5], 33),
  layerNormGrad([2, 5], 33, { acc: true }),
  layerNormGrad([3, 4], 17, { x: 'act', acc: true }),
  layerNormGrad([4, 65], 192, { acc: true }),
  layerNormGrad([1, 3], 1280),

  attention(1, 1, 1, 8),
  attention(2, 5, 3, 8),
  attention(2, 17, 2, 24, false),
  attention(1, 33, 2, 80),
  attention(1, 20, 1, 128),
  attention(2, 50, 3, 64),
  attention(1, 197, 1, 64),
  attention(1, 300, 2, 16),
  attention(1, 1025, 1, 8, false),

  attentionGrad(1, 1, 1, 8),
  attentionGrad(2, 5, 3, 8),
  attentionGrad(2, 17, 2, 24),
  attentionGrad(1, 33, 2, 80),
  attentionGrad(1, 20, 1, 128),
  attentionGrad(2, 50, 3, 64),
  attentionGrad(1, 197, 1, 32),
  attentionGrad(1, 300, 2, 16),
  attentionGrad(1, 1025, 1, 8),

  unshuffle(2, 3, 9, 5),
  unshuffle(1, 1, 4, 8, 'f32'),
  unshuffle(2, 6, 6, 12),
  unshuffle(2, 3, 9, 12, 'act', 'act'),
  unshuffle(3, 49, 196, 96),

  unshuffleGrad({ batch: 2, visible: 3, patches: 9, width: 5, f32: false }),
  unshuffleGrad({ batch: 1, visible: 1, patches: 4, width: 8, f32: true }),
  unshuffleGrad({ batch: 2, visible: 6, patches: 6, width: 12, f32: true, maskToken: false }),
  unshuffleGrad({ batch: 2, visible: 3, patches: 9, width: 5, f32: true, maskToken: false }),
  unshuffleGrad({ batch: 2, visible: 3, patches: 9, width: 12, f32: false, dy: 'act' }),
  unshuffleGrad({ batch: 3, visible: 49, patches: 196, width: 96, f32: false }),

  selectTokens(2, 9, 3, 6, 5),
  selectTokens(2, 9, 2, 4, 8, 'act'),
  selectTokens(1, 4, 0, 4, 7, 'f32', false),
  selectTokens(3, 64, 16, 48, 96),

  selectTokensGrad(2, 9, 3, 6, 5),
  selectTokensGrad(2, 9, 2, 4, 8, 'act'),
  selectTokensGrad(1, 4, 0, 4, 7, 'f32', false),
  selectTokensGrad(3, 64, 16, 48, 96),

  maskedMse({ batch: 2, height: 6, width: 9, channels: 3, patch: 3, images: 'u8', first: 2, ids: true, normPix: true }),
  maskedMse({ batch: 2, height: 6, width: 9, channels: 3, patch: 3, images: 'u8', mask: true, normPix: false, gradScale: 0.5 }),
  maskedMse({ batch: 1, height: 8, width: 4, channels: 1, patch: 2, images: 'f32', normPix: false, pred: 'f32' }),
  maskedMse({ batch: 3, height: 10, width: 5, channels: 5, patch: 5, images: 'f32', mask: true, normPix: true, training: false }),
  maskedMse({ batch: 2, height: 5, width: 1, channels: 6, patch: 1, images: 'f32', first: 1, count: 3, ids: true, normPix: false }),
  maskedMse({
    batch: 3,
    height: 112,
    width: 112,
    channels: 3,
    patch: 16,
    images: 'u8',
    first: 12,
    ids: true,
    normPix: true,
    gradScale: 0.25,
  }),

  cast([1, 3, 37], 'f32', false, 'bf16'),
  cast([1, 3, 37], 'bf16', true, 'bf16'),
  cast([1, 1, 5], 'f32', true, 'bf16'),
  cast([2, 5, 7000], 'f32', false, 'bf16'),
  cast([1, 1, 9], 'f32', false, 'f32'),

  add(1, 1, 1),
  add(1, 3, 37),
  add(2, 25, 768),

  gradNorm('no clipping', 1000, 0),
  gradNorm('clipped', 200_001, 0.25),
  gradNorm('below the limit', 77, 3),
  gradNorm('loss NaN', 77, 0, NaN),
  gradNorm('gradient infinite', 77, 0, 0.5, Infinity),
  gradNorm('gradient NaN', 77, 1, 0.5, NaN),

  adamw('two parameters', [300, 77], [0.5, 1, 1, 1]),
  adamw('clipped', [129, 70_000], [0.5, 4, 0.25, 1]),
  adamw('not finite: nothing changes', [300, 77], [NaN, 1, 1, 0]),
].flat();

/** Sizes for which CUDA has kernels of their own, and the CPU has not: for CUDA devices alone. */
export const cudaCases: readonly OpCase[] = [
  ...[
    [60, 32],
    [65, 64],
    [72, 80],
    [100, 32],
    [100, 80],
    [280, 32],
    [280, 64],
    [280, 80],
    [130, 128],
  ].map(([tokens, dim]) => [attention(1, tokens, 2, dim), attentionGrad(1, tokens, 2, dim)]),
  ...[192, 384, 512, 768, 1024, 1280].map((width) => [
    ...(['act', undefined] as const).map((x) => [layerNorm([2, 3], width, { x }), layerNormGrad([2, 5], width, { x, acc: true })]),
    layerNorm([1, 5], width, { f32: true }),
  ]),
  // wgmma's tiles of 256 columns, with one block and with two; then 128-column tiles of mma.sync, many of them.
  linear({ lead: [1, 100], k: 1024, n: 256 }),
  linear({ lead: [1, 200], k: 1088, n: 264, residual: 'f32' }),
  linearGradInput({ lead: [1, 200], n: 1024, k: 264, pre: true }),
  linearGradInput({ lead: [1, 72], n: 1032, k: 256 }),
  linearGradWeight([3, 400], 136, 264),
  linearGradWeight([1, 1030], 72, 512),
  mlp([1, 130], 1024, 256),
  linear({ lead: [1, 1500], k: 16, n: 1440 }),
  linearGradInput({ lead: [1, 1500], n: 16, k: 1440, acc: 'f32' }),
  linearGradInput({ lead: [1, 1500], n: 16, k: 1440, pre: true }),
  linearGradWeight([1, 24], 1504, 1440),
  mlp([1, 1500], 16, 1440),
  patchEmbed({ batch: 1, height: 160, width: 160, channels: 1, patch: 4, images: 'u8', visible: 1500, d: 1440, ids: true, pos: true }),
  maskedMse({ batch: 1, height: 64, width: 64, channels: 3, patch: 32, images: 'u8', normPix: true }),
  maskedMse({ batch: 1, height: 64, width: 64, channels: 3, patch: 32, images: 'f32', normPix: true, pred: 'f32' }),
  maskedMse({ batch: 2, height: 28, width: 28, channels: 3, patch: 14, images: 'f32', normPix: true }),
  maskedMse({ batch: 2, height: 32, width: 32, channels: 3, patch: 16, images: 'f32', normPix: true }),
].flat(3);

/** One case of every row whose kernel's path depends on its sizes, of random small size: for the shapes that nobody thought of. */
export function randomCases(seed: number): OpCase[] {
  const d = new Draw(seed, 'f32');
  const upTo = (n: number): number => 1 + Math.floor(n * d.uniform());
  const either = <T>(a: T, b: T): T => (d.uniform() < 0.5 ? a : b);
  const lead = (): number[] => [upTo(3), upTo(40)];
  const patches = 1 + upTo(40);
  const visible = upTo(patches);
  const patch = upTo(5);
  const picture = {
    batch: upTo(3),
    height: patch * upTo(4),
    width: patch * (1 + upTo(4)),
    channels: upTo(5),
    patch,
    images: either<'u8' | 'f32'>('u8', 'f32'),
  };
  const inPicture = (picture.height / patch) * (picture.width / patch);
  return [
    mask({ patches, visible, indices: Array.from({ length: upTo(5) }, () => upTo(1e6)), seed, epoch: upTo(99) }),
    patchEmbed({ ...picture, visible: upTo(inPicture), d: upTo(70), ids: either(true, false), pos: either(true, false) }),
    patchEmbedGrad(upTo(3), upTo(20), upTo(70), upTo(70)),
    linear({ lead: lead(), k: upTo(100), n: upTo(100), bias: either(true, false), residual: either<'f32' | undefined>('f32', undefined) }),
    linearGradInput({
      lead: lead(),
      n: upTo(100),
      k: upTo(100),
      pre: either(true, false),
      acc: either<'f32' | undefined>('f32', undefined),
    }),
    linearGradWeight(lead(), upTo(100), upTo(100), either(true, false)),
    mlp(lead(), 2 + upTo(50), 2 + upTo(100)),
    layerNorm(lead(), 7 + upTo(200)),
    layerNormGrad(lead(), 7 + upTo(200), { acc: either(true, false) }),
    attention(upTo(2), upTo(70), upTo(3), 8 * upTo(16)),
    attentionGrad(upTo(2), upTo(70), upTo(3), 8 * upTo(16)),
    unshuffle(upTo(3), visible, patches, upTo(70)),
    unshuffleGrad({ batch: upTo(3), visible, patches, width: upTo(70), f32: either(true, false), maskToken: visible < patches }),
    selectTokens(upTo(3), patches, visible - 1, patches - visible + 1, upTo(70)),
    selectTokensGrad(upTo(3), patches, visible - 1, patches - visible + 1, upTo(70)),
    maskedMse({ ...picture, normPix: patch * patch * picture.channels > 7, first: upTo(inPicture) - 1, ids: either(true, false) }),
    add(upTo(3), upTo(40), upTo(70)),
  ].flat();
}

/**
 * The differentiable rows: which result a loss is made of (none: the row is a loss), and how each operand with a gradient reaches the row,
 * as a tensor computed before, as a matrix in the compute dtype or as a parameter in fp32.
 */
export const learnable: Partial<
  Record<OpName, { output?: string; leaves: Readonly<Record<string, 'activation' | 'weight' | 'parameter'>> }>
> = {
  patch_embed: { output: 'tokens', leaves: { w: 'weight', bias: 'parameter', cls: 'parameter' } },
  linear: { output: 'y', leaves: { x: 'activation', w: 'weight', bias: 'parameter', residual: 'activation' } },
  mlp: {
    output: 'y',
    leaves: { x: 'activation', w1: 'weight', b1: 'parameter', w2: 'weight', b2: 'parameter', residual: 'activation' },
  },
  layer_norm: { output: 'y', leaves: { x: 'activation', weight: 'parameter', bias: 'parameter' } },
  attention: { output: 'out', leaves: { qkv: 'activation' } },
  unshuffle: { output: 'y', leaves: { x: 'activation', mask_token: 'parameter' } },
  select_tokens: { output: 'y', leaves: { x: 'activation' } },
  masked_mse: { leaves: { pred: 'activation' } },
  cast: { output: 'y', leaves: { x: 'activation' } },
  add: { output: 'y', leaves: { a: 'activation', b: 'activation' } },
};
