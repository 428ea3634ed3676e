/** Choosing a device: 'auto', 'cpu', 'cuda', 'cuda:1'. */
import os from 'node:os';
import { MaeError } from '../errors';
import { formatBytes } from '../format';
import { native, type NativeDevice, type NativeDeviceInfo } from '../native';

export type Precision = 'fp32' | 'bf16';

/** dtype of what is kept in a precision. */
export const dtypeOf = (precision: Precision): 'f32' | 'bf16' => (precision === 'bf16' ? 'bf16' : 'f32');

export interface OpenDevice {
  /** "cpu" or "cuda:0". */
  readonly id: string;
  readonly kind: 'cpu' | 'cuda';
  readonly handle: NativeDevice;
  /** bf16 on CUDA, fp32 on the CPU. */
  readonly defaultPrecision: Precision;
}

/** Devices of this machine that this build knows, usable or not; the CPU is last. */
export function devices(): NativeDeviceInfo[] {
  return native().devices();
}

const open = new Map<string, NativeDevice>();

/**
 * Opens a device. MAE_DEVICE overrides 'auto'.
 * @throws MaeError MAE_NO_CUDA with the reason where CUDA was asked for and cannot be had
 */
export function openDevice(wanted = 'auto'): OpenDevice {
  const id = resolve(wanted === 'auto' ? process.env.MAE_DEVICE || 'auto' : wanted);
  let handle = open.get(id);
  if (!handle) {
    handle = new (native().Device)(id);
    open.set(id, handle);
  }
  const kind = id === 'cpu' ? 'cpu' : 'cuda';
  return { id, kind, handle, defaultPrecision: kind === 'cuda' ? 'bf16' : 'fp32' };
}

/**
 * Bytes that can still be had. On a CPU what the system can give without swapping (its file cache counts as free), and no more than the
 * container's limit leaves; on a GPU what its driver says.
 */
export function freeMemory(kind: 'cpu' | 'cuda', handle: NativeDevice): number {
  if (kind === 'cuda') return handle.memory().free;
  const { rss } = process.memoryUsage();
  const machine = process.platform === 'linux' ? os.freemem() : os.totalmem() - rss;
  const limit = process.constrainedMemory() ?? 0;
  return limit > 0 && limit < os.totalmem() ? Math.min(machine, limit - rss) : machine;
}

/**
 * Refuses what cannot fit, before any of it is allocated: a system that has promised too much ends the process later, without a word.
 * @param parts  what the bytes are for: { activations: 123 }
 * @throws MaeError MAE_MEMORY
 */
export function requireMemory(kind: 'cpu' | 'cuda', handle: NativeDevice, parts: Readonly<Record<string, number>>): void {
  const needed = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
  const free = freeMemory(kind, handle);
  if (needed <= free) return;
  const list = Object.entries(parts).map(([what, bytes]) => `${what} ${formatBytes(bytes)}`);
  throw new MaeError(
    'MAE_MEMORY',
    `${formatBytes(needed)} are needed on ${handle.name} (${list.join(', ')}), ${formatBytes(free)} are free: use recompute, ` +
      `a smaller batchSize (a larger accumIter keeps the effective batch) or a smaller model`,
  );
}

function resolve(wanted: string): string {
  const found = devices();
  if (wanted === 'auto') return found.find((device) => device.usable)!.id;
  if (wanted === 'cpu') return 'cpu';
  if (!/^cuda(:\d+)?$/.test(wanted)) throw new MaeError('MAE_ARGUMENT', `device must be auto, cpu, cuda or cuda:<number>, got '${wanted}'`);
  const gpus = found.filter((device) => device.id.startsWith('cuda'));
  const id = wanted === 'cuda' ? (gpus.find((gpu) => gpu.usable) ?? gpus[0])?.id : wanted;
  const gpu = gpus.find((device) => device.id === id);
  if (gpu?.usable) return gpu.id;
  const { cuda } = native().buildInfo();
  let why = `there is no GPU '${wanted}' here (${found.map((device) => device.id).join(', ')})`;
  if (gpu) why = `${gpu.name}: ${gpu.reason}`;
  else if (!cuda) why = 'this build of the addon has no CUDA; `MAE_CUDA=1 npx mae build` adds it';
  throw new MaeError(
    'MAE_NO_CUDA',
    `device '${wanted}' cannot be used: ${why}. \`npx mae doctor\` explains this machine; device 'cpu' works everywhere`,
  );
}
