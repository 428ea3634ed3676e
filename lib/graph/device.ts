/** Choosing a device: 'auto', 'cpu', 'cuda', 'cuda:1'. */
import { MaeError } from '../errors';
import { native, type NativeDevice, type NativeDeviceInfo } from '../native';

export type Precision = 'fp32' | 'bf16';

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
