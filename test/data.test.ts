import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Command } from 'commander';
import sharp from 'sharp';
import { checkDataCommand } from '../lib/cli/check-data';
import { packCommand } from '../lib/cli/pack';
import { ArrayDataset } from '../lib/data/array';
import { cropOf } from '../lib/data/augment';
import type { CropSettings } from '../lib/data/augment';
import { checkData } from '../lib/data/check';
import type { Picture } from '../lib/data/dataset';
import { isBroken, readPicture } from '../lib/data/dataset';
import { ImageFolder } from '../lib/data/folder';
import { Loader } from '../lib/data/loader';
import type { Batch, LoaderOptions } from '../lib/data/loader';
import { cropBatch } from '../lib/data/nativeData';
import type { Crop } from '../lib/data/nativeData';
import { openDataset } from '../lib/data/open';
import { pack } from '../lib/data/pack';
import { PackedDataset } from '../lib/data/packed';
import { statistics } from '../lib/data/statistics';
import { MaeError } from '../lib/errors';
import { Purpose, RandomStream } from '../lib/random';

const root = fs.mkdtempSync(path.join(os.tmpdir(), 'mae-data-'));
afterAll(() => fs.rmSync(root, { recursive: true, force: true }));
const quiet = { log: (): void => undefined };

/** A colourful picture without repetition, so that any misplaced pixel shows. */
function pattern(height: number, width: number, channels = 3, salt = 0): Uint8Array {
  const pixels = new Uint8Array(height * width * channels);
  for (let y = 0, i = 0; y < height; ++y) {
    for (let x = 0; x < width; ++x) for (let c = 0; c < channels; ++c, ++i) pixels[i] = x * 7 + y * 13 + c * 29 + x * y + salt * 31;
  }
  return pixels;
}

const drawn = (height: number, width: number, salt = 0): ReturnType<typeof sharp> =>
  sharp(pattern(height, width, 3, salt), { raw: { height, width, channels: 3 } });

async function save(folder: string, files: Record<string, Buffer | Promise<Buffer>>): Promise<string> {
  const where = path.join(root, folder);
  for (const [name, content] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(where, name)), { recursive: true });
    fs.writeFileSync(path.join(where, name), await content);
  }
  return where;
}

/** Ten pictures of different sizes in two classes, number 3 truncated and number 7 empty. */
async function tenPictures(folder: string): Promise<string> {
  const files: Record<string, Buffer> = {};
  for (let i = 0; i < 10; ++i)
    files[`${i < 5 ? 'cat' : 'dog'}/${i}.png`] = await drawn(20 + i, 30 - i, i)
      .png()
      .toBuffer();
  files['cat/3.png'] = files['cat/3.png'].subarray(0, files['cat/3.png'].length / 2);
  files['dog/7.png'] = Buffer.alloc(0);
  return save(folder, files);
}

async function failure(action: () => unknown): Promise<MaeError> {
  try {
    await action();
  } catch (error) {
    expect(error).toBeInstanceOf(MaeError);
    return error as MaeError;
  }
  throw new Error('nothing was thrown');
}

async function batchesOf(loader: Loader, count = Infinity): Promise<Batch[]> {
  const batches: Batch[] = [];
  for await (const batch of loader) {
    batches.push({ ...batch, images: batch.images.slice() });
    if (batches.length === count) break;
  }
  return batches;
}

/** Index of a picture → its pixels in an epoch. */
function byIndex(batches: Batch[]): Map<string, string> {
  const all = new Map<string, string>();
  for (const { images, indices, epoch } of batches) {
    const size = images.length / indices.length;
    indices.forEach((index, i) =>
      all.set(`${epoch}:${index}`, Buffer.from(images.slice(i * size, (i + 1) * size).buffer).toString('base64')),
    );
  }
  return all;
}

async function cut(picture: Picture, crop: Crop, height: number, width: number, channels: number): Promise<Uint8Array> {
  const out = new Uint8Array(height * width * channels);
  await cropBatch({ pictures: [picture.data], channels, bytesPerValue: 1, out, height, width, workers: 1 }, [crop]);
  return out;
}

const wholePicture = (height: number, width: number): Crop => ({
  ...{ sourceHeight: height, sourceWidth: width, top: 0, left: 0, height, width },
  ...{ resizedHeight: height, resizedWidth: width, offsetTop: 0, offsetLeft: 0, flip: 0 },
});

