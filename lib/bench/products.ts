/** Every matrix product of a training step alone, without what a model adds to it (bias, GELU, residual): how near its kernel comes to the peak. */
import type { Trace } from '../graph/tape';
import { resolveConfig } from '../nn/config';
import { type PresetName, presets } from '../nn/presets';
import { type Product, productSeconds, type Runs } from './alone';
import { multiplyAddRate, peakOf, type Ceilings } from './ceilings';
import type { Context } from './context';
import { sketchStep } from './costs';
import type { Products } from './result';

/** Kernels of native/kernels.def whose work is one product, by what it gives. */
const PASSES: Readonly<Record<string, Product['pass']>> = {
  linear: 'forward',
  linear_grad_input: 'input gradient',
  linear_grad_weight: 'weight gradient',
};
/** All products and, on a CPU, the peak take turns, so that a change of the clock rate or a neighbour's load meets all alike. */
const ROUNDS = { quick: 2, full: 5 };
const RUNS: Runs = { least: 3, most: 40, seconds: 0.25 };

/** @param runs  of each product in a round */
export function measureProducts(context: Context, ceilings: Ceilings, preset: PresetName, runs: Runs = RUNS): Products {
  const { device, precision, full } = context;
  const batchSize = context.batchOf(preset);
  const products = productsOf(sketchStep(resolveConfig(presets[preset]), batchSize, precision, device.kind));
  const seconds = products.map(() => Infinity);
  let peak = peakOf(ceilings, precision);
  for (let round = 0; round < ROUNDS[full ? 'full' : 'quick']; ++round) {
    products.forEach((product, i) => {
      if (device.kind === 'cpu') peak = Math.max(peak ?? 0, multiplyAddRate(device, precision, runs));
      seconds[i] = Math.min(seconds[i], productSeconds(product, device, precision, runs));
    });
  }
  return { preset, precision, batchSize, peak, products: products.map((product, i) => ({ ...product, seconds: seconds[i] })) };
}

/** The products of a trace, each size once, in the order of their kernels and sizes. */
function productsOf(trace: Trace): Product[] {
  const found = new Map<string, Product>();
  for (const { kernel, dims } of trace.launches) {
    if (kernel in PASSES)
      found.set([kernel, dims.rows, dims.n, dims.k].join(), { pass: PASSES[kernel], rows: dims.rows, n: dims.n, k: dims.k });
  }
  const order = Object.values(PASSES);
  return [...found.values()].sort((a, b) => order.indexOf(a.pass) - order.indexOf(b.pass) || a.rows - b.rows || a.n - b.n || a.k - b.k);
}
