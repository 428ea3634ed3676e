// Which implementation computes which product: a table for each model of GPU, empty at first (gemm.cu then follows its own rule), filled by
// timing (tuning) or from a run's stored choices, so that a resumed run computes the same bits.
#pragma once
#include <stdint.h>

#include <string>
#include <vector>

namespace mae { namespace cuda {

// Everything that a choice may depend on.
struct GemmKey {
  int32_t layout, operands, c_dtype;  // GemmLayout, DType, DType
  int32_t epilogue;                   // bits of EpilogueBits
  int32_t m, n, k;
};

enum EpilogueBits : int32_t {
  kHasBias = 1,
  kHasResidual = 2,
  kHasGelu = 4,
  kHasGeluGrad = 8,
  kHasColumnSums = 16,
  kHasSequences = 32,
};

// The numbers are stored with runs: new ones go to the end.
enum class GemmImplementation : int32_t {
  Simt = 1,
  Mma128 = 2,            // mma.sync, tiles of 128 × 128
  Mma64 = 3,             // mma.sync, tiles of 64 × 64
  Wgmma256 = 4,          // wgmma, tiles of 128 × 256
  Wgmma256Cluster2 = 5,  // the same, clusters of two blocks
  Wgmma128 = 6,          // wgmma, warpgroups in turn on tiles of 128 × 128
  Wgmma128Cluster2 = 7,
  CublasLt = 8,          // the product by cuBLASLt, the epilogue by a kernel of ours where the library has none
  CublasLtBias = 9,      // the same, the bias too by the library
};

const char* name_of(GemmImplementation implementation);  // "wgmma 128x256, clusters of 2"

struct GemmChoice {
  GemmImplementation implementation;
  int32_t library_algorithm[16];  // cuBLASLt: its cublasLtMatmulAlgo_t, valid for the library version that made it; else zeros
};

// For the current device's model. Null: nothing chosen for this product.
const GemmChoice* find_gemm_choice(const GemmKey& key);
void set_gemm_choice(const GemmKey& key, const GemmChoice& choice);

// The whole table of a model ("NVIDIA H200") as integers, kGemmChoiceIntegers a line (the fields of key and choice in order), sorted by key;
// and back: what is there is added to, lines of the same key are replaced. Throws Failure MAE_CONFIG where the integers are not such lines.
constexpr int kGemmChoiceIntegers = 24;
std::vector<int32_t> export_gemm_choices(const std::string& gpu);
void import_gemm_choices(const std::string& gpu, const std::vector<int32_t>& integers);

// While tuning is on, gemm() times every implementation that can compute a product it has no choice for, on the buffers it was given, and
// keeps the fastest. For warm-up runs of a program: outputs that accumulate are left undefined, nothing may be recording, and each new
// product waits for the device. Off at first.
void set_gemm_tuning(bool on);
bool gemm_tuning();

}}  // namespace mae::cuda
