/**
 * Which implementation computes which matrix product on a GPU, as the first step of a run found by timing. Other choices add in another
 * order, so they are kept with the run: a resumed run computes the same bits.
 */
import { native } from '../native';
import type { OpenDevice } from './device';

export interface GemmChoices {
  /** What the choices, and cuBLASLt's algorithms among them, are valid for. */
  readonly gpu: string;
  readonly cublasLt: string;
  /** The table of cuda/gemm_choice.h: base64 of its int32 values. */
  readonly table: string;
}

function placeOf(device: OpenDevice): Pick<GemmChoices, 'gpu' | 'cublasLt'> {
  const { found, description } = native().cublasLt!();
  return { gpu: device.handle.name.replace(/^cuda:\d+ /, ''), cublasLt: found ? description.split(' ')[0] : 'none' };
}

/** The choices of this process so far for GPUs of this model; undefined on the CPU, which has none to make. */
export function gemmChoices(device: OpenDevice): GemmChoices | undefined {
  if (device.kind !== 'cuda') return undefined;
  const place = placeOf(device);
  return { ...place, table: Buffer.from(native().gemmChoices!(place.gpu).buffer).toString('base64') };
}

/**
 * Takes choices over, before the first step.
 * @returns why they were ignored, if they were: they are of another GPU or library
 * @throws MaeError MAE_CONFIG when the table is damaged
 */
export function restoreGemmChoices(device: OpenDevice, choices: GemmChoices): string | undefined {
  if (device.kind !== 'cuda') return `they are of a GPU (${choices.gpu}), this run is on the CPU`;
  const here = placeOf(device);
  if (choices.gpu !== here.gpu) return `they are of ${choices.gpu}, this is ${here.gpu}`;
  if (choices.cublasLt !== here.cublasLt) return `they were made with cuBLASLt ${choices.cublasLt}, here it is ${here.cublasLt}`;
  const bytes = Uint8Array.from(Buffer.from(choices.table, 'base64'));
  native().addGemmChoices!(here.gpu, new Int32Array(bytes.buffer, 0, Math.floor(bytes.length / 4)));
  return undefined;
}
