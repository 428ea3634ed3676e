/** `mae demo`: pictures, a small model, a few minutes of training, and something to look at. */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import type { Dataset } from '../data/dataset';
import { openDataset } from '../data/open';
import { MaeError } from '../errors';
import { openDevice, type Precision } from '../graph/device';
import type { ModelOptions } from '../nn/maskedAutoencoder';
import { presets } from '../nn/presets';
import { pretrain, type PretrainResult } from '../train/pretrain';
import type { ProgressStream } from '../view/progress';
import { formatDuration, formatRate, groupDigits } from '../format';
import { PICTURE_SIZE } from './draw';
import { drawResults } from './results';
import { holdOut } from './holdOut';
import { writePictures } from './pictures';
import { epochsFor, measureSpeed } from './plan';

export interface DemoOptions {
  /** Of the user's own, a folder or a .maepack file; absent: the demo draws some. */
  data?: string;
  /** Pictures to draw for training. */
  pictures: number;
  out: string;
  /** For all of it: training gets what drawing leaves, at least half. */
  minutes: number;
  /** So many epochs however long they take, instead of as many as fit into the minutes: the same run on every machine. */
  epochs?: number;
  seed: number;
  device: string;
  signal?: AbortSignal;
  /** What the demo does, line by line. */
  say: (line: string) => void;
  /** Where the progress of the training goes; default standard error. */
  stream?: ProgressStream;
}

export interface DemoResult extends PretrainResult {
  /** masked | reconstruction | original; absent if the demo was interrupted. */
  grid?: string;
  /** The same pictures at several mask ratios. */
  ladder?: string;
}

const PRESET = 'vit-micro/8';
/** Small: within minutes many steps teach more than large batches. */
const BATCH = 16;
/** Pictures seen below which reconstructions stay blurred. */
const FEW = 50_000;
/** Pictures that the demo draws besides, to be looked at and never trained on: 28 of each kind, or as many as for training. */
const HELD_OUT = 196;
/** Large pictures are shrunk to this short side as they are decoded: twice the model's, so that crops stay sharp. */
const SHORT_SIDE = 2 * PICTURE_SIZE;

/**
 * Runs the demo.
 * @throws MaeError MAE_DATA when `data` has no pictures in colour; what `pretrain` throws
 */
export async function runDemo(options: DemoOptions): Promise<DemoResult> {
  const { minutes, seed, device, signal, say, stream } = options;
  const started = performance.now();
  const out = unusedFolder(options.out);
  if (out !== options.out) say(`${options.out} is there already and stays as it is: this run goes to ${out}`);

  say('1/4  pictures');
  const { training, heldOut } = options.data ? openOwn(options.data, say) : await drawOwn(out, options);
  try {
    const batchSize = Math.min(BATCH, training.length);
    const seenPerEpoch = Math.floor(training.length / batchSize) * batchSize;
    const precision = precisionFor(device);

    say('2/4  plan');
    const model = { ...presets[PRESET], device, precision, seed };
    const left = Math.max(minutes / 2, minutes - (performance.now() - started) / 60_000);
    const epochs = options.epochs ?? (await planEpochs(model, batchSize, seenPerEpoch, left, say));
    say('3/4  training: the model sees a quarter of the patches of a picture and paints the others');
    const result = await pretrain({
      data: training,
      valData: heldOut,
      out,
      preset: PRESET,
      batchSize,
      epochs,
      warmupEpochs: Math.min(1, epochs / 10),
      lr: 2e-3,
      clipGrad: 1,
      seed,
      device,
      precision,
      // The demo's own pictures are as large as the model's, and what they are made of (horizon, mirror image) is lost in crops.
      ...(options.data ? { scale: [0.5, 1] } : { augment: 'none', flip: 0.5 }),
      maxMinutes: options.epochs ? undefined : 1.1 * left, // the machine may turn out slower than it was at first
      saveEvery: epochs,
      valEvery: Math.ceil(epochs / 8),
      reconstructEvery: Math.ceil(epochs / 5),
      signal,
      stream,
    });
    if (result.ended === 'interrupted') return result;

    say('4/4  reconstructions');
    return { ...result, ...(await drawResults(result, heldOut ?? training, { device, precision, seed })) };
  } finally {
    training.close();
    heldOut?.close();
  }
}

async function planEpochs(
  model: ModelOptions,
  batchSize: number,
  seenPerEpoch: number,
  minutes: number,
  say: DemoOptions['say'],
): Promise<number> {
  const speed = await measureSpeed(model, batchSize, Math.min(3, 6 * minutes));
  const epochs = epochsFor(minutes, speed, seenPerEpoch);
  say(
    `     ${formatRate(speed, 'img')} here: ${groupDigits(epochs * seenPerEpoch)} pictures (${epochs} epochs) fit into ` +
      `${formatDuration(60 * minutes)}; the learning rate falls to zero over them`,
  );
  if (epochs * seenPerEpoch < FEW) say('     not many: objects will stay blurred; a larger --minutes sharpens them');
  return epochs;
}

/** The folder itself if nothing is in it, else the next free name: folder-2, folder-3 … */
function unusedFolder(wanted: string): string {
  const isFree = (folder: string): boolean => !existsSync(folder) || readdirSync(folder).length === 0;
  for (let number = 1; ; number++) {
    const folder = number === 1 ? wanted : `${path.normalize(wanted).replace(/[/\\]$/, '')}-${number}`;
    if (isFree(folder)) return folder;
  }
}

async function drawOwn(out: string, { pictures, seed, signal, say }: DemoOptions): Promise<{ training: Dataset; heldOut: Dataset }> {
  const started = performance.now();
  const folders = { training: path.join(out, 'pictures', 'training'), heldOut: path.join(out, 'pictures', 'held-out') };
  const size = `${PICTURE_SIZE}x${PICTURE_SIZE}`;
  const held = Math.min(HELD_OUT, pictures);
  say(`     drawing ${groupDigits(pictures)} of ${size} for training and ${held} to look at, into ${path.join(out, 'pictures')}`);
  await writePictures(folders.training, { seed, first: 0, count: pictures, signal });
  await writePictures(folders.heldOut, { seed, first: pictures, count: held, signal });
  say(`     drawn in ${formatDuration((performance.now() - started) / 1000)}`);
  const open = (folder: string): Dataset => openDataset(folder, { log: () => undefined });
  return { training: open(folders.training), heldOut: open(folders.heldOut) };
}

function openOwn(source: string, say: (line: string) => void): { training: Dataset; heldOut?: Dataset } {
  const whole = openDataset(source, { size: SHORT_SIDE, log: (line) => say(`     ${line}`) });
  if (whole.dtype !== 'uint8' || whole.channels !== 3) {
    whole.close();
    throw new MaeError(
      'MAE_DATA',
      `demo: needs pictures in colour (uint8, 3 channels), ${source} has ${whole.dtype} with ${whole.channels}; \`mae pretrain\` trains on those`,
    );
  }
  const parts = holdOut(whole);
  say(
    parts.heldOut
      ? `     ${groupDigits(parts.training.length)} for training, ${parts.heldOut.length} held out to look at`
      : `     ${whole.length}: too few to hold some out, reconstructions will show pictures that were trained on`,
  );
  return parts;
}

/** bf16 where the processor multiplies it (AVX512-BF16): nearly twice as fast there, the loss after as many pictures within 2 %. */
function precisionFor(device: string): Precision {
  const { handle, defaultPrecision } = openDevice(device);
  return handle.name.includes('avx512bf16') ? 'bf16' : defaultPrecision;
}
