/** The public model: what it computes against float64, its promises about masks, bits, files and memory, and every refusal. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { devices, openDevice } from '../lib/graph/device';
import { describeWeights, encoderOnlyMessage } from '../lib/io/weightsReport';
import { readSafetensors, type HostTensor } from '../lib/io/safetensors';
import { native } from '../lib/native';
import { numPatches, patchDim } from '../lib/nn/config';
import { MaskedAutoencoder, type ModelOptions } from '../lib/nn/maskedAutoencoder';
import { presets } from '../lib/nn/presets';
import type { StepBatch, TrainStep, TrainStepOptions } from '../lib/nn/trainStep';
import { MaeError } from '../lib/errors';
import { Draw } from './helpers/draw';
import { errorOf } from './helpers/errors';
import { relativeError } from './helpers/parity';
import { tinySizes } from './helpers/tinyModel';
import { referenceMae } from './reference/mae';
import type { Value } from './reference';

/** MAE_DEVICE=cuda runs all of this on a GPU. */
const device = process.env.MAE_DEVICE || 'cpu';

const tiny: ModelOptions = {
  ...tinySizes,
  depth: 2,
  device,
  precision: 'fp32',
  seed: 11,
};

function picturesFor({ config, imageDType }: MaskedAutoencoder, count: number, seed = 1): Uint8Array | Float32Array {
  const d = new Draw(seed, 'f32');
  const shape = [count, ...config.imageSize, config.inChans];
  return imageDType === 'u8' ? (d.u8(shape).data as Uint8Array) : d.uniforms(shape);
}

/** A digest of every tensor's bytes. */
const bitsOf = (tensors: ReadonlyMap<string, HostTensor>): Record<string, string> =>
  Object.fromEntries(
    [...tensors].map(([name, { data }]) => [
      name,
      createHash('sha1')
        .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
        .digest('hex'),
    ]),
  );

/** ‖a − b‖ / ‖b‖ over all tensors together. */
function distance(a: ReadonlyMap<string, HostTensor>, b: ReadonlyMap<string, HostTensor>): number {
  const all = (of: ReadonlyMap<string, HostTensor>): number[] => [...b.keys()].flatMap((name) => [...(of.get(name)!.data as Float32Array)]);
  return relativeError(all(a), all(b));
}

/** Weights that are not at their initialisation, where biases are zero and norms one: nothing may hide behind that. */
async function scramble(model: MaskedAutoencoder): Promise<void> {
  const d = new Draw(99, 'f32');
  const weights = await model.weights();
  for (const [name, tensor] of weights) {
    if (name.endsWith('pos_embed')) continue;
    const noise = d.centred(tensor.data.length, 0.1);
    weights.set(name, { ...tensor, data: (tensor.data as Float32Array).map((v, i) => v + noise[i]) });
  }
  model.setWeights(weights);
}

const take = async (step: TrainStep, batch: StepBatch, lr = 1e-3): Promise<{ loss: number; gradNorm: number; finite: boolean }> => {
  const { loss, gradNorm, finite } = await step.run(batch, { lr });
  return { loss: await loss, gradNorm: await gradNorm, finite: await finite };
};

