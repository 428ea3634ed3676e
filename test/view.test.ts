import * as fs from 'node:fs';
import { EventEmitter } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { readSafetensors } from '../lib/io/safetensors';
import { lossCurve, smoothCurve } from '../lib/view/curve';
import * as format from '../lib/format';
import { drawGrid } from '../lib/view/grid';
import { applyStatistics, estimateStatistics, patchStatistics } from '../lib/view/patchStatistics';
import { PictureShape, maskPicture, normalise, pasteVisible, patchify, toUint8, unpatchify } from '../lib/view/patches';
import { ProgressOptions, TrainingProgress } from '../lib/view/progress';
import { maskRatioLadder, reconstruct, reconstructionGrid } from '../lib/view/reconstruction';
import { markdownTable, textTable } from '../lib/view/table';
import { EventWriter, crc32c } from '../lib/view/tensorboard';
import { niceTicks } from '../lib/view/ticks';

const imagenet = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/** A smooth picture with an edge in it, the same every time. */
function picture({ height, width, channels }: Omit<PictureShape, 'patch'>): Uint8Array {
  return Uint8Array.from({ length: height * width * channels }, (_, i) => {
    const [x, y, c] = [Math.floor(i / channels) % width, Math.floor(i / channels / width), i % channels];
    return 120 + 60 * Math.sin(x / 5 + c) + 40 * Math.cos(y / 7) + (x > y ? 20 : 0);
  });
}

/** Three of four patches removed, scattered. */
function scatteredMask(patches: number): Float32Array {
  return Float32Array.from({ length: patches }, (_, p) => ((p * 7 + Math.floor(p / 5)) % 4 === 0 ? 0 : 1));
}

describe('format', () => {
  test.each([
    [0, '0 s'],
    [0.0123, '0.012 s'],
    [9.996, '10 s'],
    [59.4, '59 s'],
    [59.6, '1 min 00 s'],
    [3599.7, '1 h 00 min'],
    [5 * 3600 + 125, '5 h 02 min'],
    [76 * 3600, '3 d 4 h'],
    [Infinity, '–'],
    [NaN, '–'],
  ])('%f seconds are %s', (seconds, text) => expect(format.formatDuration(seconds)).toBe(text));

  test('counts, bytes, rates, shares, learning rates', () => {
    expect(format.formatCount(111_655_680)).toBe('111.7 M');
    expect([999, 999.6, 1000, 999_949, 999_950].map((n) => format.formatCount(n))).toEqual(['999', '1.0 k', '1.0 k', '999.9 k', '1.0 M']);
    expect(format.formatCount(58.7e9, 'FLOP')).toBe('58.7 GFLOP');
    expect([0, 512, 1536, 5.2 * 2 ** 30].map(format.formatBytes)).toEqual(['0 B', '512 B', '1.5 KiB', '5.2 GiB']);
    expect([8.44, 1234.4, NaN].map((n) => format.formatRate(n, 'img'))).toEqual(['8.4 img/s', '1\u00a0234 img/s', '–']);
    expect([0, 0.004, 0.034, 1].map(format.formatPercent)).toEqual(['0 %', '0.4 %', '3 %', '100 %']);
    expect([0, 1.5e-4, 2.4e-3, 1, 1.2345e-5].map(format.formatLearningRate)).toEqual(['0', '1.5e-4', '2.4e-3', '1e+0', '1.23e-5']);
  });
});

describe('tables', () => {
  const columns = ['model', { title: 'params' }, { title: 'note', align: 'right' as const }];
  const rows = [
    ['vit-base/16', '111.7 M', 'a|b'],
    ['größer', 9, undefined],
  ];

  test('text', () => {
    expect(textTable(columns, rows)).toBe(
      ['model         params  note', '───────────  ───────  ────', 'vit-base/16  111.7 M   a|b', 'größer             9'].join('\n'),
    );
  });

  test('Markdown', () => {
    expect(markdownTable(columns, rows)).toBe(
      [
        '| model       |  params | note |',
        '| ----------- | ------: | ---: |',
        '| vit-base/16 | 111.7 M | a\\|b |',
        '| größer      |       9 |      |',
      ].join('\n'),
    );
  });
});

