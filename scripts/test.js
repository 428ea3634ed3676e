// Checks types, runs jest and ends with its summary and one plain line. Arguments go to jest: `node scripts/test.js test/parity.test.ts`.
// MAE_TEST_REPORTS: a folder with jest's reports of tests that ran before (scripts/emulate-cuda.sh); the last line counts them as well.
'use strict';
const { spawnSync } = require('node:child_process');
const { mkdtempSync, readdirSync, readFileSync, rmSync } = require('node:fs');
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
const failedIn = ({ numFailedTests, numFailedTestSuites = 0 }) => numFailedTests || numFailedTestSuites;
const earlier = process.env.MAE_TEST_REPORTS
  ? readdirSync(process.env.MAE_TEST_REPORTS).map((file) => JSON.parse(readFileSync(path.join(process.env.MAE_TEST_REPORTS, file), 'utf8')))
  : [];
const failedEarlier = earlier.reduce((sum, one) => sum + failedIn(one), 0);
const failed = (failedIn(counts) || (types !== 0 ? 1 : 0)) + failedEarlier;
const passed = earlier.reduce((sum, { numPassedTests }) => sum + numPassedTests, counts.numPassedTests);
if (types !== 0) console.error('✗ the types do not check: the lines at the top say where');
console.log(`${passed} passed, ${failed} failed${counts.numPendingTests ? `, ${counts.numPendingTests} skipped` : ''}`);
process.exit(types || jest || (failedEarlier > 0 ? 1 : 0));
