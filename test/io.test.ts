import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { MaeError } from '../lib/errors';
import { removeStaleTemporaries, writeFileAtomic, writeFolderAtomic } from '../lib/io/atomic';
import { bfloat16FromFloat32, float32FromBfloat16, float32FromFloat16 } from '../lib/halfPrecision';
import { configOf, fromHuggingFaceConfig, toHuggingFaceConfig, toPreprocessorConfig } from '../lib/io/huggingFaceConfig';
import { WeightsConfig, fromMetadata, toMetadata } from '../lib/io/metadata';
import { NameStyle, detectStyle, fromNames, toNames } from '../lib/io/names';
import { HostTensor, SafetensorsFile, TensorSource, readSafetensors, writeSafetensors } from '../lib/io/safetensors';
import { compareWeights, describeWeights, encoderOnlyMessage, requireLoadable } from '../lib/io/weightsReport';
import { MetricsLog, metricPoints, readMetrics } from '../lib/train/metrics';

let folder: string;
beforeEach(() => (folder = fs.mkdtempSync(join(tmpdir(), 'mae-io-'))));
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => join(folder, name);

/** The error that a call throws or rejects with; fails when there is none. */
async function errorOf(run: () => unknown): Promise<MaeError> {
  try {
    await run();
  } catch (error) {
    return error as MaeError;
  }
  throw new Error('expected an error, got none');
}

describe('half precision', () => {
  test('bfloat16 rounds to nearest even, keeps NaN and infinities', () => {
    const bits = (value: number) => bfloat16FromFloat32(Float32Array.of(value))[0];
    expect([bits(1), bits(-2), bits(Infinity), bits(0)]).toEqual([0x3f80, 0xc000, 0x7f80, 0]);
    expect(bits(1 + 2 ** -8)).toBe(0x3f80); // half way, to even: down
    expect(bits(1 + 3 * 2 ** -8)).toBe(0x3f82); // half way, to even: up
    expect(bits(3.4e38)).toBe(0x7f80); // rounds over the largest
    expect(float32FromBfloat16(Uint16Array.of(bits(NaN)))[0]).toBeNaN();
  });

  test('every bfloat16 survives float32', () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((u) => (u & 0x7fff) <= 0x7f80);
    expect(bfloat16FromFloat32(float32FromBfloat16(all))).toEqual(all);
  });

  test('float16: normal, subnormal, infinite', () => {
    const bits = Uint16Array.of(0x3c00, 0xc000, 0x7bff, 0x0001, 0x83ff, 0x7c00, 0xfc00, 0x8000, 0x3555);
    const values = [1, -2, 65504, 2 ** -24, -1023 * 2 ** -24, Infinity, -Infinity, -0, 0.333251953125];
    expect(Array.from(float32FromFloat16(bits))).toEqual(values);
    expect(float32FromFloat16(Uint16Array.of(0x7e00))[0]).toBeNaN();
  });
});

