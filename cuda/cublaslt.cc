#include "cublaslt.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <mutex>

#include "check.h"

namespace mae { namespace cuda {
namespace {

// ---- The library's C interface, as far as we use it (cuBLAS documentation, "cuBLASLt Datatypes Reference") ------------------------------

using Handle = void*;
using Object = void*;  // matmul descriptor, matrix layout or preference
using Status = int;    // cublasStatus_t; 0: success

constexpr int kDataF32 = 0, kDataBf16 = 14;                         // cudaDataType
constexpr int kCompute32F = 68;                                     // CUBLAS_COMPUTE_32F: never TF32
constexpr int32_t kOpN = 0, kOpT = 1;                               // cublasOperation_t
constexpr int kDescTransA = 3, kDescTransB = 4, kDescEpilogue = 7;  // cublasLtMatmulDescAttributes_t
constexpr int kDescBiasPointer = 8, kDescBiasType = 26;
constexpr uint32_t kEpilogueBias = 4;                        // cublasLtEpilogue_t
constexpr int kPrefWorkspaceBytes = 1, kPrefAlignmentA = 5;  // cublasLtMatmulPreferenceAttributes_t; after A come B, C, D

struct HeuristicResult {  // cublasLtMatmulHeuristicResult_t
  CublasLtAlgorithm algorithm;
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(CublasLtAlgorithm) == 64 && sizeof(HeuristicResult) == 96, "as the library lays them out");

struct Library {
  Status (*create)(Handle*);
  size_t (*version)();
  Status (*desc_create)(Object*, int compute, int scale_type);
  Status (*desc_set)(Object, int attribute, const void*, size_t);
  Status (*desc_destroy)(Object);
  Status (*layout_create)(Object*, int type, uint64_t rows, uint64_t columns, int64_t ld);
  Status (*layout_destroy)(Object);
  Status (*preference_create)(Object*);
  Status (*preference_set)(Object, int attribute, const void*, size_t);
  Status (*preference_destroy)(Object);
  Status (*heuristic)(Handle, Object desc, Object a, Object b, Object c, Object d, Object preference, int most, HeuristicResult*,
                      int* count);
  Status (*multiply)(Handle, Object desc, const void* alpha, const void* a, Object layout_a, const void* b, Object layout_b,
                     const void* beta, const void* c, Object layout_c, void* d, Object layout_d, const void* algorithm, void* workspace,
                     size_t workspace_bytes, void* stream);
  bool complete;
  std::string description;
};

template <class Function>
bool find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

// Where the library may be, the best place first: the loader's path, then the CUDA toolkit and the Python packages of NVIDIA (nvidia/cu13,
// nvidia/cublas) in the usual places.
std::vector<std::string> candidates() {
  const char* named = getenv("MAE_CUBLASLT");
  if (named && *named) return {named};
  std::vector<std::string> files, homes;
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const char* home = getenv(variable);
    if (home && *home) homes.push_back(home);
  }
  homes.insert(homes.end(), {"/usr/local", "/usr", "/opt/conda"});
  for (const char* file : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    files.push_back(file);
    std::vector<std::string> patterns = {"/usr/local/cuda/lib64/"};
    for (const std::string& home : homes) patterns.push_back(home + "/lib/python3*/*-packages/nvidia/cu*/lib/");
    for (const std::string& pattern : patterns) {
      glob_t found = {};
      if (glob((pattern + file).c_str(), 0, nullptr, &found) == 0) files.insert(files.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
      globfree(&found);
    }
  }
  return files;
}

Library open_library() {
  Library lib = {};
  std::string name, errors;
  void* opened = nullptr;
  for (const std::string& candidate : candidates()) {
    name = candidate;
    opened = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (opened) break;
    errors += (errors.empty() ? "" : "; ") + std::string(dlerror());
  }
  if (!opened) {
    lib.description = "not found (" + errors + "). It is optional; MAE_CUBLASLT names the file where it is elsewhere";
    return lib;
  }
  lib.complete = find(opened, "cublasLtCreate", &lib.create) && find(opened, "cublasLtGetVersion", &lib.version) &&
                 find(opened, "cublasLtMatmulDescCreate", &lib.desc_create) &&
                 find(opened, "cublasLtMatmulDescSetAttribute", &lib.desc_set) &&
                 find(opened, "cublasLtMatmulDescDestroy", &lib.desc_destroy) &&
                 find(opened, "cublasLtMatrixLayoutCreate", &lib.layout_create) &&
                 find(opened, "cublasLtMatrixLayoutDestroy", &lib.layout_destroy) &&
                 find(opened, "cublasLtMatmulPreferenceCreate", &lib.preference_create) &&
                 find(opened, "cublasLtMatmulPreferenceSetAttribute", &lib.preference_set) &&
                 find(opened, "cublasLtMatmulPreferenceDestroy", &lib.preference_destroy) &&
                 find(opened, "cublasLtMatmulAlgoGetHeuristic", &lib.heuristic) && find(opened, "cublasLtMatmul", &lib.multiply);
  if (!lib.complete) {
    lib.description = name + " is not cuBLASLt: functions are missing";
    return lib;
  }
  const size_t version = lib.version();  // 130100: 13.1.0
  lib.description = std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100) +
                    " (" + name + ")";
  return lib;
}

const Library& library() {
  static const Library lib = open_library();
  return lib;
}

void check_status(Status status, const char* call) {
  if (status != 0) {
    throw Failure("MAE_CUDA", std::string(call) + " failed with cublasStatus_t " + std::to_string(status) + " (cuBLASLt " +
                                  library().description + "). MAE_GEMM=own does without the library");
  }
}

// One handle for each device, made at its first use and kept. That allocates memory, which a stream that is captured forbids; but a
// program's first run goes plainly (native/program.cc).
Handle handle() {
  static std::mutex mutex;
  static std::map<int, Handle> handles;
  int device;
  CUDA_CHECK(cudaGetDevice(&device));
  std::lock_guard<std::mutex> lock(mutex);
  Handle& found = handles[device];
  if (!found) check_status(library().create(&found), "cublasLtCreate");
  return found;
}

// The descriptors of one product. cuBLASLt is column-major: a row-major matrix is its own transpose there, so cᵀ = bᵀ · aᵀ is computed.
class Descriptors {
 public:
  explicit Descriptors(const CublasLtProduct& p) {
    const Library& lib = library();
    const int in = p.operands == BF16 ? kDataBf16 : kDataF32, out = p.c_dtype == BF16 ? kDataBf16 : kDataF32;
    check_status(lib.desc_create(&desc, kCompute32F, kDataF32), "cublasLtMatmulDescCreate");
    const int32_t op_b = p.layout == GemmLayout::NT ? kOpT : kOpN, op_a = p.layout == GemmLayout::TN ? kOpT : kOpN;
    set(kDescTransA, op_b);
    set(kDescTransB, op_a);
    if (p.bias) {
      set(kDescEpilogue, kEpilogueBias);
      set(kDescBiasPointer, p.bias);
      set(kDescBiasType, kDataF32);
    }
    const auto layout = [&](Object* object, int type, int64_t row_major_rows, int64_t row_major_columns) {
      check_status(lib.layout_create(object, type, uint64_t(row_major_columns), uint64_t(row_major_rows), row_major_columns),
                   "cublasLtMatrixLayoutCreate");
    };
    if (p.layout == GemmLayout::TN) layout(&a, in, p.k, p.m);
    else layout(&a, in, p.m, p.k);
    if (p.layout == GemmLayout::NT) layout(&b, in, p.n, p.k);
    else layout(&b, in, p.k, p.n);
    layout(&c, out, p.m, p.n);
  }
  ~Descriptors() {
    const Library& lib = library();
    if (desc) lib.desc_destroy(desc);
    for (Object layout : {a, b, c})
      if (layout) lib.layout_destroy(layout);
    if (preference) lib.preference_destroy(preference);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  // What the heuristic may count on: our workspace and the alignment of our addresses.
  void prefer(const CublasLtProduct& p) {
    const Library& lib = library();
    check_status(lib.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
    const uint64_t bytes = kCublasLtWorkspace;
    check_status(lib.preference_set(preference, kPrefWorkspaceBytes, &bytes, sizeof bytes), "cublasLtMatmulPreferenceSetAttribute");
    const void* addresses[4] = {p.b, p.a, p.addend ? p.addend : p.c, p.c};
    for (int i = 0; i < 4; ++i) {
      uint32_t alignment = 256;
      while (reinterpret_cast<uintptr_t>(addresses[i]) % alignment) alignment /= 2;
      check_status(lib.preference_set(preference, kPrefAlignmentA + i, &alignment, sizeof alignment),
                   "cublasLtMatmulPreferenceSetAttribute");
    }
  }

  Object desc = nullptr, a = nullptr, b = nullptr, c = nullptr, preference = nullptr;

 private:
  template <class T>
  void set(int attribute, const T& value) {
    check_status(library().desc_set(desc, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  }
};

}  // namespace

bool cublaslt_available() { return library().complete; }
const std::string& cublaslt_description() { return library().description; }

std::vector<CublasLtAlgorithm> cublaslt_algorithms(const CublasLtProduct& product, int most) {
  std::vector<CublasLtAlgorithm> algorithms;
  if (!cublaslt_available()) return algorithms;
  Descriptors d(product);
  d.prefer(product);
  std::vector<HeuristicResult> results(static_cast<size_t>(most));
  int count = 0;
  const Status status = library().heuristic(handle(), d.desc, d.b, d.a, d.c, d.c, d.preference, most, results.data(), &count);
  if (status != 0) return algorithms;  // not supported
  for (int i = 0; i < count; ++i)
    if (results[i].state == 0) algorithms.push_back(results[i].algorithm);
  return algorithms;
}

void cublaslt_multiply(Context& context, const CublasLtProduct& p, const CublasLtAlgorithm& algorithm, void* workspace) {
  const Descriptors d(p);
  const float one = 1.0f, beta = p.addend ? 1.0f : 0.0f;
  check_status(library().multiply(handle(), d.desc, &one, p.b, d.b, p.a, d.a, &beta, p.addend ? p.addend : p.c, d.c, p.c, d.c,
                                  algorithm.data(), workspace, kCublasLtWorkspace, context.stream),
               "cublasLtMatmul");
}

}}  // namespace mae::cuda
