// Builds the native addon with node-gyp: build/Release/mae.node. `mae build` and scripts/setup.js call it.
'use strict';
const { spawnSync } = require('node:child_process');
const { existsSync, readdirSync, readFileSync, statSync, writeFileSync } = require('node:fs');
const { cpus } = require('node:os');
const path = require('node:path');
const { toolchain } = require('./toolchain');

const root = path.resolve(__dirname, '..');
const addon = path.join(root, 'build/Release/mae.node');
const stampFile = path.join(root, 'build/mae-build.json');

/** What the build was made for: another answer of the toolchain makes it stale. */
function stamp(found) {
  return JSON.stringify({ cuda: found.cuda, arches: found.cuda ? found.arches : [], node: process.versions.modules, arch: process.arch });
}

function newestSource(folder) {
  let time = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    time = Math.max(time, entry.isDirectory() ? newestSource(file) : statSync(file).mtimeMs);
  }
  return time;
}

function isStale(found) {
  if (!existsSync(addon) || !existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== stamp(found)) return true;
  const sources = ['native', 'cuda']
    .filter((folder) => existsSync(path.join(root, folder)))
    .map((folder) => newestSource(path.join(root, folder)));
  const files = ['binding.gyp', 'sources.gypi'].map((file) => statSync(path.join(root, file)).mtimeMs);
  return Math.max(...sources, ...files) > statSync(addon).mtimeMs;
}

/** Node's own headers where they lie beside its executable: then node-gyp downloads nothing. */
function headers() {
  const prefix = path.dirname(path.dirname(process.execPath));
  return existsSync(path.join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
}

/**
 * @param {{onlyIfStale?: boolean, verbose?: boolean}} options
 * @throws Error when a tool is missing or the compiler fails
 */
function build({ onlyIfStale = false, verbose = false } = {}) {
  const found = toolchain();
  if (onlyIfStale && !isStale(found)) return;
  console.log(`• building the native addon (about two minutes on two cores)\n  ${found.why}`);
  const nodeGyp = require.resolve('node-gyp/bin/node-gyp.js');
  const started = Date.now();
  const configured =
    existsSync(path.join(root, 'build/Makefile')) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp(found);
  const unchanged =
    configured &&
    ['binding.gyp', 'sources.gypi'].every(
      (file) => statSync(path.join(root, file)).mtimeMs < statSync(path.join(root, 'build/Makefile')).mtimeMs,
    );
  const commands = unchanged ? ['build'] : ['configure', 'build'];
  for (const command of commands) {
    const args = [
      nodeGyp,
      command,
      ...headers(),
      ...(verbose ? [] : ['--loglevel=error']),
      ...(command === 'build' ? [`--jobs=${cpus().length}`] : []),
    ];
    // Without --verbose make prints a line per file; those go to the error output only when the build fails.
    const result = spawnSync(process.execPath, args, {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', verbose ? 'inherit' : 'pipe', verbose ? 'inherit' : 'pipe'],
      maxBuffer: 1 << 28,
    });
    if (result.error || result.status !== 0) {
      if (!verbose) process.stderr.write(tail(`${result.stdout ?? ''}${result.stderr ?? ''}`));
      throw new Error(
        `node-gyp ${command} failed${result.error ? `: ${result.error.message}` : ''}: a C++17 compiler, make and Python 3 are needed (Debian: apt-get install build-essential python3)`,
      );
    }
  }
  writeFileSync(stampFile, stamp(found));
  console.log(`✓ built ${path.relative(root, addon)} in ${Math.round((Date.now() - started) / 1000)} s`);
}

function tail(text) {
  return `${text
    .split('\n')
    .filter((line) => !/^\s*(CXX|AR|TOUCH|COPY|LINK|SOLINK_MODULE|SOLINK)/.test(line))
    .slice(-80)
    .join('\n')}\n`;
}

module.exports = { build };

if (require.main === module) {
  try {
    build({ onlyIfStale: process.argv.includes('--if-stale'), verbose: process.argv.includes('--verbose') });
  } catch (error) {
    console.error(`✗ ${error.message}`);
    process.exit(1);
  }
}
