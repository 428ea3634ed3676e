/** Where a training step's time goes, op by op and shape by shape, and how near each is to the machine's limits. */
import type { Launch, TracedOp, Trace } from '../graph/tape';
import { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import { type PresetName, presets } from '../nn/presets';
import { alternate } from './alternate';
import { peakOf, type Ceilings } from './ceilings';
import { budgetOf, type Context } from './context';
import { type Profile, type ProfiledOp, timingOf } from './result';
import { spreadOf } from './stats';
import { Workload } from './workload';

/** Seconds of a quick run for one preset. */
const SECONDS = 6;

/** The preset as it is, its step replayed as in training and run op by op, in turns. */
export async function measureProfile(context: Context, preset: PresetName): Promise<Profile> {
  const batchSize = context.batchOf(preset);
  const { precision } = context;
  using model = new MaskedAutoencoder({ ...presets[preset], device: context.device.id, precision });
  const workload = new Workload(model, { batchSize });
  const profiles: Float64Array[] = [];
  const opByOp = async (): Promise<number> => {
    const seconds = workload.profile();
    profiles.push(seconds);
    return seconds.reduce((sum, time) => sum + time, 0);
  };
  const [steps, opByOpSteps] = await alternate([{ run: () => workload.sample('step') }, { run: opByOp }], budgetOf(context, SECONDS));
  const counted = profiles.slice(-opByOpSteps.length); // without the warm-up
  const { trace } = workload.step;
  const seconds = trace.launches.map((_, i) => spreadOf(counted.map((profile) => profile[i])).median);
  return { preset, precision, batchSize, step: timingOf(steps), ops: groupOps(trace, seconds) };
}

/**
 * The step's ops with their launches' times, those of one kind, part, pass and shape together, the longest first.
 * @param seconds  of every launch of the trace
 */
export function groupOps(trace: Trace, seconds: readonly number[]): ProfiledOp[] {
  const loss = trace.ops.findIndex(({ op }) => op === 'masked_mse');
  const update = trace.segments.update[0];
  const groups = new Map<string, ProfiledOp>();
  trace.ops.forEach((traced, i) => {
    const [first, end] = traced.launches;
    const pass = first >= update ? 'update' : i <= loss ? 'forward' : 'backward';
    const part = partOf(traced, pass);
    const shape = shapeOf(trace.launches[first]);
    const time = seconds.slice(first, end).reduce((sum, t) => sum + t, 0);
    const key = [traced.op, part, pass, shape].join(' ');
    const before = groups.get(key) ?? { op: traced.op, part, pass, shape, calls: 0, seconds: 0, flops: 0, bytes: 0 };
    groups.set(key, {
      ...before,
      calls: before.calls + 1,
      seconds: before.seconds + time,
      flops: before.flops + traced.flops,
      bytes: before.bytes + traced.bytes,
    });
  });
  return [...groups.values()].sort((a, b) => b.seconds - a.seconds);
}

/**
 * Seconds that an op would take at the ceilings: the larger of its arithmetic at the peak and its bytes at the copy bandwidth. Operands
 * that lie in a cache can beat it. Undefined where the peak is unknown.
 */
export function rooflineSeconds(
  { flops, bytes }: Pick<ProfiledOp, 'flops' | 'bytes'>,
  ceilings: Ceilings,
  precision: Profile['precision'],
) {
  const peak = peakOf(ceilings, precision);
  return peak === undefined ? undefined : Math.max(flops / peak, bytes / ceilings.copyBytesPerSecond);
}

function partOf({ label }: TracedOp, pass: ProfiledOp['pass']): ProfiledOp['part'] {
  if (pass === 'update') return 'optimizer';
  if (label.startsWith('encoder.')) return 'encoder';
  if (label.startsWith('decoder.') || /^(linear|unshuffle|select_tokens|layer_norm)/.test(label)) return 'decoder';
  return 'masking and loss';
}

/** Sizes from the launch's dims, in the order that people say them. */
function shapeOf({ kernel, dims }: Launch): string {
  const names: Readonly<Record<string, readonly string[]>> = {
    linear: ['rows', 'n', 'k'],
    linear_grad_input: ['rows', 'n', 'k'],
    linear_grad_weight: ['rows', 'n', 'k'],
    attention: ['batch', 'tokens', 'heads', 'head_dim'],
    attention_grad: ['batch', 'tokens', 'heads', 'head_dim'],
    patch_embed: ['batch', 'visible', 'width_out'],
    patch_embed_grad: ['batch', 'visible', 'patch_dim', 'width_out'],
    masked_mse: ['batch', 'count', 'patch', 'patch', 'channels'],
    random_mask: ['batch', 'patches'],
    adamw: ['count'],
  };
  return (names[kernel] ?? Object.keys(dims)).map((name) => dims[name]).join(' × ');
}
