/** Every public call refuses option names that it does not have, and numbers that are none: both would change results without a word. */
import * as mae from '../lib';
import { errorOf } from './helpers/errors';
import { tinySizes } from './helpers/tinyModel';

const device = process.env.MAE_DEVICE || 'cpu';
const images = new Uint8Array(2 * 768).fill(9);
const dataset = new mae.ArrayDataset({ images, height: 16, width: 16, channels: 3 });
const picture = images.subarray(0, 768);
const three = { originals: [picture], masked: [picture], reconstructions: [picture], shape: { height: 16, width: 16, channels: 3 } };

let model: mae.MaskedAutoencoder;
let step: mae.TrainStep;
beforeAll(() => {
  model = new mae.MaskedAutoencoder({ ...tinySizes, device });
  step = model.trainStep({ batchSize: 2, givenNoise: true });
});
afterAll(() => model.dispose());

/** Options as JavaScript gives them, unchecked by types. */
type Given = Record<string, never>;

const calls: [name: string, call: (options: Given) => unknown, misspelt: string, meant: string][] = [
  ['MaskedAutoencoder', (o) => new mae.MaskedAutoencoder({ ...tinySizes, device, ...o }), 'precison', 'precision'],
  ['MaskedAutoencoder', (o) => new mae.MaskedAutoencoder({ ...tinySizes, device, ...o }), 'mask_ratio', 'maskRatio'],
  ['forward', (o) => model.forward(images, o), 'nosie', 'noise'],
  ['features', (o) => model.features(images, o), 'pol', 'pool'],
  ['save', (o) => model.save('/nowhere/x.safetensors', o), 'encoder_only', 'encoderOnly'],
  ['trainStep', (o) => model.trainStep({ batchSize: 2, ...o }), 'acumIter', 'accumIter'],
  ['trainStep.run', (o) => step.run({ images, noise: new Float32Array(32) }, { lr: 0, ...o }), 'LR', 'lr'],
  ['optimizer', (o) => model.trainStep({ batchSize: 2, optimizer: o }), 'beta', 'betas'],
  ['pretrain', (o) => mae.pretrain({ data: dataset, ...o }), 'initForm', 'initFrom'],
  ['cosineSchedule', (o) => mae.cosineSchedule({ lr: 1, epochs: 2, ...o }), 'warmup_epochs', 'warmupEpochs'],
  ['constantSchedule', (o) => mae.constantSchedule({ lr: 1, ...o }), 'BLR', 'blr'],
  ['ImageFolder', (o) => new mae.ImageFolder('/nowhere', o), 'cachebytes', 'cacheBytes'],
  ['ImageFolder', (o) => mae.openDataset('/nowhere', o), 'szie', 'size'],
  ['ArrayDataset', (o) => new mae.ArrayDataset({ images, height: 16, width: 16, channels: 3, ...o }), 'label', 'labels'],
  ['Loader', (o) => new mae.Loader(dataset, { batchSize: 1, imageSize: 16, ...o }), 'shufle', 'shuffle'],
  ['pack', (o) => mae.pack('/nowhere', '/nowhere.maepack', o), 'sizes', 'size'],
  ['statistics', (o) => mae.statistics(dataset, o), 'sample', 'samples'],
  ['checkData', (o) => mae.checkData('/nowhere', o), 'samples', 'sample'],
  ['validationLoss', (o) => mae.validationLoss(model, dataset, 2, o), 'worker', 'workers'],
  ['reconstructions', (o) => mae.reconstructions(model, images, o), 'maskratio', 'maskRatio'],
  ['reconstructions', (o) => mae.reconstructionPicture(model, images, o), 'statistic', 'statistics'],
  ['reconstructionGrid', (o) => mae.reconstructionGrid({ ...three, ...o }), 'lables', 'labels'],
  ['maskRatioLadder', (o) => mae.maskRatioLadder({ originals: [], steps: [], shape: three.shape, ...o }), 'step', 'steps'],
];