describe('what is computed', () => {
  /** Errors of one kernel, 2e-6 at most here (test/ops.test.ts), through some twenty in a row that neither add up in one direction nor cancel. */
  const TOLERANCE = 1e-5;

  const variants: [string, ModelOptions][] = [
    ['square RGB', {}],
    ['a wide picture', { imageSize: [8, 32], normPixLoss: true }],
    ['a tall picture, mask ratio 0.5', { imageSize: [20, 8], maskRatio: 0.5 }],
    ['one channel', { inChans: 1, mean: [0.4], std: [0.2] }],
    ['four channels', { inChans: 4 }],
    ['five channels of float32', { inChans: 5, imageDType: 'f32', normPixLoss: true }],
    ['mask tokens in the encoder', { maskTokensInEncoder: true, normPixLoss: true }],
    [
      'head dimensions 8 and 40, mlpRatio 2.5, another eps',
      { numHeads: 1, embedDim: 40, decoderNumHeads: 2, mlpRatio: 2.5, layerNormEps: 1e-3 },
    ],
  ];
  test.each(variants)('%s: latent, prediction, mask and loss of forward, loss of a training step', async (_, options) => {
    using model = new MaskedAutoencoder({ ...tiny, ...options });
    await scramble(model);
    const images = picturesFor(model, 3);
    const noise = new Draw(5, 'f32').uniforms([3, numPatches(model.config)]);
    const value = ({ shape, data }: HostTensor): Value => ({ shape, values: Float64Array.from(data as Float32Array) });
    const want = referenceMae({
      config: model.config,
      weights: Object.fromEntries([...(await model.weights())].map(([name, tensor]) => [name, value(tensor)])),
      images: { shape: [3, ...model.config.imageSize, model.config.inChans], values: Float64Array.from(images) },
      full: model.imageDType === 'u8' ? 255 : 1,
      noise: { shape: [3, numPatches(model.config)], values: Float64Array.from(noise) },
    });
    const got = await model.forward(images, { noise });
    expect(Array.from(got.mask)).toEqual(Array.from(want.mask.values));
    expect(Array.from(got.idsRestore)).toEqual(Array.from(want.restore.values));
    expect(relativeError(got.latent, want.latent.values)).toBeLessThan(TOLERANCE);
    expect(relativeError(got.pred, want.pred.values)).toBeLessThan(TOLERANCE);
    expect(relativeError([got.loss], [want.loss])).toBeLessThan(TOLERANCE);
    const step = model.trainStep({ batchSize: 3, givenNoise: true });
    expect(relativeError([(await take(step, { images, noise }, 0)).loss], [want.loss])).toBeLessThan(TOLERANCE);
  });

  test.each(variants)('%s: the gradient along random directions is the slope of the loss', async (_, options) => {
    using model = new MaskedAutoencoder({ ...tiny, ...options });
    await scramble(model);
    const images = picturesFor(model, 2);
    const step = model.trainStep({ batchSize: 2 });
    const batch = { images, indices: Int32Array.of(0, 1) };
    await take(step, batch, 0);
    const gradients = await model.gradients();
    const weights = await model.weights();
    const d = new Draw(8, 'f32');
    for (let trial = 0; trial < 2; trial++) {
      let [along, square] = [0, 0];
      const direction = new Map([...gradients].map(([name, { data }]) => [name, d.centred(data.length)]));
      for (const [name, { data }] of gradients) {
        (data as Float32Array).forEach((g, i) => {
          along += g * direction.get(name)![i];
          square += g * g;
        });
      }
      const at = async (h: number): Promise<number> => {
        const moved = [...gradients.keys()].map((name): [string, HostTensor] => {
          const { dtype, shape, data } = weights.get(name)!;
          return [name, { dtype, shape, data: (data as Float32Array).map((w, i) => w + h * direction.get(name)![i]) }];
        });
        model.setWeights(new Map(moved));
        return (await take(step, batch, 0)).loss;
      };
      // The loss has a rounding error of about 1e-7 of itself, so h is not small; fourth-order differences keep their own error below 1e-4.
      const h = 4e-3;
      const slope = (8 * ((await at(h)) - (await at(-h))) - ((await at(2 * h)) - (await at(-2 * h)))) / (12 * h);
      expect(Math.abs(slope - along) / Math.sqrt(square)).toBeLessThan(2e-3);
    }
  });

  test('forward predicts all patches, a training step the removed ones: the same loss', async () => {
    using model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 4);
    const indices = Int32Array.of(5, 6, 7, 1000);
    const { loss } = await model.forward(images, { indices, epoch: 3 });
    const step = model.trainStep({ batchSize: 4 });
    expect(relativeError([(await take(step, { images, indices, epoch: 3 }, 0)).loss], [loss])).toBeLessThan(1e-6);
  });

  test('bf16 is close to fp32, and is not fp32', async () => {
    using exact = new MaskedAutoencoder(tiny);
    using rounded = new MaskedAutoencoder({ ...tiny, precision: 'bf16' });
    const images = picturesFor(exact, 4);
    const [a, b] = [await rounded.forward(images), await exact.forward(images)];
    // A bf16 rounding is 2⁻⁹ at most; of the twenty or so tensors on the way each is rounded once and adds its share in another direction.
    const error = relativeError(a.pred, b.pred);
    expect(error).toBeLessThan(Math.sqrt(20) * 2 ** -9);
    expect(error).toBeGreaterThan(2 ** -13);
    const losses: number[][] = [];
    for (const model of [exact, rounded]) {
      const step = model.trainStep({ batchSize: 4 });
      losses.push([]);
      for (let i = 0; i < 20; i++) losses.at(-1)!.push((await take(step, { images }, 3e-3)).loss);
    }
    expect(relativeError(losses[1], losses[0])).toBeLessThan(0.01);
    expect(losses[1][19]).toBeLessThan(0.9 * losses[1][0]);
    // The fp32 master weights and the bf16 copies that a step reads stay together.
    const fresh = new MaskedAutoencoder({ ...tiny, precision: 'bf16' });
    fresh.setWeights(await rounded.weights());
    expect((await fresh.forward(images)).pred).toEqual((await rounded.forward(images)).pred);
    fresh.dispose();
  });

  test('a bf16 residual stream is close to one in fp32, and is not one', async () => {
    using wide = new MaskedAutoencoder({ ...tiny, precision: 'bf16' });
    using narrow = new MaskedAutoencoder({ ...tiny, precision: 'bf16', residualPrecision: 'bf16' });
    for (const model of [wide, narrow]) await scramble(model);
    const images = picturesFor(wide, 4);
    const [a, b] = [await narrow.forward(images), await wide.forward(images)];
    // The stream is rounded, by 2⁻⁹ at most, in eight places: where encoder and decoder begin and after two additions in each of three
    // blocks. The twenty tensors that both models round are now rounded from other values. Each adds its share in another direction.
    const tolerance = Math.sqrt(8 + 20) * 2 ** -9;
    const error = relativeError(a.pred, b.pred);
    expect(error).toBeLessThan(tolerance);
    expect(error).toBeGreaterThan(2 ** -13);
    // The loss is the mean square of pred − target: dL / L = 2·|dpred| / |pred − target|.
    const size = Math.sqrt(b.pred.reduce((sum, v) => sum + v * v, 0) / b.pred.length);
    const steps = [narrow, wide].map((model) => model.trainStep({ batchSize: 4 }));
    const [narrowLoss, wideLoss] = await Promise.all(steps.map(async (step) => (await take(step, { images }, 3e-3)).loss));
    expect(Math.abs(narrowLoss / wideLoss - 1)).toBeLessThan((2 * tolerance * size) / Math.sqrt(wideLoss));
    // It learns as well: after twenty steps the losses are as near as those of fp32 and bf16 are.
    const last = [narrowLoss, wideLoss];
    for (let i = 1; i < 20; i++) for (const k of [0, 1]) last[k] = (await take(steps[k], { images }, 3e-3)).loss;
    expect(relativeError([last[0]], [last[1]])).toBeLessThan(0.01);
    expect(last[0]).toBeLessThan(0.9 * narrowLoss);
  });

  test('features: cls, mean of the patches, tokens in order; as forward has them when nothing is masked', async () => {
    using model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 2);
    const [L, D] = [16, 24];
    const tokens = await model.features(images, { pool: 'tokens' });
    const cls = await model.features(images, { pool: 'cls' });
    const mean = await model.features(images);
    expect(tokens).toHaveLength(2 * (L + 1) * D);
    for (let b = 0; b < 2; b++) {
      const rows = Array.from({ length: L + 1 }, (_, t) => tokens.subarray((b * (L + 1) + t) * D, (b * (L + 1) + t + 1) * D));
      expect(cls.subarray(b * D, (b + 1) * D)).toEqual(rows[0]);
      const average = Array.from({ length: D }, (_, i) => rows.slice(1).reduce((sum, row) => sum + row[i], 0) / L);
      expect(relativeError(mean.subarray(b * D, (b + 1) * D), average)).toBeLessThan(1e-6);
    }
    const { latent, idsRestore, loss } = await model.forward(images, { maskRatio: 0 });
    expect(loss).toBe(0);
    const ordered = Array.from({ length: 2 * L * D }, (_, at) => {
      const [b, p, i] = [Math.floor(at / (L * D)), Math.floor(at / D) % L, at % D];
      return latent[(b * (L + 1) + 1 + idsRestore[b * L + p]) * D + i];
    });
    const patchTokens = [0, 1].flatMap((b) => [...tokens.subarray((b * (L + 1) + 1) * D, (b + 1) * (L + 1) * D)]);
    expect(relativeError(ordered, patchTokens)).toBeLessThan(1e-6);
  });

  test('a flat picture under normalised targets has a finite loss: its patches are all mean', async () => {
    using model = new MaskedAutoencoder({ ...tiny, normPixLoss: true });
    const { loss } = await model.forward(new Uint8Array(16 * 16 * 3).fill(200));
    expect(loss).toBeGreaterThan(0);
    expect(loss).toBeLessThan(100);
  });
});

