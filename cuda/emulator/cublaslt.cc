// A stand-in for cuBLASLt on the emulator: the functions that cuda/cublaslt.cc opens, with the numbers of its enumerations written again
// here. Matrices are column-major, as the library's are. MAE_CUBLASLT_NO_BIAS=1: products with a bias are not supported.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <vector>

#include "grid.h"
#include "include/cuda_bf16.h"

namespace {

constexpr int kSuccess = 0, kNotInitialized = 1, kInvalidValue = 7, kNotSupported = 15;  // cublasStatus_t
constexpr int kF32 = 0, kBf16 = 14;                                                      // cudaDataType
constexpr int kCompute32F = 68;                                                          // cublasComputeType_t
constexpr uint32_t kEpilogueDefault = 1, kEpilogueBias = 4;
constexpr uint64_t kAlgorithms = 3, kFirstAlgorithm = 1000;

int the_library;

struct Description {
  int32_t transpose_a = 0, transpose_b = 0;
  uint32_t epilogue = kEpilogueDefault;
  const float* bias = nullptr;
  int32_t bias_type = -1;
};
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t ld;
};
struct Heuristic {  // cublasLtMatmulHeuristicResult_t
  uint64_t algorithm[8];
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};

float read(const void* matrix, int type, int64_t at) {
  return type == kBf16 ? __bfloat162float(static_cast<const __nv_bfloat16*>(matrix)[at]) : static_cast<const float*>(matrix)[at];
}
void write(void* matrix, int type, int64_t at, float value) {
  if (type == kBf16) static_cast<__nv_bfloat16*>(matrix)[at] = __float2bfloat16_rn(value);
  else static_cast<float*>(matrix)[at] = value;
}

}  // namespace

extern "C" {

int cublasLtCreate(void** handle) {
  void* memory = nullptr;  // the library allocates: not while a stream is captured
  if (cudaMalloc(&memory, 1 << 20) != cudaSuccess) return kNotInitialized;
  *handle = &the_library;
  return kSuccess;
}
size_t cublasLtGetVersion() { return 130100; }

int cublasLtMatmulDescCreate(void** description, int compute, int scale_type) {
  if (compute != kCompute32F || scale_type != kF32) return kNotSupported;
  *description = new Description;
  return kSuccess;
}
int cublasLtMatmulDescSetAttribute(void* description, int attribute, const void* value, size_t bytes) {
  Description& d = *static_cast<Description*>(description);
  const auto set = [&](auto& field) { return bytes == sizeof field ? memcpy(&field, value, bytes), kSuccess : kInvalidValue; };
  switch (attribute) {
    case 3: return set(d.transpose_a);
    case 4: return set(d.transpose_b);
    case 7: return set(d.epilogue);
    case 8: return set(d.bias);
    case 26: return set(d.bias_type);
    default: return kInvalidValue;
  }
}
int cublasLtMatmulDescDestroy(void* description) { return delete static_cast<Description*>(description), kSuccess; }

int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t columns, int64_t ld) {
  if (uint64_t(ld) < rows || rows == 0 || columns == 0) return kInvalidValue;
  *layout = new Layout{type, rows, columns, ld};
  return kSuccess;
}
int cublasLtMatrixLayoutDestroy(void* layout) { return delete static_cast<Layout*>(layout), kSuccess; }

int cublasLtMatmulPreferenceCreate(void** preference) { return *preference = new int, kSuccess; }
int cublasLtMatmulPreferenceSetAttribute(void*, int attribute, const void*, size_t bytes) {
  return (attribute == 1 && bytes == 8) || (attribute >= 5 && attribute <= 8 && bytes == 4) ? kSuccess : kInvalidValue;
}
int cublasLtMatmulPreferenceDestroy(void* preference) { return delete static_cast<int*>(preference), kSuccess; }

int cublasLtMatmulAlgoGetHeuristic(void* handle, void* description, void*, void*, void*, void*, void*, int most, Heuristic* results,
                                   int* count) {
  if (handle != &the_library) return kNotInitialized;
  if (getenv("MAE_CUBLASLT_NO_BIAS") && static_cast<Description*>(description)->epilogue == kEpilogueBias) return kNotSupported;
  for (*count = 0; *count < most && *count < int(kAlgorithms); ++*count) {
    results[*count] = {};
    results[*count].algorithm[0] = kFirstAlgorithm + *count;
  }
  return kSuccess;
}

// d = alpha · op(a) · op(b) + beta · c (+ bias down each column), when its turn in the stream comes.
int cublasLtMatmul(void* handle, void* description, const void* alpha, const void* a, void* layout_a, const void* b, void* layout_b,
                   const void* beta, const void* c, void* layout_c, void* d, void* layout_d, const uint64_t* algorithm, void* workspace,
                   size_t workspace_bytes, void* stream) {
  if (handle != &the_library) return kNotInitialized;
  const Description how = *static_cast<Description*>(description);
  const Layout la = *static_cast<Layout*>(layout_a), lb = *static_cast<Layout*>(layout_b), lc = *static_cast<Layout*>(layout_c),
               ld = *static_cast<Layout*>(layout_d);
  const uint64_t m = how.transpose_a ? la.columns : la.rows, k = how.transpose_a ? la.rows : la.columns;
  const uint64_t n = how.transpose_b ? lb.rows : lb.columns, k_of_b = how.transpose_b ? lb.columns : lb.rows;
  const bool with_bias = how.epilogue == kEpilogueBias;
  if (k != k_of_b || m != lc.rows || n != lc.columns || m != ld.rows || n != ld.columns || lc.type != ld.type) return kInvalidValue;
  if (with_bias && (how.bias_type != kF32 || !how.bias)) return kInvalidValue;
  if (*algorithm < kFirstAlgorithm || *algorithm >= kFirstAlgorithm + kAlgorithms) return kInvalidValue;
  const float by = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  const auto multiply = [=] {
    memset(workspace, 0xff, workspace_bytes);
    std::vector<float> columns_of_b(k);
    for (uint64_t j = 0; j < n; ++j) {
      for (uint64_t t = 0; t < k; ++t) columns_of_b[t] = read(b, lb.type, how.transpose_b ? t * lb.ld + j : j * lb.ld + t);
      for (uint64_t i = 0; i < m; ++i) {
        float sum = 0.0f;
        for (uint64_t t = 0; t < k; ++t) sum += read(a, la.type, how.transpose_a ? i * la.ld + t : t * la.ld + i) * columns_of_b[t];
        sum *= by;
        if (keep != 0.0f) sum += keep * read(c, lc.type, j * lc.ld + i);
        write(d, ld.type, j * ld.ld + i, with_bias ? sum + how.bias[i] : sum);
      }
    }
    return cudaSuccess;
  };
  return emulator::enqueue(static_cast<cudaStream_t>(stream), multiply) == cudaSuccess ? kSuccess : kInvalidValue;
}

}  // extern "C"
