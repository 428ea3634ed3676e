/** What a weights file has of what a model needs. */
import { MaeError } from '../errors';
import { isDecoderName } from './names';

export interface WeightsReport {
  /** Names that the file has in the model's shape. */
  loaded: string[];
  /** Names that the model needs and the file lacks. */
  missing: string[];
  /** Names of the file that the model does not have. */
  unexpected: string[];
  /** Names that both have, in different shapes. */
  mismatched: { name: string; expected: readonly number[]; got: readonly number[] }[];
}

/** The one line for a file without a decoder: the most asked question about published MAE weights. */
export const encoderOnlyMessage = 'encoder only: the decoder starts from its initialisation';

/**
 * Compares the tensors of a file with those that a model has, both by reference names.
 *
 * @param expected  shapes of the model's parameters
 */
export function compareWeights(
  expected: ReadonlyMap<string, readonly number[]>,
  tensors: ReadonlyMap<string, { shape: readonly number[] }>,
): WeightsReport {
  const report: WeightsReport = { loaded: [], missing: [], unexpected: [], mismatched: [] };
  for (const [name, shape] of expected) {
    const got = tensors.get(name)?.shape;
    if (!got) report.missing.push(name);
    else if (String(got) === String(shape)) report.loaded.push(name);
    else report.mismatched.push({ name, expected: shape, got });
  }
  for (const name of tensors.keys()) if (!expected.has(name)) report.unexpected.push(name);
  return report;
}

/** Whether all that is missing is the decoder, and all of it. */
export function isEncoderOnly({ loaded, missing }: WeightsReport): boolean {
  return missing.length > 0 && missing.every(isDecoderName) && !loaded.some(isDecoderName);
}

/** The report in words, a line for each kind of difference; empty when file and model agree. */
export function describeWeights(report: WeightsReport): string[] {
  const lines: string[] = [];
  if (isEncoderOnly(report)) lines.push(encoderOnlyMessage);
  else if (report.missing.length) lines.push(`missing in the file: ${list(report.missing)}`);
  if (report.unexpected.length) lines.push(`unknown to the model, left out: ${list(report.unexpected)}`);
  if (report.mismatched.length) {
    const shapes = report.mismatched.map(({ name, expected, got }) => `${name} is [${got}], the model has [${expected}]`);
    lines.push(`wrong shape: ${list(shapes)}`);
  }
  return lines;
}

/**
 * Throws unless the file can be loaded: every shape fits and nothing is missing, or only the whole decoder is.
 *
 * @param path  the file, for the message
 * @throws MaeError MAE_CHECKPOINT
 */
export function requireLoadable(report: WeightsReport, path: string): void {
  const complete = report.missing.length === 0 || isEncoderOnly(report);
  if (complete && report.mismatched.length === 0) return;
  const positions = report.mismatched.every(({ name }) => name.endsWith('pos_embed'));
  const advice =
    report.mismatched.length && complete && positions
      ? 'the weights are of another picture size: resize the position tables (interpolatePosEmbed) or use their size'
      : 'choose the preset and sizes that the weights were made with';
  throw new MaeError('MAE_CHECKPOINT', `${path} does not fit this model: ${describeWeights(report).join('; ')}. What to do: ${advice}`);
}

function list(names: readonly string[]): string {
  const most = 6;
  const shown = names.slice(0, most).join(', ');
  return names.length > most ? `${shown} and ${names.length - most} more` : shown;
}