describe('masks', () => {
  test('given patches are kept, in the order given', async () => {
    using model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 2);
    const keep = [
      [3, 15, 0],
      [7, 8, 9],
    ];
    const { mask, idsRestore, latent } = await model.forward(images, { keep });
    expect(latent).toHaveLength(2 * (3 + 1) * 24);
    keep.forEach((ids, b) => {
      expect(Array.from(mask.subarray(16 * b, 16 * (b + 1)))).toEqual(Array.from({ length: 16 }, (_, p) => (ids.includes(p) ? 0 : 1)));
      expect(ids.map((p) => idsRestore[16 * b + p])).toEqual([0, 1, 2]);
    });
    const all = await model.forward(images, { keep: [0, 1].map(() => Array.from({ length: 16 }, (_, p) => p)) });
    expect(Array.from(all.mask)).toEqual(Array(32).fill(0));
  });

  test('another mask ratio for one call', async () => {
    using model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 1);
    for (const [maskRatio, visible] of [
      [0.5, 8],
      [0.9, 1],
      [0.3, 11],
    ]) {
      const { mask, latent } = await model.forward(images, { maskRatio });
      expect(mask.reduce((sum, m) => sum + m)).toBe(16 - visible);
      expect(latent).toHaveLength((visible + 1) * 24);
    }
    expect(model.config.maskRatio).toBe(0.75);
  });

  test('are drawn from (seed, epoch, index) alone: the same for any batch, another for another seed, epoch or index', async () => {
    using model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 4);
    const one = images.length / 4;
    const indices = [12, 5, 70_000, 6];
    const restore = async (count: number, list: number[], epoch: number, of = model): Promise<number[]> =>
      Array.from((await of.forward(images.subarray(0, count * one), { indices: Int32Array.from(list), epoch })).idsRestore);
    const together = await restore(4, indices, 2);
    const apart = await Promise.all(indices.map((index) => restore(1, [index], 2)));
    expect(apart.flat()).toEqual(together);
    const rows = Array.from({ length: 4 }, (_, b) => together.slice(16 * b, 16 * (b + 1)).join());
    expect(new Set(rows).size).toBe(4);
    expect(await restore(4, indices, 3)).not.toEqual(together);
    using other = new MaskedAutoencoder({ ...tiny, seed: 12 });
    expect(await restore(4, indices, 2, other)).not.toEqual(together);
  });
});

