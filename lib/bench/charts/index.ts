/** The charts of a result, by file name. */
import { formatCount, formatPercent } from '../../format';
import { nameOf, paperFlopRatio } from '../paper';
import { rooflineSeconds } from '../profile';
import type { BenchResult, Masking, Profile, ProfiledOp, Scaling, Sweep } from '../result';
import { barChart, type BarGroup } from './barChart';
import { lineChart } from './lineChart';

export function chartsOf(result: BenchResult): Map<string, string> {
  const charts = new Map<string, string>();
  if (result.masking.length > 0) charts.set('masking.svg', maskingChart(result));
  for (const sweep of result.sweeps) charts.set(`${sweep.over}-${fileName(sweep.preset)}.svg`, sweepChart(result, sweep));
  if (result.comparisons.length > 0) charts.set('peers.svg', peersChart(result));
  for (const profile of result.profiles) {
    charts.set(`time-${fileName(profile.preset)}.svg`, timeChart(result, profile));
    if (result.ceilings.arithmetic) charts.set(`limits-${fileName(profile.preset)}.svg`, limitsChart(result, profile));
  }
  if (result.scaling) charts.set('scaling.svg', scalingChart(result.scaling));
  return charts;
}

function fileName(preset: string): string {
  return preset.replace('/', '-');
}

/** "AMD EPYC, cpu (avx2, 2 threads), fp32". */
function machineOf({ machine, masking, profiles }: BenchResult): string {
  const precision = masking[0]?.precision ?? profiles[0]?.precision;
  const cpu = machine.device.startsWith('cpu') ? `${machine.processor}, ` : '';
  return `${cpu}${machine.device}${precision ? `, ${precision}` : ''}`;
}

const times = (ratio: number): string => `${ratio.toFixed(2)}×`;

function maskingChart(result: BenchResult): string {
  const groups = result.masking.flatMap(({ preset, batchSize, variants }: Masking) =>
    variants.slice(1).map((variant): BarGroup => ({
      label: `${preset}, batch ${batchSize}: ${nameOf(variant)}`,
      bars: [
        { series: 0, value: variant.executedRatio, label: times(variant.executedRatio) },
        {
          series: 1,
          value: variant.speedup.median,
          low: variant.speedup.low,
          high: variant.speedup.high,
          label: `${times(variant.speedup.median)}, ${formatPercent(variant.arrived!)} of the saving`,
        },
        ...(variant.paperSpeedup ? [{ series: 2, value: variant.paperSpeedup, label: times(variant.paperSpeedup) }] : []),
      ],
    })),
  );
  const inPaper = result.masking.some(({ variants }) => variants.some(({ paperSpeedup }) => paperSpeedup));
  return barChart({
    title: 'What leaving masked patches out of the encoder saves',
    subtitle: `Training step over that of the encoder with [M] and 8 decoder blocks, mask ratio 75 %. ${machineOf(result)}`,
    series: ['fewer FLOPs', 'less time', ...(inPaper ? [`less time in the paper (its FLOPs for ViT-L: ${paperFlopRatio.ratio}×)`] : [])],
    groups,
    xLabel: 'times less than with mask tokens in the encoder',
    reference: 1,
  });
}

const AXES: Readonly<Record<Sweep['over'], { title: string; label: string; log?: boolean; format?: (x: number) => string }>> = {
  maskRatio: { title: 'Time and FLOPs against the mask ratio', label: 'mask ratio', format: formatPercent },
  decoderDepth: { title: "Time and FLOPs against the decoder's depth", label: 'decoder blocks' },
  decoderWidth: { title: "Time and FLOPs against the decoder's width", label: 'decoder width' },
  batchSize: { title: 'Pictures per second against the batch size', label: 'pictures in a batch', log: true },
};

function sweepChart(result: BenchResult, { over, preset, batchSize, points }: Sweep): string {
  const { title, label, log, format } = AXES[over];
  const shared = { title: `${title}: ${preset}`, xLabel: label, xLog: log, formatX: format };
  const trained = points.filter((point) => point.step);
  if (over === 'batchSize') {
    const rate = (kind: 'forward' | 'step') =>
      trained.map((point) => ({
        x: point.value,
        y: point.batchSize / point[kind]!.median,
        low: point.batchSize / point[kind]!.high,
        high: point.batchSize / point[kind]!.low,
      }));
    return lineChart({
      ...shared,
      subtitle: machineOf(result),
      yLabel: 'pictures per second',
      series: [
        { name: 'training step', points: rate('step') },
        { name: 'forward', points: rate('forward') },
      ],
    });
  }
  // Relative to the point with the most FLOPs: there time and FLOPs are at one height; their gap elsewhere is what did not arrive as time.
  const relative = (of: typeof points, cost: (point: (typeof points)[number]) => number) => {
    const most = Math.max(...of.map(cost));
    return of.map((point) => ({ x: point.value, y: cost(point) / most }));
  };
  const timed = (of: typeof points, kind: 'forward' | 'step') => {
    const costliest = of.reduce((a, b) => (b.forwardCosts.flops > a.forwardCosts.flops ? b : a));
    const most = costliest[kind]!.median;
    return of.map((point) => ({
      x: point.value,
      y: point[kind]!.median / most,
      low: point[kind]!.low / most,
      high: point[kind]!.high / most,
    }));
  };
  return lineChart({
    ...shared,
    subtitle: `Batch ${batchSize}, relative to the point with the most FLOPs. ${machineOf(result)}`,
    yLabel: 'relative to the costliest',
    series: [
      { name: 'training step, time', points: timed(trained, 'step'), color: 0 },
      { name: 'its FLOPs', points: relative(trained, (point) => point.stepCosts!.flops), dashed: true, color: 0 },
      { name: 'forward, time', points: timed(points, 'forward'), color: 1 },
      { name: 'its FLOPs', points: relative(points, (point) => point.forwardCosts.flops), dashed: true, color: 1 },
    ],
  });
}