describe('ImageFolder', () => {
  test('lists pictures bytewise by relative path; the first folder level is the class', async () => {
    const png = await drawn(8, 8).png().toBuffer();
    const names = ['b/z/2.PNG', 'b/10.png', 'b/9.png', 'a-b/1.png', 'a/1.jpeg', 'é/1.png', 'root.png'];
    const folder = await save('order', {
      ...Object.fromEntries(names.map((name) => [name, png])),
      ...{ 'a/notes.txt': png, 'a/.hidden.png': png, '.cache/1.png': png },
    });
    fs.symlinkSync('..', path.join(folder, 'a', 'circle'));
    const data = new ImageFolder(folder, quiet);
    expect(data.paths.map((file) => path.relative(folder, file))).toEqual([
      'a-b/1.png',
      'a/1.jpeg',
      'b/10.png',
      'b/9.png',
      'b/z/2.PNG',
      'root.png',
      'é/1.png',
    ]);
    expect(data.classes).toEqual(['a', 'a-b', 'b', 'é']);
    expect([...data.labels]).toEqual([1, 0, 2, 2, 2, -1, 3]);
  });

  test('says what it looked for when there is nothing', async () => {
    const empty = await save('empty', {});
    fs.mkdirSync(empty);
    const texts = await save('texts', { 'a/readme.txt': Buffer.from('x'), 'b.csv': Buffer.from('y') });
    for (const [folder, said] of [
      [path.join(root, 'absent'), /absent does not exist; needs a folder with pictures \(\.jpg .*\.png/],
      [empty, /no picture in .*empty: it is empty; needs a folder/],
      [texts, /no picture in .*texts: it has other files \(1 \.txt, 1 \.csv\)/],
      [path.join(texts, 'b.csv'), /b\.csv is not a folder/],
    ] as const) {
      const error = await failure(() => new ImageFolder(folder));
      expect(error.code).toBe('MAE_DATA');
      expect(error.message).toMatch(said);
    }
  });

  test('every kind of picture becomes upright 3-channel sRGB uint8', async () => {
    const grey = sharp(pattern(6, 9, 1), { raw: { height: 6, width: 9, channels: 1 } });
    const flat = (space: string): ReturnType<typeof sharp> =>
      sharp({ create: { width: 9, height: 6, channels: 3, background: '#80a090' } }).toColourspace(space);
    const half = sharp({ create: { width: 9, height: 6, channels: 4, background: { r: 128, g: 160, b: 144, alpha: 0.5 } } });
    const folder = await save('kinds', {
      'alpha.png': half.png().toBuffer(),
      'cmyk.jpg': flat('cmyk').jpeg({ quality: 100 }).toBuffer(),
      'deep.png': flat('rgb16').png().toBuffer(),
      'grey.png': grey.toColourspace('b-w').png().toBuffer(),
      'lossless.webp': drawn(6, 9).webp({ lossless: true }).toBuffer(),
      'plain.jpg': flat('srgb').jpeg({ quality: 100 }).toBuffer(),
      'rotated.png': drawn(6, 9).withMetadata({ orientation: 6 }).png().toBuffer(),
    });
    const data = new ImageFolder(folder, quiet);
    const read = async (name: string): Promise<Picture> => {
      const picture = await readPicture(
        data,
        data.paths.findIndex((file) => file.endsWith(name)),
      );
      expect(picture.data).toBeInstanceOf(Uint8Array);
      expect(picture.data.length).toBe(picture.height * picture.width * 3);
      return picture;
    };
    for (const [name, tolerance] of [
      ['alpha.png', 0],
      ['deep.png', 0],
      ['plain.jpg', 2],
      ['cmyk.jpg', 6],
    ] as const) {
      const { data: pixels } = await read(name); // JPEG rounds; the way through inks is not exact
      [128, 160, 144].forEach((value, c) => expect(Math.abs(pixels[c] - value)).toBeLessThanOrEqual(tolerance));
    }
    const one = pattern(6, 9, 1);
    expect([...(await read('grey.png')).data]).toEqual([...one].flatMap((value) => [value, value, value]));
    expect((await read('lossless.webp')).data).toEqual(Buffer.from(pattern(6, 9)));
    // Orientation 6: to be turned clockwise by a quarter. Pixel (y, x) of the result is (H − 1 − x, y) of what is stored.
    const stored = pattern(6, 9);
    const turned = await read('rotated.png');
    expect([turned.height, turned.width]).toEqual([9, 6]);
    for (let y = 0; y < 9; ++y) for (let x = 0; x < 6; ++x) expect(turned.data[(y * 6 + x) * 3]).toBe(stored[((5 - x) * 9 + y) * 3]);
  });

  test('a size shrinks the short side, and never enlarges', async () => {
    const folder = await save('sizes', { '1.png': drawn(60, 90).png().toBuffer(), '2.png': drawn(20, 10).png().toBuffer() });
    const data = new ImageFolder(folder, { size: 30, ...quiet });
    const sizes = (await data.fetch([0, 1])).map((source) => (isBroken(source) ? source : [source.height, source.width]));
    expect(sizes).toEqual([
      [30, 45],
      [20, 10],
    ]);
    expect((await failure(() => new ImageFolder(folder, { size: 0 }))).code).toBe('MAE_ARGUMENT');
  });

  test('keeps decoded pictures in memory up to the budget, and says what fits', async () => {
    const files = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`${i}.png`, drawn(10, 10, i).png().toBuffer()]));
    const folder = await save('budget', files);
    const said: string[] = [];
    const data = new ImageFolder(folder, { cacheBytes: 1000, log: (line) => said.push(line) });
    const all = Array.from({ length: 8 }, (_, i) => i);
    const first = await data.fetch(all);
    expect(data.cached).toEqual({ pictures: 3, bytes: 1000 }); // 300 bytes each
    fs.rmSync(folder, { recursive: true });
    const again = await data.fetch(all);
    const kept = all.filter((i) => !isBroken(again[i]));
    expect(kept.length).toBe(3);
    for (const i of kept)
      expect(Buffer.from((again[i] as Picture).data as Uint8Array)).toEqual(Buffer.from((first[i] as Picture).data as Uint8Array));
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(
      /8 pictures, about 2\.3 KiB decoded, of which 1000 B \(41%\) stay in memory.*mae pack .* --out budget\.maepack/,
    );
  });

  test('broken files are told from readable ones, with their reasons', async () => {
    const data = new ImageFolder(await tenPictures('ten'), quiet);
    const sources = await data.fetch(Array.from({ length: 10 }, (_, i) => i));
    expect(sources.map(isBroken)).toEqual([false, false, false, true, false, false, false, true, false, false]);
    const error = await failure(() => readPicture(data, 3));
    expect(error.code).toBe('MAE_DATA');
    expect(error.message).toMatch(/cat\/3\.png \(picture 3 of .*\) cannot be decoded: .+check-data/);
    expect((await failure(() => readPicture(data, 10))).code).toBe('MAE_ARGUMENT');
  });
});

