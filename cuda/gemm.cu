// gemm(): which implementation computes a product (the table of gemm_choice.h, else a rule), how k is split, and the contest that fills
// the table.
#include "gemm.cuh"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "common.cuh"
#include "cublaslt.h"
#include "gemm_choice.h"
#include "gemm_epilogue.cuh"
#include "gemm_kernels.h"

namespace mae { namespace cuda {
namespace {

using Implementation = GemmImplementation;

// One call of gemm().
struct Call {
  GemmLayout layout;
  DType operands, c_dtype;
  int64_t m, n, k;
  const void* a;
  const void* b;
  void* c;
  GemmEpilogue epilogue;
  void* workspace;
};

struct Tile {
  int m, n, slots;  // slots: tiles that 132 multiprocessors hold at a time
};

Tile shape_of(Implementation implementation) {
  switch (implementation) {
    case Implementation::Mma64: return {64, 64, 132 * 4};
    case Implementation::Wgmma256:
    case Implementation::Wgmma256Cluster2: return {128, 256, 132};
    default: return {128, 128, 132 * 2};
  }
}

// Into how many parts an implementation of ours cuts k: only where k counts tokens (TN), the one product whose result is small and whose k
// is long.
int splits_of(Implementation implementation, GemmLayout layout, int64_t m, int64_t n, int64_t k) {
  if (layout != GemmLayout::TN) return 1;
  const Tile tile = shape_of(implementation);
  return split_count(ceil_div(m, tile.m) * ceil_div(n, tile.n), ceil_div(k, 64), m * n, tile.slots);
}

int64_t partial_stride(int64_t m, int64_t n) { return round_up(m * n + m, 4); }

bool is_cublaslt(Implementation i) { return i == Implementation::CublasLt || i == Implementation::CublasLtBias; }

GemmProblem problem_of(const Call& call, Implementation implementation) {
  GemmProblem p = {};
  p.layout = call.layout;
  p.m = call.m, p.n = call.n, p.k = call.k;
  p.a = call.a, p.b = call.b;
  p.a_sums = call.epilogue.a_sums, p.a_sums_accumulate = call.epilogue.a_sums_accumulate;
  p.splits = splits_of(implementation, call.layout, call.m, call.n, call.k);
  p.partials = static_cast<float*>(call.workspace);
  p.partial_stride = partial_stride(call.m, call.n);
  return p;
}

EpilogueArgs args_of(const Call& call) { return epilogue_args(call.epilogue, call.m, call.n, call.operands, call.c, call.c_dtype); }

// What the kernels of a split problem do: write bare parts.
EpilogueArgs parts_of(const Call& call, const GemmProblem& p) {
  return epilogue_args(GemmEpilogue(), call.m, call.n, call.operands, p.partials, F32);
}

// MAE_GEMM restricts what may compute a product, for finding out where a fault or a difference comes from: "mma" (mma.sync alone),
// "own" (no cuBLASLt), "cublaslt" (cuBLASLt wherever it can) or "rule" (no cuBLASLt, nothing timed: the same bits in every run); unset:
// everything.
enum class Allowed { All, Mma, Own, CublasLt, Rule };
Allowed allowed() {
  static const Allowed value = [] {
    const char* text = getenv("MAE_GEMM");
    const std::string name = text ? text : "";
    if (name.empty()) return Allowed::All;
    if (name == "mma") return Allowed::Mma;
    if (name == "own") return Allowed::Own;
    if (name == "cublaslt") return Allowed::CublasLt;
    if (name == "rule") return Allowed::Rule;
    throw Failure("MAE_CONFIG", "the environment variable MAE_GEMM is '" + name + "'; it takes mma, own, cublaslt or rule, or nothing");
  }();
  return value;
}

// Whether cuBLASLt may compute products of these operands. float32 is for parity, so only where it is asked for.
bool library_allowed(DType operands) {
  const bool wanted = allowed() == Allowed::CublasLt || (allowed() == Allowed::All && operands == BF16);
  return wanted && cublaslt_available();
}

bool can_run(const Call& call, Implementation implementation) {
  const GemmEpilogue& e = call.epilogue;
  switch (implementation) {
    case Implementation::CublasLt: return library_allowed(call.operands) && !e.sequences.rows;
    case Implementation::CublasLtBias: return library_allowed(call.operands) && !e.sequences.rows && e.bias && !e.dgelu_pre;
    case Implementation::Simt: return call.operands == F32;
    case Implementation::Mma128:
    case Implementation::Mma64: return call.operands == BF16;
    default: break;
  }
  if (call.operands != BF16 || allowed() == Allowed::Mma) return false;
  const GemmProblem p = problem_of(call, implementation);
  return gemm_wgmma_fits(p, p.splits > 1 ? parts_of(call, p) : args_of(call), epilogue_kind(e));
}

// The library's part of a product: the bias if it takes it, and what is added where nothing comes in between.
CublasLtProduct library_product(const Call& call, Implementation implementation) {
  const GemmEpilogue& e = call.epilogue;
  const bool bare = !e.gelu && !e.dgelu_pre;
  CublasLtProduct p = {call.layout, call.operands, call.c_dtype, call.m, call.n, call.k, call.a, call.b, call.c, nullptr, nullptr};
  if (e.gelu && e.pre) p.c = e.pre;
  if (implementation == Implementation::CublasLtBias) p.bias = e.bias;
  if (bare) p.addend = e.accumulate ? call.c : e.residual;
  return p;
}

void run_cublaslt(Context& context, const Call& call, const GemmChoice& choice) {
  const CublasLtProduct product = library_product(call, choice.implementation);
  CublasLtAlgorithm algorithm;
  memcpy(algorithm.data(), choice.library_algorithm, sizeof algorithm);
  cublaslt_multiply(context, product, algorithm, call.workspace);
  GemmEpilogue rest = call.epilogue;
  if (product.bias) rest.bias = nullptr;
  if (product.addend) rest.residual = nullptr, rest.accumulate = false;
  if (rest.gelu && !rest.bias) rest.pre = nullptr;  // it holds the product already
  if (rest.gelu || rest.dgelu_pre || rest.bias) {
    gemm_finish(context, product.c, call.operands, epilogue_args(rest, call.m, call.n, call.operands, call.c, call.c_dtype),
                epilogue_kind(rest));
  }
}

void run(Context& context, const Call& call, const GemmChoice& choice) {
  const GemmProblem p = problem_of(call, choice.implementation);
  const bool split = !is_cublaslt(choice.implementation) && p.splits > 1;
  const EpilogueArgs args = split ? parts_of(call, p) : args_of(call);
  const int kind = epilogue_kind(call.epilogue);
  bool sums_done = true;
  switch (choice.implementation) {
    case Implementation::Simt:
      sums_done = false;
      gemm_simt(context, p, args, kind);
      break;
    case Implementation::Mma128: gemm_mma(context, p, args, kind, 128); break;
    case Implementation::Mma64: gemm_mma(context, p, args, kind, 64); break;
    case Implementation::Wgmma256: gemm_wgmma(context, p, args, kind, 256, 1); break;
    case Implementation::Wgmma256Cluster2: gemm_wgmma(context, p, args, kind, 256, 2); break;
    case Implementation::Wgmma128: gemm_wgmma(context, p, args, kind, 128, 1); break;
    case Implementation::Wgmma128Cluster2: gemm_wgmma(context, p, args, kind, 128, 2); break;
    case Implementation::CublasLt:
    case Implementation::CublasLtBias:
      sums_done = false;
      run_cublaslt(context, call, choice);
      break;
  }
  if (split) {
    GemmProblem parts = p;
    if (!sums_done) parts.a_sums = nullptr;
    gemm_reduce(context, parts, static_cast<float*>(call.c), call.epilogue.accumulate);
  }
  if (!sums_done && p.a_sums) {
    column_sums(context, call.a, call.operands, call.k, call.m, p.a_sums, p.a_sums_accumulate, call.workspace);
  }
}

std::vector<GemmChoice> library_choices(const Call& call, int most) {
  std::vector<GemmChoice> choices;
  for (Implementation implementation : {Implementation::CublasLtBias, Implementation::CublasLt}) {
    if (!can_run(call, implementation)) continue;
    for (const CublasLtAlgorithm& algorithm : cublaslt_algorithms(library_product(call, implementation), most)) {
      GemmChoice choice = {implementation, {}};
      memcpy(choice.library_algorithm, algorithm.data(), sizeof choice.library_algorithm);
      choices.push_back(choice);
    }
    if (!choices.empty()) break;  // without the bias only where the library refuses it
  }
  return choices;
}

// The implementation for a product that nobody has timed.
GemmChoice rule(const Call& call) {
  if (call.operands != BF16) return {Implementation::Simt, {}};
  const int64_t tiles = ceil_div(call.m, 128) * ceil_div(call.n, 128);
  const bool long_k = call.k >= 1024 && call.n >= 256, pair = call.m > 128;
  const Implementation implementation = long_k ? (pair ? Implementation::Wgmma256Cluster2 : Implementation::Wgmma256)
                                               : (pair ? Implementation::Wgmma128Cluster2 : Implementation::Wgmma128);
  if (can_run(call, implementation)) return {implementation, {}};
  const bool few = tiles * splits_of(Implementation::Mma128, call.layout, call.m, call.n, call.k) < 132;
  return {few ? Implementation::Mma64 : Implementation::Mma128, {}};
}

bool is_recording(const Context& context) {
  cudaStreamCaptureStatus status;
  CUDA_CHECK(cudaStreamIsCapturing(static_cast<cudaStream_t>(context.stream), &status));
  return status != cudaStreamCaptureStatusNone;
}

// The median time of a few runs, in milliseconds; negative where the choice does not work for this product.
float time_choice(Context& context, const Call& call, const GemmChoice& choice, cudaEvent_t begin, cudaEvent_t end) {
  constexpr int kWarmUps = 2, kRuns = 7;
  const cudaStream_t stream = static_cast<cudaStream_t>(context.stream);
  std::vector<float> times;
  try {
    for (int i = 0; i < kWarmUps + kRuns; ++i) {
      CUDA_CHECK(cudaEventRecord(begin, stream));
      run(context, call, choice);
      CUDA_CHECK(cudaEventRecord(end, stream));
      CUDA_CHECK(cudaEventSynchronize(end));
      float milliseconds;
      CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
      if (i >= kWarmUps) times.push_back(milliseconds);
    }
  } catch (const Failure&) {
    CUDA_CHECK(cudaStreamSynchronize(stream));  // a fault that broke the device must not pass for "does not work here"
    return -1.0f;
  }
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2];
}

std::vector<GemmChoice> candidates(const Call& call) {
  constexpr int kLibraryAlgorithms = 8;
  std::vector<GemmChoice> choices = library_choices(call, kLibraryAlgorithms);
  if (allowed() != Allowed::CublasLt || choices.empty()) {
    for (Implementation implementation : {Implementation::Simt, Implementation::Mma128, Implementation::Mma64, Implementation::Wgmma256,
                                          Implementation::Wgmma256Cluster2, Implementation::Wgmma128, Implementation::Wgmma128Cluster2}) {
      if (can_run(call, implementation)) choices.push_back({implementation, {}});
    }
  }
  return choices;
}

GemmChoice contest(Context& context, const Call& call) {
  struct Events {
    cudaEvent_t begin = nullptr, end = nullptr;
    ~Events() {
      if (begin) cudaEventDestroy(begin);
      if (end) cudaEventDestroy(end);
    }
  } events;
  CUDA_CHECK(cudaEventCreate(&events.begin));
  CUDA_CHECK(cudaEventCreate(&events.end));
  GemmChoice best = rule(call);
  float best_time = -1.0f;
  for (const GemmChoice& choice : candidates(call)) {
    const float time = time_choice(context, call, choice, events.begin, events.end);
    if (time >= 0 && (best_time < 0 || time < best_time)) best = choice, best_time = time;
  }
  return best;
}

GemmChoice choose(Context& context, const Call& call) {
  if (allowed() == Allowed::Rule) return rule(call);
  const GemmKey key = gemm_key(call.layout, call.operands, call.m, call.n, call.k, call.c_dtype, call.epilogue);
  if (const GemmChoice* known = find_gemm_choice(key)) {
    if (can_run(call, known->implementation)) return *known;
  }
  if (gemm_tuning() && !is_recording(context)) {
    const GemmChoice best = contest(context, call);
    set_gemm_choice(key, best);
    return best;
  }
  if (allowed() == Allowed::CublasLt) {
    const std::vector<GemmChoice> choices = library_choices(call, 1);
    if (!choices.empty()) {
      set_gemm_choice(key, choices[0]);  // so that the library is not asked for every call
      return choices[0];
    }
  }
  return rule(call);
}

}  // namespace

GemmKey gemm_key(GemmLayout layout, DType operands, int64_t m, int64_t n, int64_t k, DType c_dtype, const GemmEpilogue& e) {
  int32_t bits = 0;
  if (e.bias) bits |= kHasBias;
  if (e.residual || e.accumulate) bits |= kHasResidual;
  if (e.gelu) bits |= kHasGelu;
  if (e.dgelu_pre) bits |= kHasGeluGrad;
  if (e.a_sums) bits |= kHasColumnSums;
  if (e.sequences.rows) bits |= kHasSequences;
  return {int32_t(layout), operands, c_dtype, bits, int32_t(m), int32_t(n), int32_t(k)};
}

std::vector<GemmChoice> gemm_candidates(GemmLayout layout, DType operands, int64_t m, int64_t n, int64_t k, const void* a, const void* b,
                                        void* c, DType c_dtype, const GemmEpilogue& epilogue) {
  return candidates({layout, operands, c_dtype, m, n, k, a, b, c, epilogue, nullptr});
}

size_t gemm_workspace(GemmLayout layout, DType operands, int64_t m, int64_t n, int64_t k) {
  size_t bytes = 0;
  if (layout == GemmLayout::TN) {
    for (Implementation implementation : {Implementation::Mma128, Implementation::Mma64, Implementation::Wgmma256}) {
      const int splits = splits_of(implementation, layout, m, n, k);
      if (splits > 1) bytes = std::max(bytes, splits * size_t(partial_stride(m, n)) * sizeof(float));
    }
    bytes = std::max(bytes, column_sums_workspace(k, m));
  }
  if (library_allowed(operands)) bytes = std::max(bytes, kCublasLtWorkspace);
  return bytes;
}

void gemm(Context& context, GemmLayout layout, DType operands, int64_t m, int64_t n, int64_t k, const void* a, const void* b, void* c,
          DType c_dtype, const GemmEpilogue& epilogue, void* workspace) {
  const Call call = {layout, operands, c_dtype, m, n, k, a, b, c, epilogue, workspace};
  run(context, call, choose(context, call));
}

}}  // namespace mae::cuda
