/** A result as Markdown: what a reader wants to know first, then every table. */
import { formatBytes, formatCount, formatDuration, formatPercent, formatRate, groupDigits } from '../format';
import { type Cell, type Column, markdownTable } from '../view/table';
import { nameOf, paperFlopRatio } from './paper';
import { rooflineSeconds } from './profile';
import type { BenchResult, Masking, Products, Profile, Scaling, Sweep } from './result';
import type { Spread } from './stats';

type Product = Products['products'][number];

/** @param charts  file names, for the pictures to appear under their headings; none for a terminal */
export function reportOf(result: BenchResult, charts: readonly string[] = []): string {
  const picture = (name: string): string[] => charts.filter((file) => file.startsWith(name)).flatMap((file) => [`![](${file})`, '']);
  return [
    '# Benchmark of node-mae',
    '',
    ...machineLines(result),
    '',
    ...inShort(result),
    ...section(result.masking.length, '## What leaving masked patches out of the encoder saves', MASKING_NOTE, picture('masking'), () =>
      result.masking.flatMap(maskingLines),
    ),
    ...section(result.sweeps.length, '## Sweeps', SWEEP_NOTE, [], () =>
      result.sweeps.flatMap((sweep) => [...sweepLines(sweep), ...picture(`${sweep.over}-${sweep.preset.replace('/', '-')}`)]),
    ),
    ...section(result.comparisons.length, '## Beside PyTorch', PEER_NOTE, picture('peers'), () => peerLines(result)),
    ...section(result.profiles.length, "## A step's time, and the machine's limits", limitsNote(result), [], () =>
      result.profiles.flatMap((profile) => [
        ...profileLines(result, profile),
        ...picture(`time-${profile.preset.replace('/', '-')}`),
        ...picture(`limits-${profile.preset.replace('/', '-')}`),
      ]),
    ),
    ...section(result.products.length, '## Matrix products alone', PRODUCTS_NOTE, [], () => result.products.flatMap(productLines)),
    ...section(result.data ? 1 : 0, '## Loading pictures', DATA_NOTE, [], () => dataLines(result.data!)),
    ...section(result.scaling ? 1 : 0, '## Scaling on paper', SCALING_NOTE, picture('scaling'), () => scalingLines(result.scaling!)),
    ...section(result.notes.length, '## Left out', '', [], () => [...result.notes.map((note) => `- ${note}`), '']),
  ].join('\n');
}

/** One paragraph of several lines here. */
const paragraph = (...lines: readonly string[]): string => lines.join(' ');

const MASKING_NOTE = paragraph(
  "The paper's Table 1(c) and Table 2 on this machine, at mask ratio 75 %. 'With [M]': mask tokens go through the encoder, so it sees",
  'every patch. GFLOP and GB are of one picture and step: FLOPs counted as the reference does (2 per multiply-add, backward twice the',
  'forward), and executed here (only visible patches embedded, only removed ones predicted); bytes of every operand and result once.',
  "Savings are over the first row, time with its quartiles. 'Arrived': the share of the executed FLOPs saved that was saved as time,",
  '(1 − 1/time) / (1 − 1/FLOPs).',
);
const SWEEP_NOTE =
  'One thing varied, all else as in the preset. GFLOP and GB are of one picture and executed; mask ratio 0 is a forward pass only.';
const PEER_NOTE = paragraph(
  'The same model, weights, pictures and masks (the losses agree), both doing only the work that the loss needs: bench/peers/mae_torch.py.',
  "'Ratio': its time over ours, round by round; above 1, node-mae is faster. Memory: ours is what training takes on the device; the peer's",
  'on a CPU is the most that its process holds in a step beyond what it held once PyTorch was loaded, on a GPU what its allocator held at most.',
);
const PRODUCTS_NOTE = paragraph(
  'Every matrix product of a training step without what a model adds to it (bias, GELU, residual), in turns; of each the best time.',
  "A layer takes [rows, k] to [rows, n]; the sum of the product runs over k, n and rows in this order of the columns. 'Of peak': of the",
  "precision's multiply-adds, on a CPU measured between the products.",
);
const DATA_NOTE = 'Random crops to the training size with nothing else running: the most that each path gives, beside what training takes.';
const SCALING_NOTE = paragraph(
  "Computed, not measured, by the cost model that lib/bench/scaling.ts writes down: the op table's FLOPs and bytes at a device's peak and",
  "bandwidth, one efficiency, and a ring all-reduce behind the backward pass. The check: with the efficiency of the paper's ViT-L without",
  '[M] on its TPUs, the other hours of Table 2.',
);

function section(count: number, title: string, note: string, pictures: readonly string[], body: () => string[]): string[] {
  return count === 0 ? [] : [title, '', ...(note ? [note, ''] : []), ...pictures, ...body()];
}

