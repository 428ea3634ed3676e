/** Flags of the pre-training options, made from their schema: one name, one description, one check for API, file and command line. */
import type { Command } from 'commander';
import { z } from 'zod';
import { MaeError } from '../errors';
import { pretrainSchema, type PretrainOptions, readConfigFile } from '../train/options';

type Field = { key: string; type?: string; description: string };

function fields(): Field[] {
  return Object.entries(pretrainSchema.shape).map(([key, type]) => {
    const json = z.toJSONSchema(type as z.ZodType, { unrepresentable: 'any' }) as {
      type?: string;
      default?: unknown;
      enum?: unknown[];
      description?: string;
    };
    const choices = json.enum?.length ? `one of ${json.enum.join(', ')}` : '';
    const fallback = json.default === undefined ? '' : `default ${JSON.stringify(json.default)}`;
    const description = [json.description ?? '', choices, fallback].filter(Boolean).join('; ');
    return { key, type: json.type, description };
  });
}

const flagOf = (key: string): string => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Adds a flag for every option, named like the reference's: --mask-ratio, --norm-pix-loss, --accum-iter. */
export function addPretrainFlags(command: Command): void {
  for (const { key, type, description } of fields()) {
    if (type === 'boolean') command.option(flagOf(key), description).option(flagOf(key).replace('--', '--no-'), `not ${flagOf(key)}`);
    else command.option(`${flagOf(key)} <value>`, description);
  }
}

/**
 * Options from a configuration file and flags; flags win.
 * @throws MaeError MAE_CONFIG
 */
export function collectOptions(
  flags: Readonly<Record<string, unknown>>,
  command: Command,
  base: Record<string, unknown> = {},
): PretrainOptions {
  const given: Record<string, unknown> = { ...base, ...(typeof flags.config === 'string' ? readConfigFile(flags.config) : {}) };
  for (const { key, type } of fields()) {
    if (command.getOptionValueSource(key) !== 'cli') continue;
    const value = type === 'boolean' || type === 'string' ? flags[key] : parseValue(String(flags[key]));
    given[key] = type === 'array' && typeof value === 'number' ? [value] : value; // --mean 0.5 for one channel
  }
  if (given.data === undefined) {
    throw new MaeError('MAE_CONFIG', 'pretrain needs --data <folder of pictures>; `mae demo` runs on pictures of its own');
  }
  return given as PretrainOptions;
}

/** "0.75" a number, "0.2,1" a list, "160x224" a size, true/false, else text. */
export function parseValue(text: string): unknown {
  const number = (part: string): number | undefined => (part.trim() !== '' && Number.isFinite(Number(part)) ? Number(part) : undefined);
  if (number(text) !== undefined) return number(text);
  if (text === 'true' || text === 'false') return text === 'true';
  const parts = text.split(/^\d+x\d+$/.test(text) ? 'x' : ',').map(number);
  return parts.length > 1 && parts.every((part) => part !== undefined) ? parts : text;
}
