#!/usr/bin/env bash
# Compiles every CUDA source without linking: proves that the CUDA column builds where there is nvcc but no GPU.
#   scripts/compile-cuda.sh [architectures]     default 90a; "80 89 90a 100" is the release set. MAE_PTXAS=1 prints registers and spills.
set -euo pipefail
cd "$(dirname "$0")/.."
nvcc=$(node scripts/toolchain.js nvcc)
if [[ -z $nvcc ]]; then
  echo "→ CUDA column: NOT compiled (no nvcc here)"
  exit 0
fi
release=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
read -r major minor <<<"$release"
if ((major < 12 || (major == 12 && minor < 8))); then
  echo "→ CUDA column: NOT compiled (nvcc $major.$minor here, 12.8 or newer is needed)"
  exit 0
fi
arches=${1:-90a}
flags=(-c -O3 -std=c++17 --expt-relaxed-constexpr -Xcompiler -fPIC,-Wall,-Wextra,-Werror -Werror all-warnings -DMAE_X86=1 -DMAE_WITH_CUDA)
for arch in $arches; do flags+=("-gencode=arch=compute_$arch,code=sm_$arch"); done
[[ ${MAE_PTXAS:-} == 1 ]] && flags+=(-Xptxas -v)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
sources=$(node -p "JSON.parse(require('fs').readFileSync('sources.gypi')).variables.cuda_sources.join(' ')")
started=$SECONDS
echo "$sources" | tr ' ' '\n' | xargs -P "$(nproc)" -I{} sh -c '"$0" "$@" -o "'"$out"'/$(basename {}).o" {} || { echo "✗ {}"; exit 255; }' "$nvcc" "${flags[@]}"
echo "✓ CUDA column: $(wc -w <<<"$sources") sources compiled for $arches in $((SECONDS - started)) s (compiled only: nothing ran)"
