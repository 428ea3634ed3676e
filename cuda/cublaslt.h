// cuBLASLt, opened at run time where it is: MAE_CUBLASLT names the library file, else libcublasLt.so.13 and then .12 are looked for on the
// loader's path, in the CUDA toolkit and in the Python packages that bring it. Nothing needs it to build, link or run. Declared here is what
// our products use, no more.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <array>
#include <string>
#include <vector>

#include "gemm.cuh"

namespace mae { namespace cuda {

// A cublasLtMatmulAlgo_t: may be stored, and used again with the same library version.
using CublasLtAlgorithm = std::array<int32_t, 16>;

// c = a · b (+ bias) (+ addend), operands as in gemm().
struct CublasLtProduct {
  GemmLayout layout;
  DType operands, c_dtype;
  int64_t m, n, k;
  const void* a;
  const void* b;
  void* c;
  const float* bias;   // null: none
  const void* addend;  // null: none; c itself, or another matrix of its shape and dtype
};

// Workspace that products may use.
constexpr size_t kCublasLtWorkspace = size_t(32) << 20;

bool cublaslt_available();
// "13.1.0 (libcublasLt.so.13)", or why there is none: for people.
const std::string& cublaslt_description();

// At most `most` algorithms for the product, the library's favourite first; none where it cannot compute it. Needs no device memory, but
// looks at addresses for their alignment.
std::vector<CublasLtAlgorithm> cublaslt_algorithms(const CublasLtProduct& product, int most);

// Enqueues the product. `workspace`: kCublasLtWorkspace bytes. Throws Failure MAE_CUDA with the library's status.
void cublaslt_multiply(Context& context, const CublasLtProduct& product, const CublasLtAlgorithm& algorithm, void* workspace);

}}  // namespace mae::cuda
