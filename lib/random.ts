/**
 * Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the same
 * function as native/shared/philox.h. A draw is a pure function of a key (seed, purpose) and a counter, never of call order, so a
 * picture gets the same crop and mask for any batch split, number of workers or point of resumption.
 */

/**
 * What a stream of random numbers is for: the second word of the key, so that streams never share numbers (philox.h: `Purpose`; scene,
 * the demo's pictures, is the host's alone).
 */
export const Purpose = { mask: 1, crop: 2, init: 3, shuffle: 4, replace: 5, scene: 6 } as const;
export type Purpose = (typeof Purpose)[keyof typeof Purpose];

/** The upper 32 bits of a·b for 32-bit unsigned a and b; both partial products stay below 2^49, exact in a double. */
function multiplyHigh(a: number, b: number): number {
  const low = (a & 0xffff) * b;
  const high = (a >>> 16) * b;
  return Math.floor((high + Math.floor(low / 0x10000)) / 0x10000);
}

/**
 * Four independent 32-bit words for one counter and key.
 * @param c0 @param c1 @param c2 @param c3  the counter: by convention (epoch, index of the picture, element, 0)
 * @param k0 @param k1  the key: (seed, purpose)
 * @returns four unsigned integers in [0, 2^32)
 */
export function philox(c0: number, c1: number, c2: number, c3: number, k0: number, k1: number): [number, number, number, number] {
  c0 >>>= 0;
  c1 >>>= 0;
  c2 >>>= 0;
  c3 >>>= 0;
  for (let round = 0; round < 10; ++round) {
    const n0 = multiplyHigh(c2, 0xcd9e8d57) ^ c1 ^ k0;
    const n2 = multiplyHigh(c0, 0xd2511f53) ^ c3 ^ k1;
    c1 = Math.imul(c2, 0xcd9e8d57) >>> 0;
    c3 = Math.imul(c0, 0xd2511f53) >>> 0;
    c0 = n0 >>> 0;
    c2 = n2 >>> 0;
    k0 = (k0 + 0x9e3779b9) | 0;
    k1 = (k1 + 0xbb67ae85) | 0;
  }
  return [c0, c1, c2, c3];
}

/** A word as a uniform number in [0, 1) with 24 bits: exact in float32 (philox.h: `uniform24`). */
export function uniform24(word: number): number {
  return (word >>> 8) / 0x1000000;
}

/** A word as a uniform number in [0, 1) with all its 32 bits. */
export function uniform32(word: number): number {
  return (word >>> 0) / 0x100000000;
}

/** A word as a uniform integer in [0, count), count ≤ 2^31. The bias is below count / 2^32. */
export function uniformInteger(word: number, count: number): number {
  return Math.floor(uniform32(word) * count);
}

/** The mask noise of one patch, 24 bits (philox.h: `mask_noise_bits`); patches are masked in ascending order of it, ties by patch number. */
export function maskNoiseBits(seed: number, epoch: number, picture: number, patch: number): number {
  return philox(epoch, picture, patch, 0, seed, Purpose.mask)[0] >>> 8;
}

/**
 * A permutation of 0 … count − 1: Fisher-Yates, whose i-th swap is drawn with key (seed, shuffle) and counter (epoch, i, 0, 0).
 * The order of an epoch is thus known without having run the epochs before it.
 */
export function permutation(count: number, seed: number, epoch: number): Int32Array {
  const order = new Int32Array(count);
  for (let i = 0; i < count; ++i) order[i] = i;
  for (let i = count - 1; i > 0; --i) {
    const j = uniformInteger(philox(epoch, i, 0, 0, seed, Purpose.shuffle)[0], i + 1);
    const swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
  return order;
}

/**
 * A sequence of double-precision draws on the host, for initial weights: key (seed, purpose), counter (c0, c1, block, 0), where `block`
 * counts up from 0. Streams with different c0 or c1 (say, the number of a parameter tensor) never share numbers.
 */
export class RandomStream {
  private words: number[] = [];
  private block = 0;
  private spare: number | undefined;

  constructor(
    private readonly seed: number,
    private readonly purpose: Purpose,
    private readonly c0 = 0,
    private readonly c1 = 0,
  ) {}

  /** The next uniform number in [0, 1), 53 bits from two words. */
  uniform(): number {
    if (this.words.length === 0) this.words = philox(this.c0, this.c1, this.block++, 0, this.seed, this.purpose);
    const low = this.words.pop() as number;
    const high = this.words.pop() as number;
    return ((high >>> 5) * 0x4000000 + (low >>> 6)) / 0x20000000000000;
  }

  /** The next standard normal number: Box-Muller, √(−2 ln u₁)·cos(2πu₂), then the same with sin. */
  normal(): number {
    if (this.spare !== undefined) {
      const value = this.spare;
      this.spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform())); // 1 − u is in (0, 1]: the logarithm is finite
    const angle = 2 * Math.PI * this.uniform();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}
