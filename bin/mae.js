#!/usr/bin/env node
'use strict';
const { existsSync } = require('node:fs');
const path = require('node:path');

const main = path.join(__dirname, '../dist/cli/main.js');
if (!existsSync(main)) {
  console.error('node-mae is not compiled yet. In a clone of the repository, `npm run build` installs, compiles and builds everything.');
  process.exit(1);
}
require(main).main(process.argv);