describe('crops', () => {
  const settings: CropSettings = {
    height: 24,
    width: 24,
    augment: 'random-resized-crop',
    flip: 0.5,
    scale: [0.2, 1],
    ratio: [3 / 4, 4 / 3],
    seed: 11,
  };

  test('random crops are distributed as torchvision describes them', () => {
    const [H, W] = [120, 200];
    // The same recipe written down once more, with other random numbers.
    const stream = new RandomStream(99, Purpose.init);
    const recipe = (): { h: number; w: number; top: number; left: number } => {
      for (let t = 0; t < 10; ++t) {
        const area = H * W * (0.2 + 0.8 * stream.uniform());
        const aspect = Math.exp(Math.log(3 / 4) + (Math.log(4 / 3) - Math.log(3 / 4)) * stream.uniform());
        const [w, h] = [Math.round(Math.sqrt(area * aspect)), Math.round(Math.sqrt(area / aspect))];
        if (w <= W && h <= H)
          return { h, w, top: Math.floor(stream.uniform() * (H - h + 1)), left: Math.floor(stream.uniform() * (W - w + 1)) };
      }
      return { h: H, w: Math.round((H * 4) / 3), top: 0, left: Math.floor((W - Math.round((H * 4) / 3)) / 2) };
    };
    const n = 20_000;
    const ours = Array.from({ length: n }, (_, i) => cropOf(settings, { height: H, width: W }, 3, i)!);
    const theirs = Array.from({ length: n }, recipe);
    const features: [string, (h: number, w: number, top: number, left: number) => number][] = [
      ['area', (h, w) => (h * w) / (H * W)],
      ['area²', (h, w) => ((h * w) / (H * W)) ** 2],
      ['log aspect', (h, w) => Math.log(w / h)],
      ['log aspect²', (h, w) => Math.log(w / h) ** 2],
      ['vertical centre', (h, _w, top) => (top + h / 2) / H],
      ['horizontal centre²', (_h, w, _top, left) => ((left + w / 2) / W - 0.5) ** 2],
    ];
    for (const [, feature] of features) {
      const a = ours.map((c) => feature(c.height, c.width, c.top, c.left));
      const b = theirs.map((c) => feature(c.h, c.w, c.top, c.left));
      const mean = (x: number[]): number => x.reduce((s, v) => s + v, 0) / n;
      const variance = (x: number[]): number => mean(x.map((v) => v * v)) - mean(x) ** 2;
      expect(Math.abs(mean(a) - mean(b))).toBeLessThan(4 * Math.sqrt((variance(a) + variance(b)) / n)); // four standard errors
    }
    for (const c of ours) {
      expect(c.top >= 0 && c.left >= 0 && c.top + c.height <= H && c.left + c.width <= W).toBe(true);
    }
    expect(Math.abs(ours.filter((c) => c.flip).length - n / 2)).toBeLessThan(4 * Math.sqrt(n / 4));
  });

  test('depend on seed, epoch and index alone', () => {
    const source = { height: 50, width: 60 };
    const one = cropOf(settings, source, 1, 5);
    expect(cropOf({ ...settings, height: 8, width: 9 }, source, 1, 5)).toMatchObject({ top: one!.top, left: one!.left, flip: one!.flip });
    expect(cropOf(settings, source, 1, 6)).not.toEqual(one);
    expect(cropOf(settings, source, 2, 5)).not.toEqual(one);
    expect(cropOf({ ...settings, seed: 12 }, source, 1, 5)).not.toEqual(one);
  });

  test.each([
    [10, 1000, { top: 0, left: 493, height: 10, width: 13 }],
    [1000, 10, { top: 493, left: 0, height: 13, width: 10 }],
    [1, 1, { top: 0, left: 0, height: 1, width: 1 }],
  ])('a picture of %i x %i falls back to the centre', (height, width, expected) => {
    // At scale 1 no try fits into so long a picture (and the only one that fits into one pixel is all of it).
    expect(cropOf({ ...settings, scale: [1, 1] }, { height, width }, 0, 0)).toMatchObject(expected);
  });

  test.each([
    [256, 341, 224, 224, 256, 341, 16, 58], // torchvision: short side 256 stays, centre at round(16), round(58.5) = 58
    [500, 375, 224, 224, 341, 256, 58, 16],
    [32, 32, 32, 32, 32, 32, 0, 0], // has the size: only cut
    [32, 48, 32, 32, 32, 48, 0, 8],
    [100, 100, 56, 112, 128, 128, 36, 8], // not square: covers 64 x 128
  ])(
    'eval: %i x %i for %i x %i is resized to %i x %i, offset %i, %i',
    (h, w, height, width, resizedHeight, resizedWidth, offsetTop, offsetLeft) => {
      const crop = cropOf({ ...settings, augment: 'eval', flip: 0, height, width }, { height: h, width: w }, 0, 0);
      expect(crop).toEqual({ ...wholePicture(h, w), resizedHeight, resizedWidth, offsetTop, offsetLeft });
    },
  );
});