describe('TensorBoard events', () => {
  let folder: string;
  beforeEach(() => (folder = fs.mkdtempSync(join(tmpdir(), 'mae-tb-'))));
  afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

  test('CRC-32C of RFC 3720', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
    expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
    expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43);
  });

  // A reader written from the formats, apart from the writer.
  type Fields = Map<number, (number | Buffer)[]>;
  function decode(bytes: Buffer): Fields {
    const fields: Fields = new Map();
    let at = 0;
    const varint = () => {
      let [value, scale] = [0, 1];
      for (;;) {
        const byte = bytes[at++];
        value += (byte & 127) * scale;
        if (byte < 128) return value;
        scale *= 128;
      }
    };
    while (at < bytes.length) {
      const key = varint();
      const wire = key & 7;
      let value: number | Buffer;
      if (wire === 0) value = varint();
      else if (wire === 1) [value, at] = [bytes.readDoubleLE(at), at + 8];
      else if (wire === 5) [value, at] = [bytes.readFloatLE(at), at + 4];
      else {
        const length = varint();
        [value, at] = [bytes.subarray(at, at + length), at + length];
      }
      fields.set(key >> 3, [...(fields.get(key >> 3) ?? []), value]);
    }
    return fields;
  }
  const unmask = (crc: number) => {
    const rotated = (crc - 0xa282ead8) >>> 0;
    return ((rotated >>> 17) | (rotated << 15)) >>> 0;
  };
  function readEvents(path: string): Fields[] {
    const bytes = fs.readFileSync(path);
    const events: Fields[] = [];
    for (let at = 0; at < bytes.length;) {
      const length = Number(bytes.readBigUInt64LE(at));
      expect(unmask(bytes.readUInt32LE(at + 8))).toBe(crc32c(bytes.subarray(at, at + 8)));
      const data = bytes.subarray(at + 12, at + 12 + length);
      expect(unmask(bytes.readUInt32LE(at + 12 + length))).toBe(crc32c(data));
      events.push(decode(data));
      at += 16 + length;
    }
    return events;
  }

  test('scalars (zeros too) and pictures are read back', async () => {
    const png = await sharp({ create: { width: 5, height: 3, channels: 3, background: 'red' } })
      .png()
      .toBuffer();
    const writer = new EventWriter(join(folder, 'run'));
    writer.scalar('train/loss', 300, 0.4213);
    writer.scalar('lr', 0, 0);
    writer.scalar('big', 2 ** 40, -1e30);
    writer.image('reconstructions', 7, png);
    writer.close();
    expect(() => writer.scalar('x', 1, 1)).toThrow(/closed/);
    expect(writer.path).toMatch(/run\/events\.out\.tfevents\.\d{10}\./);

    const [first, ...events] = readEvents(writer.path);
    expect(String(first.get(3)![0])).toBe('brain.Event:2');
    const got = events.map((event) => {
      const value = decode(decode(event.get(5)![0] as Buffer).get(1)![0] as Buffer);
      expect(Math.abs((event.get(1)![0] as number) - Date.now() / 1000)).toBeLessThan(600); // wall time in seconds
      return { step: event.get(2)![0], tag: String(value.get(1)![0]), scalar: value.get(2)?.[0], image: value.get(4)?.[0] };
    });
    expect(got.slice(0, 3)).toEqual([
      { step: 300, tag: 'train/loss', scalar: Math.fround(0.4213), image: undefined },
      { step: 0, tag: 'lr', scalar: 0, image: undefined },
      { step: 2 ** 40, tag: 'big', scalar: Math.fround(-1e30), image: undefined },
    ]);
    const image = decode(got[3].image as Buffer);
    expect([1, 2, 3].map((field) => image.get(field)![0])).toEqual([3, 5, 3]); // height, width, channels
    expect(image.get(4)![0]).toEqual(png);
  });

  test('a resumed run opens a second file that purges the steps it will write again', () => {
    const first = new EventWriter(folder);
    const second = new EventWriter(folder, { purgeStep: 21 });
    first.close();
    second.close();
    expect(second.path).not.toBe(first.path);
    const start = readEvents(second.path)[1];
    expect(start.get(2)).toEqual([21]);
    expect(decode(start.get(7)![0] as Buffer).get(1)).toEqual([1]); // SessionLog.START
  });

  test('what is no PNG is refused', () => {
    const writer = new EventWriter(folder);
    expect(() => writer.image('x', 1, Buffer.from('GIF89a'))).toThrow(/needs a PNG/);
    writer.close();
  });
});

