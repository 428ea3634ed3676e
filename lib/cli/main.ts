/** `mae`: the command line. One file per command; errors that a user can cause are one readable message, never a stack. */
import { Command } from 'commander';
import { MaeError } from '../errors';
import { packageVersion } from '../train/summary';
import { benchCommand } from './bench';
import { buildCommand } from './build';
import { checkDataCommand } from './check-data';
import { convertCommand } from './convert';
import { demoCommand } from './demo';
import { doctorCommand } from './doctor';
import { knnCommand } from './knn';
import { packCommand } from './pack';
import { pretrainCommand } from './pretrain';
import { reconstructCommand } from './reconstruct';

/** Exit codes: 1 an error, 130 stopped by Ctrl-C. */
export async function main(argv: readonly string[]): Promise<void> {
  const program = new Command('mae')
    .description('Pre-train masked autoencoders (He et al. 2021) on pictures.')
    .version(packageVersion())
    .showHelpAfterError('(--help lists the options)');
  for (const command of [
    pretrainCommand,
    reconstructCommand,
    checkDataCommand,
    packCommand,
    convertCommand,
    knnCommand,
    demoCommand,
    benchCommand,
    doctorCommand,
    buildCommand,
  ]) {
    command(program);
  }
  try {
    await program.parseAsync(argv);
  } catch (error) {
    report(error);
  }
}

function report(error: unknown): void {
  if (!(error instanceof MaeError)) throw error;
  if (error.code === 'MAE_INTERRUPTED') {
    console.error('stopped');
    process.exitCode = 130;
    return;
  }
  console.error(`error (${error.code}): ${error.message}`);
  if (process.env.MAE_DEBUG && error.stack) console.error(error.stack);
  process.exitCode = 1;
}