describe('resizing', () => {
  // SHA-256 of Pillow 9.4's Image.crop(…).resize((width, height), BICUBIC), mirrored where flip is 1, of pattern(37, 53).
  test.each([
    [[3, 5, 30, 40, 12, 17, 0], '96ed46db2693e4f5e9b25094c7b7200c695db1ba62f61782e0f93dc038f5f97b'],
    [[0, 0, 37, 53, 64, 96, 1], '4c10a8ffb1eae9e6078a5f375d2aec5703c88c910fd895fe60d692eabec2de5a'],
    [[10, 20, 9, 30, 24, 24, 0], '43650382e59968dfb9017e8680dd2c80a8d4defe6453992b0e35b5cfef288993'],
  ])("%p gives Pillow's bits", async ([top, left, height, width, outHeight, outWidth, flip], digest) => {
    const picture = { height: 37, width: 53, data: pattern(37, 53) };
    const rectangle = { top, left, height, width, resizedHeight: outHeight, resizedWidth: outWidth, flip: flip as 0 | 1 };
    const out = await cut(picture, { ...wholePicture(37, 53), ...rectangle }, outHeight, outWidth, 3);
    expect(crypto.createHash('sha256').update(out).digest('hex')).toBe(digest);
  });

  /** Antialiased bicubic (Keys, a = −0.5) in float64, both axes at once without intermediate rounding; flips and windows by index. */
  function reference({ data, width: W }: Picture, crop: Crop, height: number, width: number, channels: number): Float64Array {
    const kernel = (x: number): number => {
      const d = Math.abs(x);
      return d < 1 ? 1.5 * d ** 3 - 2.5 * d ** 2 + 1 : d < 2 ? -0.5 * d ** 3 + 2.5 * d ** 2 - 4 * d + 2 : 0;
    };
    const axis = (i: number, input: number, resized: number): [number, number][] => {
      const scale = input / resized;
      const stretch = Math.max(1, scale);
      const weights = Array.from({ length: input }, (_, j): [number, number] => [j, kernel((j + 0.5 - (i + 0.5) * scale) / stretch)]);
      const sum = weights.reduce((s, [, w]) => s + w, 0);
      return weights.filter(([, w]) => w !== 0).map(([j, w]) => [j, w / sum]);
    };
    const out = new Float64Array(height * width * channels);
    for (let y = 0; y < height; ++y) {
      const rows = axis(y + crop.offsetTop, crop.height, crop.resizedHeight);
      for (let x = 0; x < width; ++x) {
        const columns = axis(x + crop.offsetLeft, crop.width, crop.resizedWidth);
        const place = (y * width + (crop.flip ? width - 1 - x : x)) * channels;
        for (let c = 0; c < channels; ++c) {
          for (const [j, v] of rows)
            for (const [k, w] of columns) out[place + c] += v * w * data[((crop.top + j) * W + crop.left + k) * channels + c];
        }
      }
    }
    return out;
  }

  test('follows a float64 reference for any channels, sizes, windows and flips', async () => {
    const stream = new RandomStream(4, Purpose.init);
    const upTo = (n: number): number => 1 + Math.floor(stream.uniform() * n);
    for (let round = 0; round < 40; ++round) {
      const channels = 1 + (round % 4);
      const [H, W] = [upTo(40), upTo(40)];
      const [height, width, resizedHeight, resizedWidth] = [upTo(H), upTo(W), upTo(48), upTo(48)];
      const [outHeight, outWidth] = [upTo(resizedHeight), upTo(resizedWidth)];
      const position = { top: upTo(H - height + 1) - 1, left: upTo(W - width + 1) - 1 };
      const offset = { offsetTop: upTo(resizedHeight - outHeight + 1) - 1, offsetLeft: upTo(resizedWidth - outWidth + 1) - 1 };
      const flip: 0 | 1 = round % 3 === 0 ? 1 : 0;
      const crop = { sourceHeight: H, sourceWidth: W, ...position, height, width, resizedHeight, resizedWidth, ...offset, flip };
      // Away from 0 and 255: the first pass clips there, as Pillow does, the reference does not.
      const picture = { height: H, width: W, data: pattern(H, W, channels).map((value) => 64 + (value >> 1)) };
      const out = await cut(picture, crop, outHeight, outWidth, channels);
      const expected = reference(picture, crop, outHeight, outWidth, channels);
      const worst = out.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
      // Each pass rounds by at most 0.5; the vertical weights spread the first one's by Σ|w| ≤ 1.5, so 1.25 in all.
      expect(worst).toBeLessThan(1.25);
    }
  });

  test('one pixel becomes any size', async () => {
    const crop = { ...wholePicture(1, 1), resizedHeight: 16, resizedWidth: 16 };
    expect([...(await cut({ height: 1, width: 1, data: Uint8Array.of(10, 20, 30) }, crop, 16, 16, 3))]).toEqual(
      Array(256).fill([10, 20, 30]).flat(),
    );
  });
});

