/** The only file that touches the addon (native/addon.cc): finds it, explains its absence, declares its surface. */
import path from 'node:path';
import bindings from 'bindings';
import { MaeError } from './errors';

/** One line of native/kernels.def; the lists are comma-separated names. */
export interface KernelSignature {
  name: string;
  inputs: string;
  outputs: string;
  dims: string;
  reals: string;
  cuda: boolean;
}

export interface NativeDeviceInfo {
  id: string;
  name: string;
  detail: string;
  usable: boolean;
  reason: string;
}

export interface NativeDevice {
  readonly name: string;
  memory(): { free: number; total: number };
  /** Bytes of workspace that each instruction of `code` asks for. */
  workspaces(code: Float64Array, labels: string[]): Float64Array;
}

/** Device memory; zero-filled when made. */
export interface NativeBuffer {
  write(offset: number, values: ArrayBufferView): void;
  /** After everything submitted before it; one ArrayBuffer. */
  read(offset: number, bytes: number): Promise<ArrayBuffer[]>;
  fill(byte: number): void;
  dispose(): void;
}

export interface NativeProgramSpec {
  code: Float64Array;
  labels: string[];
  segments: Int32Array;
  buffers: NativeBuffer[];
  arenaBytes: number;
  inputBytes: number;
  workspaceBytes: number;
  microBatches: number;
  replay: number;
  poison: boolean;
}

export interface NativeProgram {
  run(inputs: unknown[], stages: Int32Array, reads: Float64Array): Promise<ArrayBuffer[]>;
  tune(stages: Int32Array): Promise<ArrayBuffer[]>;
  profile(inputs: unknown[], stages: Int32Array): Float64Array;
  dispose(): void;
}

export interface NativeAddon {
  Device: new (id: string) => NativeDevice;
  Buffer: new (device: NativeDevice, bytes: number) => NativeBuffer;
  Program: new (device: NativeDevice, spec: NativeProgramSpec) => NativeProgram;
  kernels(): KernelSignature[];
  devices(): NativeDeviceInfo[];
  stats(): { deviceBytes: number };
  buildInfo(): { cuda: boolean; cudaArchitectures: string; compiler: string };
  setErrorClass(errorClass: unknown): void;
  setThreads(threads: number): number;
  /** values[i] = bound·(2u − 1), u from RandomStream(seed, purpose, c0): its fast twin, the same bits. */
  fillUniform(values: Float32Array, bound: number, seed: number, purpose: number, c0: number): void;
  /** Builds with CUDA: which implementation computes which matrix product on a model of GPU (cuda/gemm_choice.h). */
  gemmChoices?(gpu: string): Int32Array;
  addGemmChoices?(gpu: string, table: Int32Array): void;
  /** Builds with CUDA: whether the library was found, and its version and file or where it was looked for. */
  cublasLt?(): { found: boolean; description: string };
}

const root = path.resolve(__dirname, '..');
/** Where a build leaves the addon: node-gyp's first, then CMake's. */
const BUILDS = [
  ['module_root', 'build', 'Release', 'bindings'],
  ['module_root', 'build-cmake', 'Release', 'bindings'],
  ['module_root', 'build', 'Debug', 'bindings'],
];
let loaded: NativeAddon | undefined;

/** The addon, loaded at first use; MAE_ADDON names another file than the build's. @throws MaeError MAE_NOT_BUILT with the command that builds it. */
export function native(): NativeAddon {
  if (loaded) return loaded;
  const file = process.env.MAE_ADDON;
  try {
    loaded = bindings({ bindings: 'mae.node', module_root: root, try: file ? [[path.resolve(file)]] : BUILDS }) as NativeAddon;
  } catch (error) {
    const absent = String((error as Error).message).startsWith('Could not locate the bindings file');
    const reason = absent ? 'has not been built on this machine' : `was built but does not load: ${(error as Error).message}`;
    throw new MaeError(
      'MAE_NOT_BUILT',
      file && absent
        ? `node-mae: MAE_ADDON names ${path.resolve(file)}, where there is no file. Correct it, or unset it to use the build's addon.`
        : `node-mae: its native addon ${reason}.\n  Build it:          npx mae build\n  Explain this machine:  npx mae doctor`,
      { cause: error },
    );
  }
  loaded.setErrorClass(MaeError);
  return loaded;
}