describe('safetensors', () => {
  const sample: [string, TensorSource][] = [
    ['bytes', { dtype: 'U8', shape: [3], data: Uint8Array.of(1, 2, 255) }],
    ['b', { dtype: 'F32', shape: [2, 2], data: Float32Array.of(1, -2, 0.5, NaN) }],
    ['a', { dtype: 'I64', shape: [1], data: BigInt64Array.of(-5n) }],
    ['half', { dtype: 'BF16', shape: [1, 2], data: Uint16Array.of(0x3f80, 0xc000) }],
    ['scalar', { dtype: 'I32', shape: [], data: Int32Array.of(-7) }],
    ['double', { dtype: 'F64', shape: [1], data: Float64Array.of(1 / 3) }],
    ['none', { dtype: 'F16', shape: [0, 4], data: new Uint16Array(0) }],
  ];

  test('what is written is read, bit for bit, with the metadata', async () => {
    const path = at('new/folder/x.safetensors');
    await writeSafetensors(path, sample, { format: 'pt', note: 'ä "quoted"' });
    const { tensors, metadata } = readSafetensors(path);
    expect(metadata).toEqual({ format: 'pt', note: 'ä "quoted"' });
    expect(tensors.size).toBe(sample.length);
    for (const [name, source] of sample) expect(tensors.get(name)).toEqual(source);
  });

  test('values are aligned, the order of the input does not change the bytes', async () => {
    await writeSafetensors(at('x'), sample, { b: '1', a: '2' });
    await writeSafetensors(at('y'), [...sample].reverse(), { a: '2', b: '1' });
    expect(fs.readFileSync(at('x'))).toEqual(fs.readFileSync(at('y')));
    const headerBytes = Number(fs.readFileSync(at('x')).readBigUInt64LE(0));
    expect(headerBytes % 8).toBe(0);
    const file = SafetensorsFile.open(at('x'));
    expect(file.entries.get('a')!.begin % 8).toBe(0);
    expect(file.entries.get('b')!.begin % 4).toBe(0);
    file.close();
  });

  test('any tensors round-trip', async () => {
    const names = fc.uniqueArray(
      fc.string({ minLength: 1 }).filter((name) => name !== '__metadata__'),
      { maxLength: 5 },
    );
    await fc.assert(
      fc.asyncProperty(names, fc.array(fc.nat(4), { maxLength: 3 }), async (list, shape) => {
        const count = shape.reduce((product, size) => product * size, 1);
        const data = Float32Array.from({ length: count }, (_, i) => i);
        await writeSafetensors(
          at('any'),
          list.map((name) => [name, { dtype: 'F32', shape, data }]),
        );
        const { tensors } = readSafetensors(at('any'));
        expect([...tensors.keys()].sort()).toEqual([...list].sort());
        for (const tensor of tensors.values()) expect(tensor).toEqual({ dtype: 'F32', shape, data });
      }),
      { numRuns: 25 },
    );
  });

  test('tensors are fetched one after the other when written, read one by one', async () => {
    const order: string[] = [];
    const lazy = (name: string): [string, TensorSource] => [
      name,
      {
        dtype: 'F32',
        shape: [2],
        data: async () => {
          order.push(name);
          return Float32Array.of(1, 2);
        },
      },
    ];
    await writeSafetensors(at('lazy'), [lazy('z'), lazy('m')]);
    expect(order).toEqual(['m', 'z']);
    const file = SafetensorsFile.open(at('lazy'));
    expect(file.names()).toEqual(['m', 'z']);
    expect(file.readFloat32('z')).toEqual(Float32Array.of(1, 2));
    expect(() => file.read('q')).toThrow(/has no tensor q/);
    file.close();
    expect((await errorOf(() => file.read('z'))).code).toBe('MAE_DISPOSED');
  });

  test('16-bit floats are read as float32 on request, integers are not', async () => {
    await writeSafetensors(at('x'), sample);
    const file = SafetensorsFile.open(at('x'));
    expect(file.readFloat32('half')).toEqual(Float32Array.of(1, -2));
    expect(file.readFloat32('double')).toEqual(Float32Array.of(1 / 3));
    expect((await errorOf(() => file.readFloat32('scalar'))).message).toMatch(/scalar holds I32/);
    file.close();
  });

  test('wrong values are refused and leave no file', async () => {
    const wrong: [TensorSource, RegExp][] = [
      [{ dtype: 'F32', shape: [3], data: Float32Array.of(1, 2) }, /t: the shape \[3\] needs 3 values, got 2/],
      [{ dtype: 'BF16', shape: [2], data: Float32Array.of(1, 2) }, /BF16 needs a Uint16Array, got Float32Array/],
      [{ dtype: 'F32', shape: [2], data: () => Float32Array.of(1) }, /needs 2 values, got 1/],
      [{ dtype: 'F32', shape: [-1], data: new Float32Array(0) }, /integers ≥ 0/],
    ];
    for (const [source, message] of wrong) {
      const error = await errorOf(() => writeSafetensors(at('t'), [['t', source]]));
      expect(error.code).toBe('MAE_ARGUMENT');
      expect(error.message).toMatch(message);
    }
    const twice = await errorOf(() => writeSafetensors(at('t'), [sample[0], sample[0]]));
    expect(twice.message).toMatch(/occurs twice/);
    expect(fs.readdirSync(folder)).toEqual([]);
  });

  /** A file of these header words and value bytes. */
  function fileOf(header: unknown, bytes: number): string {
    const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    fs.writeFileSync(at('bad'), Buffer.concat([length, json, Buffer.alloc(bytes)]));
    return at('bad');
  }
  const entry = (begin: number, end: number, shape: unknown = [(end - begin) / 4]) => ({ dtype: 'F32', shape, data_offsets: [begin, end] });

  test.each<[string, unknown, number, RegExp]>([
    ['no JSON', '{"a": ', 0, /header is not JSON/],
    ['no object', [1], 0, /not a JSON object/],
    ['values cut off', { a: entry(0, 8) }, 7, /truncated: tensor a ends at byte 8 of the values, the file has 7/],
    ['bytes left over', { a: entry(0, 8) }, 12, /4 bytes follow the last tensor/],
    ['a gap', { a: entry(0, 4), b: entry(8, 12) }, 12, /b begins at byte 8 of the values, byte 4 is expected/],
    ['an overlap', { a: entry(0, 8), b: entry(4, 12) }, 12, /b begins at byte 4/],
    ['shape against bytes', { a: entry(0, 8, [3]) }, 8, /a is F32 \[3\], 12 bytes, but 8 are stored/],
    ['a shape that overflows', { a: entry(0, 8, [2 ** 40, 2 ** 40]) }, 8, /but 8 are stored/],
    ['a negative size', { a: entry(0, 8, [-2]) }, 8, /no valid dtype, shape and data_offsets/],
    ['offsets backwards', { a: entry(8, 0, [2]) }, 8, /no valid/],
    ['no dtype', { a: { shape: [2], data_offsets: [0, 8] } }, 8, /no valid/],
    ['null for a tensor', { a: null }, 0, /no valid/],
    ['metadata of numbers', { __metadata__: { a: 1 } }, 0, /__metadata__ must map strings to strings/],
  ])('damaged: %s', async (_, header, bytes, message) => {
    const path = fileOf(header, bytes);
    const error = await errorOf(() => SafetensorsFile.open(path));
    expect(error.code).toBe('MAE_FORMAT');
    expect(error.message).toContain(path);
    expect(error.message).toMatch(message);
  });

  test('other dtypes are listed, reading one says what can be read', async () => {
    const file = SafetensorsFile.open(fileOf({ a: { dtype: 'F8_E4M3', shape: [8], data_offsets: [0, 8] } }, 8));
    expect(file.names()).toEqual(['a']);
    expect((await errorOf(() => file.read('a'))).message).toMatch(/dtype F8_E4M3; F64, F32, .* can be read/);
    file.close();
  });

  test('a file cut anywhere is an error of the format, never anything else', async () => {
    await writeSafetensors(at('whole'), sample, { note: 'x' });
    const whole = fs.readFileSync(at('whole'));
    for (let length = 0; length < whole.length; length++) {
      fs.writeFileSync(at('cut'), whole.subarray(0, length));
      expect((await errorOf(() => readSafetensors(at('cut')))).code).toBe('MAE_FORMAT');
    }
  });

  test('a huge header length, a missing file, a folder', async () => {
    fs.writeFileSync(at('huge'), Buffer.alloc(64, 0xff));
    expect((await errorOf(() => SafetensorsFile.open(at('huge')))).code).toBe('MAE_FORMAT');
    expect((await errorOf(() => SafetensorsFile.open(at('absent')))).message).toMatch(/absent: no such file/);
    expect((await errorOf(() => SafetensorsFile.open(folder))).message).toMatch(/this is a folder/);
  });

  test('PyTorch pickles: what is one says how to convert it, and no file is written under such a name', async () => {
    fs.writeFileSync(at('mae.pth'), Buffer.concat([Buffer.from('PK\x03\x04'), Buffer.alloc(64, 0x41)]));
    expect((await errorOf(() => SafetensorsFile.open(at('mae.pth')))).message).toMatch(/mae\.pth is a PyTorch pickle.*save_file/);
    const refused = await errorOf(() => writeSafetensors(at('out.pth'), new Map()));
    expect([refused.code, refused.message]).toEqual(['MAE_ARGUMENT', expect.stringContaining('call it .safetensors')]);
    expect(fs.existsSync(at('out.pth'))).toBe(false);
  });
});