describe('curves', () => {
  test('round ticks', () => {
    expect(niceTicks(0, 10, 5)).toEqual({ ticks: [0, 2, 4, 6, 8, 10], decimals: 0 });
    expect(niceTicks(0.37, 1.18, 6)).toEqual({ ticks: [0.4, 0.6, 0.8, 1], decimals: 1 });
    expect(niceTicks(-1, 1, 8)).toEqual({ ticks: [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1], decimals: 2 });
    expect(niceTicks(0, 1.5e-4, 3).ticks).toEqual([0, 5e-5, 1e-4, 1.5e-4]);
  });

  test('smoothing keeps lines straight, does not lag and does not flatten the beginning', () => {
    const line = Array.from({ length: 600 }, (_, i): [number, number] => [i, 3 * i]);
    const smooth = smoothCurve(line);
    for (let i = 0; i < 580; i++) expect(smooth[i][1]).toBeCloseTo(3 * i, 6);
    const noisy = line.map(([x], i): [number, number] => [x, i % 2 ? 1 : -1]);
    expect(Math.abs(smoothCurve(noisy)[300][1])).toBeLessThan(0.05);
    expect(smoothCurve([[0, 9], ...line.slice(1)])[0][1]).toBe(9);
  });

  const points = (count: number, f: (i: number) => number) => Array.from({ length: count }, (_, i): [number, number] => [i, f(i)]);

  test('an SVG that draws, with every part in it', async () => {
    const svg = lossCurve({
      title: 'A < B & C',
      subtitle: 'sub',
      series: [
        { name: 'train', points: points(50_000, (i) => 0.4 + Math.exp(-i / 900) + 0.02 * Math.sin(i * 12.9)) },
        { name: 'validation', points: points(20, (i) => 0.5 - i / 100).map(([x, y]) => [x * 2500, y]) },
      ],
      learningRate: points(50_000, (i) => (1e-3 * i) / 50_000),
    });
    for (const part of ['A &lt; B &amp; C', 'sub', 'train 0.3999', 'validation 0.3100', 'learning rate', '>step<', '>loss<', '<circle']) {
      expect([part, svg.includes(part)]).toEqual([part, true]);
    }
    expect(svg.length).toBeLessThan(80_000); // 50 000 points are thinned to what can be seen
    const { data, info } = await sharp(Buffer.from(svg)).removeAlpha().raw().toBuffer({ resolveWithObject: true });
    expect([info.width, info.height]).toEqual([960, 540]);
    // The solid blue of the training line is where its value is: near the bottom at the end of the run.
    const blue = (x: number) =>
      Array.from({ length: 540 }, (_, y) => y).filter((y) => data[(y * 960 + x) * 3 + 2] - data[(y * 960 + x) * 3] > 150);
    expect(Math.min(...blue(700))).toBeGreaterThan(380);
    expect(blue(700).length).toBeGreaterThan(0);
  });

  test('no points, one point, a flat line and values that are not finite', async () => {
    expect(lossCurve({ series: [] })).toContain('no data yet');
    const odd = [
      { name: 'one', points: points(1, () => 0.5) },
      { name: 'flat', points: points(100, () => 0.25) },
      { name: 'gone', points: points(5, (i) => (i < 2 ? 1 : i < 4 ? NaN : Infinity)) },
    ];
    for (const series of [odd, [odd[0]], [odd[1]], [odd[2]]]) {
      const svg = lossCurve({ series });
      expect(svg).not.toMatch(/NaN|Infinity|undefined/);
      await sharp(Buffer.from(svg)).metadata();
    }
  });
});

