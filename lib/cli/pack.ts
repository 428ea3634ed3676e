/** `mae pack`: decode a folder of pictures once, into one file. */
import { SingleBar } from 'cli-progress';
import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import { pack } from '../data/pack';
import { formatBytes, formatDuration, formatRate, groupDigits } from '../format';

export function packCommand(program: Command): void {
  program
    .command('pack')
    .description('decode a folder of pictures once, into a file that `pretrain --data` reads')
    .argument('<folder>', 'folder of pictures')
    .requiredOption('--out <file>', 'the file to write, by convention *.maepack')
    .option('--size <pixels>', 'shrink so that the short side has at most so many pixels (256 suits --image-size 224)', positiveInteger)
    .action(async (folder: string, { out, size }: { out: string; size?: number }) => {
      const start = performance.now();
      const stop = new AbortController();
      const interrupt = (): void => stop.abort();
      process.once('SIGINT', interrupt);
      const bar = new SingleBar({ format: 'packing {bar} {value}/{total} {eta_formatted}', clearOnComplete: true });
      const onProgress = (done: number, total: number): void => {
        if (done === 1) bar.start(total, 0);
        bar.update(done);
      };
      const result = await pack(folder, out, { size, onProgress, signal: stop.signal }).finally(() => {
        bar.stop();
        process.removeListener('SIGINT', interrupt);
      });
      const seconds = (performance.now() - start) / 1000;
      const rate = formatRate(result.pictures / seconds, 'pictures');
      const broken = result.broken.length > 0 ? ` (${groupDigits(result.broken.length)} of them broken)` : '';
      console.log(
        `${out}: ${groupDigits(result.pictures)} pictures${broken}, ${formatBytes(result.bytes)}, in ${formatDuration(seconds)} (${rate})`,
      );
      for (const { path, reason } of result.broken) console.error(`warning: ${path} cannot be decoded and is marked as broken: ${reason}`);
    });
}

/** For commander: a whole number from 1. */
export function positiveInteger(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('needs a positive whole number.');
  return value;
}
