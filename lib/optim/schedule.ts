/** Learning-rate schedules: functions of the fractional epoch, (step / steps per epoch), asked before every optimizer step. */
import { MaeError } from '../errors';
import { checkNames } from '../issues';

/** Learning rate at a fractional epoch ≥ 0. */
export type Schedule = (epoch: number) => number;

export interface LearningRate {
  /** The learning rate itself. Either this or `blr`. */
  lr?: number;
  /** Base learning rate, per 256 pictures of `effectiveBatch`. */
  blr?: number;
  /** Pictures per optimizer step: batch · accumulation · processes. Needed with `blr`. */
  effectiveBatch?: number;
}

export interface CosineOptions extends LearningRate {
  /** At their end the rate is `minLr`. */
  epochs: number;
  /** Epochs of linear rise from 0; default 0. */
  warmupEpochs?: number;
  /** Default 0. */
  minLr?: number;
}

/**
 * The peak learning rate: `lr`, or by the linear scaling rule blr · effectiveBatch / 256 (Goyal et al. 2017; paper, appendix A).
 *
 * @throws MaeError MAE_ARGUMENT unless exactly one of `lr` and `blr` is given, both positive
 */
export function peakLearningRate({ lr, blr, effectiveBatch }: LearningRate): number {
  if ((lr === undefined) === (blr === undefined)) throw invalid(`give either lr or blr, got ${lr === undefined ? 'neither' : 'both'}`);
  if (lr !== undefined) return positive('lr', lr);
  if (effectiveBatch === undefined) throw invalid('blr needs effectiveBatch, the pictures per optimizer step');
  return (positive('blr', blr!) * positive('effectiveBatch', effectiveBatch)) / 256;
}

/**
 * Linear warm-up, then half a cosine (paper, table 8). With peak p, warm-up w and E epochs, at the fractional epoch e:
 * p·e/w before w; then minLr + (p − minLr)·½·(1 + cos(π·(e − w)/(E − w))); minLr after E.
 *
 * @throws MaeError MAE_ARGUMENT
 */
export function cosineSchedule(options: CosineOptions): Schedule {
  checkNames('cosineSchedule', options, { lr: true, blr: true, effectiveBatch: true, epochs: true, warmupEpochs: true, minLr: true });
  const peak = peakLearningRate(options);
  const { epochs, warmupEpochs: warmup = 0, minLr = 0 } = options;
  positive('epochs', epochs);
  if (!(warmup >= 0 && warmup <= epochs)) throw invalid(`warmupEpochs must lie between 0 and epochs (${epochs}), got ${warmup}`);
  if (!(minLr >= 0 && minLr <= peak)) throw invalid(`minLr must lie between 0 and the peak learning rate (${peak}), got ${minLr}`);
  return (epoch) => {
    if (epoch < warmup) return (peak * epoch) / warmup;
    if (epoch >= epochs) return minLr;
    return minLr + (peak - minLr) * 0.5 * (1 + Math.cos((Math.PI * (epoch - warmup)) / (epochs - warmup)));
  };
}

/** The same learning rate always. @throws MaeError MAE_ARGUMENT */
export function constantSchedule(rate: LearningRate): Schedule {
  checkNames('constantSchedule', rate, { lr: true, blr: true, effectiveBatch: true });
  const lr = peakLearningRate(rate);
  return () => lr;
}

function positive(name: string, value: number): number {
  if (!(Number.isFinite(value) && value > 0)) throw invalid(`${name} must be a positive number, got ${value}`);
  return value;
}

function invalid(what: string): MaeError {
  return new MaeError('MAE_ARGUMENT', `learning-rate schedule: ${what}`);
}
