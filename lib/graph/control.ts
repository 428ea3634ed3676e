/** The per-step scalars as they lie in the control buffer: 64 bytes, native/shared/control.h. */
export interface Control {
  /** Learning rate of this step. */
  lr?: number;
  /** Optimizer step t, from 1: gives the bias corrections 1 − βᵗ. */
  optimizerStep?: number;
  betas?: readonly [number, number];
  /** 1 / micro-batches of the step. */
  gradScale?: number;
  /** Clip gradients to this global norm; 0 = no clipping. */
  maxNorm?: number;
  epoch?: number;
  step?: number;
}

export const CONTROL_BYTES = 64;

export function encodeControl(control: Control): Uint8Array {
  const bytes = new Uint8Array(CONTROL_BYTES);
  const view = new DataView(bytes.buffer);
  const t = control.optimizerStep ?? 1;
  const [beta1, beta2] = control.betas ?? [0, 0];
  view.setFloat32(0, control.lr ?? 0, true);
  view.setFloat32(4, 1 - beta1 ** t, true);
  view.setFloat32(8, 1 - beta2 ** t, true);
  view.setFloat32(12, control.gradScale ?? 1, true);
  view.setFloat32(16, control.maxNorm ?? 0, true);
  view.setUint32(20, control.epoch ?? 0, true);
  view.setUint32(24, control.step ?? 0, true);
  return bytes;
}