describe('atomic writing', () => {
  test('strings, bytes and chunks; an old file is replaced', async () => {
    await writeFileAtomic(at('a/b'), 'one');
    await writeFileAtomic(at('a/b'), Buffer.from('two'));
    expect(fs.readFileSync(at('a/b'), 'utf8')).toBe('two');
    await writeFileAtomic(at('a/b'), [Buffer.from('th'), Buffer.from('ree')]);
    expect(fs.readFileSync(at('a/b'), 'utf8')).toBe('three');
    expect(fs.readdirSync(at('a'))).toEqual(['b']);
  });

  test('a failure in the middle leaves the old file and nothing else', async () => {
    await writeFileAtomic(at('x'), 'old');
    async function* failing() {
      yield Buffer.from('new');
      throw new RangeError('the source broke');
    }
    expect((await errorOf(() => writeFileAtomic(at('x'), failing()))).message).toBe('the source broke');
    expect(fs.readFileSync(at('x'), 'utf8')).toBe('old');
    expect(fs.readdirSync(folder)).toEqual(['x']);
  });

  test("the system's refusal is a MaeError with the path", async () => {
    fs.writeFileSync(at('file'), '');
    const error = await errorOf(() => writeFileAtomic(at('file/below'), 'x'));
    expect(error.code).toBe('MAE_FILE');
    expect(error.message).toContain(at('file/below'));
    function* fullDisk(): Generator<Uint8Array> {
      yield Buffer.from('x');
      throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC', syscall: 'write' });
    }
    expect((await errorOf(() => writeFileAtomic(at('y'), fullDisk()))).message).toMatch(/the disk is full/);
    expect((await errorOf(() => writeFileAtomic(folder, 'x'))).code).toBe('MAE_FILE');
  });

  test('a pipe or a device is not replaced by a file', async () => {
    expect(spawnSync('mkfifo', [at('pipe')]).status).toBe(0);
    const error = await errorOf(() => writeFileAtomic(at('pipe'), 'x'));
    expect([error.code, error.message]).toEqual(['MAE_FILE', expect.stringMatching(/could not write .*pipe: it is a device, a pipe/)]);
    expect(fs.statSync(at('pipe')).isFIFO()).toBe(true);
    expect(fs.readdirSync(folder)).toEqual(['pipe']);
  });

  test('a folder appears whole, replaces one that is there, or does not appear', async () => {
    const fill = (text: string) => (temporary: string) => {
      expect(fs.existsSync(at('step-1/new'))).toBe(false);
      fs.mkdirSync(join(temporary, 'deep'));
      fs.writeFileSync(join(temporary, 'deep', text), text);
    };
    await writeFolderAtomic(at('step-1'), fill('one'));
    await writeFolderAtomic(at('step-1'), fill('two'));
    expect(fs.readdirSync(at('step-1/deep'))).toEqual(['two']);
    const error = await errorOf(() =>
      writeFolderAtomic(at('step-1'), () => {
        throw new MaeError('MAE_CUDA', 'device lost');
      }),
    );
    expect(error.code).toBe('MAE_CUDA');
    expect(fs.readdirSync(folder)).toEqual(['step-1']);
    expect(fs.readdirSync(at('step-1/deep'))).toEqual(['two']);
  });

  test('a folder that cannot be replaced after it was moved aside is moved back', async () => {
    await writeFolderAtomic(at('x'), (temporary) => fs.writeFileSync(join(temporary, 'old'), ''));
    const { rename } = fs.promises;
    let attempts = 0;
    const spy = jest.spyOn(fs.promises, 'rename').mockImplementation(async (from, to) => {
      if (String(from).includes('.tmp-') && ++attempts === 2) throw Object.assign(new Error('EIO'), { code: 'EIO', syscall: 'rename' });
      return rename(from, to);
    });
    const error = await errorOf(() => writeFolderAtomic(at('x'), (temporary) => fs.writeFileSync(join(temporary, 'new'), '')));
    spy.mockRestore();
    expect([error.code, attempts]).toEqual(['MAE_FILE', 2]);
    expect(fs.readdirSync(folder)).toEqual(['x']);
    expect(fs.readdirSync(at('x'))).toEqual(['old']);
  });

  test('leftovers of dead processes go, those of living ones stay, a folder moved aside comes back', async () => {
    await writeFolderAtomic(at('x'), async (temporary) => {
      // This process is at work here: the name it chose tells how names look.
      const ours = basename(temporary);
      const named = (target: string, kind: string, pid: number) =>
        ours.replace('.x.tmp', `.${target}.${kind}`).replace(`-${process.pid}-`, `-${pid}-`);
      const dead = 2 ** 22 + 1; // above every process id of Linux
      fs.mkdirSync(at(named('x', 'tmp', dead)));
      fs.mkdirSync(at(named('y', 'old', dead)));
      fs.writeFileSync(join(at(named('y', 'old', dead)), 'kept'), '');
      fs.mkdirSync(at(named('z', 'tmp', process.ppid)));
      await removeStaleTemporaries(folder);
      expect(fs.readdirSync(folder).sort()).toEqual([ours, named('z', 'tmp', process.ppid), 'y'].sort());
      expect(fs.readdirSync(at('y'))).toEqual(['kept']);
    });
  });
});

