/** AdamW (Loshchilov & Hutter 2019) with the reference's parameter groups. */
import { z } from 'zod';
import { MaeError } from '../errors';
import { describeIssues } from '../issues';
import type { Segment } from '../graph/store';
import type { Parameter } from '../graph/tensor';

export interface AdamWOptions {
  name?: 'adamw';
  /** Default [0.9, 0.95], the paper's for pre-training. */
  betas?: readonly [number, number];
  /** Default 1e-8. */
  eps?: number;
  /** Decoupled, on matrices and tokens; never on 1-D parameters and biases. Default 0.05. */
  weightDecay?: number;
}

export type AdamW = Required<Omit<AdamWOptions, 'name'>>;

const beta = z.number().gte(0).lt(1);
const schema = z.strictObject({
  name: z.literal('adamw').default('adamw'),
  betas: z.tuple([beta, beta]).default([0.9, 0.95]),
  eps: z.number().positive().default(1e-8),
  weightDecay: z.number().gte(0).default(0.05),
});

/** @throws MaeError MAE_ARGUMENT */
export function resolveAdamW(options: AdamWOptions = {}): AdamW {
  const parsed = schema.safeParse(options);
  if (!parsed.success) throw new MaeError('MAE_ARGUMENT', `optimizer: ${describeIssues(parsed.error, options, Object.keys(schema.shape))}`);
  const { betas, eps, weightDecay } = parsed.data;
  return { betas, eps, weightDecay };
}

/** The reference's rule: no decay on 1-D parameters and names ending in .bias; cls_token and mask_token are 3-D and ARE decayed. */
export function decays({ name, shape }: Pick<Parameter, 'name' | 'shape'>): boolean {
  return shape.length > 1 && !name.endsWith('.bias');
}

/** One row per parameter for the optimizer's table. */
export function segments(parameters: readonly Parameter[], weightDecay: number): Segment[] {
  return parameters.map((parameter) => ({ parameter, weightDecay: decays(parameter) ? weightDecay : 0, lrScale: 1 }));
}