describe('Loader', () => {
  let folder: string;
  beforeAll(async () => {
    const files: Record<string, Promise<Buffer>> = {};
    for (let i = 0; i < 23; ++i)
      files[`${i % 2 ? 'odd' : 'even'}/${i}.png`] = drawn(14 + i, 40 - i, i)
        .png()
        .toBuffer();
    folder = await save('loader', files);
  });
  const make = (options: Partial<LoaderOptions> = {}): Loader =>
    new Loader(new ImageFolder(folder, quiet), { batchSize: 4, imageSize: 16, seed: 5, epochs: 2, ...quiet, ...options });

  test('gives uint8 NHWC batches with indices, epoch, step and labels', async () => {
    const loader = make({ imageSize: [16, 24] });
    expect(loader.stepsPerEpoch).toBe(5);
    const batches = await batchesOf(loader);
    expect(batches.map(({ epoch, step }) => [epoch, step])).toEqual([0, 1].flatMap((e) => [0, 1, 2, 3, 4].map((s) => [e, s])));
    for (const { images, indices, labels } of batches) {
      expect(images.length).toBe(4 * 16 * 24 * 3);
      expect(labels).toEqual(indices.map((index) => loader.dataset.labels[index]));
    }
    const seen = batches.slice(0, 5).flatMap(({ indices }) => [...indices]);
    expect(new Set(seen).size).toBe(20);
    expect(batches.slice(5).flatMap(({ indices }) => [...indices])).not.toEqual(seen);
    expect(loader.waitMs).toBeGreaterThan(0);
  });

  test('a picture looks the same for any batch size, number of workers, prefetch and cache', async () => {
    const all = byIndex(await batchesOf(make({ batchSize: 23 })));
    expect(all.size).toBe(46);
    for (const options of [
      { batchSize: 1, workers: 3 },
      { batchSize: 5, workers: 1, prefetch: 5, dropLast: false },
    ]) {
      expect(byIndex(await batchesOf(make(options)))).toEqual(all);
    }
    const uncached = new Loader(new ImageFolder(folder, { cacheBytes: 0 }), { batchSize: 23, imageSize: 16, seed: 5, epochs: 2 });
    expect(byIndex(await batchesOf(uncached))).toEqual(all);
    expect(byIndex(await batchesOf(make({ batchSize: 23, seed: 6 })))).not.toEqual(all);
  });

  test('resumes in the middle of an epoch', async () => {
    const all = await batchesOf(make());
    expect(await batchesOf(make({ startEpoch: 0, startStep: 3 }))).toEqual(all.slice(3));
    expect(await batchesOf(make({ startEpoch: 1, startStep: 0 }))).toEqual(all.slice(5));
    expect(await batchesOf(make({ startEpoch: 0, startStep: 5 }))).toEqual(all.slice(5)); // a cursor at the end of an epoch
  });

  test('without shuffling it keeps the order; without dropLast the last batch is smaller', async () => {
    const batches = await batchesOf(make({ shuffle: false, dropLast: false, epochs: 1 }));
    expect(batches.flatMap(({ indices }) => [...indices])).toEqual(Array.from({ length: 23 }, (_, i) => i));
    expect(batches[5].images.length).toBe(3 * 16 * 16 * 3);
  });

  test('a batch stays during the next turn of the loop; with copy for good', async () => {
    const expected = await batchesOf(make());
    let previous: Batch | undefined;
    for await (const batch of make({ prefetch: 3 })) {
      // What is prepared in the background has had time to overwrite what it may.
      await new Promise((resolve) => setTimeout(resolve, 5));
      const at = batch.epoch * 5 + batch.step;
      expect(batch.images).toEqual(expected[at].images);
      if (previous) expect(previous.images).toEqual(expected[at - 1].images);
      previous = batch;
    }
    const kept: Batch[] = [];
    for await (const batch of make({ copy: true })) kept.push(batch);
    expect(kept).toEqual(expected);
  });

  test('runs on without an end when no number of epochs is given', async () => {
    expect((await batchesOf(make({ epochs: undefined }), 12)).map(({ epoch }) => epoch)).toEqual([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]);
  });

  test('ends by break, close() and a signal, and can start again', async () => {
    const stop = new AbortController();
    const loader = make({ signal: stop.signal });
    const first = await batchesOf(loader, 1);
    expect(await batchesOf(loader, 1)).toEqual(first);

    let turns = 0;
    for await (const batch of loader) {
      expect(batch.step).toBe(0);
      turns++;
      await loader.close();
    }
    expect(turns).toBe(1);

    const open = loader[Symbol.asyncIterator]();
    await open.next();
    expect((await failure(() => loader[Symbol.asyncIterator]().next())).code).toBe('MAE_BUSY');
    stop.abort();
    expect((await failure(() => open.next())).code).toBe('MAE_INTERRUPTED');
  });

  test('eval takes the centre and does not mirror', async () => {
    const data = new ArrayDataset({ images: pattern(32, 48), height: 32, width: 48, channels: 3 });
    const [batch] = await batchesOf(new Loader(data, { batchSize: 1, imageSize: 32, augment: 'eval', epochs: 1 }));
    const expected = await cut({ height: 32, width: 48, data: pattern(32, 48) }, { ...wholePicture(32, 48), offsetLeft: 8 }, 32, 32, 3);
    expect(batch.images).toEqual(expected);
    expect(batch.images[0]).toBe(pattern(32, 48)[8 * 3]);
    expect(batch.labels).toBeUndefined();
  });

  test("'none' takes pictures as they are and names one that has another size", async () => {
    const error = await failure(() => batchesOf(make({ augment: 'none', shuffle: false })));
    expect(error.code).toBe('MAE_DATA');
    expect(error.message).toMatch(/even\/0\.png \(picture 0 of .*\) has 14x40 pixels, but augment: 'none' needs all to have 16x16/);
  });

  test.each([
    [{ batchSize: 0 }, /batchSize needs a positive integer, got 0/],
    [{ batchSize: 1.5 }, /batchSize needs/],
    [{ imageSize: [16] as unknown as [number, number] }, /imageSize needs/],
    [{ seed: -1 }, /seed needs an integer from 0/],
    [{ startStep: 6 }, /startStep needs at most the 5 steps/],
    [{ augment: 'crop' as 'none' }, /augment needs 'random-resized-crop'/],
    [{ flip: 2 }, /flip needs a probability, got 2/],
    [{ scale: [0, 1] as [number, number] }, /scale needs/],
    [{ ratio: [2, 1] as [number, number] }, /ratio needs/],
    [{ prefetch: 0 }, /prefetch needs/],
    [{ workers: 0 }, /workers needs/],
    [{ broken: 'skip' as 'stop' }, /broken needs/],
  ])('refuses %p', async (options, said) => {
    const error = await failure(() => make(options));
    expect(error.code).toBe('MAE_ARGUMENT');
    expect(error.message).toMatch(said);
  });

  test('refuses a batch larger than the data set', async () => {
    const error = await failure(() => make({ batchSize: 24 }));
    expect(error.code).toBe('MAE_DATA');
    expect(error.message).toMatch(/23 pictures, fewer than one batch of 24/);
    expect(make({ batchSize: 24, dropLast: false }).stepsPerEpoch).toBe(1);
  });
});

