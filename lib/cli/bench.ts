/** `mae bench`: what masking saves on this machine, beside PyTorch and the machine's own limits. */
import path from 'node:path';
import { Command, Option } from 'commander';
import { compareReport } from '../bench/compare';
import { reportOf } from '../bench/report';
import { readResult } from '../bench/result';
import { bench, type BenchOptions, parseSections, sections, writeResult } from '../bench/suite';
import { MaeError } from '../errors';
import { type PresetName, presets } from '../nn/presets';
import { positiveInteger } from './pack';

interface Flags extends Omit<BenchOptions, 'only' | 'presets' | 'say'> {
  only?: string;
  preset?: string;
  out?: string;
  compare?: [string, string];
}

export function benchCommand(program: Command): void {
  program
    .command('bench')
    .description(
      'measure what masking saves, how this compares with PyTorch and with the limits of the machine (quick: under three minutes)',
    )
    .option('--full', 'every point, more rounds, larger models: tens of minutes')
    .option('--only <sections>', `comma-separated: ${sections.join(', ')}`)
    .option('--preset <names>', `comma-separated: ${Object.keys(presets).join(', ')}`)
    .option('--batch-size <pictures>', 'default: by model and device', positiveInteger)
    .option('--device <device>', 'auto, cpu, cuda or cuda:<number>', 'auto')
    .addOption(new Option('--precision <precision>', 'default: bf16 on CUDA, fp32 on the CPU').choices(['fp32', 'bf16']))
    .option('--data <folder>', 'your pictures for the loading paths; default: pictures made for the occasion')
    .option('--python <program>', 'the Python that has PyTorch; default: MAE_PYTHON, python3, /usr/bin/python3')
    .option('--from <file>', "result.json of a GPU's run, to feed the scaling model")
    .option('--out <folder>', 'for result.json, report.md and charts; default runs/bench-<date>')
    .option('--compare <files...>', 'measure nothing: say which differences of two result.json exceed the noise')
    .action(async ({ compare, only, preset, out, ...flags }: Flags) => {
      if (compare) {
        if (compare.length !== 2) {
          throw new MaeError('MAE_ARGUMENT', `bench --compare needs two result.json files, before and after, got ${compare.length}`);
        }
        console.log(compareReport(readResult(compare[0]), readResult(compare[1])));
        return;
      }
      const say = (line: string): void => console.error(`• ${line}`);
      const result = await bench({
        ...flags,
        only: only ? parseSections(only) : undefined,
        presets: preset ? parsePresets(preset) : undefined,
        say,
      });
      const folder = out ?? path.join('runs', `bench-${result.started.slice(0, 16).replace(/[T:]/g, '-')}`);
      await writeResult(result, folder);
      console.log(reportOf(result));
      console.log(`written: ${path.join(folder, 'report.md')}, result.json and charts`);
    });
}

function parsePresets(list: string): PresetName[] {
  return list.split(',').map((name) => {
    if (Object.hasOwn(presets, name)) return name as PresetName;
    throw new MaeError('MAE_ARGUMENT', `bench: there is no preset '${name}'; there are ${Object.keys(presets).join(', ')}`);
  });
}
