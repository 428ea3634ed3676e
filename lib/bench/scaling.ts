/**
 * Scaling on paper: what a step takes on many devices, from a cost model that is written down here and checked against the paper's hours.
 *
 * Compute: t = (1 / efficiency) · Σ over the step's ops of max(FLOPs / peak, bytes / bandwidth), ops, FLOPs and bytes being those of the op
 * table at the batch that one device gets. A small batch per device is slower per picture by itself: weights, gradients and optimizer state
 * are moved however few pictures there are. The efficiency is one number per device, from a measured step.
 *
 * All-reduce of the float32 gradients over N devices: 2·(N − 1)/N · bytes / link + 2·⌈log₂ N⌉ · latency. The link is a device's to its
 * neighbour within a node; beyond it, all network adapters of the node together, as rings through every one of them use them. It runs while
 * the backward pass still computes; what is longer than that is exposed.
 */
import type { Precision } from '../graph/device';
import type { Trace } from '../graph/tape';
import { size } from '../graph/tensor';
import { type MaeConfig, resolveConfig } from '../nn/config';
import { makeMae } from '../nn/mae';
import { type PresetName, presets } from '../nn/presets';
import type { Ceilings } from './ceilings';
import { sketchStep } from './costs';
import { paperHours, paperRun, type Variant } from './paper';
import type { BenchResult, Scaling } from './result';

export interface DeviceModel {
  readonly name: string;
  /** FLOP/s of the precision that trains. */
  readonly peak: number;
  /** Bytes per second of its memory. */
  readonly bandwidth: number;
  /** Bytes per second, each direction, that one device sends to others in its node, and beyond it. */
  readonly nodeLink: number;
  readonly network: number;
  readonly devicesPerNode: number;
  /** Seconds of one hop. */
  readonly latency: number;
  readonly precision: Precision;
}

/** Data sheets: 989.4 TFLOP/s dense bf16, 3.35 TB/s, NVLink 4 with 450 GB/s each way, one 400 Gb/s adapter for each GPU. */
export const H100: DeviceModel = {
  name: 'H100 SXM',
  peak: 989.4e12,
  bandwidth: 3.35e12,
  nodeLink: 450e9,
  network: 50e9,
  devicesPerNode: 8,
  latency: 10e-6,
  precision: 'bf16',
};

/**
 * One of the paper's cores, half a TPU v3 chip (Jouppi et al. 2020, "A domain-specific supercomputer for training deep neural networks"):
 * 123 TFLOP/s bf16, 900 GB/s and links of 656 Gb/s per chip.
 */
export const TPU_V3_CORE: DeviceModel = {
  name: 'TPU v3 core',
  peak: 61.5e12,
  bandwidth: 450e9,
  nodeLink: 82e9,
  network: 82e9,
  devicesPerNode: 2,
  latency: 5e-6,
  precision: 'bf16',
};

/** Share of forward and backward that is the backward pass, as of their FLOPs: the all-reduce can hide behind it. */
const HIDING_SHARE = 2 / 3;
const DEVICES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/** Larger batches per device are cut into micro-batches of this size. */
const LARGEST_MICRO_BATCH = 256;
/** For a GPU where none was measured: said so in the result. */
const ASSUMED_EFFICIENCY = 0.7;

export interface StepTime {
  readonly compute: number;
  readonly allReduce: number;
  /** Of the all-reduce, what the backward pass does not hide. */
  readonly exposed: number;
  readonly total: number;
}

/** Seconds of one segment of a traced step at the device's limits. */
export function rooflineOf(
  trace: Trace,
  segment: 'backward' | 'update',
  { peak, bandwidth }: Pick<DeviceModel, 'peak' | 'bandwidth'>,
): number {
  const [first, end] = trace.segments[segment];
  return trace.ops
    .filter(({ launches }) => launches[0] >= first && launches[0] < end)
    .reduce((sum, { flops, bytes }) => sum + Math.max(flops / peak, bytes / bandwidth), 0);
}

