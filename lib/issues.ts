/** What a schema found wrong with a user's options, in words: the option, what it needs, what it got. */
import type { z } from 'zod';
import { MaeError } from './errors';

/**
 * One line for each wrong option, such as `maskRatio: expected number to be <1, got 1.5`.
 * @param given  what was checked, for the values
 * @param known  all option names, for "did you mean"
 */
export function describeIssues(error: z.ZodError, given: unknown, known: readonly string[]): string {
  const lines = error.issues.flatMap((issue) => {
    if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => unknownOption(key, known));
    const value = issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], given);
    const need = issue.message.replace(/^(Invalid (input|option)|Too (big|small)): /, '').replace(/, received .*/, '');
    const name = issue.path.map((key) => (typeof key === 'number' ? `[${key}]` : String(key))).join('');
    return `${name ? `${name}: ` : ''}${need}, got ${inWords(value)}`;
  });
  return lines.join('\n');
}

/**
 * Refuses option names that a call does not have, which would change nothing without a word.
 * @param known  all names that there are; the type keeps them in step with the options' interface
 * @throws MaeError MAE_ARGUMENT
 */
export function checkNames<T extends object>(call: string, options: T, known: Record<keyof NoInfer<T>, true>): void {
  if (typeof options !== 'object' || options === null) {
    throw new MaeError('MAE_ARGUMENT', `${call}: options must be an object, got ${inWords(options)}`);
  }
  const names = Object.keys(known);
  const unknown = Object.keys(options).filter((name) => !names.includes(name));
  if (unknown.length > 0) throw new MaeError('MAE_ARGUMENT', `${call}: ${unknown.map((name) => unknownOption(name, names)).join('\n')}`);
}

function unknownOption(key: string, known: readonly string[]): string {
  const near = nearest(key, known);
  return `${key}: no such option${near ? `, did you mean ${near}?` : ''}`;
}

function inWords(value: unknown): string {
  if (value === undefined) return 'nothing';
  return typeof value === 'number' ? String(value) : JSON.stringify(value);
}

/** The known name at most two edits away, by any of the usual spellings. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const plain = (text: string): string => text.replace(/[-_]/g, '').toLowerCase();
  const distance = (a: string, b: string): number => {
    let row = Array.from({ length: b.length + 1 }, (_, j) => j);
    for (let i = 1; i <= a.length; i++) {
      const next = [i];
      for (let j = 1; j <= b.length; j++) next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + Number(a[i - 1] !== b[j - 1]));
      row = next;
    }
    return row[b.length];
  };
  const [best] = known
    .map((candidate) => ({ candidate, edits: distance(plain(name), plain(candidate)) }))
    .sort((a, b) => a.edits - b.edits);
  return best.edits <= 2 ? best.candidate : undefined;
}