function peersChart(result: BenchResult): string {
  const names = ['node-mae', ...new Set(result.comparisons.flatMap(({ peers }) => peers.map(({ name }) => name)))];
  const groups = result.comparisons.map(({ preset, precision, batchSize, ours, peers }): BarGroup => {
    const bars = [
      { name: 'node-mae', step: ours, note: '' },
      ...peers.map((peer) => ({ ...peer, note: `: ${times(peer.ratio.median)} our time` })),
    ];
    return {
      label: `${preset}, batch ${batchSize}, ${precision}`,
      bars: bars.map(({ name, step, note }) => ({
        series: names.indexOf(name),
        value: batchSize / step.median,
        low: batchSize / step.high,
        high: batchSize / step.low,
        label: `${(batchSize / step.median).toPrecision(3)}${note}`,
      })),
    };
  });
  return barChart({
    title: 'Training throughput beside PyTorch',
    subtitle: `The same model, weights and masks, taking turns. ${machineOf(result)}`,
    series: names,
    groups,
    xLabel: 'pictures per second',
  });
}

/** Ops that take less than this share of a step are one bar. */
const SMALL = 0.01;

function timeChart(result: BenchResult, { preset, batchSize, precision, ops }: Profile): string {
  const parts = ['encoder', 'decoder', 'masking and loss', 'optimizer'] as const;
  const total = ops.reduce((sum, { seconds }) => sum + seconds, 0);
  const byOp = new Map<string, Map<ProfiledOp['part'], number>>();
  for (const { op, part, seconds } of ops) {
    const shares = byOp.get(op) ?? new Map<ProfiledOp['part'], number>();
    shares.set(part, (shares.get(part) ?? 0) + seconds / total);
    byOp.set(op, shares);
  }
  const sum = (shares: ReadonlyMap<ProfiledOp['part'], number>): number => [...shares.values()].reduce((a, b) => a + b, 0);
  const shown = [...byOp].filter(([, shares]) => sum(shares) >= SMALL).sort(([, a], [, b]) => sum(b) - sum(a));
  const groups = shown.map(([op, shares]): BarGroup => ({
    label: op.replaceAll('_', ' '),
    bars: parts.flatMap((part, series) => {
      const share = shares.get(part);
      return share === undefined ? [] : [{ series, value: share * 100, label: `${(share * 100).toFixed(1)} %` }];
    }),
  }));
  return barChart({
    title: `Where a training step's time goes: ${preset}`,
    subtitle: `Batch ${batchSize}, ${precision}, op by op; ops below 1 % are left out. ${machineOf(result)}`,
    series: parts,
    groups,
    xLabel: 'per cent of the step',
  });
}

/** The longest ops of a step, each as a share of the nearer ceiling. */
const SHOWN = 14;

function limitsChart(result: BenchResult, { preset, batchSize, precision, ops }: Profile): string {
  const { arithmetic, copyBytesPerSecond } = result.ceilings;
  const peak = arithmetic![precision];
  const groups = ops.slice(0, SHOWN).map((op): BarGroup => {
    const share = (100 * rooflineSeconds(op, result.ceilings, precision)!) / op.seconds;
    const byArithmetic = op.flops / peak >= op.bytes / copyBytesPerSecond;
    const rate = byArithmetic ? `${formatCount(op.flops / op.seconds, 'FLOP/s')}` : `${formatCount(op.bytes / op.seconds, 'B/s')}`;
    return {
      label: `${op.op.replaceAll('_', ' ')}, ${op.part === 'masking and loss' ? 'loss' : op.part} ${op.shape}`,
      bars: [{ series: byArithmetic ? 0 : 1, value: share, label: `${share.toFixed(0)} %, ${rate}` }],
    };
  });
  return barChart({
    title: `How near the ops are to the machine's limits: ${preset}`,
    subtitle: `Batch ${batchSize}, ${precision}; the step's longest. ${machineOf(result)}`,
    series: [
      `of ${formatCount(peak, 'FLOP/s')}, the ${arithmetic!.source === 'measured' ? 'measured' : "data sheet's"} peak`,
      `of ${formatCount(copyBytesPerSecond, 'B/s')}, the measured copy (more: from a cache)`,
    ],
    groups,
    xLabel: 'per cent of the ceiling',
    reference: 100,
  });
}

function scalingChart({ curves }: Scaling): string {
  return lineChart({
    title: 'Scaling on paper: 800 epochs of ImageNet at a batch of 4096',
    subtitle: `Computed, not measured. ${curves[0].device}: ${[...new Set(curves.map(({ source }) => source))].join('; ')}`,
    xLabel: 'devices',
    yLabel: 'hours',
    xLog: true,
    yLog: true,
    series: curves.flatMap(({ preset, points }, color) => [
      { name: preset, color, points: points.map(({ devices, hours }) => ({ x: devices, y: hours })) },
      { name: 'perfect', color, dashed: true, points: points.map(({ devices }) => ({ x: devices, y: points[0].hours / devices })) },
    ]),
  });
}
