import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { main } from '../lib/cli/main';
import { ArrayDataset } from '../lib/data/array';
import { Canvas, disc, polygon, rectangle, union, without } from '../lib/demo/canvas';
import { drawPicture, PICTURE_SIZE } from '../lib/demo/draw';
import { holdOut } from '../lib/demo/holdOut';
import { writePictures } from '../lib/demo/pictures';
import { epochsFor } from '../lib/demo/plan';
import { scenes } from '../lib/demo/scenes';
import { readSafetensors } from '../lib/io/safetensors';
import { readMetrics } from '../lib/train/metrics';

jest.setTimeout(300_000); // trains; on a busy machine that takes its time

const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');

let folder: string;
beforeAll(() => (folder = fs.mkdtempSync(path.join(tmpdir(), 'mae-demo-'))));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

describe('canvas', () => {
  /** Pixels that a shape covers, parts of pixels counted as parts. */
  function area(shape: Parameters<Canvas['fill']>[0]): number {
    const canvas = new Canvas(64, 64);
    canvas.fill(shape, [1, 1, 1]);
    const pixels = canvas.pixels();
    let sum = 0;
    for (let i = 0; i < pixels.length; i += 3) sum += pixels[i] / 255;
    return sum;
  }

  test('edges cover parts of pixels: areas are right wherever a shape lies', () => {
    for (const [x, y, r] of [
      [30, 31, 12],
      [30.37, 29.81, 12],
      [20.5, 40.25, 7.3],
    ]) {
      expect(Math.abs(area(disc(x, y, r)) / (Math.PI * r * r) - 1)).toBeLessThan(0.01);
    }
    expect(area(rectangle(10.25, 20.5, 30.25, 40.5))).toBeCloseTo(400, -1);
    expect(Math.abs(area(polygon([30.3, 10.2], [50.3, 40.2], [10.3, 40.2])) / 600 - 1)).toBeLessThan(0.01);
  });

  test('a union counts the common part once, a hole is left out', () => {
    const [a, b] = [rectangle(10, 10, 30, 30), rectangle(20, 10, 40, 30)];
    expect(area(union(a, b))).toBeCloseTo(600, 6);
    expect(area(without(a, b))).toBeCloseTo(200, 6);
  });

  test('what lies outside the picture is cut off', () => {
    expect(area(disc(0, 0, 10)) / (Math.PI * 25)).toBeCloseTo(1, 1);
    expect(area(rectangle(-20, -20, -5, 100))).toBe(0);
  });

  test('a colour is read between pixels as it changes between them', () => {
    const canvas = new Canvas(8, 8);
    canvas.wash((x, y) => [x / 8, y / 8, 0.5]);
    const [red, green, blue] = canvas.at(3.25, 5.75);
    expect([red, green, blue].map((value) => value.toFixed(6))).toEqual([(3.25 / 8).toFixed(6), (5.75 / 8).toFixed(6), '0.500000']);
  });
});

describe('pictures', () => {
  test('have the same bytes on every machine and in every order', () => {
    const all = createHash('sha256');
    for (let i = 0; i < 2 * scenes.length; i++) all.update(drawPicture(0, i));
    // Made of sums, products and square roots only, which are exact by IEEE 754: a change of this is a change of the drawing.
    expect(all.digest('hex')).toBe('5107c4e650511ec4481d0dc970846011d824bb178c935f340caac1ce5b9f6930');
    const again = drawPicture(0, 3);
    drawPicture(7, 100);
    expect(sha256(drawPicture(0, 3))).toBe(sha256(again));
  });

  test('are 64x64 in colour, bright and dark', () => {
    for (let i = 0; i < scenes.length; i++) {
      const picture = drawPicture(5, i);
      expect(picture.length).toBe(PICTURE_SIZE * PICTURE_SIZE * 3);
      const mean = picture.reduce((sum, value) => sum + value, 0) / picture.length;
      const spread = Math.sqrt(picture.reduce((sum, value) => sum + (value - mean) ** 2, 0) / picture.length);
      expect(spread).toBeGreaterThan(15);
    }
  });

  test('all differ, those of a kind and those of another seed visibly', () => {
    const hashes = new Set<string>();
    for (let i = 0; i < 49; i++) hashes.add(sha256(drawPicture(0, i)));
    expect(hashes.size).toBe(49);
    const distance = (a: Uint8Array, b: Uint8Array): number => a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0) / a.length;
    for (let kind = 0; kind < scenes.length; kind++) {
      expect(distance(drawPicture(0, kind), drawPicture(0, kind + scenes.length))).toBeGreaterThan(4);
      expect(distance(drawPicture(0, kind), drawPicture(1, kind))).toBeGreaterThan(4);
    }
  });

  test('files hold what was drawn, numbered on from the first', async () => {
    const place = path.join(folder, 'files');
    await writePictures(place, { seed: 3, first: 9, count: 2 });
    expect(fs.readdirSync(place).sort()).toEqual(['00009.png', '00010.png']);
    const { data, info } = await sharp(path.join(place, '00010.png')).raw().toBuffer({ resolveWithObject: true });
    expect(info).toMatchObject({ width: 64, height: 64, channels: 3 });
    expect(sha256(data)).toBe(sha256(drawPicture(3, 10)));
  });

  test('stop when they are told to', async () => {
    const stopped = writePictures(path.join(folder, 'stopped'), { seed: 0, first: 0, count: 1000, signal: AbortSignal.abort() });
    await expect(stopped).rejects.toMatchObject({ code: 'MAE_INTERRUPTED' });
  });
});

