import { join } from 'node:path';
import { readSafetensors } from '../lib/io/safetensors';
import { interpolatePosEmbed, sinCosPosEmbed2d } from '../lib/nn/posEmbed';

const sum = (table: Float32Array) => table.reduce((total, value) => total + value, 0);

describe('sine-cosine position table', () => {
  // Float64 sums of the reference's float32 tables, class row included, to the four decimals they are known to.
  test.each([
    [768, 14, 69594.4938],
    [1024, 14, 92849.1979],
    [1280, 16, 149578.4058],
    [512, 14, 46340.3331],
    [512, 16, 59700.6785],
  ])('width %i on a grid of %i sums to %f', (width, grid, expected) => {
    expect(sum(sinCosPosEmbed2d(width, grid, grid, true))).toBeCloseTo(expected, 3);
  });

  test('the column comes first, sine before cosine', () => {
    const table = sinCosPosEmbed2d(768, 14, 14, true);
    const row = (index: number) => table.subarray(index * 768, (index + 1) * 768);
    expect(Array.from(row(0)).every((value) => value === 0)).toBe(true);
    const right = row(2); // row 0, column 1
    [0.84147096, 0.8152506, 0.788593].forEach((value, k) => expect(right[k]).toBeCloseTo(value, 6));
    expect(right[192]).toBeCloseTo(0.5403023, 6);
    const below = row(1 + 14); // row 1, column 0
    expect(Array.from(below.subarray(0, 192)).every((value) => value === 0)).toBe(true);
    expect(below[384]).toBeCloseTo(0.84147096, 6);
  });

  test('equals the table made with PyTorch', () => {
    const { tensors } = readSafetensors(join(__dirname, 'parity/pos-embed.safetensors'));
    const expected = tensors.get('sincos_48_4')!.data as Float32Array;
    const got = sinCosPosEmbed2d(48, 4, 4, true);
    expect(got.length).toBe(expected.length);
    // Both are float64 sines rounded once; the two maths libraries may differ in the last bit of float32.
    got.forEach((value, i) => expect(Math.abs(value - expected[i])).toBeLessThanOrEqual(6e-8));
  });

  test('a grid that is not square holds the rows of a larger square one', () => {
    const wide = sinCosPosEmbed2d(16, 2, 5, false);
    const square = sinCosPosEmbed2d(16, 5, 5, false);
    expect(wide).toEqual(square.subarray(0, 2 * 5 * 16));
    const tall = sinCosPosEmbed2d(16, 5, 2, false);
    expect(tall.subarray(3 * 2 * 16, 3 * 2 * 16 + 16)).toEqual(square.subarray(3 * 5 * 16, 3 * 5 * 16 + 16));
  });

  test('a width that is no multiple of 4 and an empty grid are refused', () => {
    expect(() => sinCosPosEmbed2d(30, 2, 2, true)).toThrow(/multiple of 4.*got 30/);
    expect(() => sinCosPosEmbed2d(32, 0, 2, true)).toThrow(/0x2/);
  });
});

describe('resizing a position table', () => {
  test("equals PyTorch's bicubic, 4x4 to 6x6", () => {
    const { tensors } = readSafetensors(join(__dirname, 'parity/pos-embed.safetensors'));
    const input = tensors.get('in')!.data as Float32Array;
    const expected = tensors.get('out')!.data as Float32Array;
    const got = interpolatePosEmbed(input, 48, { height: 4, width: 4 }, { height: 6, width: 6 });
    expect(got.length).toBe(expected.length);
    const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    // PyTorch sums 16 products in float32, here float64: a few roundings of the largest value.
    got.forEach((value, i) => expect(Math.abs(value - expected[i])).toBeLessThanOrEqual(largest * 5e-7));
  });

  test('to the same grid is exact, and a constant stays constant', () => {
    const table = sinCosPosEmbed2d(8, 3, 5, true);
    expect(interpolatePosEmbed(table, 8, { height: 3, width: 5 }, { height: 3, width: 5 })).toEqual(table);
    const flat = new Float32Array(12).fill(0.5);
    const resized = interpolatePosEmbed(flat, 1, { height: 3, width: 4 }, { height: 7, width: 2 }, 0);
    resized.forEach((value) => expect(value).toBeCloseTo(0.5, 7));
  });

  test('a table of another size is refused with both sides', () => {
    expect(() => interpolatePosEmbed(new Float32Array(12), 2, { height: 2, width: 2 }, { height: 3, width: 3 })).toThrow(
      /has 10 values, got 12/,
    );
  });
});