describe('names of weights', () => {
  const parity = () => readSafetensors(join(__dirname, 'parity/mae-micro.safetensors'));
  const weights = () => {
    const all = [...parity().tensors].filter(([name]) => name.startsWith('w.'));
    return new Map<string, HostTensor>(all.map(([name, tensor]) => [name.slice(2), tensor]));
  };

  test('Hugging Face: names, query, key and value apart', () => {
    const named = toNames(weights(), 'huggingface');
    expect(named.size).toBe(weights().size + 2 * 2 * 4); // each packed weight and bias of 4 blocks becomes three
    for (const name of [
      'vit.embeddings.cls_token',
      'vit.embeddings.position_embeddings',
      'vit.embeddings.patch_embeddings.projection.weight',
      'vit.encoder.layer.1.layernorm_before.bias',
      'vit.encoder.layer.0.attention.output.dense.weight',
      'vit.encoder.layer.0.intermediate.dense.weight',
      'vit.encoder.layer.0.output.dense.bias',
      'vit.layernorm.weight',
      'decoder.decoder_embed.weight',
      'decoder.mask_token',
      'decoder.decoder_pos_embed',
      'decoder.decoder_layers.1.attention.attention.value.bias',
      'decoder.decoder_norm.weight',
      'decoder.decoder_pred.bias',
    ]) {
      expect([...named.keys()]).toContain(name);
    }
    const packed = weights().get('blocks.0.attn.qkv.weight')!;
    const key = named.get('vit.encoder.layer.0.attention.attention.key.weight')!;
    expect(key.shape).toEqual([48, 48]);
    expect(key.data).toEqual(packed.data.subarray(48 * 48, 2 * 48 * 48));
  });

  test.each<[NameStyle, boolean, NameStyle]>([
    ['reference', false, 'reference'],
    ['huggingface', false, 'huggingface'],
    ['huggingface', true, 'huggingface'],
    ['timm', true, 'timm'],
    ['reference', true, 'timm'], // the encoder alone has the same names in both
  ])('%s, encoder only %s: there and back', (style, encoderOnly, detected) => {
    const there = toNames(weights(), style, { encoderOnly });
    const back = fromNames(there);
    expect([back.style, back.hasDecoder]).toEqual([detected, !encoderOnly]);
    const expected = encoderOnly ? toNames(weights(), 'timm') : weights();
    expect(back.tensors.size).toBe(expected.size);
    for (const [name, tensor] of expected) expect(back.tensors.get(name)).toEqual(tensor);
  });

  test('ViTMAEModel leaves `vit.` out', () => {
    const bare = new Map([...toNames(weights(), 'huggingface', { encoderOnly: true })].map(([name, tensor]) => [name.slice(4), tensor]));
    const back = fromNames(bare);
    expect(back.style).toBe('huggingface');
    expect([...back.tensors.keys()].sort()).toEqual([...toNames(weights(), 'timm').keys()].sort());
  });

  test('bfloat16 weights are split and joined too', () => {
    const low = new Map<string, HostTensor>();
    for (const [name, { shape, data }] of weights())
      low.set(name, { dtype: 'BF16', shape, data: bfloat16FromFloat32(data as Float32Array) });
    const back = fromNames(toNames(low, 'huggingface')).tensors;
    expect(back.get('decoder_blocks.1.attn.qkv.weight')).toEqual(low.get('decoder_blocks.1.attn.qkv.weight'));
  });

  test('a triple that is incomplete or uneven', async () => {
    const named = toNames(weights(), 'huggingface');
    const key = 'vit.encoder.layer.0.attention.attention.key.weight';
    const whole = named.get(key)!;
    named.delete(key);
    const names = [...fromNames(named).tensors.keys()];
    expect(names).not.toContain('blocks.0.attn.qkv.weight');
    expect(names).toContain('vit.encoder.layer.0.attention.attention.query.weight');
    named.set(key, { ...whole, shape: [24, 96] });
    const error = await errorOf(() => fromNames(named));
    expect([error.code, error.message]).toEqual(['MAE_FORMAT', expect.stringMatching(/blocks.0.attn.qkv.weight .* must be alike/)]);
  });

  test('names that nobody uses', async () => {
    const stranger = new Map<string, HostTensor>([['layers.0.w', { dtype: 'F32', shape: [1], data: Float32Array.of(1) }]]);
    expect((await errorOf(() => fromNames(stranger))).message).toMatch(/neither .* layers.0.w/);
    expect((await errorOf(() => detectStyle([]))).code).toBe('MAE_FORMAT');
    const head = new Map([...weights(), ...stranger]);
    expect((await errorOf(() => toNames(head, 'huggingface'))).message).toMatch(/layers.0.w has no name/);
    expect(fromNames(toNames(head, 'reference')).tensors.has('layers.0.w')).toBe(true);
  });

  test('the report: loaded, missing, unexpected, of wrong shape', async () => {
    const expected = new Map([...weights()].map(([name, { shape }]) => [name, shape]));
    expect(describeWeights(compareWeights(expected, weights()))).toEqual([]);
    requireLoadable(compareWeights(expected, weights()), 'whole');

    const encoder = compareWeights(expected, toNames(weights(), 'timm'));
    expect(describeWeights(encoder)).toEqual([encoderOnlyMessage]);
    expect(encoder.loaded.length + encoder.missing.length).toBe(expected.size);
    requireLoadable(encoder, 'encoder');

    const wrong = weights();
    wrong.delete('norm.weight');
    wrong.set('head.weight', { dtype: 'F32', shape: [5, 48], data: new Float32Array(240) });
    wrong.set('pos_embed', { dtype: 'F32', shape: [1, 5, 48], data: new Float32Array(240) });
    const report = compareWeights(expected, wrong);
    expect(report).toMatchObject({
      missing: ['norm.weight'],
      unexpected: ['head.weight'],
      mismatched: [{ name: 'pos_embed', expected: [1, 17, 48], got: [1, 5, 48] }],
    });
    const error = await errorOf(() => requireLoadable(report, 'w.safetensors'));
    expect(error.code).toBe('MAE_CHECKPOINT');
    expect(error.message).toMatch(/^w.safetensors does not fit.*missing in the file: norm.weight.*head.weight.*pos_embed is \[1,5,48\]/);

    const half = toNames(weights(), 'reference');
    half.delete('mask_token');
    expect((await errorOf(() => requireLoadable(compareWeights(expected, half), 'half'))).message).toMatch(
      /missing in the file: mask_token/,
    );
  });
});