describe('training steps', () => {
  test('the loss falls, and depends on seed and pictures alone', async () => {
    const curves: number[][] = [];
    for (let run = 0; run < 2; run++) {
      using model = new MaskedAutoencoder(tiny);
      const images = picturesFor(model, 4);
      const step = model.trainStep({ batchSize: 4 });
      const losses: number[] = [];
      for (let i = 0; i < 30; i++) losses.push((await take(step, { images }, 3e-3)).loss);
      curves.push(losses);
    }
    expect(curves[0][29]).toBeLessThan(0.9 * curves[0][0]);
    expect(curves[1]).toEqual(curves[0]);
  });

  /** Three steps on two micro-batches: everything that could differ. */
  async function bits(program: TrainStepOptions['program'], options: ModelOptions, recompute = false): Promise<unknown> {
    using model = new MaskedAutoencoder({ ...tiny, ...options });
    const images = picturesFor(model, 4);
    const step = model.trainStep({ batchSize: 2, accumIter: 2, clipGrad: 0.5, program, recompute });
    const losses: unknown[] = [];
    for (let i = 0; i < 3; i++) losses.push(await take(step, { images }));
    const { moment1, moment2 } = await model.moments();
    return {
      losses,
      weights: bitsOf(await model.weights()),
      gradients: bitsOf(await model.gradients()),
      moment1: bitsOf(moment1),
      moment2: bitsOf(moment2),
    };
  }

  const numerics: [string, ModelOptions][] = [
    ['fp32', { precision: 'fp32' }],
    ['bf16', { precision: 'bf16' }],
    ['bf16 with its residual stream', { precision: 'bf16', residualPrecision: 'bf16' }],
  ];

  test.each(numerics)('%s: the same bits with memory shared or not, poisoned, op by op, with 1, 2 or 3 threads', async (_, options) => {
    const usual = await bits({ replay: 1 }, options);
    expect(await bits({ replay: 1, unshared: true }, options)).toEqual(usual);
    expect(await bits({ replay: 1, poison: true }, options)).toEqual(usual);
    expect(await bits({ replay: 0 }, options)).toEqual(usual);
    expect(await bits({ replay: 2 }, options)).toEqual(usual);
    try {
      for (const threads of [1, 2, 3]) {
        native().setThreads(threads);
        expect(await bits({ replay: 1 }, options)).toEqual(usual);
      }
    } finally {
      native().setThreads(0);
    }
  });

  test.each(numerics)('%s: blocks that are computed again give the same bits', async (_, options) => {
    const usual = await bits({}, options);
    expect(await bits({}, options, true)).toEqual(usual);
    expect(await bits({ unshared: true }, options, true)).toEqual(usual);
    expect(await bits({ poison: true }, options, true)).toEqual(usual);
  });

  test('micro-batches add up to the whole batch', async () => {
    using model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 8);
    const indices = Int32Array.from({ length: 8 }, (_, i) => 3 * i);
    const results: { loss: number; gradNorm: number; gradients: Map<string, HostTensor> }[] = [];
    for (const [batchSize, accumIter] of [
      [8, 1],
      [4, 2],
      [1, 8],
    ]) {
      const step = model.trainStep({ batchSize, accumIter });
      expect(step.effectiveBatch).toBe(8);
      const { loss, gradNorm } = await take(step, { images, indices }, 0);
      results.push({ loss, gradNorm, gradients: await model.gradients() });
    }
    // The same sums in another order: a few roundings of fp32.
    for (const { loss, gradNorm, gradients } of results.slice(1)) {
      expect(relativeError([loss, gradNorm], [results[0].loss, results[0].gradNorm])).toBeLessThan(1e-6);
      expect(distance(gradients, results[0].gradients)).toBeLessThan(2e-6);
    }
  });

  test('pictures without indices get running ones', async () => {
    const losses: number[][] = [];
    for (const given of [false, true]) {
      using model = new MaskedAutoencoder(tiny);
      const images = picturesFor(model, 2);
      const step = model.trainStep({ batchSize: 2 });
      losses.push([]);
      for (let i = 0; i < 3; i++)
        losses.at(-1)!.push((await take(step, { images, ...(given ? { indices: Int32Array.of(2 * i, 2 * i + 1) } : {}) }, 0)).loss);
    }
    expect(losses[0]).toEqual(losses[1]);
    expect(new Set(losses[0]).size).toBe(3);
  });

  test('clipping scales what the optimizer sees; norm and gradients are reported as they were', async () => {
    using model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 4);
    const step = model.trainStep({ batchSize: 4, clipGrad: 0.01 });
    const { gradNorm } = await take(step, { images });
    expect(gradNorm).toBeGreaterThan(0.02);
    const gradients = await model.gradients();
    const norm = Math.sqrt(
      [...gradients.values()].reduce((sum, { data }) => sum + (data as Float32Array).reduce((s, g) => s + g * g, 0), 0),
    );
    expect(relativeError([gradNorm], [norm])).toBeLessThan(1e-5);
    const { moment1 } = await model.moments();
    const scale = (1 - 0.9) * (0.01 / (gradNorm + 1e-6));
    const wanted = new Map(
      [...gradients].map(([name, tensor]) => [name, { ...tensor, data: (tensor.data as Float32Array).map((g) => g * scale) }]),
    );
    expect(distance(moment1, wanted)).toBeLessThan(1e-6);
  });

  test('weight decay: matrices and tokens, never biases and norms', async () => {
    using model = new MaskedAutoencoder(tiny);
    await scramble(model);
    const before = await model.weights();
    // Without gradients (both betas 0 and a huge eps) a step is the decay alone.
    const step = model.trainStep({ batchSize: 1, optimizer: { weightDecay: 0.5, betas: [0, 0], eps: 1e30 } });
    await take(step, { images: picturesFor(model, 1) }, 0.1);
    for (const [name, { data, shape }] of await model.weights()) {
      const decayed = shape.length > 1 && !name.endsWith('.bias') && !name.endsWith('pos_embed');
      const was = before.get(name)!.data as Float32Array;
      expect([
        name,
        relativeError(
          data as Float32Array,
          was.map((w) => w * (decayed ? 0.95 : 1)),
        ),
      ]).toEqual([name, expect.closeTo(0, 6)]);
    }
  });

  test('steps that live at the same time decay each by its own weightDecay', async () => {
    using model = new MaskedAutoencoder(tiny);
    const stepOf = (weightDecay: number): TrainStep =>
      model.trainStep({ batchSize: 1, optimizer: { weightDecay, betas: [0, 0], eps: 1e30 } });
    const steps = [stepOf(0.5), stepOf(0)];
    const norm = async (): Promise<number> =>
      Math.sqrt(((await model.weights()).get('decoder_pred.weight')!.data as Float32Array).reduce((sum, w) => sum + w * w, 0));
    const norms = [await norm()];
    for (const step of steps) {
      await take(step, { images: picturesFor(model, 1) }, 0.1);
      norms.push(await norm());
    }
    expect([norms[1] / norms[0], norms[2] / norms[1]]).toEqual([expect.closeTo(0.95, 6), 1]);
  });

  test('steps over one model share its optimizer: moments and their count go on from one to the other, bit for bit', async () => {
    const trained = async (stepOf: (model: MaskedAutoencoder, i: number) => TrainStep): Promise<unknown> => {
      using model = new MaskedAutoencoder(tiny);
      const images = picturesFor(model, 2);
      for (let i = 0; i < 6; i++) await take(stepOf(model, i), { images, indices: Int32Array.of(2 * i, 2 * i + 1) });
      return bitsOf(await model.weights());
    };
    const made: TrainStep[] = [];
    const options: TrainStepOptions = { batchSize: 2 };
    const one = await trained((model, i) => (made[0] = i === 0 ? model.trainStep(options) : made[0]));
    // In turns, and from the fifth on by one that is made when another was disposed.
    const several = await trained((model, i) => {
      if (i === 4) made[0].dispose();
      if (i < 2 || i === 4) made[i % 2] = model.trainStep(options);
      return made[i % 2];
    });
    expect(several).toEqual(one);
    expect(made.map(({ optimizerStep }) => optimizerStep)).toEqual([6, 6]);
  });

  test('a step that is not finite changes neither weights nor moments; the next one trains', async () => {
    using model = new MaskedAutoencoder({ ...tiny, imageDType: 'f32' });
    const images = picturesFor(model, 2);
    const broken = images.slice();
    broken.fill(NaN, 0, 16 * 16 * 3);
    const step = model.trainStep({ batchSize: 2 });
    expect((await take(step, { images })).finite).toBe(true);
    const state = async (): Promise<unknown> => {
      const { moment1, moment2 } = await model.moments();
      return [bitsOf(await model.weights()), bitsOf(moment1), bitsOf(moment2)];
    };
    const before = await state();
    const { finite, loss } = await take(step, { images: broken });
    expect([finite, loss]).toEqual([false, NaN]);
    expect(await state()).toEqual(before);
    expect((await take(step, { images })).finite).toBe(true);
    expect(await state()).not.toEqual(before);
  });

  test('of a step that fails the loss alone need be looked at', async () => {
    using model = new MaskedAutoencoder(tiny);
    const step = model.trainStep({ batchSize: 1 });
    const failure = new MaeError('MAE_CUDA', 'the device is gone');
    const unhandled: unknown[] = [];
    const listen = (reason: unknown): unknown => unhandled.push(reason);
    process.on('unhandledRejection', listen);
    jest.spyOn(step.program, 'run').mockImplementation(async () => ({ results: Promise.reject(failure) }));
    const { loss } = await step.run({ images: picturesFor(model, 1) }, { lr: 0 });
    await expect(loss).rejects.toBe(failure);
    await new Promise((resolve) => setTimeout(resolve, 20));
    process.off('unhandledRejection', listen);
    expect(unhandled).toEqual([]);
  });

  test('a refused run does not count as a step', async () => {
    using model = new MaskedAutoencoder(tiny);
    const step = model.trainStep({ batchSize: 1, givenNoise: true });
    const images = picturesFor(model, 1);
    await errorOf(() => step.run({ images }, { lr: 0 }));
    await errorOf(() => step.run({ images, noise: new Float32Array(3) }, { lr: 0 }));
    await errorOf(() => step.run({ images, noise: new Float32Array(16) }, { lr: NaN }));
    expect(step.optimizerStep).toBe(0);
  });

  test('profile: a label, a kernel and seconds for every launch', async () => {
    using model = new MaskedAutoencoder(tiny);
    const step = model.trainStep({ batchSize: 1, accumIter: 2 });
    const launches = step.profile({ images: picturesFor(model, 2) }, { lr: 0 });
    expect(launches.filter(({ kernel }) => kernel === 'random_mask')).toHaveLength(2);
    expect(launches.filter(({ kernel }) => kernel === 'adamw')).toHaveLength(1);
    expect(launches.map(({ label }) => label)).toContain('encoder.blocks.1.attention');
    expect(launches.every(({ seconds }) => seconds >= 0)).toBe(true);
  });
});

