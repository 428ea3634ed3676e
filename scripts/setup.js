// Everything from a bare clone to something that runs: npm packages, the compiled TypeScript, the addon. Does only what is not done yet,
// and needs nothing but Node itself to start. `npm run demo`, `npm test` and `npm run build` begin with it. `--pack`, before `npm pack` and
// `npm publish`: TypeScript alone, from an empty dist, for what was compiled from sources that are gone must not be published.
'use strict';
const { spawnSync } = require('node:child_process');
const { existsSync, readdirSync, rmSync, statSync } = require('node:fs');
const path = require('node:path');

const root = path.resolve(__dirname, '..');
const packs = process.argv.includes('--pack');

function step(what, command, args, options = {}) {
  console.log(`• ${what}`);
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (error || status !== 0) {
    console.error(
      `✗ ${what} failed${error ? `: ${error.message}` : ''}. The lines above say why; \`node bin/mae.js doctor\` explains this machine.`,
    );
    process.exit(status || 1);
  }
}

function newest(folder, pattern) {
  let time = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) time = Math.max(time, newest(file, pattern));
    else if (pattern.test(entry.name)) time = Math.max(time, statSync(file).mtimeMs);
  }
  return time;
}

const timeOf = (file) => (existsSync(path.join(root, file)) ? statSync(path.join(root, file)).mtimeMs : 0);

function packages() {
  if (
    timeOf('node_modules/.package-lock.json') >= timeOf('package-lock.json') - 1000 &&
    existsSync(path.join(root, 'node_modules/bindings'))
  )
    return;
  // Not `npm ci`: it insists on lock entries for the optional binaries of every platform, which not every registry mirror serves.
  step('installing npm packages', 'npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error']);
}

function typescript() {
  if (packs) rmSync(path.join(root, 'dist'), { recursive: true, force: true });
  const sources = Math.max(newest(path.join(root, 'lib'), /\.ts$/), timeOf('tsconfig.json'));
  if (timeOf('dist/index.js') > sources) return;
  step('compiling TypeScript', process.execPath, [path.join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.json']);
}

packages();
typescript();
if (!packs) require('./build').build({ onlyIfStale: true });