function table(columns: readonly (Column | string)[], rows: readonly (readonly Cell[])[]): string[] {
  return [markdownTable(columns, rows), ''];
}

// --- cells -----------------------------------------------------------------------------------------------------------------------
const giga = (value: number): string => (value / 1e9).toPrecision(3);
const percentOr = (share: number | undefined): string => (share === undefined ? '–' : formatPercent(share));
const factor = (ratio: number): string => `${ratio.toFixed(2)}×`;
const factors = ({ median, low, high }: Spread): string => `${factor(median)} (${low.toFixed(2)}–${high.toFixed(2)})`;

/** "812 ms ± 0.6 %": the median and half the distance of the quartiles. */
export function formatTiming({ median, low, high }: Spread): string {
  const share = (high - low) / 2 / median;
  return `${formatSeconds(median)} ± ${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

function formatSeconds(seconds: number): string {
  if (seconds >= 99.5) return formatDuration(seconds);
  if (seconds >= 0.9995) return `${seconds.toPrecision(3)} s`;
  return seconds >= 1e-3 ? `${(seconds * 1e3).toPrecision(3)} ms` : `${(seconds * 1e6).toPrecision(3)} µs`;
}

// --- sections --------------------------------------------------------------------------------------------------------------------
function machineLines({ machine, started, seconds, mode }: BenchResult): string[] {
  const { processor, cores, memoryBytes, system, node, nodeMae, commit, device, loadBefore } = machine;
  const busy = loadBefore > 0.3 * cores ? ' **Other programs were running: do not trust the times.**' : '';
  return [
    `- ${device}; ${processor}, ${cores} cores, ${formatBytes(memoryBytes)}`,
    `- node-mae ${nodeMae}${commit ? ` (${commit})` : ''}, Node ${node}, ${system}`,
    `- ${started}, ${mode} run of ${formatDuration(seconds)}; load average before it ${loadBefore.toFixed(2)}.${busy}`,
    paragraph(
      '- Times are medians ± half the distance of the quartiles, over rounds in which all compared models take turns, after warm-up, on',
      'random pictures.',
    ),
  ];
}

function inShort({ masking, comparisons, data }: BenchResult): string[] {
  const lines: string[] = [];
  for (const { preset, variants } of masking) {
    const own = variants.find(({ maskTokens, decoderDepth }) => !maskTokens && decoderDepth === 8);
    if (!own) continue;
    const { executedRatio, speedup, arrived } = own;
    const flops = `${formatPercent(1 - 1 / executedRatio)} of the FLOPs (${factor(executedRatio)})`;
    const time = `${formatPercent(1 - 1 / speedup.median)} of the time (${factor(speedup.median)})`;
    const share = `${formatPercent(arrived!)} of the saving arrived`;
    lines.push(`- **${preset}**: leaving masked patches out of the encoder saves ${flops} and ${time}: ${share}.`);
  }
  for (const { preset, peers } of comparisons) {
    const best = [...peers].sort((a, b) => a.ratio.median - b.ratio.median)[0];
    lines.push(`- **${preset}**: ${best.name} takes ${factor(best.ratio.median)} our time.`);
  }
  const hungriest = data && [...data.steps].sort((a, b) => b.picturesPerSecond - a.picturesPerSecond)[0];
  if (data && hungriest) {
    const slowest = [...data.paths].sort((a, b) => a.picturesPerSecond - b.picturesPerSecond)[0];
    const rate = (value: number): string => formatRate(value, 'pictures');
    lines.push(
      `- Loading: the slowest path (${slowest.name}) gives ${rate(slowest.picturesPerSecond)}, ${hungriest.preset} takes ` +
        `${rate(hungriest.picturesPerSecond)}.`,
    );
  }
  return lines.length > 0 ? ['## In short', '', ...lines, ''] : [];
}

function maskingLines({ preset, precision, batchSize, alternated, variants }: Masking): string[] {
  const apart = alternated ? '' : '; too large to be in memory together: measured one after the other';
  const work = table(
    ['encoder, decoder', 'GFLOP (reference)', 'executed', 'GB', 'memory', 'forward', 'forward + backward', 'step', 'pictures/s', 'MFU'],
    variants.map((variant) => [
      nameOf(variant),
      giga(variant.referenceFlops),
      giga(variant.stepCosts.flops),
      giga(variant.stepCosts.bytes),
      formatBytes(variant.memoryBytes),
      formatTiming(variant.forward),
      formatTiming(variant.backward),
      formatTiming(variant.step),
      variant.picturesPerSecond.toPrecision(3),
      percentOr(variant.mfu),
    ]),
  );
  const saved = table(
    ['saved by', 'FLOPs (reference)', 'executed', 'time', 'arrived', 'time in the paper'],
    variants
      .slice(1)
      .map((variant) => [
        nameOf(variant),
        factor(variant.referenceRatio),
        factor(variant.executedRatio),
        factors(variant.speedup),
        percentOr(variant.arrived),
        variant.paperSpeedup ? `${variant.paperSpeedup}×` : '–',
      ]),
  );
  const paper = preset === paperFlopRatio.preset ? [`The paper's Table 1(c) gives ${paperFlopRatio.ratio}× FLOPs.`, ''] : [];
  return [`### ${preset}, batch ${batchSize}, ${precision}${apart}`, '', ...work, ...saved, ...paper];
}

