#!/usr/bin/env bash
# Runs the CUDA kernels without a GPU: builds build-emulated/, where cuda/ is compiled for the emulator of cuda/emulator, and runs tests with
# it as the device cuda:0. Says nothing about speed, and does not replace a run on a GPU.
#   scripts/emulate-cuda.sh                    the op table as sm_90, its matrix products as sm_80 and through a stand-in for cuBLASLt; the
#                                              PyTorch files, training steps in all replay modes, what is kept of the choice of products;
#                                              then which kernels ran
#   scripts/emulate-cuda.sh jest-arguments     these tests: test/ops.test.ts -t 'rows on cuda layer_norm'
# MAE_EMULATE_SM=90|89|80: the architecture. MAE_TEST_REPORTS=folder: where jest's reports go.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
include=$(node -p "require('path').resolve(process.execPath, '../../include/node')")
logs=$(mktemp -d) reports=${MAE_TEST_REPORTS:-$(mktemp -d)}
trap 'rm -rf "$logs"; [[ ${MAE_TEST_REPORTS:-} ]] || rm -rf "$reports"' EXIT
options=(-DCMAKE_BUILD_TYPE=Release -DMAE_CUDA=EMULATED -DMAE_WERROR=ON "-DNODE_API_INCLUDE=$include")
cmake -S . -B build-emulated "${options[@]}" >/dev/null || exit 2
cmake --build build-emulated -j "$(nproc)" >"$logs/build" || { cat "$logs/build"; exit 2; }
export MAE_ADDON=$PWD/build-emulated/Release/mae.node MAE_DEVICE=cuda
jest() { node node_modules/jest/bin/jest.js --testTimeout=600000 "$@"; } # a fiber per CUDA thread is slow, on a busy machine slower
if (($#)); then
  jest "$@"
  exit
fi
echo "✓ CUDA emulator built in $((SECONDS - started)) s"

suite() { # name, jest's arguments
  local name=$1 began=$SECONDS outcome=✓
  shift
  MAE_EMULATE_RAN=$logs/ran jest --json --outputFile="$reports/emulated-$name.json" "$@" >"$logs/$name.log" 2>&1 || outcome=✗
  [[ $outcome == ✓ ]] || cat "$logs/$name.log"
  echo "$outcome CUDA emulated, $name: $(grep '^Tests:' "$logs/$name.log" || echo 'jest did not finish'), $((SECONDS - began)) s"
  [[ $outcome == ✓ ]]
}
products='rows on cuda .*(linear|mlp|patch_embed)'
# Two cores: the table beside the rest.
{
  failed=0
  suite ops-sm90 test/ops.test.ts -t 'on cuda' || failed=1
  MAE_GEMM=cublaslt MAE_CUBLASLT=$PWD/build-emulated/cublaslt_stand_in.so suite products-cublaslt test/ops.test.ts -t "$products" || failed=1
  exit $failed
} &
table=$!
failed=0
MAE_EMULATE_SM=80 suite products-sm80 test/ops.test.ts -t "$products" || failed=1
suite parity-sm90 test/parity.test.ts || failed=1
suite steps-sm90 test/model.test.ts -t 'training steps' || failed=1
suite choices-sm90 test/gemmChoices.test.ts || failed=1
wait $table || failed=1
node scripts/emulated-kernels.js "$MAE_ADDON" "$logs/ran" "$reports/emulated-kernels.json" || failed=1
exit $failed