describe('weights', () => {
  let folder: string;
  beforeAll(() => (folder = fs.mkdtempSync(path.join(os.tmpdir(), 'mae-model-'))));
  afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));
  const at = (name: string): string => path.join(folder, name);

  test('names and shapes are the reference implementation’s; gradients have them too', async () => {
    using model = new MaskedAutoencoder({ ...tiny, depth: 1 });
    const block = (name: string): string[] =>
      ['norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2'].flatMap((part) => [
        `${name}.${part}.weight`,
        `${name}.${part}.bias`,
      ]);
    const pair = (name: string): string[] => [`${name}.weight`, `${name}.bias`];
    const names = [
      'cls_token',
      ...pair('patch_embed.proj'),
      ...block('blocks.0'),
      ...pair('norm'),
      ...pair('decoder_embed'),
      'mask_token',
      ...block('decoder_blocks.0'),
      ...pair('decoder_norm'),
      ...pair('decoder_pred'),
    ];
    const weights = await model.weights();
    expect([...weights.keys()].sort()).toEqual([...names, 'pos_embed', 'decoder_pos_embed'].sort());
    expect(weights.get('patch_embed.proj.weight')!.shape).toEqual([24, 3, 4, 4]);
    expect(weights.get('pos_embed')!.shape).toEqual([1, 17, 24]);
    expect(weights.get('blocks.0.attn.qkv.weight')!.shape).toEqual([72, 24]);
    expect(weights.get('decoder_pred.weight')!.shape).toEqual([patchDim(model.config), 16]);
    expect(await errorOf(() => model.gradients())).toMatch(/^MAE_GRAPH gradients: there are none before a trainStep has run/);
    await take(model.trainStep({ batchSize: 1 }), { images: picturesFor(model, 1) }, 0);
    const gradients = await model.gradients();
    expect([...gradients.keys()].sort()).toEqual([...names].sort());
    for (const [name, { shape }] of gradients) expect([name, shape]).toEqual([name, weights.get(name)!.shape]);
    const parameters = names.reduce((sum, name) => sum + weights.get(name)!.data.length, 0);
    expect(model.parameterCount).toBe(parameters);
  });

  test.each(['reference', 'huggingface'] as const)('saved under %s names and loaded again: the same model', async (names) => {
    using model = new MaskedAutoencoder({
      ...tiny,
      imageSize: [16, 8],
      inChans: 4,
      mean: [0.1, 0.2, 0.3, 0.4],
      std: [0.5, 0.6, 0.7, 0.8],
      normPixLoss: true,
      maskRatio: 0.5,
    });
    await scramble(model);
    const file = at(`${names}.safetensors`);
    await model.save(file, { names });
    expect([...readSafetensors(file).tensors.keys()]).toContain(
      names === 'huggingface' ? 'vit.encoder.layer.0.attention.attention.query.weight' : 'blocks.0.attn.qkv.weight',
    );
    const { model: loaded, report } = MaskedAutoencoder.load(file, { device, precision: 'fp32', seed: 11 });
    expect(describeWeights(report)).toEqual([]);
    expect(loaded.config).toEqual(model.config);
    expect(bitsOf(await loaded.weights())).toEqual(bitsOf(await model.weights()));
    const images = picturesFor(model, 1);
    expect((await loaded.forward(images)).pred).toEqual((await model.forward(images)).pred);
    loaded.dispose();
  });

  test.each([{ names: 'timm' }, { encoderOnly: true }] as const)(
    'an encoder alone (%j): the decoder keeps its initialisation, and the report says so',
    async (options) => {
      using model = new MaskedAutoencoder(tiny);
      await scramble(model);
      const file = at('encoder.safetensors');
      await model.save(file, options);
      const { model: loaded, report } = MaskedAutoencoder.load(file, { device, precision: 'fp32', seed: 11 });
      expect(describeWeights(report)).toEqual([encoderOnlyMessage]);
      using fresh = new MaskedAutoencoder(tiny);
      const [got, scrambled, initial] = [await loaded.weights(), await model.weights(), await fresh.weights()];
      for (const [name, bits] of Object.entries(bitsOf(got))) {
        const from = name.startsWith('decoder') || name === 'mask_token' ? initial : scrambled;
        expect([name, bits]).toEqual([name, bitsOf(new Map([[name, from.get(name)!]]))[name]]);
      }
      loaded.dispose();
    },
  );

  test('initial weights: of the seed, alike in both precisions; bias zero, norm one, tokens small', async () => {
    using a = new MaskedAutoencoder(tiny);
    using b = new MaskedAutoencoder({ ...tiny, precision: 'bf16' });
    using c = new MaskedAutoencoder({ ...tiny, seed: 12 });
    const weights = await a.weights();
    expect(bitsOf(await b.weights())).toEqual(bitsOf(weights));
    expect(bitsOf(await c.weights())).not.toEqual(bitsOf(weights));
    expect(new Set(weights.get('blocks.0.mlp.fc1.bias')!.data as Float32Array)).toEqual(new Set([0]));
    expect(new Set(weights.get('norm.weight')!.data as Float32Array)).toEqual(new Set([1]));
    const bound = Math.sqrt(6 / (72 + 24));
    const qkv = weights.get('blocks.0.attn.qkv.weight')!.data as Float32Array;
    expect(qkv.every((w) => Math.abs(w) <= Math.fround(bound))).toBe(true);
    expect(qkv.reduce((most, w) => Math.max(most, Math.abs(w)), 0)).toBeGreaterThan(0.98 * bound);
    expect((weights.get('cls_token')!.data as Float32Array).every((w) => Math.abs(w) < 0.1)).toBe(true);
  });

  test('refused: of another size, with something missing, not floating point; nothing is changed then', async () => {
    using model = new MaskedAutoencoder(tiny);
    using wider = new MaskedAutoencoder({ ...tiny, embedDim: 48 });
    const before = bitsOf(await model.weights());
    const weights = await model.weights();
    expect(await errorOf(async () => model.setWeights(await wider.weights()))).toMatch(
      /^MAE_CHECKPOINT setWeights does not fit this model: wrong shape: cls_token/,
    );
    const some = new Map([...weights].filter(([name]) => name !== 'blocks.1.mlp.fc1.bias'));
    expect(await errorOf(() => model.setWeights(some))).toMatch(/^MAE_CHECKPOINT .*missing in the file: blocks\.1\.mlp\.fc1\.bias/);
    const wrong = new Map(weights).set('norm.bias', { dtype: 'I32', shape: [24], data: new Int32Array(24) });
    wrong.set('cls_token', { dtype: 'F32', shape: [1, 1, 24], data: new Float32Array(24).fill(7) });
    expect(await errorOf(() => model.setWeights(wrong))).toMatch(/^MAE_FORMAT .*norm\.bias is I32, not floating point/);
    expect(bitsOf(await model.weights())).toEqual(before);
    expect(await errorOf(() => MaskedAutoencoder.load(at('none.safetensors')))).toMatch(/^MAE_FILE .*none\.safetensors/);
  });

  test('bfloat16 and float16 files are widened', async () => {
    using model = new MaskedAutoencoder(tiny);
    const weights = await model.weights();
    const bf16 = (data: Float32Array): Uint16Array =>
      Uint16Array.from(new Uint32Array(data.buffer, data.byteOffset, data.length), (bits) => bits >>> 16);
    model.setWeights(
      new Map([...weights].map(([name, tensor]) => [name, { ...tensor, dtype: 'BF16', data: bf16(tensor.data as Float32Array) }])),
    );
    expect(distance(await model.weights(), weights)).toBeLessThan(2 ** -7);
    model.setWeights(
      new Map([
        ['norm.weight', { dtype: 'F16', shape: [24], data: new Uint16Array(24).fill(0x3e00) }],
        ...[...weights].filter(([name]) => name !== 'norm.weight'),
      ]),
    );
    expect(new Set((await model.weights()).get('norm.weight')!.data as Float32Array)).toEqual(new Set([1.5]));
  });
});