test.each(calls)('%s: %p', async (name, call, misspelt, meant) => {
  const error = await errorOf(() => call({ [misspelt]: 1 } as unknown as Given));
  expect(error).toMatch(/^MAE_(ARGUMENT|CONFIG) /);
  expect(error).toContain(`${name}: `);
  expect(error).toContain(`${misspelt}: no such option, did you mean ${meant}?`);
});

test('options that are no object', async () => {
  for (const given of ['vit-base/16', null, 7]) {
    expect(await errorOf(() => new mae.MaskedAutoencoder(given as unknown as Given))).toMatch(
      /^MAE_ARGUMENT MaskedAutoencoder: options must be an object, got ("vit-base\/16"|null|7)/,
    );
  }
});

const noise = (at: number, value: number): Float32Array => Float32Array.from({ length: 32 }, (_, i) => (i === at ? value : i / 32));
const values: [what: string, call: () => unknown, message: RegExp][] = [
  [
    'noise of forward',
    () => model.forward(images, { noise: noise(17, NaN) }),
    /^MAE_ARGUMENT forward: noise must be finite, got NaN for patch 1 of picture 1/,
  ],
  ['epoch of forward', () => model.forward(images, { epoch: NaN }), /^MAE_ARGUMENT forward: epoch must be a whole number from 0, got NaN/],
  ['maskRatio of forward', () => model.forward(images, { maskRatio: NaN }), /^MAE_ARGUMENT .*maskRatio: .*got NaN/],
  [
    'noise of a step',
    () => step.run({ images, noise: noise(3, -Infinity) }, { lr: 0 }),
    /^MAE_ARGUMENT trainStep\.run: noise must be finite, got -Infinity for patch 3 of picture 0/,
  ],
  ['clipGrad', () => model.trainStep({ batchSize: 2, clipGrad: Infinity }), /^MAE_ARGUMENT trainStep: clipGrad .*got Infinity/],
  ['mean', () => new mae.MaskedAutoencoder({ ...tinySizes, device, mean: [0, NaN, 0] }), /^MAE_ARGUMENT .*mean\[1\]: .*got NaN/],
  ['cacheBytes', () => new mae.ImageFolder(__dirname, { cacheBytes: NaN }), /^MAE_ARGUMENT ImageFolder: cacheBytes .*got NaN/],
  [
    'labels',
    () => new mae.ArrayDataset({ images, height: 16, width: 16, channels: 3, labels: [0, NaN] }),
    /^MAE_ARGUMENT .*labels needs whole numbers .*got NaN at 1/,
  ],
  ['samples', () => mae.statistics(dataset, { samples: NaN }), /^MAE_ARGUMENT statistics: samples .*got NaN/],
  ['sample', () => mae.checkData('/nowhere', { sample: NaN }), /^MAE_ARGUMENT checkData: sample .*got NaN/],
  ['imageSize of checkData', () => mae.checkData('/nowhere', { imageSize: NaN }), /^MAE_ARGUMENT checkData: imageSize .*got NaN/],
  ['triplesPerRow', () => mae.reconstructionGrid({ ...three, triplesPerRow: 0 }), /^MAE_ARGUMENT .*triplesPerRow .*got 0/],
  [
    'statistics of patches',
    () => mae.reconstructions(model, images, { statistics: 'visibel' as 'visible' }),
    /^MAE_ARGUMENT .*statistics must be one of raw, visible, target, got 'visibel'/,
  ],
  ['a source that is no data set', () => mae.openDataset(undefined as unknown as string), /^MAE_ARGUMENT openDataset: needs a folder/],
  [
    'a loader over none',
    () => new mae.Loader(undefined as unknown as mae.Dataset, { batchSize: 1, imageSize: 16 }),
    /^MAE_ARGUMENT Loader: dataset needs a Dataset, got "undefined"/,
  ],
];

test.each(values)('refused: %s', async (_, call, message) => {
  expect(await errorOf(call)).toMatch(message);
});
