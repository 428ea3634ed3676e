/** `mae doctor`: what this machine has, what the addon was built for, and what to do about what is missing. */
import { execFileSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import type { Command } from 'commander';
import { MaeError } from '../errors';
import { native } from '../native';
import { packageVersion } from '../train/summary';
import { formatBytes } from '../format';

interface Finding {
  readonly mark: '✓' | '✗' | '→';
  readonly what: string;
  readonly found: string;
  readonly advice?: string;
}

export function doctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('explain this machine: processor, compiler, CUDA, GPUs, the addon; exit status 1 if node-mae cannot run')
    .option('--json', 'print the findings as JSON')
    .action(({ json }: { json?: boolean }) => {
      const findings = examine();
      if (json) console.log(JSON.stringify(findings, null, 2));
      else {
        const width = Math.max(...findings.map(({ what }) => what.length));
        for (const { mark, what, found, advice } of findings) {
          console.log(`${mark} ${what.padEnd(width)}  ${found}`);
          if (advice) console.log(`  ${' '.repeat(width)}  → ${advice}`);
        }
      }
      if (findings.some(({ mark, what }) => mark === '✗' && what === 'addon')) process.exitCode = 1;
    });
}

function examine(): Finding[] {
  return [...machine(), ...tools(), ...cuda(), ...addon()];
}

function machine(): Finding[] {
  const [cpu] = os.cpus();
  return [
    { mark: '→', what: 'node-mae', found: `${packageVersion()}, Node ${process.version}, ${os.type()} ${os.release()} ${process.arch}` },
    {
      mark: '→',
      what: 'processor',
      found: `${cpu?.model.trim() ?? 'unknown'}, ${os.availableParallelism()} cores, ${formatBytes(os.totalmem())} memory`,
    },
  ];
}

function tools(): Finding[] {
  const tool = (what: string, command: string, args: string[], advice: string): Finding => {
    const version = firstLine(command, args);
    return version ? { mark: '✓', what, found: version } : { mark: '✗', what, found: 'not found', advice };
  };
  return [
    tool('C++ compiler', process.env.CXX ?? 'c++', ['--version'], 'needed to build: apt-get install build-essential'),
    tool('make', 'make', ['--version'], 'needed to build with node-gyp: apt-get install build-essential'),
    tool('Python', 'python3', ['--version'], 'needed by node-gyp: apt-get install python3'),
    {
      ...tool('CMake', 'cmake', ['--version'], 'only for the CMake build'),
      ...(firstLine('cmake', ['--version']) ? {} : { mark: '→' as const }),
    },
  ];
}

function cuda(): Finding[] {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- shared with the builds
  const { toolchain } = require(path.join(__dirname, '../../scripts/toolchain.js')) as {
    toolchain(): { nvcc?: string; why: string; cuda: boolean };
  };
  let found: { nvcc?: string; why: string; cuda: boolean };
  try {
    found = toolchain();
  } catch (error) {
    return [{ mark: '✗', what: 'CUDA toolkit', found: (error as Error).message }];
  }
  const version = found.nvcc && firstLine(found.nvcc, ['--version'], /release [\d.]+/);
  const gpu = firstLine('nvidia-smi', ['--query-gpu=name,compute_cap,memory.total,driver_version', '--format=csv,noheader']);
  return [
    version
      ? { mark: '✓', what: 'CUDA toolkit', found: `${version} (${found.nvcc})` }
      : {
          mark: '→',
          what: 'CUDA toolkit',
          found: 'nvcc not found',
          advice: 'only needed to build for NVIDIA GPUs; everything runs on the CPU without it',
        },
    gpu ? { mark: '✓', what: 'NVIDIA GPU', found: gpu } : { mark: '→', what: 'NVIDIA GPU', found: 'none (nvidia-smi does not answer)' },
    { mark: '→', what: 'a build here', found: found.why },
  ];
}

function addon(): Finding[] {
  try {
    const { cuda, cudaArchitectures, compiler } = native().buildInfo();
    const architectures = cudaArchitectures.split(/[;,]/).map((arch) => `sm_${arch}`);
    const forCuda = cudaArchitectures === 'emulated' ? 'CUDA emulated on the CPU, for tests' : `CUDA for ${architectures.join(', ')}`;
    const built = cuda ? forCuda : 'CPU only';
    const devices = native()
      .devices()
      .map(({ id, name, detail, usable, reason }): Finding => {
        const label = name === id ? detail : [name, detail].filter(Boolean).join(', ');
        return usable
          ? { mark: '✓', what: `device ${id}`, found: label }
          : { mark: '✗', what: `device ${id}`, found: label, advice: reason };
      });
    const library = native().cublasLt?.();
    const cublasLt: Finding[] = library ? [{ mark: library.found ? '✓' : '→', what: 'cuBLASLt', found: library.description }] : [];
    return [{ mark: '✓', what: 'addon', found: `${built}; compiler ${compiler}` }, ...cublasLt, ...devices];
  } catch (error) {
    if (!(error instanceof MaeError)) throw error;
    return [{ mark: '✗', what: 'addon', found: error.message.split('\n')[0], advice: 'npx mae build' }];
  }
}

function firstLine(command: string, args: string[], pattern = /.+/): string | undefined {
  try {
    return pattern.exec(execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))?.[0];
  } catch {
    return undefined;
  }
}
