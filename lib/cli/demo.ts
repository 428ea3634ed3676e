/** `mae demo`: the whole job on pictures of its own, in minutes and without a GPU. */
import { type Command, InvalidArgumentError } from 'commander';
import { runDemo, type DemoResult } from '../demo/demo';
import { formatDuration } from '../format';
import { interruptible } from './interrupt';
import { positiveInteger } from './pack';

interface Flags {
  data?: string;
  out: string;
  minutes: number;
  epochs?: number;
  pictures: number;
  seed: number;
  device: string;
}

export function demoCommand(program: Command): void {
  program
    .command('demo')
    .description('draw some pictures, train a small model on them for a few minutes on any machine, and show what it makes of new ones')
    .option('--data <folder>', 'your own pictures instead (a folder or a .maepack file)')
    .option('--out <folder>', 'run folder; if it is not empty, a new one beside it', 'runs/demo')
    .option('--minutes <minutes>', 'for all of it; a slow machine sees fewer pictures in them', positiveNumber, 4.5)
    .option('--epochs <count>', 'so many, however long they take, instead of as many as fit into the minutes', positiveInteger)
    .option('--pictures <count>', 'how many to draw for training', positiveInteger, 3500)
    .option('--seed <number>', 'of pictures, weights and masks', wholeNumber, 0)
    .option('--device <device>', 'auto, cpu, cuda or cuda:<number>', 'auto')
    .action(async (flags: Flags) => {
      const started = performance.now();
      using interrupt = interruptible((line) => process.stderr.write(`\n${line}\n`));
      const result = await runDemo({ ...flags, signal: interrupt.signal, say: (line) => console.log(line) });
      console.log(`\n${endings[result.ended]} after ${formatDuration((performance.now() - started) / 1000)}`);
      describe(result, flags);
      if (result.ended === 'interrupted') process.exitCode = interrupt.exitCode();
    });
}

const endings: Record<DemoResult['ended'], string> = {
  done: 'done',
  'max-steps': 'done',
  'max-minutes': 'out of time (the machine was slower than at first; the learning rate had not reached zero)',
  interrupted: 'stopped',
};

/** What to look at, and what to do next. */
function describe(result: DemoResult, { data }: Flags): void {
  const lines: [file: string | undefined, what: string][] = [
    [
      result.grid,
      `masked | reconstruction | original${result.validationLoss === undefined ? '' : ', of pictures that were not trained on'}`,
    ],
    [result.ladder, 'half, three quarters and nine tenths of the patches masked'],
    [`${result.out}/reconstructions`, 'the same in the course of training'],
    [result.curve, 'the loss'],
    [`${result.checkpoint}/model.safetensors`, 'the weights'],
  ];
  const shown = lines.filter((line): line is [string, string] => line[0] !== undefined);
  const width = Math.max(...shown.map(([file]) => file.length));
  console.log('look at');
  for (const [file, what] of shown) console.log(`  ${file.padEnd(width)}  ${what}`);
  console.log('next');
  if (!data) console.log('  npx mae demo --data path/to/your/pictures       the same on your own pictures');
  console.log(`  npx mae pretrain --data ${data ?? 'path/to/your/pictures'} --preset vit-tiny/16 --recipe single-machine --out runs/mine`);
}

function positiveNumber(text: string): number {
  const value = Number(text);
  if (!(Number.isFinite(value) && value > 0)) throw new InvalidArgumentError('needs a positive number.');
  return value;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff)
    throw new InvalidArgumentError('needs a whole number from 0 to 4294967295.');
  return value;
}
