#!/usr/bin/env bash
# Everything that should be seen on a GPU, in one go and without a network: builds for the GPU that is here, checks, sanitizes, measures.
#   scripts/gpu-run.sh RESULTS [SECONDS] [PARTS]
#     RESULTS  folder for summary.md, labs.txt, bench-*.md and raw.tar.gz (every log, the benches' result.json and charts)
#     SECONDS  for all of it, default 570; what is not reached is reported as not run
#     PARTS    comma-separated beginnings of part names, such as "build,test": only these; default all, in this order:
#              build-addon build-labs lab-* first-steps test-* memcheck racecheck time-* bench-* profile
# Needs nvcc, CMake, node, node_modules and dist (`npm run build:ts`); takes ninja, compute-sanitizer, ncu or nsys, and PyTorch where they
# are. NODE_API_INCLUDE names the folder of node_api.h where it is not beside node. A part that fails or is stopped at its own limit does
# not stop the rest. The build stays in build-gpu/. Exit status: 1 if a part failed.
set -uo pipefail
[[ $# -ge 1 ]] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1" && results=$(cd "$1" && pwd) || exit 2
total=${2:-570} wanted=${3:-}
cd "$(dirname "$0")/.."
build=$PWD/build-gpu
raw=$build/raw
rm -rf "$raw" && mkdir -p "$raw"
: >"$raw/rows"

gpu=$(nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader 2>/dev/null | head -1) || gpu=
arch=$(cut -d, -f2 <<<"$gpu" | tr -d ' .')
[[ $arch == 90 || -z $arch ]] && arch=90a
export MAE_ADDON=$build/Release/mae.node MAE_CUDA=1 MAE_CUDA_ARCH=$arch PATH=$PATH:/usr/local/cuda/bin
export NODE_API_INCLUDE
NODE_API_INCLUDE=$(realpath "${NODE_API_INCLUDE:-$(node -p "require('path').resolve(process.execPath, '../../include/node')")}")
{
  date -u '+%F %T UTC'
  nvidia-smi
  nvcc --version | tail -2
  cmake --version | head -1
  echo "node $(node -v)"
  python3 -c 'import torch; print("torch", torch.__version__, torch.version.cuda)'
} >"$raw/machine.log" 2>&1

# summary.md and raw.tar.gz, anew after every part: a run that is killed leaves what it had.
publish() {
  {
    echo "# GPU run: ${gpu:-no NVIDIA GPU here}"
    echo
    echo "$(head -1 "$raw/machine.log"), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), sm_$arch, $SECONDS of $total seconds"
    echo
    echo '| part | result | seconds | its last word |'
    echo '|---|---|---:|---|'
    cat "$raw/rows"
  } >"$results/summary.md"
  for log in "$raw"/time-*.log; do [[ -f $log ]] && echo "== $(basename "$log" .log)" && cat "$log"; done >"$results/labs.txt"
  for report in "$raw"/bench-*/report.md; do [[ -f $report ]] && cp "$report" "$results/$(basename "$(dirname "$report")").md"; done
  tar czf "$results/raw.tar.gz" -C "$build" raw
}

row() { # row NAME RESULT [SECONDS] [WORD]
  echo "| $1 | $2 | ${3:-} | ${4:-} |" >>"$raw/rows"
  echo "$1: $2${3:+, $3 s}"
}

# part NAME LIMIT NEEDS COMMAND: runs a line of bash for at most LIMIT seconds. NEEDS: names of what must be there, see `lacks`.
part() {
  local name=$1 limit=$2 needs=$3 command=$4 began=$SECONDS left=$((total - SECONDS)) word status missing
  is_wanted "$name" || return
  missing=$(lacks "$needs")
  if [[ -n $missing ]]; then row "$name" "not run: $missing"; return; fi
  if ((left < 5)); then row "$name" 'not run: no time left'; return; fi
  ((limit < left)) || limit=$left
  timeout -k 5 "$limit" bash -o pipefail -c "$command" >"$raw/$name.log" 2>&1
  status=$?
  word=$(grep -aE '^Tests: |ERROR SUMMARY|RACECHECK SUMMARY|no check failed|CHECKS FAILED|[Ee]rror|written: ' "$raw/$name.log" | tail -1 | tr -d '|\r' | cut -c1-160)
  case $status in
    0) row "$name" ran $((SECONDS - began)) "$word" ;;
    124 | 137) row "$name" "failed: stopped at its limit of $limit s" $((SECONDS - began)) "$word" ;;
    *) row "$name" "failed: exit status $status" $((SECONDS - began)) "$word" ;;
  esac
}

