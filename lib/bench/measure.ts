/** Times several models against each other: together in memory and in turns if they fit, else one after the other. */
import { freeMemory, type Precision } from '../graph/device';
import { type MaeConfig, numPatches, numVisible, type MaeOptions, resolveConfig } from '../nn/config';
import { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import { formatBytes } from '../format';
import { alternate } from './alternate';
import { budgetOf, type Context } from './context';
import { type Costs, memoryOfStep } from './costs';
import { type Timing, timingOf } from './result';
import { type Phase, Workload } from './workload';

export interface Point {
  readonly options: MaeOptions;
  readonly batchSize: number;
}

export interface Measured {
  readonly config: MaeConfig;
  readonly batchSize: number;
  readonly parameters: number;
  readonly memoryBytes: number;
  readonly forwardCosts: Costs;
  readonly stepCosts: Costs | undefined;
  /** Of the phases that were asked for; no backward and step at mask ratio 0. */
  readonly times: Partial<Record<Phase, Timing>>;
}

/** Share of the free memory that the estimate, which knows nothing of workspaces, may fill. */
const USABLE = 0.8;

/**
 * @param seconds  of a quick run, for all points together
 * @returns one entry for each point, undefined where a point alone is too large for the device (noted in the result)
 */
export async function measure(
  context: Context,
  points: readonly Point[],
  phases: readonly Phase[],
  seconds: number,
): Promise<{ alternated: boolean; measured: (Measured | undefined)[] }> {
  if (fits(context, points)) return { alternated: true, measured: await measureGroup(context, points, phases, seconds) };
  const measured: (Measured | undefined)[] = [];
  for (const point of points) {
    if (fits(context, [point])) measured.push(...(await measureGroup(context, [point], phases, seconds / points.length)));
    else {
      const { batchSize, options } = point;
      const { store, program } = memoryOf(context, point);
      const what = `batch ${batchSize} of a model ${resolveConfig(options).embedDim} wide`;
      context.note(`${what} needs ${formatBytes(store + program)} of memory: left out`);
      measured.push(undefined);
    }
  }
  return { alternated: false, measured };
}

async function measureGroup(context: Context, points: readonly Point[], phases: readonly Phase[], seconds: number): Promise<Measured[]> {
  using models = new Models(context);
  const workloads = points.map(({ options, batchSize }) => {
    const config = resolveConfig(options);
    return new Workload(models.of(config), { batchSize, maskRatio: config.maskRatio });
  });
  const subjects = workloads.flatMap((workload, i) =>
    phasesOf(workload.config, phases).map((phase) => ({ i, phase, run: () => workload.sample(phase) })),
  );
  const samples = await alternate(subjects, budgetOf(context, seconds));
  const measured = workloads.map((workload, i): Measured => {
    const times: Partial<Record<Phase, Timing>> = {};
    subjects.forEach((subject, j) => {
      if (subject.i === i) times[subject.phase] = timingOf(samples[j]);
    });
    const { config, batchSize, memoryBytes, forwardCosts, stepCosts } = workload;
    return { config, batchSize, parameters: models.of(config).parameterCount, memoryBytes, forwardCosts, stepCosts, times };
  });
  for (const workload of workloads) workload.dispose();
  return measured;
}

function phasesOf(config: MaeConfig, phases: readonly Phase[]): readonly Phase[] {
  return numVisible(config) < numPatches(config) ? phases : phases.filter((phase) => phase === 'forward');
}

function fits(context: Context, points: readonly Point[]): boolean {
  const stores = new Map(points.map((point) => [modelKey(resolveConfig(point.options)), memoryOf(context, point).store]));
  const programs = points.reduce((sum, point) => sum + memoryOf(context, point).program, 0);
  const total = [...stores.values()].reduce((sum, bytes) => sum + bytes, programs);
  return total < USABLE * freeMemory(context.device.kind, context.device.handle);
}

function memoryOf({ precision, device }: { precision: Precision; device: Context['device'] }, { options, batchSize }: Point) {
  return memoryOfStep(resolveConfig(options), batchSize, precision, device.kind);
}

/** Models that differ in the mask ratio alone are one model. */
function modelKey(config: MaeConfig): string {
  return JSON.stringify({ ...config, maskRatio: 0 });
}

/** Models by their sizes, opened at first use. */
class Models implements Disposable {
  private readonly models = new Map<string, MaskedAutoencoder>();

  constructor(private readonly context: Context) {}

  of(config: MaeConfig): MaskedAutoencoder {
    const key = modelKey(config);
    const { device, precision } = this.context;
    const model = this.models.get(key) ?? new MaskedAutoencoder({ ...config, device: device.id, precision });
    this.models.set(key, model);
    return model;
  }

  [Symbol.dispose](): void {
    for (const model of this.models.values()) model.dispose();
  }
}
