// Which CUDA kernels ran on the emulator: node scripts/emulated-kernels.js <addon> <what MAE_EMULATE_RAN named> [report]
// Fails where a __global__ function of cuda/ never ran in any instantiation. Without a report, which counts as one test, the instantiations
// that never ran are listed.
'use strict';
const { execFileSync } = require('node:child_process');
const { readFileSync, readdirSync, writeFileSync } = require('node:fs');
const path = require('node:path');

const [addon, file, report] = process.argv.slice(2);
const neverLaunched = ['probe_kernel']; // cuda/device.cu asks the driver about it

/** The names of the __global__ functions in a source. */
function kernelsIn(text) {
  return text
    .split(/__global__ void\s+/)
    .slice(1)
    .map((rest) => {
      let at = 0;
      if (rest.startsWith('__launch_bounds__')) {
        let depth = 0;
        do {
          if (rest[at] === '(') depth++;
          if (rest[at] === ')') depth--;
        } while (rest[at++] !== ')' || depth > 0);
      }
      return /\w+/.exec(rest.slice(at))[0];
    });
}

const folder = path.join(__dirname, '../cuda');
const sources = readdirSync(folder).filter((name) => /\.cuh?$/.test(name));
const names = sources.flatMap((source) => kernelsIn(readFileSync(path.join(folder, source), 'utf8')));
const ran = new Set(readFileSync(file, 'utf8').split('\n'));

const instances = new Map(names.map((name) => [name, []]));
for (const line of execFileSync('nm', ['-C', addon], { encoding: 'utf8', maxBuffer: 1 << 28 }).split('\n')) {
  const [, address, symbol] = /^0*(\w+) [tTwW] (.*)$/.exec(line) ?? [];
  const name = symbol && /(?:mae::cuda::(?:\(anonymous namespace\)::)?)(\w+)[<(]/.exec(symbol)?.[1];
  if (instances.has(name) && !/\[clone|\{lambda/.test(symbol)) instances.get(name).push({ symbol, ran: ran.has(address) });
}

const idle = [...instances].filter(([name, all]) => !neverLaunched.includes(name) && !all.some(({ ran }) => ran)).map(([name]) => name);
const all = [...instances].flatMap(([name, list]) => (neverLaunched.includes(name) ? [] : list));
const missing = all.filter(({ ran }) => !ran);
const count = instances.size - neverLaunched.length;
console.log(
  `${idle.length === 0 ? '✓' : '✗'} CUDA emulated: ${count - idle.length} of ${count} kernels ran, in ` +
    `${all.length - missing.length} of ${all.length} instantiations${idle.map((name) => `; ${name} never`).join('')}`,
);
if (report) writeFileSync(report, JSON.stringify({ numPassedTests: idle.length === 0 ? 1 : 0, numFailedTests: idle.length === 0 ? 0 : 1 }));
else for (const { symbol } of missing) console.log(`  never: ${symbol.replace(/^void |mae::cuda::|\(anonymous namespace\)::/g, '')}`);
process.exit(idle.length === 0 ? 0 : 1);