is_wanted() {
  local begin
  [[ -z $wanted ]] && return 0
  for begin in ${wanted//,/ }; do [[ $1 == "$begin"* ]] && return 0; done
  return 1
}

# What is not there of: gpu, addon, lab/NAME, or programs (a/b: either). Empty: nothing is missing.
lacks() {
  local need
  for need in $1; do
    case $need in
      gpu) [[ -n $gpu ]] || { echo 'no NVIDIA GPU here'; return; } ;;
      addon) [[ -f $MAE_ADDON ]] || { echo 'the addon is not built'; return; } ;;
      lab/*) [[ -x $build/$need ]] || { echo "$need is not built"; return; } ;;
      *) command -v ${need//\// } >/dev/null || { echo "no ${need//\// or } here"; return; } ;;
    esac
  done
}

# --- build: the addon and the labs at the same time --------------------------------------------------------------------------------------
half=$((total / 2))
generator=$(command -v ninja >/dev/null && echo '-G Ninja')
part build-addon "$half" 'cmake nvcc' "cmake -S . -B '$build' $generator -DMAE_CUDA=ON -DMAE_CUDA_ARCH=$arch -DNODE_API_INCLUDE='$NODE_API_INCLUDE' &&
  cmake --build '$build' -j \$(nproc) && node -e 'console.log(require(process.env.MAE_ADDON).buildInfo())' && node bin/mae.js doctor" &
nvcc="nvcc -std=c++17 -O3 --expt-relaxed-constexpr -gencode arch=compute_$arch,code=sm_$arch --threads 0"
gemm='cuda/lab/gemm.cu cuda/gemm.cu cuda/gemm_mma.cu cuda/gemm_simt.cu cuda/gemm_wgmma.cu cuda/gemm_reduce.cu cuda/gemm_choice.cc cuda/cublaslt.cc -ldl'
part build-labs "$half" nvcc "mkdir -p '$build/lab' && { $nvcc cuda/lab/memory_bound.cu -o '$build/lab/memory_bound' & a=\$!
  $nvcc cuda/lab/attention.cu -o '$build/lab/attention' & b=\$!
  $nvcc $gemm -o '$build/lab/gemm'; c=\$?; wait \$a; a=\$?; wait \$b; exit \$((a | \$? | c)); }" &
wait
publish

# --- is it right? ------------------------------------------------------------------------------------------------------------------------
labs='memory_bound gemm attention'
for lab in $labs; do part "lab-$lab" 60 "gpu lab/$lab" "'$build/lab/$lab' check"; done
export MAE_DEVICE=cuda
steps='node scripts/gpu-steps.js'
part first-steps 60 'gpu addon' "$steps vit-tiny/16"
publish
jest() { echo "node node_modules/jest/bin/jest.js --colors=false --verbose $*"; }
part test-ops 120 'gpu addon' "$(jest test/ops.test.ts)"
part test-parity 60 'gpu addon' "$(jest test/parity.test.ts)"
part test-model 90 'gpu addon' "$(jest test/model.test.ts)"
# Runs in processes of their own are compared bit for bit here, so nothing is chosen by timing.
part test-runs 90 'gpu addon' "MAE_GEMM=rule $(jest test/pretrain.test.ts test/graph.test.ts test/gemmChoices.test.ts)"
publish
# One small model in both precisions; the contest among our own products makes every one of them run.
part memcheck 60 'gpu addon compute-sanitizer' "MAE_GEMM=own MAE_REPLAY=1 compute-sanitizer --tool memcheck --error-exitcode 9 $steps vit-tiny/16 --depth 1 --batch 4"
part racecheck 45 'gpu addon compute-sanitizer' "MAE_GEMM=rule MAE_REPLAY=1 compute-sanitizer --tool racecheck --error-exitcode 9 $steps vit-tiny/16 --depth 1 --batch 2 --precision bf16"
publish

# --- how fast is it? ---------------------------------------------------------------------------------------------------------------------
for lab in $labs; do part "time-$lab" 45 "gpu lab/$lab" "'$build/lab/$lab' time"; done
publish
for preset in vit-base/16 vit-large/16 vit-huge/14; do
  name=bench-${preset//\//-}
  part "$name" 180 'gpu addon' "node bin/mae.js bench --only kernels,masking,peers --preset $preset --batch-size 256 --device cuda --out '$raw/$name'"
  publish
done
# Launches of every kind and shape of the base model's step, each once: one block of encoder and decoder.
profiled="$steps vit-base/16 --depth 1 --batch 256 --steps 1 --precision bf16"
if command -v ncu >/dev/null; then
  part profile 90 'gpu addon ncu' "MAE_GEMM=rule MAE_REPLAY=1 ncu --section SpeedOfLight --section Occupancy --section LaunchStats --csv $profiled"
else
  part profile 60 'gpu addon ncu/nsys' "nsys profile --stats=true --force-overwrite=true -o '$raw/profile' $profiled"
fi
publish
cat "$results/summary.md"
! grep -q '| failed' "$results/summary.md"