export function stepTime(config: MaeConfig, batchPerDevice: number, devices: number, device: DeviceModel, efficiency: number): StepTime {
  const micro = Math.min(batchPerDevice, LARGEST_MICRO_BATCH);
  const trace = sketchStep(config, micro, device.precision, 'cuda');
  const backward = ((batchPerDevice / micro) * rooflineOf(trace, 'backward', device)) / efficiency;
  const compute = backward + rooflineOf(trace, 'update', device) / efficiency;
  const gradients = 4 * makeMae(config, 0).parameters.reduce((sum, { shape }) => sum + size(shape), 0);
  const { nodeLink, network, devicesPerNode } = device;
  const link = devices <= devicesPerNode ? nodeLink : Math.min(nodeLink, network * devicesPerNode);
  const allReduce = (2 * (devices - 1) * gradients) / devices / link + 2 * Math.ceil(Math.log2(devices)) * device.latency;
  const exposed = Math.max(0, allReduce - HIDING_SHARE * backward);
  return { compute, allReduce, exposed, total: compute + exposed };
}

/** Hours of the paper's run: 800 epochs of ImageNet-1K at a batch of 4096. */
export function hoursOf(stepSeconds: number): number {
  return ((paperRun.epochs * paperRun.pictures) / paperRun.batchSize) * (stepSeconds / 3600);
}

/** The model with the efficiency that ViT-L without [M] has in the paper, on all six rows of its Table 2. */
export function checkAgainstPaper(): Pick<Scaling, 'paper' | 'paperEfficiency'> {
  const hours = ({ preset, maskTokens, decoderDepth }: Variant & { preset: PresetName }, efficiency: number): number => {
    const config = resolveConfig({ ...presets[preset], maskTokensInEncoder: maskTokens, decoderDepth });
    return hoursOf(stepTime(config, paperRun.batchSize / paperRun.cores, paperRun.cores, TPU_V3_CORE, efficiency).total);
  };
  const calibration = paperHours.find(
    ({ preset, maskTokens, decoderDepth }) => preset === 'vit-large/16' && !maskTokens && decoderDepth === 8,
  )!;
  const paperEfficiency = hours(calibration, 1) / calibration.hours;
  const paper = paperHours.map(({ preset, maskTokens, decoderDepth, hours: published }) => {
    const modelHours = hours({ preset, maskTokens, decoderDepth }, paperEfficiency);
    return { preset, maskTokens, decoderDepth, hours: published, modelHours };
  });
  return { paper, paperEfficiency };
}

/** The paper's batch of 4096 shared out over 1 to 1024 devices. */
export function scalingCurve(preset: PresetName, device: DeviceModel, efficiency: number, source: string): Scaling['curves'][number] {
  const config = resolveConfig(presets[preset]);
  const points = DEVICES.map((devices) => {
    const batchPerDevice = paperRun.batchSize / devices;
    const { total, exposed } = stepTime(config, batchPerDevice, devices, device, efficiency);
    return {
      devices,
      batchPerDevice,
      stepSeconds: total,
      exposedSeconds: exposed,
      picturesPerSecond: paperRun.batchSize / total,
      hours: hoursOf(total),
    };
  });
  return { preset, device: device.name, efficiency, source, points };
}

/**
 * Curves for the paper's three sizes. The efficiency of each is that of a GPU's measured step, where `measured` has one; a CPU's tells
 * nothing of a GPU, and then one is assumed.
 */
export function scalingOf(measured: Pick<BenchResult, 'machine' | 'ceilings' | 'profiles'>): Scaling {
  const sizes = (['vit-base/16', 'vit-large/16', 'vit-huge/14'] as const).map((preset) => {
    const found = measured.profiles.find((profile) => profile.preset === preset && profile.precision === 'bf16');
    const onGpu = !measured.machine.device.startsWith('cpu');
    if (!found || !onGpu || !measured.ceilings.arithmetic) {
      return scalingCurve(preset, H100, ASSUMED_EFFICIENCY, `assumed ${ASSUMED_EFFICIENCY * 100} % of the roofline; not measured`);
    }
    const device = modelOf(measured.machine.device, measured.ceilings);
    const trace = sketchStep(resolveConfig(presets[preset]), found.batchSize, 'bf16', 'cuda');
    const roofline = rooflineOf(trace, 'backward', device) + rooflineOf(trace, 'update', device);
    return scalingCurve(preset, device, roofline / found.step.median, `measured step at batch ${found.batchSize}`);
  });
  return { ...checkAgainstPaper(), curves: sizes };
}

/** The GPU that was measured, with the links of the H100's machines. */
function modelOf(name: string, { arithmetic, copyBytesPerSecond }: Ceilings): DeviceModel {
  return { ...H100, name, peak: arithmetic!.bf16, bandwidth: copyBytesPerSecond };
}