const SWEEPS: Readonly<Record<Sweep['over'], { title: string; value: (value: number) => string }>> = {
  maskRatio: { title: 'mask ratio', value: formatPercent },
  decoderDepth: { title: 'decoder depth', value: String },
  decoderWidth: { title: 'decoder width', value: String },
  batchSize: { title: 'batch size', value: String },
};

function sweepLines({ preset, over, batchSize, precision, points }: Sweep): string[] {
  const { title, value } = SWEEPS[over];
  const columns = [title, 'GFLOP forward', 'step', 'GB step', 'forward', 'step', 'pictures/s', 'memory'];
  const rows = points.map((point) => [
    value(point.value),
    giga(point.forwardCosts.flops),
    point.stepCosts ? giga(point.stepCosts.flops) : '–',
    point.stepCosts ? giga(point.stepCosts.bytes) : '–',
    formatTiming(point.forward),
    point.step ? formatTiming(point.step) : '–',
    point.step ? (point.batchSize / point.step.median).toPrecision(3) : '–',
    formatBytes(point.memoryBytes),
  ]);
  const batch = over === 'batchSize' ? '' : `, batch ${batchSize}`;
  return [`### ${preset}: ${title}${batch}, ${precision}`, '', ...table(columns, rows)];
}

function peerLines({ comparisons }: BenchResult): string[] {
  const columns = ['model', 'batch', '', 'step', 'pictures/s', 'memory', 'ratio', 'form'];
  const rows = comparisons.flatMap(({ preset, precision, batchSize, ours, memoryBytes, peers }) => [
    [
      `${preset}, ${precision}`,
      batchSize,
      'node-mae',
      formatTiming(ours),
      (batchSize / ours.median).toPrecision(3),
      formatBytes(memoryBytes),
      '',
      '',
    ],
    ...peers.map(({ name, form, step, ratio, memoryBytes: bytes }) => [
      '',
      '',
      name,
      formatTiming(step),
      (batchSize / step.median).toPrecision(3),
      formatBytes(bytes),
      factors(ratio),
      form,
    ]),
  ]);
  return table(columns, rows);
}

function limitsNote({ ceilings }: BenchResult): string {
  const { arithmetic, matmul, copyBytesPerSecond } = ceilings;
  const peak = arithmetic
    ? `${formatCount(arithmetic.fp32, 'FLOP/s')} fp32 and ${formatCount(arithmetic.bf16, 'FLOP/s')} bf16 (${
        arithmetic.source === 'measured' ? 'multiply-adds on registers, measured' : 'data sheet'
      }), `
    : '';
  return paragraph(
    `Ceilings: ${peak}${formatCount(copyBytesPerSecond, 'B/s')} copying 256 MiB, ${formatCount(matmul.flopsPerSecond, 'FLOP/s')} in`,
    `our own ${matmul.size}³ matrix product (${matmul.precision}). 'Of ceiling': the op's time at its nearer ceiling over`,
    'the time it takes; operands that lie in a cache can pass 100 %.',
  );
}

/** Rows of the op table: the longest, and the rest together. */
const OPS = 24;

function profileLines(result: BenchResult, { preset, precision, batchSize, step, ops }: Profile): string[] {
  const total = ops.reduce((sum, { seconds }) => sum + seconds, 0);
  const columns = ['op', 'part', 'pass', 'shape', 'calls', 'of the step', 'time', 'GFLOP/s', 'GB/s', 'of ceiling'];
  const shown = ops.slice(0, OPS).map((op) => {
    const ceiling = rooflineSeconds(op, result.ceilings, precision);
    return [
      op.op,
      op.part,
      op.pass,
      op.shape,
      op.calls,
      formatPercent(op.seconds / total),
      formatSeconds(op.seconds),
      op.flops > 0 ? (op.flops / op.seconds / 1e9).toFixed(0) : '–',
      (op.bytes / op.seconds / 1e9).toPrecision(3),
      ceiling === undefined ? '–' : formatPercent(ceiling / op.seconds),
    ];
  });
  const rest = ops.slice(OPS).reduce((sum, { seconds }) => sum + seconds, 0);
  const parts = ['encoder', 'decoder', 'masking and loss', 'optimizer'].map(
    (part) => `${part} ${formatPercent(ops.filter((op) => op.part === part).reduce((sum, { seconds }) => sum + seconds, 0) / total)}`,
  );
  return [
    `### ${preset}, batch ${batchSize}, ${precision}`,
    '',
    `${parts.join(', ')}. Op by op ${formatSeconds(total)}, replayed ${formatTiming(step)}.`,
    '',
    ...table(columns, [
      ...shown,
      ...(rest > 0 ? [['all others', '', '', '', '', formatPercent(rest / total), formatSeconds(rest), '', '', '']] : []),
    ]),
  ];
}