describe('memory', () => {
  test('`using` gives everything back', async () => {
    const before = native().stats().deviceBytes;
    {
      using model = new MaskedAutoencoder(tiny);
      await model.forward(picturesFor(model, 2));
      await model.features(picturesFor(model, 2));
      await take(model.trainStep({ batchSize: 2 }), { images: picturesFor(model, 2) });
      expect(native().stats().deviceBytes).toBeGreaterThan(before);
    }
    expect(native().stats().deviceBytes).toBe(before);
  });

  test('what cannot fit is refused before it is allocated: the parts, what is free, and what to change', async () => {
    const huge = { ...tiny, embedDim: 3 * 2 ** 15, numHeads: 3 * 2 ** 8, depth: 24 };
    expect(await errorOf(() => new MaskedAutoencoder(huge))).toMatch(/^MAE_MEMORY [\d.]+ \w+ are needed on .* \(weights [\d.]+ \w+\), /);
    using model = new MaskedAutoencoder(tiny);
    model.trainStep({ batchSize: 1 });
    const before = native().stats().deviceBytes;
    expect(await errorOf(() => model.trainStep({ batchSize: 50_000_000 }))).toMatch(
      /^MAE_MEMORY [\d.]+ \w+ are needed on .* \(activations [\d.]+ \w+, workspace [\d.]+ \w+, inputs [\d.]+ \w+\), [\d.]+ \w+ are free: .*recompute.*batchSize.*accumIter/,
    );
    expect(native().stats().deviceBytes).toBe(before);
  });

  test('after dispose every call is refused, and takes no memory', async () => {
    const model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 1);
    const step = model.trainStep({ batchSize: 1 });
    const other = new MaskedAutoencoder(tiny);
    const weights = await model.weights();
    model.dispose();
    model.dispose();
    other.dispose();
    const before = native().stats().deviceBytes;
    const calls: (() => unknown)[] = [
      () => model.forward(images),
      () => model.features(images),
      () => step.run({ images }, { lr: 0 }),
      () => step.profile({ images }, { lr: 0 }),
      () => model.trainStep({ batchSize: 1 }),
      () => other.trainStep({ batchSize: 1 }),
      () => model.weights(),
      () => model.gradients(),
      () => model.save(path.join(os.tmpdir(), 'never.safetensors')),
      () => model.setWeights(weights),
    ];
    const messages = await Promise.all(calls.map(errorOf));
    expect(messages.filter((message) => !message.startsWith('MAE_DISPOSED'))).toEqual([]);
    expect(native().stats().deviceBytes).toBe(before);
  });

  test('programs of other batch sizes are kept for a while, not for ever; calls that wait for one still get it', async () => {
    using model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 8);
    const one = images.length / 8;
    const loss = async (count: number): Promise<number> => (await model.forward(images.subarray(0, count * one))).loss;
    const alone: number[] = [];
    for (let count = 1; count <= 8; count++) alone.push(await loss(count));
    const held = native().stats().deviceBytes;
    const order = [1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 1];
    expect(await Promise.all(order.map(loss))).toEqual(order.map((count) => alone[count - 1]));
    for (let count = 1; count <= 8; count++) await loss(count);
    expect(native().stats().deviceBytes).toBe(held);
  });
});

