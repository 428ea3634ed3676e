/** The whole job as a user starts it: run folder, resuming, interruptions, and what happens when things go wrong. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ArrayDataset } from '../lib/data/array';
import { readSafetensors, writeSafetensors } from '../lib/io/safetensors';
import { MaskedAutoencoder } from '../lib/nn/maskedAutoencoder';
import { RandomStream } from '../lib/random';
import { readMetrics } from '../lib/train/metrics';
import { pretrain, type PretrainCall } from '../lib/train/pretrain';
import { errorOf } from './helpers/errors';
import { drawFolder } from './helpers/pictures';

/** MAE_DEVICE=cuda runs all of this on a GPU; with MAE_GEMM=rule, for runs in two processes are compared bit for bit. */
const device = process.env.MAE_DEVICE || 'cpu';
const mae = path.join(__dirname, '../bin/mae.js');
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'mae-pretrain-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** A model that takes milliseconds a step: 16-pixel pictures in 16 patches. */
const tiny = {
  imageSize: 16,
  patchSize: 4,
  embedDim: 32,
  depth: 1,
  numHeads: 2,
  decoderEmbedDim: 16,
  decoderDepth: 1,
  decoderNumHeads: 2,
  batchSize: 8,
  epochs: 4,
  warmupEpochs: 1,
  lr: 0.005,
  seed: 3,
  device,
  tensorboard: false,
  reconstructEvery: 0,
  quiet: true,
} as const;

/** 40 pictures of slow colour gradients: 5 steps an epoch, and soon learnt. */
function pictures(count = 40): ArrayDataset {
  const stream = new RandomStream(7, 3);
  const images = new Uint8Array(count * 768);
  for (let i = 0; i < count; i++) {
    const [level, x, y] = [80 + 96 * stream.uniform(), 4 * stream.uniform() - 2, 4 * stream.uniform() - 2];
    for (let j = 0; j < 768; j++)
      images[i * 768 + j] = level + x * ((Math.floor(j / 3) % 16) - 8) + y * (Math.floor(j / 48) - 8) + 10 * (j % 3);
  }
  return new ArrayDataset({ images, height: 16, width: 16, channels: 3, name: 'gradients' });
}

const out = (name = 'run'): string => path.join(folder, name);
const losses = (run: string): unknown[] =>
  readMetrics(path.join(run, 'metrics.jsonl')).map(({ step, loss, gradNorm }) => [step, loss, gradNorm]);
const weights = (checkpoint: string) => readSafetensors(path.join(checkpoint, 'model.safetensors')).tensors;

function expectSameWeights(a: string, b: string): void {
  const [one, other] = [weights(a), weights(b)];
  expect([...one.keys()]).toEqual([...other.keys()]);
  for (const [name, { data }] of one)
    expect([name, Buffer.compare(Buffer.from(data.buffer), Buffer.from(other.get(name)!.data.buffer))]).toEqual([name, 0]);
}

const run = (options: Partial<PretrainCall>) => pretrain({ data: pictures(), ...tiny, ...options });

test('a run leaves its configuration, metrics, checkpoint and curve, and the loss falls', async () => {
  const result = await run({ out: out(), valData: pictures(8), valEvery: 2 });
  expect(result).toMatchObject({ steps: 20, ended: 'done', out: out() });
  const config = JSON.parse(readFileSync(path.join(out(), 'config.json'), 'utf8')) as Record<string, unknown>;
  expect(config).toMatchObject({
    embedDim: 32,
    lr: 0.005,
    weightDecay: 0.05,
    warmupEpochs: 1,
    about: { parameters: expect.any(Number) as number },
  });
  const records = readMetrics(path.join(out(), 'metrics.jsonl'));
  const training = records.filter((record) => record.loss !== undefined);
  expect(training).toHaveLength(20);
  expect(records.filter((record) => record.validationLoss !== undefined)).toHaveLength(2);
  const mean = (part: typeof training): number => part.reduce((sum, { loss }) => sum + (loss as number), 0) / part.length;
  expect(mean(training.slice(-5))).toBeLessThan(0.9 * mean(training.slice(0, 5)));
  expect(readFileSync(result.curve, 'utf8')).toContain('<svg');
  expect(readdirSync(path.join(out(), 'checkpoints')).sort()).toEqual(['latest', 'step-20']);
});