describe('plan', () => {
  test('whole epochs within the minutes, at least one, and an end for fast machines', () => {
    // 500 img/s for 3 min are 90 000 pictures, 82 800 without the 8 % for everything else: 23 epochs of 3 500.
    expect(epochsFor(3, 500, 3500)).toBe(23);
    expect(epochsFor(0.01, 10, 3500)).toBe(1);
    expect(epochsFor(4, 1e6, 4000)).toBe(100);
  });
});

describe('held-out part', () => {
  const numbered = (count: number): ArrayDataset =>
    new ArrayDataset({ images: Uint8Array.from({ length: count * 3 }, (_, i) => Math.floor(i / 3)), height: 1, width: 1, channels: 3 });

  test('every picture is in one of the two parts, in its order', async () => {
    const { training, heldOut } = holdOut(numbered(57));
    expect([training.length, heldOut?.length]).toEqual([52, 5]);
    const values: number[] = [];
    for (const part of [training, heldOut!]) {
      const all = Array.from({ length: part.length }, (_, i) => i);
      const pictures = (await part.fetch(all)) as { data: Uint8Array }[];
      const own = pictures.map(({ data }) => data[0]);
      expect(own).toEqual([...own].sort((a, b) => a - b));
      values.push(...own);
    }
    expect(values.sort((a, b) => a - b)).toEqual(Array.from({ length: 57 }, (_, i) => i));
  });

  test('nothing is held out of fewer than ten, and at most 200 of many', () => {
    expect(holdOut(numbered(9)).heldOut).toBeUndefined();
    const { training, heldOut } = holdOut(numbered(5000));
    expect([training.length, heldOut?.length]).toEqual([4800, 200]);
  });
});

describe('mae demo', () => {
  /** Runs the command as typed. @returns what it printed on standard output */
  async function demo(...flags: string[]): Promise<string> {
    const lines: string[] = [];
    const log = jest.spyOn(console, 'log').mockImplementation((line: string) => void lines.push(line));
    const progress = jest.spyOn(process.stderr, 'write').mockImplementation(() => true);
    try {
      await main(['node', 'mae', 'demo', '--device', 'cpu', ...flags]);
    } finally {
      log.mockRestore();
      progress.mockRestore();
    }
    return lines.join('\n');
  }

  /** The files under "look at", which must all be there. */
  function namedFiles(output: string): string[] {
    const lines = output.slice(output.indexOf('\nlook at\n'), output.indexOf('\nnext\n')).trim().split('\n').slice(1);
    return lines.map((line) => line.trim().split(/ {2,}/)[0]);
  }

  test('draws, trains, and leaves every file that it names; a second run takes a new folder', async () => {
    const out = path.join(folder, 'demo');
    const flags = ['--minutes', '0.02', '--pictures', '40', '--out', out];
    const output = await demo(...flags);
    const files = namedFiles(output);
    expect(files.map((file) => path.relative(out, file).replace(/step-\d+/, 'step-N'))).toEqual([
      'reconstructions.png',
      'mask-ratios.png',
      'reconstructions',
      'curves.svg',
      path.join('checkpoints', 'step-N', 'model.safetensors'),
    ]);
    for (const file of files) expect([file, fs.existsSync(file)]).toEqual([file, true]);
    expect(output).toContain('not trained on');
    expect(output).toContain('mae demo --data');
    expect(fs.readdirSync(path.join(out, 'pictures', 'training')).length).toBe(40);

    // 12 pictures in two columns of (masked | reconstruction | original), 6 at three mask ratios.
    const size = async (file: string) => sharp(file).metadata();
    expect((await size(files[0])).width).toBeGreaterThan(6 * 128);
    expect((await size(files[0])).height).toBeGreaterThan(6 * 128);
    expect((await size(files[1])).width).toBeGreaterThan(7 * 128);
    const { tensors } = readSafetensors(files[4]);
    expect(tensors.has('patch_embed.proj.weight')).toBe(true);
    const losses = readMetrics(path.join(out, 'metrics.jsonl')).filter(({ loss }) => loss !== undefined);
    expect(losses.length).toBeGreaterThan(0);

    const before = fs.readdirSync(out).sort();
    const again = await demo(...flags);
    expect(again).toContain(`${out} is there already and stays as it is: this run goes to ${out}-2`);
    for (const file of namedFiles(again)) expect([file, fs.existsSync(file)]).toEqual([file, true]);
    expect(namedFiles(again).every((file) => file.startsWith(`${out}-2`))).toBe(true);
    expect(fs.readdirSync(out).sort()).toEqual(before);
  });

  test("trains on the user's pictures, of any size, and holds some out", async () => {
    const own = path.join(folder, 'own');
    fs.mkdirSync(own);
    for (let i = 0; i < 20; i++) {
      const picture = sharp(drawPicture(0, i), { raw: { width: 64, height: 64, channels: 3 } });
      await picture
        .resize(200 + i, 150)
        .jpeg()
        .toFile(path.join(own, `${i}.jpg`));
    }
    const output = await demo('--minutes', '0.02', '--data', own, '--out', path.join(folder, 'own-run'));
    expect(output).toContain('18 for training, 2 held out');
    expect(output).not.toContain('mae demo --data');
    for (const file of namedFiles(output)) expect([file, fs.existsSync(file)]).toEqual([file, true]);
  });

  test('says what is wrong with the arguments', async () => {
    const errors: string[] = [];
    const log = jest.spyOn(console, 'error').mockImplementation((line: string) => void errors.push(line));
    try {
      await demo('--data', path.join(folder, 'nowhere'), '--out', path.join(folder, 'none'));
    } finally {
      log.mockRestore();
    }
    expect(errors.join('\n')).toMatch(/MAE_DATA.*nowhere does not exist/);
    expect(process.exitCode).toBe(1);
    process.exitCode = 0;
  });
});