describe('what is refused', () => {
  const options: [string, Record<string, unknown>, RegExp][] = [
    ['a misspelt option', { patchsize: 4 }, /^MAE_ARGUMENT MaskedAutoencoder: .*patchsize: no such option, did you mean patchSize\?/],
    ['imageSize', { imageSize: -16 }, /^MAE_ARGUMENT .*imageSize: expected number to be >0, got -16/],
    [
      'imageSize of three numbers',
      { imageSize: [16, 16, 3] },
      /^MAE_ARGUMENT .*imageSize: expected a whole number of pixels or \[height, width\], got \[16,16,3\]/,
    ],
    ['patches that do not fit', { imageSize: 18 }, /^MAE_ARGUMENT .*imageSize 18x18 must be a multiple of patchSize 4 in both directions/],
    ['patches that do not fit one way', { imageSize: [16, 18] }, /^MAE_ARGUMENT .*imageSize 16x18 must be a multiple/],
    ['depth', { depth: 0 }, /^MAE_ARGUMENT .*depth/s],
    ['heads that do not divide', { numHeads: 5 }, /^MAE_ARGUMENT .*embedDim and numHeads must divide, got 24 and 5/],
    [
      'narrow heads',
      { numHeads: 6 },
      /^MAE_ARGUMENT .*embedDim and numHeads must give heads of a multiple of 8 up to 128 wide, got 24 \/ 6 = 4/,
    ],
    [
      'wide heads',
      { decoderEmbedDim: 272, decoderNumHeads: 2 },
      /^MAE_ARGUMENT .*decoderEmbedDim and decoderNumHeads must give heads .* 272 \/ 2 = 136/,
    ],
    ['mean', { mean: [0.5] }, /^MAE_ARGUMENT .*mean needs one value for each of the 3 channels, got 1/],
    ['std', { std: [1, 1, 1, 1] }, /^MAE_ARGUMENT .*std needs one value for each of the 3 channels, got 4/],
    ['std zero', { std: [1, 0, 1] }, /^MAE_ARGUMENT .*std\[1\]/s],
    ['mlpRatio', { mlpRatio: 1.3 }, /^MAE_ARGUMENT .*embedDim · mlpRatio must be whole, got 24 · 1\.3/],
    ['a ratio that keeps none', { maskRatio: 0.99 }, /^MAE_ARGUMENT .*maskRatio 0\.99 keeps none of the 16 patches: lower it/],
    [
      'normalised pixels of patches with one value',
      { normPixLoss: true, patchSize: 1, inChans: 1 },
      /^MAE_ARGUMENT .*normPixLoss .* standard deviation of a patch.*: raise patchSize/,
    ],
    ['maskRatio 1', { maskRatio: 1 }, /^MAE_ARGUMENT .*maskRatio: expected number to be <1, got 1/],
    ['maskRatio below 0', { maskRatio: -0.5 }, /^MAE_ARGUMENT .*maskRatio/s],
    ['seed', { seed: 1.5 }, /^MAE_ARGUMENT .*seed must be a whole number from 0 to 2\^32 − 1, got 1\.5/],
    ['seed too large', { seed: 2 ** 32 }, /^MAE_ARGUMENT .*seed .* got 4294967296/],
    ['precision', { precision: 'fp16' }, /^MAE_ARGUMENT .*precision must be 'fp32' or 'bf16', got 'fp16'/],
    [
      'a bf16 residual stream in fp32',
      { residualPrecision: 'bf16' },
      /^MAE_ARGUMENT .*residualPrecision must be 'fp32', or 'bf16' with precision 'bf16', got 'bf16' with precision 'fp32'/,
    ],
    ['imageDType', { imageDType: 'u16' }, /^MAE_ARGUMENT .*imageDType must be 'u8' or 'f32', got 'u16'/],
    ['device', { device: 'gpu' }, /^MAE_ARGUMENT device must be auto, cpu, cuda or cuda:<number>, got 'gpu'/],
    [
      'a GPU that is not there',
      { device: 'cuda:99' },
      /^MAE_NO_CUDA device 'cuda:99' cannot be used: .*npx mae doctor.*'cpu' works everywhere/,
    ],
  ];
  test.each(options)('%s', async (_, option, message) => {
    const before = native().stats().deviceBytes;
    expect(await errorOf(() => new MaskedAutoencoder({ ...tiny, ...option }))).toMatch(message);
    expect(native().stats().deviceBytes).toBe(before);
  });

  test('devices: the CPU is always there and last; MAE_DEVICE answers for auto', async () => {
    expect(devices().at(-1)).toMatchObject({ id: 'cpu', usable: true });
    const before = process.env.MAE_DEVICE;
    try {
      process.env.MAE_DEVICE = 'cpu';
      expect(openDevice().id).toBe('cpu');
      expect(openDevice()).toMatchObject({ kind: 'cpu', defaultPrecision: 'fp32' });
      process.env.MAE_DEVICE = 'tpu';
      expect(await errorOf(() => openDevice('auto'))).toMatch(/^MAE_ARGUMENT device must be .* got 'tpu'/);
      expect(openDevice('cpu').id).toBe('cpu');
      delete process.env.MAE_DEVICE;
      expect(openDevice().id).toBe(devices().find(({ usable }) => usable)!.id);
    } finally {
      if (before === undefined) delete process.env.MAE_DEVICE;
      else process.env.MAE_DEVICE = before;
    }
  });

  test('pictures: type, number, size', async () => {
    using model = new MaskedAutoencoder(tiny);
    using float = new MaskedAutoencoder({ ...tiny, imageDType: 'f32' });
    const refused = (images: unknown, of = model): Promise<string> => errorOf(() => of.forward(images as Uint8Array));
    expect(await refused(undefined)).toMatch(
      /^MAE_ARGUMENT forward: images must be a Uint8Array NHWC \[1, 16, 16, 3\] \(768 values\), got undefined/,
    );
    expect(await refused([1, 2, 3])).toMatch(/^MAE_ARGUMENT forward: .*got Array/);
    expect(await refused(new Float32Array(768))).toMatch(/^MAE_ARGUMENT forward: .*got Float32Array: make the model with imageDType 'f32'/);
    expect(await refused(new Uint8Array(768), float)).toMatch(/^MAE_ARGUMENT forward: images must be a Float32Array .*got Uint8Array/);
    expect(await refused(new Uint8Array(767))).toMatch(/^MAE_SHAPE forward: .*\[1, 16, 16, 3\] \(768 values\), got 767 values/);
    expect(await refused(new Uint8Array(0))).toMatch(/^MAE_SHAPE forward: .*got 0 values/);
    expect(await errorOf(() => model.features(new Uint8Array(10)))).toMatch(/^MAE_SHAPE features: /);
    const step = model.trainStep({ batchSize: 2 });
    expect(await errorOf(() => step.run({ images: new Uint8Array(768) }, { lr: 0 }))).toMatch(
      /^MAE_SHAPE trainStep\.run: .*\[2, 16, 16, 3\] \(1536 values\), got 768/,
    );
    const buffer = Buffer.alloc(768, 9);
    expect((await model.forward(buffer)).loss).toBe((await model.forward(new Uint8Array(768).fill(9))).loss);
  });

  test('forward: noise, patches to keep, indices, mask ratio', async () => {
    using model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 2);
    const refused = (given: object): Promise<string> => errorOf(() => model.forward(images, given));
    expect(await refused({ noise: new Float32Array(16) })).toMatch(
      /^MAE_SHAPE forward: noise must be a Float32Array \[2, 16\], got 16 values/,
    );
    expect(await refused({ noise: new Float64Array(32) })).toMatch(
      /^MAE_ARGUMENT forward: noise must be a Float32Array .*got Float64Array/,
    );
    expect(await refused({ keep: [] })).toMatch(/^MAE_SHAPE forward: keep needs one list for each of the 2 pictures/);
    expect(await refused({ keep: [[1], [2, 3]] })).toMatch(/^MAE_SHAPE forward: keep .*equally long/);
    expect(await refused({ keep: [[], []] })).toMatch(/^MAE_SHAPE forward: keep .*not empty/);
    expect(
      await refused({
        keep: [
          [1, 16],
          [2, 3],
        ],
      }),
    ).toMatch(/^MAE_ARGUMENT forward: keep must name different patches from 0 to 15, got 1, 16/);
    expect(
      await refused({
        keep: [
          [1, 2],
          [3, 3],
        ],
      }),
    ).toMatch(/^MAE_ARGUMENT forward: keep .*different.* got 3, 3/);
    expect(
      await refused({
        keep: [
          [1, 2],
          [0.5, 3],
        ],
      }),
    ).toMatch(/^MAE_ARGUMENT forward: keep .*got 0\.5, 3/);
    expect(await refused({ indices: Int32Array.of(1) })).toMatch(/^MAE_SHAPE forward: indices must be an Int32Array \[2\], got 1 values/);
    expect(await refused({ maskRatio: 1 })).toMatch(/^MAE_ARGUMENT .*maskRatio/s);
    expect(await refused({ maskRatio: 0.97 })).toMatch(/^MAE_ARGUMENT .*keeps none of the 16 patches/);
    const keep = [[1], [2]];
    expect(await refused({ keep, noise: new Float32Array(32) })).toMatch(/^MAE_ARGUMENT forward: keep .* without noise and maskRatio/);
    expect(await refused({ keep, maskRatio: 0.5 })).toMatch(/^MAE_ARGUMENT forward: keep .* without noise and maskRatio/);
    expect(await errorOf(() => model.features(images, { pool: 'max' as 'mean' }))).toMatch(
      /^MAE_ARGUMENT features: pool must be 'cls', 'mean' or 'tokens', got 'max'/,
    );
  });

  test('trainStep: sizes, optimizer, mask ratio, clipping', async () => {
    using model = new MaskedAutoencoder(tiny);
    const refused = (given: object, of = model): Promise<string> => errorOf(() => of.trainStep({ batchSize: 1, ...given }));
    const nothing = undefined as unknown as TrainStepOptions;
    expect(await errorOf(() => model.trainStep(nothing))).toMatch(/^MAE_ARGUMENT trainStep: batchSize .*got undefined/);
    expect(await errorOf(() => model.setWeights({} as Map<string, HostTensor>))).toMatch(/^MAE_ARGUMENT setWeights: needs a Map/);
    expect(await errorOf(() => presets['vit-bse/16' as 'vit-base/16'])).toMatch(/^MAE_ARGUMENT presets: .*'vit-bse\/16'.*vit-base\/16/);
    expect(await refused({ batchSize: 0 })).toMatch(/^MAE_ARGUMENT trainStep: batchSize must be a positive whole number, got 0/);
    expect(await refused({ batchSize: 1.5 })).toMatch(/^MAE_ARGUMENT trainStep: batchSize .*got 1\.5/);
    expect(await refused({ accumIter: -2 })).toMatch(/^MAE_ARGUMENT trainStep: accumIter must be a positive whole number, got -2/);
    expect(await refused({ clipGrad: -1 })).toMatch(/^MAE_ARGUMENT trainStep: clipGrad must be a number of at least 0, got -1/);
    expect(await refused({ clipGrad: NaN })).toMatch(/^MAE_ARGUMENT trainStep: clipGrad .*got NaN/);
    expect(await refused({ optimizer: { name: 'sgd' } })).toMatch(/^MAE_ARGUMENT optimizer: .*adamw/s);
    expect(await refused({ optimizer: { betas: [0.9, 1] } })).toMatch(/^MAE_ARGUMENT optimizer: .*betas\[1\]/s);
    expect(await refused({ optimizer: { weightdecay: 0.1 } })).toMatch(
      /^MAE_ARGUMENT optimizer: .*weightdecay: no such option, did you mean weightDecay\?/,
    );
    using unmasked = new MaskedAutoencoder({ ...tiny, maskRatio: 0 });
    expect(await refused({}, unmasked)).toMatch(
      /^MAE_ARGUMENT trainStep: maskRatio 0 masks none of the 16 patches, so there is nothing to predict: raise it/,
    );
  });

  test('a step: learning rate, indices, noise', async () => {
    using model = new MaskedAutoencoder(tiny);
    const images = picturesFor(model, 2);
    const step = model.trainStep({ batchSize: 2 });
    const refused = (batch: object, lr = 0, of = step): Promise<string> => errorOf(() => of.run({ images, ...batch }, { lr }));
    expect(await refused({}, NaN)).toMatch(/^MAE_ARGUMENT trainStep\.run: lr must be a finite number from 0, got NaN/);
    expect(await refused({}, -1)).toMatch(/^MAE_ARGUMENT trainStep\.run: lr .*got -1/);
    expect(await refused({ epoch: 1.5 })).toMatch(/^MAE_ARGUMENT trainStep\.run: epoch must be a whole number from 0, got 1\.5/);
    const untyped = step.run.bind(step) as (...given: unknown[]) => Promise<unknown>;
    expect(await errorOf(() => untyped({ images }))).toMatch(/^MAE_ARGUMENT trainStep\.run: lr .*got undefined/);
    expect(await errorOf(() => untyped())).toMatch(/^MAE_ARGUMENT trainStep\.run: images .*got undefined/);
    expect(await refused({}, Infinity)).toMatch(/^MAE_ARGUMENT trainStep\.run: lr .*got Infinity/);
    expect(await refused({ indices: Int32Array.of(1) })).toMatch(
      /^MAE_SHAPE trainStep\.run: indices must be an Int32Array \[2\], got 1 values/,
    );
    expect(await refused({ indices: [1, 2] })).toMatch(/^MAE_ARGUMENT trainStep\.run: indices must be an Int32Array \[2\], got Array/);
    expect(await refused({ noise: new Float32Array(32) })).toMatch(/^MAE_ARGUMENT trainStep\.run: .*givenNoise/);
    const given = model.trainStep({ batchSize: 2, givenNoise: true });
    expect(await refused({}, 0, given)).toMatch(/^MAE_ARGUMENT trainStep\.run: noise must be a Float32Array \[2, 16\], got none/);
    expect(await refused({ noise: new Float32Array(31) }, 0, given)).toMatch(
      /^MAE_SHAPE trainStep\.run: noise must be a Float32Array \[2, 16\], got 31 values/,
    );
    expect((await take(step, { images })).finite).toBe(true);
  });
});