describe('broken pictures', () => {
  test('are replaced by others, the same for any batch size, with one warning each', async () => {
    const folder = await tenPictures('replaced');
    const said: string[] = [];
    const options = { imageSize: 12, epochs: 3, augment: 'eval' as const, shuffle: false };
    const load = (batchSize: number, log: (line: string) => void): Promise<Batch[]> =>
      batchesOf(new Loader(new ImageFolder(folder, quiet), { ...options, batchSize, log }));
    const batches = await load(10, (line) => said.push(line));
    expect(said).toHaveLength(2);
    expect(said[0]).toMatch(/warning: .*cat\/3\.png cannot be decoded and is replaced by other pictures: ./);
    expect(byIndex(await load(2, quiet.log))).toEqual(byIndex(batches));

    const shown = byIndex(batches);
    const originals = [0, 1, 2, 4, 5, 6, 8, 9];
    const replacements = [3, 7].map((index) =>
      [0, 1, 2].map((epoch) => originals.find((other) => shown.get(`${epoch}:${other}`) === shown.get(`${epoch}:${index}`))),
    );
    expect(replacements.flat()).not.toContain(undefined);
    expect(new Set(replacements.flat()).size).toBeGreaterThan(1); // not always the same one
    batches.forEach(({ indices, labels }, epoch) => {
      expect([...indices]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      expect([labels![3], labels![7]]).toEqual(replacements.map((of) => (of[epoch]! < 5 ? 0 : 1))); // what is seen is what is labelled
    });
  });

  test("stop the iteration with broken: 'stop'", async () => {
    const loader = new Loader(new ImageFolder(await tenPictures('stopped'), quiet), { batchSize: 10, imageSize: 12, broken: 'stop' });
    const error = await failure(() => batchesOf(loader));
    expect(error.code).toBe('MAE_DATA');
    expect(error.message).toMatch(/cannot be decoded: .*broken: 'replace'/);
  });

  test('are an error when there is nothing to replace them by', async () => {
    const folder = await save('hopeless', { '1.png': Buffer.alloc(0), '2.png': Buffer.from('no picture') });
    const error = await failure(() => batchesOf(new Loader(new ImageFolder(folder, quiet), { batchSize: 1, imageSize: 8, ...quiet })));
    expect(error.message).toMatch(/no replacement for .* nearly all are broken/);
    expect((await failure(() => pack(folder, path.join(root, 'hopeless.maepack')))).message).toMatch(
      /none of the 2 pictures .* can be decoded/,
    );
    expect(fs.readdirSync(root).filter((name) => name.includes('hopeless'))).toEqual(['hopeless']);
  });
});

describe('packed data sets', () => {
  let folder: string;
  let file: string;
  beforeAll(async () => {
    folder = await tenPictures('unpacked');
    file = path.join(root, 'ten.maepack');
    const result = await pack(folder, file, { size: 16 });
    expect(result).toEqual({
      pictures: 10,
      bytes: fs.statSync(file).size,
      broken: ['cat/3.png', 'dog/7.png'].map((name) => ({ path: path.join(folder, name), reason: expect.any(String) })),
    });
  });

  test('give the batches that the folder gives', async () => {
    const options = { batchSize: 4, imageSize: 14, epochs: 2, seed: 3, dropLast: false, workers: 2, ...quiet };
    const packed = openDataset(file) as PackedDataset;
    const unpacked = openDataset(folder, { size: 16, ...quiet }) as ImageFolder;
    expect(packed).toBeInstanceOf(PackedDataset);
    expect(packed.paths).toEqual(unpacked.paths.map((name) => path.relative(folder, name)));
    expect([packed.length, packed.size, packed.classes, packed.labels]).toEqual([10, 16, unpacked.classes, unpacked.labels]);
    expect(await batchesOf(new Loader(packed, options))).toEqual(await batchesOf(new Loader(unpacked, options)));
    expect(await readPicture(packed, 5)).toEqual({ ...(await readPicture(unpacked, 5)), data: expect.anything() });
    expect(Buffer.from((await readPicture(packed, 5)).data as Uint8Array)).toEqual(
      Buffer.from((await readPicture(unpacked, 5)).data as Uint8Array),
    );
    expect((await failure(() => readPicture(packed, 3))).message).toMatch(/cat\/3\.png .* cannot be decoded/);
    packed.close();
    expect((await failure(() => packed.fetch([0]))).code).toBe('MAE_DISPOSED');
  });

  test('are recognised by their content, other files refused', async () => {
    const renamed = path.join(root, 'renamed.bin');
    fs.copyFileSync(file, renamed);
    expect(openDataset(renamed)).toBeInstanceOf(PackedDataset);
    const other = path.join(root, 'other.bin');
    fs.writeFileSync(other, 'hello');
    expect((await failure(() => openDataset(other))).code).toBe('MAE_DATA');
    expect((await failure(() => openDataset(path.join(root, 'absent.maepack')))).code).toBe('MAE_DATA');
    const given = openDataset(renamed);
    expect(openDataset(given)).toBe(given);
  });

  test.each([
    ['truncated by one byte', (b: Buffer) => b.subarray(0, -1), /truncated: its end is missing/],
    ['truncated in the middle', (b: Buffer) => b.subarray(0, b.length / 2), /truncated/],
    ['truncated to its first bytes', (b: Buffer) => b.subarray(0, 12), /truncated: it has 12 bytes/],
    ['empty', () => Buffer.alloc(0), /does not start with the word MAEPACK/],
    ['of another kind', (b: Buffer) => Buffer.concat([Buffer.from('PNG'), b]), /does not start with the word MAEPACK/],
    ['of another version', (b: Buffer) => b.fill(9, 8, 9), /version 9 of the format/],
    ['damaged in its index', (b: Buffer) => b.fill(0xee, b.length - 60, b.length - 50), /checksum/],
    ['missing a record', (b: Buffer) => Buffer.concat([b.subarray(0, 16), b.subarray(100)]), /a part is missing or was added/],
  ])('a file %s is refused', async (name, damage, said) => {
    const damaged = path.join(root, `${name}.maepack`);
    fs.writeFileSync(damaged, damage(fs.readFileSync(file)));
    const error = await failure(() => new PackedDataset(damaged));
    expect(error.code).toBe('MAE_FORMAT');
    expect(error.message).toMatch(said);
  });

  test('a file that becomes shorter under a loader ends in an error, not in a crash', async () => {
    const shrinking = path.join(root, 'shrinking.maepack');
    fs.copyFileSync(file, shrinking);
    const data = new PackedDataset(shrinking);
    fs.truncateSync(shrinking, 100);
    const error = await failure(() => batchesOf(new Loader(data, { batchSize: 10, imageSize: 8, epochs: 1, ...quiet })));
    expect(error.code).toBe('MAE_FILE');
    expect(error.message).toMatch(/the file ends too early/);
    expect((await failure(() => readPicture(data, 9))).code).toBe('MAE_FILE');
  });

  test('an interrupted or failing pack leaves nothing behind', async () => {
    const where = path.join(root, 'interrupted');
    fs.mkdirSync(where);
    const stop = new AbortController();
    const onProgress = (done: number): void => (done === 4 ? stop.abort() : undefined);
    const error = await failure(() => pack(folder, path.join(where, 'x.maepack'), { onProgress, signal: stop.signal }));
    expect(error.code).toBe('MAE_INTERRUPTED');
    expect(fs.readdirSync(where)).toEqual([]);
    expect((await failure(() => pack(folder, path.join(file, 'x.maepack')))).code).toBe('MAE_FILE');
  });
});

describe('ArrayDataset', () => {
  const images = Float32Array.from({ length: 6 * 5 * 4 * 7 }, (_, i) => i - 100.5);

  test('float32 pictures of any channels pass through unchanged', async () => {
    const data = new ArrayDataset({ images, height: 5, width: 4, channels: 7, labels: [0, 1, 0, 1, 0, 1] });
    const [batch] = await batchesOf(new Loader(data, { batchSize: 6, imageSize: [5, 4], augment: 'none', shuffle: false, epochs: 1 }));
    expect(batch.images).toEqual(images);
    expect([...batch.labels!]).toEqual([0, 1, 0, 1, 0, 1]);
    expect(data.classes).toEqual(['0', '1']);
  });

  test('float32 pictures can be cut at the centre and mirrored, not resized', async () => {
    const data = new ArrayDataset({ images, height: 5, width: 4, channels: 7 });
    const options = { batchSize: 6, shuffle: false, epochs: 1, augment: 'eval' as const };
    const [batch] = await batchesOf(new Loader(data, { ...options, imageSize: 4, flip: 1 }));
    const expected = Array.from({ length: 6 }, (_, i) => {
      const rows = [0, 1, 2, 3]; // round(0.5) is 0, as in Python
      return rows.flatMap((y) =>
        [3, 2, 1, 0].flatMap((x) => [...images.subarray(((i * 5 + y) * 4 + x) * 7, ((i * 5 + y) * 4 + x + 1) * 7)]),
      );
    });
    expect([...batch.images]).toEqual(expected.flat());
    expect((await failure(() => batchesOf(new Loader(data, { ...options, imageSize: 3 })))).message).toMatch(
      /only uint8 pictures of up to 4 channels/,
    );
    const error = await failure(() => new Loader(data, { batchSize: 1, imageSize: 4 }));
    expect(error.message).toMatch(/has float32 with 7; use augment: 'none'/);
  });

  test.each([
    [{ height: 0 }, /positive integers, got 0, 4, 7/],
    [{ images: images.subarray(1) }, /whole number of pictures of 5·4·7 = 140 values, got 839 values/],
    [{ images: [1, 2] as unknown as Float32Array }, /needs a Uint8Array or Float32Array, got \[object Array\]/],
    [{ labels: [1] }, /one number per picture \(6\), got 1/],
    [{ labels: [0, 0, 0, 0, 0, 3], classes: ['a'] }, /label 3 has no name among the 1 classes/],
  ])('refuses %p', async (options, said) => {
    const error = await failure(() => new ArrayDataset({ images, height: 5, width: 4, channels: 7, ...options }));
    expect(error.code).toBe('MAE_ARGUMENT');
    expect(error.message).toMatch(said);
  });
});

describe('statistics and check-data', () => {
  test('mean and standard deviation are those of the pixels', async () => {
    const pixels = pattern(20, 20, 2);
    const { mean, std, pictures } = await statistics(new ArrayDataset({ images: pixels, height: 5, width: 5, channels: 2 }));
    expect(pictures).toBe(16);
    for (const c of [0, 1]) {
      const values = [...pixels].filter((_, i) => i % 2 === c).map((value) => value / 255);
      const expected = values.reduce((a, b) => a + b) / values.length;
      expect(mean[c]).toBeCloseTo(expected, 12);
      expect(std[c]).toBeCloseTo(Math.sqrt(values.reduce((s, v) => s + (v - expected) ** 2, 0) / values.length), 10);
    }
  });

  test('the report counts what is in the folder', async () => {
    const folder = await save('report', {
      'a/1.jpg': drawn(300, 260).jpeg().toBuffer(),
      'a/2.webp': drawn(40, 50).withMetadata({ orientation: 6 }).webp().toBuffer(),
      'b/3.jpg': drawn(40, 50).toColourspace('cmyk').jpeg().toBuffer(),
      'b/4.png': drawn(10, 10).toColourspace('grey16').png().toBuffer(),
      'b/5.png': drawn(10, 12).ensureAlpha().png().toBuffer(),
      'b/6.png': Buffer.from('broken'),
      'b/7.HEIC': Buffer.from('of a telephone'),
    });
    const report = await checkData(folder);
    expect(report).toMatchObject({
      kind: 'folder',
      pictures: 6,
      checked: 6,
      classes: [
        { name: 'a', pictures: 2 },
        { name: 'b', pictures: 4 },
      ],
      formats: { jpeg: 2, webp: 1, png: 2 },
      converted: { greyscale: 1, cmyk: 1, sixteenBit: 1, alpha: 1, rotated: 1 },
      smallest: [10, 10],
      largest: [300, 260],
      shortSides: [
        { from: 0, to: 32, pictures: 2 },
        { from: 32, to: 64, pictures: 2 },
        { from: 256, to: 512, pictures: 1 },
      ],
      broken: [{ path: path.join(folder, 'b/6.png') }],
      passedOver: { '.heic': 1 },
      smallerThanImageSize: 4,
    });
    expect(report.decodedBytes).toBe(3 * (300 * 260 + 2 * 40 * 50 + 100 + 120));
    expect(report.advice.join('\n')).toMatch(/Broken files are replaced[^]*fit in memory[^]*4 of 5 pictures are smaller than 224x224/);
  });

  /** Runs a command line as `mae` would; what it prints to standard output. */
  async function mae(...args: string[]): Promise<string> {
    const program = new Command().exitOverride().configureOutput({ writeErr: () => undefined });
    checkDataCommand(program);
    packCommand(program);
    const printed: string[] = [];
    const out = jest.spyOn(console, 'log').mockImplementation((line) => printed.push(line));
    const err = jest.spyOn(console, 'error').mockImplementation(() => undefined);
    try {
      await program.parseAsync(args, { from: 'user' });
    } finally {
      out.mockRestore();
      err.mockRestore();
    }
    return printed.join('\n');
  }

  test('as a user types it', async () => {
    const folder = await tenPictures('typed');
    const file = path.join(root, 'typed.maepack');
    expect(await mae('pack', folder, '--out', file, '--size', '16')).toMatch(
      /typed\.maepack: 10 pictures \(2 of them broken\), .* KiB, in .* pictures\/s\)/,
    );
    const text = await mae('check-data', folder);
    expect(text).toMatch(/pictures +10\n +classes +2\n +formats +8 png/);
    expect(text).toMatch(/broken file +reason\n[^]*cat\/3\.png[^]*dog\/7\.png/);
    expect(process.exitCode).toBe(1);
    const report = JSON.parse(await mae('check-data', file, '--json', '--image-size', '16', '--sample', '5'));
    expect(report).toMatchObject({ kind: 'packed', pictures: 10, checked: 5, smallerThanImageSize: 0 });
    process.exitCode = undefined;
    await expect(mae('pack', folder, '--out', file, '--size', 'big')).rejects.toThrow(/positive whole number/);
    await expect(mae('check-data', path.join(root, 'absent'))).rejects.toThrow(MaeError);
  });
});