test('stopped in the middle of an epoch and resumed, it is the uninterrupted run, bit for bit', async () => {
  const whole = await run({ out: out('whole') });
  const part = await run({ out: out('part'), maxSteps: 7 });
  expect(part.ended).toBe('max-steps');
  const rest = await run({ out: out('part'), resume: true });
  expect(rest.steps).toBe(20);
  expect(losses(out('part'))).toEqual(losses(out('whole')));
  expectSameWeights(rest.checkpoint, whole.checkpoint);
});

test('accumulated micro-batches resume as well', async () => {
  const whole = await run({ out: out('whole'), batchSize: 4, accumIter: 2 });
  await run({ out: out('part'), batchSize: 4, accumIter: 2, maxSteps: 3 });
  const rest = await run({ out: out('part'), batchSize: 4, accumIter: 2, resume: true });
  expectSameWeights(rest.checkpoint, whole.checkpoint);
});

test('choices of matrix products that another GPU made are ignored with a note, and the run goes on', async () => {
  const part = await run({ out: out(), maxSteps: 3 });
  const file = path.join(part.checkpoint, 'state.json');
  const state = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  writeFileSync(file, JSON.stringify({ ...state, gemmChoices: { gpu: 'another one', cublasLt: '13.1.0', table: '' } }));
  let said = '';
  const stream = { write: (text: string) => Boolean((said += text)), isTTY: false };
  expect((await run({ out: out(), resume: true, quiet: false, stream })).steps).toBe(20);
  expect(said).toMatch(/note: the checkpoint's choices of matrix products are ignored: they are of .*another one/);
});

test('an aborted run saves where it is', async () => {
  const controller = new AbortController();
  const part = await run({ out: out('part'), signal: controller.signal, onStep: ({ step }) => step === 6 && controller.abort() });
  expect(part.ended).toBe('interrupted');
  expect(part.steps).toBeLessThan(20);
  const whole = await run({ out: out('whole') });
  expectSameWeights((await run({ out: out('part'), resume: true })).checkpoint, whole.checkpoint);
});

test('checkpoints are rotated, and the newest is found without its pointer', async () => {
  await run({ out: out(), saveEvery: 1, keep: 2, epochs: 4 });
  expect(readdirSync(path.join(out(), 'checkpoints')).sort()).toEqual(['latest', 'step-15', 'step-20']);
  rmSync(path.join(out(), 'checkpoints', 'latest'));
  expect((await run({ out: out(), resume: true })).steps).toBe(20);
});

test('load takes a run folder (its newest checkpoint), a checkpoint folder or the file', async () => {
  const { checkpoint } = await run({ out: out(), saveEvery: 1 });
  expect(readdirSync(path.join(out(), 'checkpoints')).length).toBeGreaterThan(2);
  for (const place of [out(), checkpoint, path.join(checkpoint, 'model.safetensors')]) {
    const { model } = MaskedAutoencoder.load(place, { device });
    using loaded = model;
    await loaded.save(path.join(folder, 'again', 'model.safetensors'));
    expectSameWeights(path.join(folder, 'again'), checkpoint);
  }
  expect(() => MaskedAutoencoder.load(folder)).toThrow(/no checkpoint and no model\.safetensors in .*give a run folder/);
});

describe('--init-from', () => {
  /** A rate that changes no weight. */
  const still = { lr: 1e-30, maxSteps: 1 };

  test('takes the weights alone: optimizer and schedule begin anew', async () => {
    const { checkpoint } = await run({ out: out('first') });
    const second = await run({ out: out('second'), initFrom: out('first'), seed: 4, normPixLoss: true, ...still });
    expectSameWeights(second.checkpoint, checkpoint);
    expect(JSON.parse(readFileSync(path.join(second.checkpoint, 'state.json'), 'utf8'))).toMatchObject({ step: 1, optimizerStep: 1 });
    expect(JSON.parse(readFileSync(path.join(out('second'), 'config.json'), 'utf8'))).toMatchObject({ initFrom: out('first') });
  });

  test('an encoder alone: one line says that the decoder starts from its initialisation', async () => {
    const { checkpoint } = await run({ out: out('first') });
    const { model } = MaskedAutoencoder.load(checkpoint, { device });
    const encoder = path.join(folder, 'encoder.safetensors');
    await model.save(encoder, { encoderOnly: true });
    model.dispose();
    const drawn = weights((await run({ out: out('drawn'), ...still })).checkpoint);
    let said = '';
    const stream = { write: (text: string) => Boolean((said += text)), isTTY: false };
    const second = await run({ out: out('second'), initFrom: encoder, ...still, quiet: false, stream });
    expect(said.match(/encoder only: the decoder starts from its initialisation/g)).toHaveLength(1);
    const trained = weights(checkpoint);
    for (const [name, { data }] of weights(second.checkpoint)) {
      const from = name.startsWith('decoder') || name === 'mask_token' ? drawn : trained;
      expect([name, data]).toEqual([name, from.get(name)!.data]);
    }
  });

  test('a resumed run goes on from its checkpoint, and needs the first weights no more', async () => {
    await run({ out: out('first'), maxSteps: 3 });
    const whole = await run({ out: out('whole'), initFrom: out('first') });
    await run({ out: out('part'), initFrom: out('first'), maxSteps: 7 });
    rmSync(out('first'), { recursive: true });
    expectSameWeights((await run({ out: out('part'), initFrom: out('first'), resume: true })).checkpoint, whole.checkpoint);
  });

  test('weights of another architecture are refused, and no run folder is made', async () => {
    const { checkpoint } = await run({ out: out('first'), maxSteps: 1 });
    const nameless = path.join(folder, 'nameless.safetensors');
    await writeSafetensors(nameless, weights(checkpoint));
    const refusal = (options: Partial<PretrainCall>) => errorOf(() => run({ out: out(), initFrom: out('first'), ...options }));
    expect(await refusal({ numHeads: 1, decoderDepth: 2 })).toMatch(
      /^MAE_CHECKPOINT .*step-1\/model\.safetensors is of another architecture: numHeads is 2 there and 1 here; decoderDepth is 1 there and 2 here/,
    );
    expect(await refusal({ imageSize: [8, 32] })).toMatch(/imageSize is 16x16 there and 8x32 here/);
    expect(await refusal({ imageSize: 32, initFrom: nameless })).toMatch(/^MAE_CHECKPOINT .*wrong shape: .*of another picture size/);
    expect(await refusal({ initFrom: 'nowhere' })).toMatch(/^MAE_FILE .*nowhere/);
    expect(existsSync(out())).toBe(false);
  });
});

test('bf16 trains as well and says so in its state', async () => {
  const result = await run({ out: out(), precision: 'bf16' });
  expect(JSON.parse(readFileSync(path.join(result.checkpoint, 'state.json'), 'utf8'))).toMatchObject({ precision: 'bf16', step: 20 });
  const [first] = readMetrics(path.join(out(), 'metrics.jsonl'));
  expect(result.loss).toBeLessThan(0.9 * (first.loss as number));
});

test('a broken picture is warned about once, by the run itself: training, validation and reconstructions look at it', async () => {
  for (const name of ['train', 'held-out']) {
    await drawFolder(path.join(folder, name), 9, 16);
    writeFileSync(path.join(folder, name, 'broken.jpg'), 'not a picture');
  }
  let said = '';
  const stream = { write: (text: string) => Boolean((said += text)), isTTY: false };
  const elsewhere = jest.spyOn(console, 'error').mockImplementation();
  const data = path.join(folder, 'train');
  const looks = { valEvery: 1, reconstructEvery: 1, batchSize: 10, epochs: 2 };
  for (const valData of [undefined, path.join(folder, 'held-out')]) {
    said = '';
    await run({ ...looks, data, valData, out: out(valData ? 'with' : 'without'), quiet: false, stream });
    expect(said.match(/train\/broken\.jpg/g)).toHaveLength(1);
    expect(said.match(/held-out\/broken\.jpg/g) ?? []).toHaveLength(valData ? 1 : 0);
  }
  expect(elsewhere).not.toHaveBeenCalled();
  elsewhere.mockRestore();
});

test('--overfit drives the loss of one batch down', async () => {
  const result = await run({ out: out(), overfit: 1, epochs: 60, normPixLoss: false });
  expect(result.steps).toBe(60);
  const [first] = readMetrics(path.join(out(), 'metrics.jsonl'));
  expect(result.loss).toBeLessThan(0.5 * (first.loss as number));
});

describe('what goes wrong is said clearly', () => {
  const failure = (promise: Promise<unknown>) =>
    promise.then(
      () => undefined,
      (error: { code: string; message: string }) => ({ code: error.code, message: error.message }),
    );

  test('a run that is there already', async () => {
    await run({ out: out(), maxSteps: 1 });
    expect(await failure(run({ out: out() }))).toMatchObject({
      code: 'MAE_CHECKPOINT',
      message: expect.stringContaining('--resume') as string,
    });
  });

  test('nothing to resume', async () => {
    expect(await failure(run({ out: out(), resume: true }))).toMatchObject({
      code: 'MAE_CHECKPOINT',
      message: expect.stringContaining('no checkpoint') as string,
    });
  });

  test.each([
    ['model.safetensors', 'MAE_FORMAT'],
    ['optimizer.safetensors', 'MAE_FORMAT'],
    ['state.json', 'MAE_CHECKPOINT'],
  ])('a truncated %s', async (file, code) => {
    const { checkpoint } = await run({ out: out(), maxSteps: 2 });
    truncateSync(path.join(checkpoint, file), 60);
    expect(await failure(run({ out: out(), resume: true }))).toMatchObject({ code, message: expect.stringContaining(file) as string });
  });

  test('a checkpoint of another model', async () => {
    await run({ out: out(), maxSteps: 1 });
    expect(await failure(run({ out: out(), resume: true, embedDim: 48 }))).toMatchObject({
      code: 'MAE_CHECKPOINT',
      message: expect.stringContaining('wrong shape') as string,
    });
  });

  test('another seed or batch than the run began with', async () => {
    await run({ out: out(), maxSteps: 1 });
    expect(await failure(run({ out: out(), resume: true, seed: 4 }))).toMatchObject({
      code: 'MAE_CHECKPOINT',
      message: expect.stringContaining('seed') as string,
    });
    expect(await failure(run({ out: out(), resume: true, batchSize: 4 }))).toMatchObject({
      code: 'MAE_CHECKPOINT',
      message: expect.stringContaining('pictures a step') as string,
    });
  });

  test('unknown and impossible options', async () => {
    const unknown = { maskRatoi: 0.5 } as Partial<PretrainCall>;
    expect(await failure(run({ out: out(), ...unknown }))).toMatchObject({
      code: 'MAE_CONFIG',
      message: expect.stringContaining('did you mean maskRatio') as string,
    });
    expect(await failure(run({ out: out(), maskRatio: 1.5 }))).toMatchObject({
      code: 'MAE_CONFIG',
      message: expect.stringContaining('maskRatio: expected number to be <1, got 1.5') as string,
    });
    expect(await failure(run({ out: out(), maskRatio: 0.99 }))).toMatchObject({
      code: 'MAE_ARGUMENT',
      message: expect.stringContaining('keeps none') as string,
    });
    expect(await failure(run({ out: out(), blr: 1e-3 }))).toMatchObject({
      code: 'MAE_CONFIG',
      message: expect.stringContaining('either lr or blr') as string,
    });
    expect(await failure(run({ out: out(), inChans: 1, mean: [0.5], std: [0.2] }))).toMatchObject({
      code: 'MAE_DATA',
      message: expect.stringMatching(/inChans is 1, but .*pictures of 3 channels.*leave inChans out/s) as string,
    });
    expect(await failure(run({ out: out(), data: undefined }))).toMatchObject({
      code: 'MAE_ARGUMENT',
      message: expect.stringContaining('data needs a folder') as string,
    });
    expect(existsSync(out())).toBe(false);
  });

  test('a loss that is not finite names step, lr, norm and the last good checkpoint', async () => {
    const images = new Float32Array(16 * 768).fill(0.5);
    images.fill(NaN, 0, 768 * 16);
    const data = new ArrayDataset({ images, height: 16, width: 16, channels: 3, name: 'broken floats' });
    const error = await failure(run({ out: out(), data, augment: 'none' }));
    expect(error).toMatchObject({ code: 'MAE_NON_FINITE' });
    expect(error!.message).toMatch(/step 1: loss NaN, gradient norm NaN at lr 0\..*none yet/s);
  });
});

describe('the command line', () => {
  const flags = [
    '--image-size',
    '16',
    '--patch-size',
    '4',
    '--embed-dim',
    '32',
    '--depth',
    '1',
    '--num-heads',
    '2',
    '--decoder-embed-dim',
    '16',
  ];
  const more = [
    '--decoder-depth',
    '1',
    '--decoder-num-heads',
    '2',
    '--batch-size',
    '8',
    '--warmup-epochs',
    '1',
    '--blr',
    '0.01',
    '--device',
    device,
  ];
  const command = (...args: string[]) => spawnSync(process.execPath, [mae, ...args], { encoding: 'utf8', cwd: folder });

  beforeEach(() => drawFolder(path.join(folder, 'pictures'), 24, 20));

  test('pretrain, reconstruct, convert', () => {
    const trained = command('pretrain', '--data', 'pictures', '--out', 'run', '--epochs', '2', ...flags, ...more);
    expect(trained.stderr).toMatch(/epoch 2\/2 {2}step 6\/6 {2}loss/);
    expect([trained.status, trained.stdout]).toEqual([0, expect.stringContaining('done after 6 steps')]);
    for (const file of ['config.json', 'metrics.jsonl', 'curves.svg', 'reconstructions/step-000006.png'])
      expect(existsSync(path.join(folder, 'run', file))).toBe(true);
    expect(readdirSync(path.join(folder, 'run')).some((name) => name.startsWith('events.out.tfevents'))).toBe(true);

    expect(command('reconstruct', 'pictures', '--checkpoint', 'run', '--out', 'grid.png', '--count', '3').status).toBe(0);
    expect(command('reconstruct', '--checkpoint', 'run', '--out', 'ladder.png', '--count', '2', '--ladder', 'pictures').status).toBe(0);
    for (const file of ['grid.png', 'ladder.png']) expect(readFileSync(path.join(folder, file)).subarray(1, 4).toString()).toBe('PNG');

    expect(command('convert', 'run', 'hf', '--names', 'huggingface').stdout).toContain('huggingface names');
    expect(JSON.parse(readFileSync(path.join(folder, 'hf/config.json'), 'utf8'))).toMatchObject({ model_type: 'vit_mae', hidden_size: 32 });
    expect(command('convert', 'run', 'encoder.safetensors', '--encoder-only').status).toBe(0);
    const encoder = command('reconstruct', 'pictures', '--checkpoint', 'encoder.safetensors', '--out', 'untrained.png', '--count', '1');
    expect(command('reconstruct', 'pictures', '--checkpoint', 'hf', '--out', 'hf.png', '--count', '1').status).toBe(0);
    expect(encoder.stderr).toContain('encoder only: the decoder starts from its initialisation');
  });

  test('--resume: of nothing, and of a run that has reached its --max-steps', () => {
    expect(command('pretrain', '--resume').stderr).toContain('--resume needs the run to go on with');
    const args = ['pretrain', '--data', 'pictures', '--out', 'run', '--epochs', '2', '--max-steps', '2', ...flags, ...more];
    expect(command(...args).stdout).toMatch(/stopped at --max-steps after 2 steps: loss .*--resume --max-steps <more>/s);
    expect(command('pretrain', '--out', 'run', '--resume').stdout).toContain('stopped at --max-steps after 2 steps: nothing left to do');
    expect(command('pretrain', '--out', 'run', '--resume', '--max-steps', '9').stdout).toContain('done after 6 steps: loss');
  });

  test('--init-from, a folder that is called like a number, and what --dry-run says of it', () => {
    const args = ['pretrain', '--data', 'pictures', '--epochs', '2', '--max-steps', '1', '--reconstruct-every', '0', ...flags, ...more];
    expect(command(...args, '--out', '1').status).toBe(0);
    const second = command(...args, '--out', '2', '--init-from', '1');
    expect([second.status, second.stderr]).toEqual([0, expect.stringContaining('starting from the weights in 1/checkpoints/step-1/')]);
    expect(command(...args, '--out', '3', '--init-from', '1', '--dry-run').stdout).toContain('starting from the weights in 1/');
    expect(command(...args, '--out', '3', '--init-from', '4', '--dry-run').stderr).toContain('could not open 4: no such file');
  });

  test('--dry-run trains nothing', () => {
    const dryRun = (...flag: string[]) =>
      command('pretrain', '--data', 'pictures', '--out', 'run', '--dry-run', ...flags, ...more, ...flag);
    const { status, stdout } = dryRun();
    expect(status).toBe(0);
    expect(stdout).toMatch(/"maskRatio"|one step/);
    // The memory of either way, in the order: this run's, the other's.
    const [, kept, again] = /activations (.+) of it \(.+ before planning, (.+) with recompute\)/.exec(stdout)!;
    expect(dryRun('--recompute').stdout).toMatch(new RegExp(`activations ${again} of it .*, ${kept} without recompute`));
    expect(again).not.toBe(kept);
    expect(existsSync(path.join(folder, 'run'))).toBe(false);
    expect(dryRun('--batch-size', '64').stderr).toContain('24 pictures, fewer than one batch of 64');
  });

  test('a configuration file, overridden by flags', () => {
    writeFileSync(path.join(folder, 'mae.yaml'), 'data: pictures\nmask_ratio: 0.5\nepochs: 9\n');
    expect(command('pretrain', '--config', 'mae.yaml', '--epochs', '1', '--out', 'run', ...flags, ...more).status).toBe(0);
    expect(JSON.parse(readFileSync(path.join(folder, 'run/config.json'), 'utf8'))).toMatchObject({ maskRatio: 0.5, epochs: 1 });
    writeFileSync(path.join(folder, 'bad.yaml'), 'data: pictures\nmask_ration: 0.5\n');
    const bad = command('pretrain', '--config', 'bad.yaml');
    expect([bad.status, bad.stderr]).toEqual([1, expect.stringMatching(/MAE_CONFIG.*maskRation.*did you mean maskRatio/s)]);
    const again = command('pretrain', '--config', 'run/config.json', '--out', 'again', '--max-steps', '1', '--mean', '0.5');
    expect([again.status, again.stderr]).toEqual([1, expect.stringContaining('mean needs one value for each of the 3 channels, got 1')]);
  });

  test('kill -9 at any moment, then --resume: the losses of an uninterrupted run', async () => {
    const args = [
      'pretrain',
      '--data',
      'pictures',
      '--epochs',
      '30',
      '--save-every',
      '1',
      '--keep',
      '2',
      '--reconstruct-every',
      '0',
      ...flags,
      ...more,
    ];
    expect(command(...args, '--out', 'whole').status).toBe(0);
    for (const after of [4, 11]) {
      // Killed as soon as so many checkpoints are there, likely while the next one is written.
      const child = spawn(process.execPath, [mae, ...args, '--out', 'killed', ...(after > 4 ? ['--resume'] : [])], {
        cwd: folder,
        stdio: 'ignore',
      });
      const exited = new Promise((resolve) => child.once('exit', resolve));
      const target = `step-${after * 3}`;
      while (child.exitCode === null && !existsSync(path.join(folder, 'killed/checkpoints', target)))
        await new Promise((resolve) => setTimeout(resolve, 5));
      child.kill('SIGKILL');
      await exited;
    }
    expect(command(...args, '--out', 'killed', '--resume').status).toBe(0);
    expect(losses(path.join(folder, 'killed'))).toEqual(losses(path.join(folder, 'whole')));
  });

  test.each([
    [['pretrain', '--data', 'nowhere'], 'nowhere'],
    [['pretrain'], '--data'],
    [['pretrain', '--data', 'pictures', '--mask-ratoi', '0.5'], '--mask-ratio'],
    [['pretrain', '--data', 'pictures', '--preset', 'vit-giant'], 'preset'],
    [['pretrain', '--data', 'pictures', '--device', 'tpu'], 'device'],
    [['reconstruct', 'pictures', '--checkpoint', 'nowhere'], 'nowhere'],
  ])('mae %j explains itself', (args, word) => {
    const { status, stderr } = command(...args);
    expect(status).toBe(1);
    expect(stderr).toContain(word);
    expect(stderr).not.toMatch(/\n\s+at /);
  });

  test('places where nothing can be made are refused at once', () => {
    // Below /proc Node's own recursive mkdir never returns: the time limit is what fails then.
    const quick = { encoding: 'utf8', cwd: folder, timeout: 60_000, killSignal: 'SIGKILL' } as const;
    writeFileSync(path.join(folder, 'file'), '');
    for (const place of ['/proc/none', '/dev/null', '/sys/none', 'file']) {
      const args = ['pretrain', '--data', 'pictures', '--max-steps', '1', ...flags, ...more, '--out', `${place}/run`];
      const { status, stderr } = spawnSync(process.execPath, [mae, ...args], quick);
      expect([place, status, stderr]).toEqual([
        place,
        1,
        expect.stringMatching(`error \\(MAE_FILE\\): could not write ${place}/run: (no|a|the) `),
      ]);
    }
  });

  test('broken pictures are replaced with a warning, or stop the run as told', () => {
    writeFileSync(path.join(folder, 'pictures', 'broken.jpg'), 'not a picture');
    const args = ['pretrain', '--data', 'pictures', '--epochs', '1', ...flags, ...more];
    const replaced = command(...args, '--out', 'replaced');
    expect([replaced.status, replaced.stderr]).toEqual([0, expect.stringContaining('broken.jpg')]);
    const stopped = command(...args, '--out', 'stopped', '--broken', 'stop', '--epochs', '2');
    expect([stopped.status, stopped.stderr]).toEqual([1, expect.stringContaining('broken.jpg')]);
  });

  test('a full disk: it says so, and the last checkpoint is whole', () => {
    // A file system of 1 MB in a mount namespace of its own; where the kernel allows none, there is nothing to fill.
    mkdirSync(path.join(folder, 'small'));
    const inSmall = (script: string) =>
      spawnSync('unshare', ['-rm', 'sh', '-c', `mount -t tmpfs -o size=1m tmpfs small && ${script}`], { encoding: 'utf8', cwd: folder });
    if (inSmall('true').status !== 0) return console.warn('NOT RUN: no mount namespaces here');
    const args = [
      'pretrain',
      '--data',
      'pictures',
      '--out',
      'small/run',
      '--epochs',
      '40',
      '--save-every',
      '1',
      '--keep',
      '40',
      ...flags,
      ...more,
    ];
    const { stdout, stderr } = inSmall(
      `${[process.execPath, mae, ...args].join(' ')}; echo status $?; cat small/run/checkpoints/latest; ls small/run/checkpoints`,
    );
    expect(stderr).toMatch(/MAE_FILE.*the disk is full/s);
    expect(stdout).toContain('status 1');
    const [latest] = /step-\d+/.exec(stdout)!;
    expect(stdout.split('\n').filter((line) => line === latest)).toHaveLength(2); // the pointer, and the folder it names
  });

  test('doctor finds the addon', () => {
    const { status, stdout } = command('doctor', '--json');
    expect(status).toBe(0);
    expect((JSON.parse(stdout) as { what: string; mark: string }[]).find(({ what }) => what === 'addon')?.mark).toBe('✓');
  });
});
