import { Purpose, RandomStream, maskNoiseBits, permutation, philox, uniform24, uniform32, uniformInteger } from '../lib/random';

describe('philox', () => {
  // Known answers of philox4x32-10 from the authors' Random123 library (tests/kat_vectors).
  test.each([
    [
      [0, 0, 0, 0, 0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as [[number, number, number, number, number, number], number[]][])('counter and key %p give the published words', (input, words) => {
    expect(philox(...input)).toEqual(words);
  });

  test('takes the counter as unsigned or signed 32-bit alike', () => {
    expect(philox(-1, -1, -1, -1, -1, -1)).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
  });

  test('mask noise is the upper 24 bits of the first word, under the mask purpose', () => {
    expect(maskNoiseBits(42, 3, 17, 100)).toBe(12371184); // printed by native/shared/philox.h's mask_noise_bits
    expect(maskNoiseBits(42, 3, 17, 100)).toBe(philox(3, 17, 100, 0, 42, Purpose.mask)[0] >>> 8);
  });
});

test('words become numbers in [0, 1), with their extremes', () => {
  expect([uniform24(0), uniform24(0xff), uniform24(0x100)]).toEqual([0, 0, 2 ** -24]);
  expect(uniform24(0xffffffff)).toBe(1 - 2 ** -24);
  expect([uniform32(0), uniform32(0x80000000), uniform32(0xffffffff)]).toEqual([0, 0.5, 1 - 2 ** -32]);
  expect([uniformInteger(0, 10), uniformInteger(0xffffffff, 10), uniformInteger(0xffffffff, 2 ** 31)]).toEqual([0, 9, 2 ** 31 - 1]);
});

describe('permutation', () => {
  test('holds every number once, and depends on seed and epoch', () => {
    const order = permutation(1000, 7, 3);
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    expect(permutation(1000, 7, 3)).toEqual(order);
    expect(permutation(1000, 7, 4)).not.toEqual(order);
    expect(permutation(1000, 8, 3)).not.toEqual(order);
    expect([permutation(0, 0, 0).length, permutation(1, 0, 0)[0]]).toEqual([0, 0]);
  });

  test('puts every element into every place equally often', () => {
    const n = 6;
    const runs = 6000;
    const counts = new Float64Array(n * n);
    for (let epoch = 0; epoch < runs; ++epoch) permutation(n, 1, epoch).forEach((value, place) => counts[place * n + value]++);
    const expected = runs / n;
    const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    expect(chiSquare).toBeLessThan(52.6); // 25 degrees of freedom: exceeded by chance once in a thousand seeds
  });
});

describe('RandomStream', () => {
  test('is reproducible, and streams differ by seed, purpose and number', () => {
    const draw = (...args: ConstructorParameters<typeof RandomStream>): number[] => {
      const stream = new RandomStream(...args);
      return Array.from({ length: 5 }, () => stream.uniform());
    };
    const base = draw(1, Purpose.init, 2, 0);
    expect(draw(1, Purpose.init, 2, 0)).toEqual(base);
    for (const other of [
      draw(2, Purpose.init, 2, 0),
      draw(1, Purpose.crop, 2, 0),
      draw(1, Purpose.init, 3, 0),
      draw(1, Purpose.init, 2, 1),
    ]) {
      expect(other.filter((value) => base.includes(value))).toEqual([]);
    }
  });

  test('uniform and normal numbers have their moments', () => {
    const n = 100_000;
    const moments = (draw: () => number): number[] => {
      const sums = [0, 0, 0, 0];
      for (let i = 0; i < n; ++i) {
        const x = draw();
        for (let k = 0; k < 4; ++k) sums[k] += x ** (k + 1);
      }
      return sums.map((sum) => sum / n);
    };
    const uniform = new RandomStream(5, Purpose.init);
    const normal = new RandomStream(6, Purpose.init);
    // Within four standard deviations of the mean of n draws of x^k: √(E[x^2k] − E[x^k]²) / √n.
    moments(() => uniform.uniform()).forEach((m, i) => {
      const k = i + 1;
      expect(Math.abs(m - 1 / (k + 1))).toBeLessThan(4 * Math.sqrt((1 / (2 * k + 1) - 1 / (k + 1) ** 2) / n));
    });
    const exact = [0, 1, 0, 3];
    const variances = [1, 2, 15, 96];
    moments(() => normal.normal()).forEach((m, i) => expect(Math.abs(m - exact[i])).toBeLessThan(4 * Math.sqrt(variances[i] / n)));
  });
});