function productLines({ preset, batchSize, precision, peak, products }: Products): string[] {
  const sizeOf = ({ rows, n, k }: Product): string => `${rows} × ${n} × ${k}`;
  const rate = ({ rows, n, k, seconds }: Product): number => (2 * rows * n * k) / seconds;
  const share = (flopsPerSecond: number): string => (peak ? `${((100 * flopsPerSecond) / peak).toFixed(1)} %` : '–');
  const passes = [...new Set(products.map(({ pass }) => pass))];
  const sizes = [...new Set(products.map(sizeOf))];
  const rows = sizes.map((size) => {
    const found = passes.map((pass) => products.find((product) => product.pass === pass && sizeOf(product) === size));
    return [size, ...found.map((product) => (product ? `${share(rate(product))} (${groupDigits(rate(product) / 1e9)})` : '–'))];
  });
  const means = passes.map((pass) => {
    const rates = products.filter((product) => product.pass === pass).map(rate);
    return share(rates.reduce((sum, each) => sum + each, 0) / rates.length);
  });
  return [
    `### ${preset}, batch ${batchSize}, ${precision}${peak ? `; peak ${formatCount(peak, 'FLOP/s')}` : ''}`,
    '',
    ...table(['rows × n × k', ...passes.map((pass) => `${pass}, of peak (GFLOP/s)`)], [...rows, ['mean', ...means]]),
  ];
}

function dataLines({ pictures, imageSize, workers, paths, steps }: NonNullable<BenchResult['data']>): string[] {
  const columns = ['path', 'pictures/s', ...steps.map(({ preset }) => `of what ${preset} takes`)];
  const rows = paths.map(({ name, picturesPerSecond }) => [
    name,
    groupDigits(picturesPerSecond),
    ...steps.map((step) => `${(picturesPerSecond / step.picturesPerSecond).toFixed(1)}×`),
  ]);
  const taken = steps.map(({ preset, picturesPerSecond }) => `${preset} ${formatRate(picturesPerSecond, 'pictures')}`).join(', ');
  return [
    `${pictures}; crops of ${imageSize} pixels, ${workers} workers. Training takes: ${taken || 'not measured in this run'}.`,
    '',
    ...table(columns, rows),
  ];
}

function scalingLines({ paper, paperEfficiency, curves }: Scaling): string[] {
  const check = table(
    ['Table 2', 'paper, hours', 'model', 'difference'],
    paper.map((row) => [
      `${row.preset} ${nameOf(row)}`,
      row.hours.toFixed(1),
      row.modelHours.toFixed(1),
      `${row.modelHours >= row.hours ? '+' : '−'}${Math.abs(100 * (row.modelHours / row.hours - 1)).toFixed(0)} %`,
    ]),
  );
  const lines = [
    `128 TPU v3 cores, 800 epochs; ${formatPercent(paperEfficiency)} of the roofline. The 119.6 hours are the paper's own estimate.`,
    '',
    ...check,
  ];
  for (const { preset, device, efficiency, source, points } of curves) {
    const [first] = points;
    const rows = points.map((point) => [
      point.devices,
      point.batchPerDevice,
      formatSeconds(point.stepSeconds),
      point.exposedSeconds > 0 ? formatSeconds(point.exposedSeconds) : '–',
      groupDigits(point.picturesPerSecond),
      formatPercent(first.stepSeconds / point.devices / point.stepSeconds),
      formatDuration(point.hours * 3600),
    ]);
    lines.push(
      `### ${preset} on ${device}: ${source}`,
      '',
      `Efficiency ${formatPercent(efficiency)} of the roofline; the paper's batch of 4096, 800 epochs of ImageNet-1K.`,
      '',
      ...table(['devices', 'batch each', 'step', 'of it waiting for gradients', 'pictures/s', 'of perfect', '800 epochs'], rows),
    );
  }
  return lines;
}
