// Checks types, runs jest and ends with its summary and one plain line. Arguments go to jest: `node scripts/test.js test/parity.test.ts`.
'use strict';
const { spawnSync } = require('node:child_process');
const { mkdtempSync, readFileSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');

const root = path.resolve(__dirname, '..');
const run = (file, args) => spawnSync(process.execPath, [path.join(root, file), ...args], { cwd: root, stdio: 'inherit' }).status ?? 1;

console.log('• checking types');
const types = run('node_modules/typescript/bin/tsc', ['-p', 'tsconfig.test.json']);

const folder = mkdtempSync(path.join(tmpdir(), 'mae-test-'));
const report = path.join(folder, 'jest.json');
const jest = run('node_modules/jest/bin/jest.js', ['--json', `--outputFile=${report}`, ...process.argv.slice(2)]);
let counts = { numPassedTests: 0, numFailedTests: 1, numPendingTests: 0, numFailedTestSuites: 0 };
try {
  counts = JSON.parse(readFileSync(report, 'utf8'));
} catch {
  console.error('✗ jest left no report');
}
rmSync(folder, { recursive: true, force: true });
// A file that does not even load has no tests to fail: it counts as one.
const failed = counts.numFailedTests || counts.numFailedTestSuites || (types !== 0 ? 1 : 0);
if (types !== 0) console.error('✗ the types do not check: the lines at the top say where');
console.log(`${counts.numPassedTests} passed, ${failed} failed${counts.numPendingTests ? `, ${counts.numPendingTests} skipped` : ''}`);
process.exit(types || jest);
