/** `mae check-data`: what is in a data set, before a long run finds out. */
import { SingleBar } from 'cli-progress';
import type { Command } from 'commander';
import { checkData } from '../data/check';
import type { CheckReport } from '../data/check';
import { formatBytes, formatPercent, formatRate, groupDigits } from '../format';
import { textTable } from '../view/table';
import { positiveInteger } from './pack';

const SHOWN = 20; // classes and broken files that are listed; --json has all

export function checkDataCommand(program: Command): void {
  program
    .command('check-data')
    .description('count, measure and decode the pictures of a folder or .maepack file; exit status 1 if any is broken')
    .argument('<path>', 'folder of pictures, or packed data set')
    .option('--image-size <pixels>', 'side of the pictures the model will be given', positiveInteger, 224)
    .option('--sample <count>', 'look at so many evenly spaced pictures instead of all', positiveInteger)
    .option('--json', 'print the whole report as JSON')
    .action(async (path: string, options: { imageSize: number; sample?: number; json?: boolean }) => {
      const bar = new SingleBar({ format: 'decoding {bar} {value}/{total} {eta_formatted}', clearOnComplete: true });
      const onProgress = (done: number, total: number): void => {
        if (done === 1) bar.start(total, 0);
        bar.update(done);
      };
      const report = await checkData(path, { imageSize: options.imageSize, sample: options.sample, onProgress }).finally(() => bar.stop());
      console.log(options.json ? JSON.stringify(report, undefined, 2) : formatReport(report));
      if (report.broken.length > 0) process.exitCode = 1;
    });
}

/** The report as aligned text. */
export function formatReport(report: CheckReport): string {
  const { converted, classes, broken } = report;
  const size = ([height, width]: [number, number]): string => `${width}x${height}`;
  const list = (counts: Record<string, number>): string =>
    Object.entries(counts)
      .filter(([, count]) => count > 0)
      .map(([name, count]) => `${groupDigits(count)} ${name}`)
      .join(', ');
  const { greyscale, cmyk, sixteenBit, alpha, rotated } = converted;
  const facts: [string, string][] = [
    [
      'pictures',
      groupDigits(report.pictures) + (report.checked < report.pictures ? ` (${groupDigits(report.checked)} of them checked)` : ''),
    ],
    ['classes', classes.length === 0 ? 'none (no sub-folders)' : groupDigits(classes.length)],
    ['formats', report.kind === 'packed' ? 'packed data set' : list(report.formats)],
    ['converted', list({ greyscale, CMYK: cmyk, '16-bit': sixteenBit, 'with alpha': alpha, 'rotated by EXIF': rotated }) || 'nothing'],
    ['smallest, largest', `${size(report.smallest)}, ${size(report.largest)} (width x height)`],
    ['mean', report.mean.map((value) => value.toFixed(4)).join('  ')],
    ['std', report.std.map((value) => value.toFixed(4)).join('  ')],
    [report.kind === 'packed' ? 'read' : 'decoded', formatRate(report.decodedPerSecond, 'pictures')],
    ['decoded size', `${formatBytes(report.decodedBytes)} (memory available: ${formatBytes(report.availableMemory)})`],
    ['broken', groupDigits(broken.length)],
    ['passed over', list(report.passedOver) || 'nothing'],
  ];
  const width = Math.max(...facts.map(([name]) => name.length));
  const sections = [`${report.path}\n${facts.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`).join('\n')}`];
  const readable = report.checked - broken.length;
  sections.push(
    textTable(
      [{ title: 'short side', align: 'left' }, 'pictures', 'share'],
      report.shortSides.map(({ from, to, pictures }) => [
        to === null ? `${from} and more` : `${from} – ${to - 1}`,
        groupDigits(pictures),
        formatPercent(pictures / readable),
      ]),
    ),
  );
  if (classes.length > 0) {
    const rows = classes.slice(0, SHOWN).map(({ name, pictures }) => [name, groupDigits(pictures)]);
    sections.push(textTable([{ title: 'class', align: 'left' }, 'pictures'], rows) + more(classes.length));
  }
  if (broken.length > 0) {
    sections.push(
      textTable(
        ['broken file', 'reason'],
        broken.slice(0, SHOWN).map(({ path, reason }) => [path, reason]),
      ) + more(broken.length),
    );
  }
  if (report.advice.length > 0) sections.push(report.advice.map((line) => `→ ${line}`).join('\n'));
  return sections.join('\n\n');
}

const more = (count: number): string => (count > SHOWN ? `\n… and ${groupDigits(count - SHOWN)} more (--json lists all)` : '');
