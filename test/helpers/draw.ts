/** Operands for test cases: the same values for the same seed, on any machine. */
import { CONTROL_BYTES, encodeControl, type Control } from '../../lib/graph/control';
import { bfloat16FromFloat32, float32FromBfloat16 } from '../../lib/halfPrecision';
import type { DType, Shape } from '../../lib/graph/tensor';

// Looked up once: in jest's sandbox every mention of a global is a slow look-up.
const { imul } = Math;

export interface Operand {
  readonly shape: Shape;
  readonly dtype: DType;
  /** The bytes as the device takes them: Uint16Array for bf16, Uint8Array also for the control buffer. */
  readonly data: Float32Array | Uint16Array | Uint8Array | Int32Array;
}

export function float32Of(operand: Operand): Float32Array {
  return operand.dtype === 'bf16' ? float32FromBfloat16(operand.data as Uint16Array) : Float32Array.from(operand.data);
}

export function operandOf(values: ArrayLike<number>, shape: Shape, dtype: 'f32' | 'bf16'): Operand {
  const data = new Float32Array(values);
  return { shape, dtype, data: dtype === 'bf16' ? bfloat16FromFloat32(data) : data };
}

/** A permutation and its inverse for every picture, i32 [batch, patches]. */
export interface Shuffle {
  readonly ids: Operand;
  readonly restore: Operand;
}

export class Draw {
  private state: number;

  constructor(
    seed: number,
    readonly compute: 'f32' | 'bf16',
  ) {
    this.state = (seed * 0x9e3779b9) | 0;
  }

  /** In (0, 1): the mulberry32 generator. */
  uniform(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  }

  /** Uniform numbers of mean 0 and standard deviation `scale`. */
  centred(count: number, scale = 1): Float32Array {
    const values = new Float32Array(count);
    const edge = scale * Math.sqrt(3);
    for (let i = 0; i < count; i++) values[i] = edge * (2 * this.uniform() - 1);
    return values;
  }

  /** fp32, of a mean and a standard deviation. */
  f32(shape: Shape, scale = 1, mean = 0): Operand {
    const values = this.centred(sizeOf(shape), scale);
    return operandOf(mean ? values.map((v) => v + mean) : values, shape, 'f32');
  }

  /** In the compute dtype. */
  act(shape: Shape, scale = 1): Operand {
    return operandOf(this.centred(sizeOf(shape), scale), shape, this.compute);
  }

  u8(shape: Shape): Operand {
    return { shape, dtype: 'u8', data: Uint8Array.from(this.uniforms(shape), (u) => Math.floor(256 * u)) };
  }

  /** Uniform numbers in (0, 1). */
  uniforms(shape: Shape): Float32Array {
    const values = new Float32Array(sizeOf(shape));
    for (let i = 0; i < values.length; i++) values[i] = this.uniform();
    return values;
  }

  i32(values: readonly number[], shape: Shape = [values.length]): Operand {
    return { shape, dtype: 'i32', data: Int32Array.from(values) };
  }

  control(control: Control = {}): Operand {
    return { shape: [CONTROL_BYTES / 4], dtype: 'f32', data: encodeControl(control) };
  }

  /** f32 [batch, patches] of zeros and ones, 0.7 of them ones. */
  mask(batch: number, patches: number): Operand {
    const shape = [batch, patches];
    return operandOf(
      this.uniforms(shape).map((u) => Number(u < 0.7)),
      shape,
      'f32',
    );
  }

  shuffle(batch: number, patches: number): Shuffle {
    const [ids, restore] = [new Int32Array(batch * patches), new Int32Array(batch * patches)];
    for (let b = 0; b < batch; b++) {
      const key = Array.from({ length: patches }, () => this.uniform());
      const order = key.map((_, p) => p).sort((a, c) => key[a] - key[c]);
      order.forEach((p, j) => {
        ids[b * patches + j] = p;
        restore[b * patches + p] = j;
      });
    }
    const shape = [batch, patches];
    return { ids: { shape, dtype: 'i32', data: ids }, restore: { shape, dtype: 'i32', data: restore } };
  }
}

function sizeOf(shape: Shape): number {
  return shape.reduce((product, n) => product * n, 1);
}