describe('metadata', () => {
  const config: WeightsConfig = {
    imageSize: [224, 160],
    patchSize: 16,
    inChans: 3,
    embedDim: 768,
    depth: 12,
    numHeads: 12,
    mlpRatio: 4,
    decoderEmbedDim: 512,
    decoderDepth: 8,
    decoderNumHeads: 16,
    maskRatio: 0.75,
    normPixLoss: true,
    layerNormEps: 1e-6,
    mean: [0.485, 0.456, 0.406],
    std: [0.229, 0.224, 0.225],
  };

  test('round trip through a file', async () => {
    await writeSafetensors(at('x'), [], toMetadata(config, { trained_on: 'pictures' }));
    const { metadata } = readSafetensors(at('x'));
    expect(metadata).toMatchObject({ format: 'pt', trained_on: 'pictures', layer_norm_eps: '0.000001', norm_pix_loss: 'true' });
    expect(fromMetadata(metadata, 'x')).toEqual(config);
  });

  test('absent stays absent, a damaged value is an error, one size means a square', async () => {
    expect(fromMetadata({ format: 'pt' }, 'x')).toEqual({});
    expect(fromMetadata({ img_size: '96' }, 'x')).toEqual({ imageSize: [96, 96] });
    expect((await errorOf(() => fromMetadata({ mask_ratio: '"high"' }, 'x'))).message).toMatch(/x: .* mask_ratio = "high"/);
    expect((await errorOf(() => fromMetadata({ mean: '[0.1, null]' }, 'x'))).code).toBe('MAE_FORMAT');
  });

  test('Hugging Face config.json: there and back, epsilon written out', async () => {
    const square: WeightsConfig = { ...config, imageSize: [224, 224] };
    const json = JSON.parse(JSON.stringify(toHuggingFaceConfig(square)));
    expect(json).toMatchObject({ model_type: 'vit_mae', intermediate_size: 3072, decoder_intermediate_size: 2048, layer_norm_eps: 1e-6 });
    expect(fromHuggingFaceConfig(json, toPreprocessorConfig(square))).toEqual(square);
    expect(fromHuggingFaceConfig({ model_type: 'vit_mae' })).toMatchObject({ layerNormEps: 1e-12, embedDim: 768, normPixLoss: false });
    expect((await errorOf(() => toHuggingFaceConfig(config))).message).toMatch(/square pictures only, got 224x160/);
    expect((await errorOf(() => fromHuggingFaceConfig({ model_type: 'vit' }))).code).toBe('MAE_FORMAT');
    expect((await errorOf(() => fromHuggingFaceConfig({ model_type: 'vit_mae', image_size: [1, 2] }))).message).toMatch(/image_size/);
  });

  test('what a file says of its model: its metadata, else the config.json beside weights of Hugging Face', async () => {
    const square: WeightsConfig = { ...config, imageSize: [224, 224], layerNormEps: 1e-12 };
    const file = at('model.safetensors');
    expect(configOf(file, 'huggingface', {})).toEqual({});
    fs.writeFileSync(at('config.json'), JSON.stringify(toHuggingFaceConfig(square)));
    fs.writeFileSync(at('preprocessor_config.json'), JSON.stringify(toPreprocessorConfig(square)));
    expect(configOf(file, 'huggingface', {})).toEqual(square);
    expect(configOf(file, 'reference', {})).toEqual({}); // that config.json is of something else
    expect(configOf(file, 'huggingface', toMetadata(config))).toEqual(config);
    fs.writeFileSync(at('config.json'), '{');
    expect((await errorOf(() => configOf(file, 'huggingface', {}))).message).toMatch(/config\.json cannot be read/);
  });
});