describe('progress', () => {
  class Screen extends EventEmitter {
    text = '';
    constructor(
      readonly isTTY: boolean,
      public columns?: number,
    ) {
      super();
    }
    write(text: string) {
      this.text += text;
    }
    /** What stands on the screen: the last line that was drawn. */
    get line() {
      return this.text
        .split('\r')
        .at(-1)!
        .replace(/\p{Cc}\[K/gu, '');
    }
  }
  function start(stream: Screen, options: Partial<ProgressOptions> = {}) {
    const clock = { seconds: 100 };
    const progress = new TrainingProgress({ totalSteps: 1000, totalEpochs: 10, stream, now: () => clock.seconds, ...options });
    return { clock, progress };
  }
  const update = { loss: 0.42134, lr: 1.5e-4, imagesPerSecond: 1234, dataWait: 0.03, memoryBytes: 5.2 * 2 ** 30 };

  test('on a terminal one line is rewritten', () => {
    const screen = new Screen(true, 160);
    const { clock, progress } = start(screen);
    clock.seconds += 10;
    progress.update({ step: 100, epoch: 1, ...update });
    expect(screen.line).toBe(
      '▕█▋              ▏ epoch 1/10  step 100/1000  loss 0.4213  lr 1.5e-4  1\u00a0234 img/s  data wait 3 %  5.2 GiB  1 min 30 s left',
    );
    progress.update({ step: 101, epoch: 1.01, ...update }); // too soon
    expect(screen.line).toContain('step 100/1000');
    clock.seconds += 0.2;
    progress.update({ step: 102, epoch: 1.02, ...update });
    expect(screen.line).toContain('step 102/1000');
    progress.note('saved checkpoints/step-102');
    expect(screen.text).toContain('\r\u001b[Ksaved checkpoints/step-102\n');
    progress.update({ step: 1000, epoch: 10, ...update });
    progress.finish();
    expect(screen.line).toMatch(/epoch 10\/10 .* done\n$/);
    expect(screen.text.match(/\n/g)).toHaveLength(2);
  });

  test('a narrow terminal gets what matters most, never a line that wraps', () => {
    for (let columns = 1; columns <= 160; columns++) {
      const screen = new Screen(true, columns);
      const { progress } = start(screen);
      progress.update({ step: 10, epoch: 0.1, ...update });
      expect([...screen.line].length).toBeLessThan(Math.max(columns, 2));
      if (columns > 12) expect(screen.line).toContain('loss 0.4213');
    }
  });

  test('in a pipe: plain lines, every so many seconds or steps, the last one always', () => {
    const piped = new Screen(false);
    const { clock, progress } = start(piped, { everySeconds: 10 });
    for (let step = 1; step <= 25; step++, clock.seconds++) progress.update({ step, epoch: step / 100, loss: 1 });
    progress.finish();
    progress.finish();
    const steps = [...piped.text.matchAll(/step (\d+)\//g)].map((found) => Number(found[1]));
    expect(steps).toEqual([1, 11, 21, 25]);
    expect(['\r', '\u001b', '█'].filter((mark) => piped.text.includes(mark))).toEqual([]);

    const counted = new Screen(false);
    const { progress: byStep } = start(counted, { everySteps: 20, startStep: 40 });
    for (let step = 41; step <= 100; step++) byStep.update({ step, epoch: 1, loss: 1 });
    byStep.finish();
    expect([...counted.text.matchAll(/step (\d+)\//g)].map((found) => Number(found[1]))).toEqual([60, 80, 100]);
  });

  test('the time left of a resumed run counts its own steps', () => {
    const screen = new Screen(true, 200);
    const { clock, progress } = start(screen, { startStep: 500 });
    clock.seconds += 50;
    progress.update({ step: 750, epoch: 7.5 });
    expect(screen.line).toContain('50 s left');
  });

  test('quiet prints nothing', () => {
    const screen = new Screen(true, 80);
    const { progress } = start(screen, { quiet: true });
    progress.update({ step: 1, epoch: 0, loss: 1 });
    progress.note('x');
    progress.finish();
    expect(screen.text).toBe('');
  });

  test('a closed pipe silences it and stops nothing', () => {
    const closed = new Screen(false);
    const { progress } = start(closed, { everySteps: 1 });
    closed.emit('error', new Error('EPIPE')); // unheard, this would throw
    progress.update({ step: 1, epoch: 0 });
    expect(closed.text).toBe('');
    const throwing = new Screen(false);
    throwing.write = () => {
      throw new Error('EIO');
    };
    const { progress: other } = start(throwing, { everySteps: 1 });
    other.update({ step: 1, epoch: 0 });
    other.finish();
  });
});

describe('patches', () => {
  const shape: PictureShape = { height: 4, width: 6, channels: 2, patch: 2 };

  test('the order inside a patch is row, column, channel; patches go row by row', () => {
    const values = Float32Array.from({ length: 48 }, (_, i) => i); // value = (y·6 + x)·2 + c
    const patches = patchify(values, shape);
    expect(Array.from(patches.subarray(8, 16))).toEqual([4, 5, 6, 7, 16, 17, 18, 19]); // patch 1: x 2–3, y 0–1
    expect(Array.from(patches.subarray(24, 28))).toEqual([24, 25, 26, 27]); // patch 3: x 0–1, y 2
    expect(unpatchify(patches, shape)).toEqual(values);
  });

  test('sizes that do not fit are told', () => {
    expect(() => patchify(new Float32Array(48), { ...shape, patch: 4 })).toThrow(/4 pixels do not tile a picture of 4x6/);
    expect(() => unpatchify(new Float32Array(47), shape)).toThrow(/must have 48 values for 4x6x2 in patches of 2, got 47/);
  });

  test('normalising and back is exact for every byte; what lies outside is clamped', () => {
    const bytes = Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));
    expect(toUint8(normalise(bytes, imagenet), imagenet)).toEqual(bytes);
    expect(normalise(Uint8Array.of(255, 0, 0), imagenet)[0]).toBeCloseTo((1 - 0.485) / 0.229, 6);
    expect(Array.from(toUint8(Float32Array.of(-9, 9, NaN), imagenet))).toEqual([0, 255, 0]);
  });

  test('masking paints over, pasting keeps what was visible', () => {
    const original = picture(shape);
    const mask = [0, 1, 1, 0, 1, 0];
    const masked = maskPicture(original, mask, shape);
    const pasted = pasteVisible(new Uint8Array(48).fill(7), original, mask, shape);
    const [before, grey, mixed] = [original, masked, pasted].map((each) => patchify(each, shape));
    mask.forEach((removed, p) => {
      const part = (all: Float32Array) => Array.from(all.subarray(p * 8, p * 8 + 8));
      expect(part(grey)).toEqual(removed ? Array(8).fill(128) : part(before));
      expect(part(mixed)).toEqual(removed ? Array(8).fill(7) : part(before));
    });
    expect(() => maskPicture(original, [0, 1], shape)).toThrow(/the mask must have 6 values/);
  });
});

describe('pictures of a norm-pix model', () => {
  const shape: PictureShape = { height: 48, width: 64, channels: 3, patch: 8 };
  const original = picture(shape);
  const truth = patchify(normalise(original, imagenet), shape);
  const size = 192;
  const own = patchStatistics(truth, size);
  const mask = scatteredMask(48);
  /** What a perfect model predicts: every patch by its own mean and deviation. */
  const perfect = truth.map((value, i) => (value - own.mean[Math.floor(i / size)]) / own.std[Math.floor(i / size)]);
  const options = { shape, ...imagenet, normPixLoss: true };
  const farthest = (a: Uint8Array, b: Uint8Array) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
  const rootMeanSquare = (a: Uint8Array, b: Uint8Array) => Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length);

  test('statistics: all channels together, unbiased', () => {
    const { mean, std } = patchStatistics(Float32Array.of(1, 2, 3, 6, 5, 5, 5, 5), 4);
    expect(Array.from(mean)).toEqual([3, 5]);
    expect(std[0]).toBeCloseTo(Math.sqrt(14 / 3 + 1e-6), 6);
    expect(std[1]).toBeCloseTo(1e-3, 9);
  });

  test('with the statistics of the target a perfect prediction is the original, and is labelled so', () => {
    const result = reconstruct(original, perfect, mask, { ...options, statistics: 'target' });
    expect(farthest(result.reconstruction, original)).toBeLessThanOrEqual(1); // float32 rounding before rounding to bytes
    expect(result.label).toMatch(/original/);
  });

  test('with visible patches alone it comes close, and reads no hidden pixel', () => {
    const result = reconstruct(original, perfect, mask, { ...options, statistics: 'visible' });
    const raw = reconstruct(original, perfect, mask, { ...options, statistics: 'raw' });
    expect(rootMeanSquare(result.pasted, original)).toBeLessThan(8); // of 255
    expect(rootMeanSquare(raw.pasted, original)).toBeGreaterThan(24); // the difference that it makes
    const hidden = maskPicture(original, mask, shape, 3);
    expect(reconstruct(hidden, perfect, mask, { ...options, statistics: 'visible' }).reconstruction).toEqual(result.reconstruction);
    expect(pasteVisible(hidden, result.pasted, mask, shape)).toEqual(hidden); // visible pixels are the original's
    expect(raw.reconstruction).toEqual(toUint8(unpatchify(perfect, shape), imagenet));
  });

  test('a flat picture stays flat, nothing visible still gives numbers', () => {
    const flat = new Float32Array(truth.length).fill(0.5);
    const nothing = new Float32Array(truth.length);
    const { mean } = estimateStatistics(flat, nothing, mask, shape);
    mean.forEach((value) => expect(value).toBeCloseTo(0.5, 4));
    const blind = estimateStatistics(flat, perfect, new Float32Array(48).fill(1), shape);
    expect(applyStatistics(perfect, blind).every(Number.isFinite)).toBe(true);
  });

  test('a model of raw pixels needs no statistics', () => {
    const result = reconstruct(original, truth, mask, { ...options, normPixLoss: false });
    expect(farthest(result.reconstruction, original)).toBeLessThanOrEqual(1);
    expect(result.label).toBe('reconstruction');
  });

  test("the parity model's loss is that of these patches", () => {
    // Patch order, normalisation and statistics against numbers made with PyTorch: mean over removed patches of (pred − target)².
    const { tensors } = readSafetensors(join(__dirname, 'parity/mae-micro.safetensors'));
    const data = (name: string) => tensors.get(name)!.data;
    const small: PictureShape = { height: 32, width: 32, channels: 3, patch: 8 };
    const [prediction, masks] = [data('pred') as Float32Array, data('mask') as Float32Array];
    let [sum, removed] = [0, 0];
    for (let image = 0; image < 4; image++) {
      const bytes = (data('images_u8_nhwc') as Uint8Array).subarray(image * 3072, (image + 1) * 3072);
      const target = patchify(normalise(bytes, imagenet), small);
      const { mean, std } = patchStatistics(target, 192);
      for (let p = 0; p < 16; p++) {
        if (masks[image * 16 + p] === 0) continue;
        removed++;
        for (let k = 0; k < 192; k++) {
          const wanted = (target[p * 192 + k] - mean[p]) / std[p];
          sum += (prediction[(image * 16 + p) * 192 + k] - wanted) ** 2 / 192;
        }
      }
    }
    const loss = (data('loss') as Float32Array)[0];
    expect(Math.abs(sum / removed - loss)).toBeLessThan(loss * 1e-6);
  });
});

describe('grids', () => {
  const shape = { height: 32, width: 32, channels: 3 };
  const solid = (r: number, g: number, b: number) => Uint8Array.from({ length: 3072 }, (_, i) => [r, g, b][i % 3]);
  async function pixels(png: Buffer) {
    const { data, info } = await sharp(png).removeAlpha().raw().toBuffer({ resolveWithObject: true });
    return { ...info, at: (x: number, y: number) => Array.from(data.subarray((y * info.width + x) * 3, (y * info.width + x) * 3 + 3)) };
  }

  test('small pictures are enlarged by whole pixels, to cells of at least 128', async () => {
    const isWhite = (x: number, y: number) => (x + y) % 2 === 1;
    const checker = Uint8Array.from({ length: 3072 }, (_, i) => (isWhite(Math.floor(i / 3) % 32, Math.floor(i / 96)) ? 255 : 0));
    const grid = await pixels(await drawGrid({ rows: [[[checker]]], shape }));
    expect([grid.width, grid.height]).toEqual([128 + 24, 128 + 24]);
    for (let y = 0; y < 128; y += 3) {
      for (let x = 0; x < 128; x += 3) {
        const value = isWhite(Math.floor(x / 4), Math.floor(y / 4)) ? 255 : 0;
        expect(grid.at(12 + x, 12 + y)).toEqual([value, value, value]);
      }
    }
    expect(grid.at(5, 5)).toEqual([255, 255, 255]);
  });

  test('masked, reconstruction, original stand in their columns', async () => {
    const red = Array.from({ length: 3 }, () => solid(255, 0, 0));
    const green = red.map(() => solid(0, 255, 0));
    const blue = red.map(() => solid(0, 0, 255));
    const grid = await pixels(await reconstructionGrid({ masked: red, reconstructions: green, originals: blue, shape }));
    expect(grid.width).toBe(12 + 3 * 128 + 2 * 4 + 12);
    const bottom = grid.height - 20; // in the last row, whether there is a header or not
    expect([60, 200, 330].map((x) => grid.at(x, bottom))).toEqual([
      [255, 0, 0],
      [0, 255, 0],
      [0, 0, 255],
    ]);
    const wide = await pixels(await reconstructionGrid({ masked: red, reconstructions: green, originals: blue, shape, triplesPerRow: 2 }));
    expect(wide.width).toBe(12 + 6 * 128 + 4 * 4 + 16 + 12);
    expect(wide.at(wide.width - 60, wide.height - 20)).toEqual([255, 255, 255]); // the last row has one triple only
  });

  test('the ladder: the original, then a pair for every mask ratio', async () => {
    const [a, b] = [[solid(10, 0, 0)], [solid(0, 20, 0)]];
    const steps = [0.5, 0.75].map((maskRatio) => ({ maskRatio, masked: a, reconstructions: b }));
    const grid = await pixels(await maskRatioLadder({ originals: [solid(0, 0, 30)], steps, shape }));
    expect(grid.width).toBe(12 + 5 * 128 + 2 * 16 + 2 * 4 + 12);
    expect([60, 200, 330, 480, 600].map((x) => Math.max(...grid.at(x, grid.height - 20)))).toEqual([30, 10, 20, 10, 20]);
    await expect(maskRatioLadder({ originals: [a[0], a[0]], steps, shape })).rejects.toThrow(/mask ratio 0.5, 2 pictures need/);
  });

  test('one channel is grey, lists of different lengths and sizes are refused', async () => {
    const grey = new Uint8Array(1024).fill(77);
    const grid = await pixels(await drawGrid({ rows: [[[grey]]], shape: { ...shape, channels: 1 } }));
    expect(grid.at(70, 70)).toEqual([77, 77, 77]);
    const one = [solid(1, 2, 3)];
    await expect(reconstructionGrid({ masked: one, reconstructions: [], originals: one, shape })).rejects.toThrow(/1 masked and 0 recon/);
    await expect(drawGrid({ rows: [[[grey]]], shape })).rejects.toThrow(/32x32x3 has 3072 values, got 1024/);
  });

  test('labels take a header of their own', async () => {
    const one = [solid(1, 2, 3)];
    const plain = await pixels(await drawGrid({ rows: [[one]], shape }));
    const labelled = await pixels(await drawGrid({ rows: [[one]], labels: [['a < b']], shape }));
    // With no fonts on the machine there is no header; with fonts it must hold ink.
    const header = labelled.height - plain.height;
    const dark = Array.from({ length: header * labelled.width }, (_, i) =>
      labelled.at(i % labelled.width, 8 + Math.floor(i / labelled.width)),
    );
    expect([0, 24]).toContain(header);
    expect(dark.some(([r]) => r < 160)).toBe(header > 0);
  });
});
