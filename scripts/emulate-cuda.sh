#!/usr/bin/env bash
# Runs the CUDA kernels without a GPU: builds build-emulated/, where the sources of cuda/ are compiled for the emulator of cuda/emulator, and
# runs tests with it as the device cuda:0. Nothing here says how fast anything is on a GPU.
#   scripts/emulate-cuda.sh [jest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
include=$(node -p "require('path').resolve(process.execPath, '../../include/node')")
cmake -S . -B build-emulated -DCMAKE_BUILD_TYPE=Release -DMAE_CUDA=EMULATED -DMAE_WERROR=ON -DNODE_API_INCLUDE="$include" >/dev/null
cmake --build build-emulated -j "${MAE_JOBS:-$(nproc)}"
export MAE_ADDON=$PWD/build-emulated/Release/mae.node MAE_DEVICE=cuda
exec node node_modules/jest/bin/jest.js "$@"