describe('metrics.jsonl', () => {
  test('appends, reads, makes points', () => {
    const path = at('run/metrics.jsonl');
    const log = MetricsLog.open(path);
    log.append({ step: 1, loss: 0.5, note: 'ü\n' });
    log.append({ step: 2, loss: NaN });
    log.close();
    const again = MetricsLog.open(path);
    again.append({ step: 3, loss: 0.25 });
    expect(readMetrics(path)).toEqual([
      { step: 1, loss: 0.5, note: 'ü\n' },
      { step: 2, loss: null },
      { step: 3, loss: 0.25 },
    ]);
    expect(metricPoints(readMetrics(path), 'step', 'loss')).toEqual([
      [1, 0.5],
      [3, 0.25],
    ]);
    again.close();
    expect(() => again.append({ step: 4 })).toThrow(/closed/);
  });

  test('resuming cuts off what will be written again, and a half-written line', () => {
    const path = at('metrics.jsonl');
    const lines = [1, 2, 2, 3, 4].map((step) => JSON.stringify({ step, loss: step / 8 }) + '\n');
    fs.writeFileSync(path, lines.join('') + '{"step": 5, "lo');
    expect(readMetrics(path).map(({ step }) => step)).toEqual([1, 2, 2, 3, 4]);
    const log = MetricsLog.open(path, { resumeStep: 2 });
    log.append({ step: 3, loss: 9 });
    log.close();
    expect(fs.readFileSync(path, 'utf8')).toBe(lines.slice(0, 3).join('') + '{"step":3,"loss":9}\n');
  });

  test('without resuming only the half-written line goes', () => {
    const path = at('metrics.jsonl');
    fs.writeFileSync(path, '{"step":1}\n{"st');
    MetricsLog.open(path).close();
    expect(fs.readFileSync(path, 'utf8')).toBe('{"step":1}\n');
  });

  test('another file is not taken for one', async () => {
    fs.writeFileSync(at('notes'), 'hello\nworld\n');
    const error = await errorOf(() => MetricsLog.open(at('notes')));
    expect([error.code, error.message]).toEqual(['MAE_FORMAT', expect.stringContaining(`${at('notes')}:1`)]);
    expect(fs.readFileSync(at('notes'), 'utf8')).toBe('hello\nworld\n');
    expect((await errorOf(() => readMetrics(at('absent')))).code).toBe('MAE_FILE');
  });
});
