// What this machine can build, asked by binding.gyp, CMakeLists.txt (through cmake-js) and scripts/setup.js.
//   node scripts/toolchain.js cuda       1 when the CUDA column is built, else 0
//   node scripts/toolchain.js nvcc       path of nvcc
//   node scripts/toolchain.js cudalib    folder of libcudart_static
//   node scripts/toolchain.js gencode    nvcc's -gencode flags
//   node scripts/toolchain.js arches     "90a;100", what the flags name
//   node scripts/toolchain.js say        one line for people
// MAE_CUDA=0|1 forces, MAE_CUDA_ARCH="80;90a" names targets.
'use strict';
const { execFileSync } = require('node:child_process');
const { existsSync } = require('node:fs');
const path = require('node:path');

const RELEASE_ARCHES = ['80', '89', '90a', '100'];

function run(command, args) {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return undefined;
  }
}

function findNvcc() {
  const homes = [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda'].filter(Boolean);
  for (const home of homes) if (existsSync(path.join(home, 'bin/nvcc'))) return path.join(home, 'bin/nvcc');
  return run('sh', ['-c', 'command -v nvcc']);
}

/** Compute capabilities of the GPUs here, as nvcc names them: ["90a"]. */
function gpuArches() {
  const out = run('nvidia-smi', ['--query-gpu=compute_cap', '--format=csv,noheader']);
  if (!out) return [];
  const caps = out
    .split('\n')
    .map((line) => line.trim().replace('.', ''))
    .filter((cap) => /^\d+$/.test(cap));
  return [...new Set(caps)].map((cap) => (cap === '90' ? '90a' : cap));
}

function toolchain() {
  const forced = process.env.MAE_CUDA;
  const nvcc = forced === '0' ? undefined : findNvcc();
  const gpus = forced === '0' ? [] : gpuArches();
  if (forced === '1' && !nvcc) {
    throw new Error(
      'MAE_CUDA=1 needs nvcc: install the CUDA toolkit or set CUDA_HOME to its folder (looked in CUDA_HOME, /usr/local/cuda, PATH)',
    );
  }
  const named = (process.env.MAE_CUDA_ARCH || '').split(/[;, ]+/).filter(Boolean);
  const cuda = Boolean(nvcc) && (forced === '1' || gpus.length > 0);
  const arches = named.length > 0 ? (named[0] === 'all' ? RELEASE_ARCHES : named) : gpus.length > 0 ? gpus : ['90a'];
  let why;
  if (cuda) why = `✓ CUDA for ${arches.map((a) => `sm_${a}`).join(', ')} (${nvcc})`;
  else if (forced === '0') why = '→ CUDA switched off by MAE_CUDA=0: CPU only';
  else if (!nvcc) why = '✗ nvcc not found: CPU only. With the CUDA toolkit installed, `MAE_CUDA=1 npx mae build` adds CUDA';
  else why = '✗ no NVIDIA GPU here: CPU only. `MAE_CUDA=1 npx mae build` compiles the CUDA kernels all the same';
  return { cuda, nvcc, arches, why };
}

/** One cubin per architecture, and PTX of the newest for GPUs that come later. */
function gencode(arches) {
  const flags = arches.map((arch) => `-gencode=arch=compute_${arch},code=sm_${arch}`);
  const newest = arches[arches.length - 1];
  if (!/[a-z]$/.test(newest)) flags.push(`-gencode=arch=compute_${newest},code=compute_${newest}`);
  return flags;
}

function cudaLibraryFolder(nvcc) {
  const home = path.dirname(path.dirname(nvcc));
  for (const name of ['lib64', 'targets/x86_64-linux/lib', 'targets/sbsa-linux/lib', 'lib']) {
    if (existsSync(path.join(home, name, 'libcudart_static.a'))) return path.join(home, name);
  }
  throw new Error(`no libcudart_static.a under ${home}: install the CUDA runtime's static library (cuda-cudart-dev)`);
}

module.exports = { toolchain, gencode, cudaLibraryFolder, RELEASE_ARCHES };

if (require.main === module) {
  const found = toolchain();
  const answers = {
    cuda: () => (found.cuda ? '1' : '0'),
    nvcc: () => found.nvcc ?? '',
    cudalib: () => (found.cuda ? cudaLibraryFolder(found.nvcc) : ''),
    gencode: () => gencode(found.arches).join(' '),
    arches: () => found.arches.join(';'),
    say: () => found.why,
  };
  const answer = answers[process.argv[2]];
  if (!answer) throw new Error(`toolchain.js ${process.argv[2]}: expected one of ${Object.keys(answers).join(', ')}`);
  console.log(answer());
}
