/** `mae build`: compiles the native addon on this machine. */
import path from 'node:path';
import type { Command } from 'commander';
import { MaeError } from '../errors';

export function buildCommand(program: Command): void {
  program
    .command('build')
    .description('compile the native addon; MAE_CUDA=0|1 leaves CUDA out or forces it, MAE_CUDA_ARCH="80;90a" names GPUs')
    .option('--verbose', "show the compiler's own lines")
    .option('--if-stale', 'do nothing when the addon is newer than its sources')
    .action(({ verbose, ifStale }: { verbose?: boolean; ifStale?: boolean }) => {
      // eslint-disable-next-line @typescript-eslint/no-require-imports -- plain JavaScript, so that it runs before anything is compiled
      const { build } = require(path.join(__dirname, '../../scripts/build.js')) as {
        build(options: { verbose?: boolean; onlyIfStale?: boolean }): void;
      };
      try {
        build({ verbose, onlyIfStale: ifStale });
      } catch (error) {
        throw new MaeError('MAE_NOT_BUILT', (error as Error).message, { cause: error });
      }
    });
}
