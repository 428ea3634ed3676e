#!/usr/bin/env bash
# Runs the native code under AddressSanitizer and UndefinedBehaviorSanitizer: builds build-asan/ with CMake, then the tests that exercise it.
#   scripts/sanitize.sh [jest arguments]      default: parity, ops, model, data
set -euo pipefail
cd "$(dirname "$0")/.."
include=$(node -p "require('path').resolve(process.execPath, '../../include/node')")
cmake -S . -B build-asan -DCMAKE_BUILD_TYPE=Release -DMAE_CUDA=OFF -DMAE_SANITIZE=address,undefined -DNODE_API_INCLUDE="$include" >/dev/null
cmake --build build-asan -j "$(nproc)" | grep -v '^\[' || true
export MAE_ADDON=$PWD/build-asan/Release/mae.node
# Node is not instrumented: the runtime is loaded first. V8 keeps memory until the end, so leaks are not looked for.
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
export LD_PRELOAD ASAN_OPTIONS=detect_leaks=0:halt_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
exec node node_modules/jest/bin/jest.js "${@:-test/(parity|ops|model|data)}"
