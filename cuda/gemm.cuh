// Matrix products for the linear layers and whatever else multiplies matrices: one entry point, several implementations behind it
// (gemm.cu chooses): tensor cores through mma.sync (gemm_mma.cu, sm_80 and later), tensor cores through wgmma and the copy engine
// (gemm_wgmma.cu, sm_90a), plain float32 (gemm_simt.cu) and, where the library is at hand, cuBLASLt (cublaslt.cc).
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "../native/kernel.h"

namespace mae { namespace cuda {

// How the operands of c[m, n] lie in memory; all are dense and row-major.
enum class GemmLayout : int32_t {
  NT = 0,  // a [m, k], b [n, k]: x · wᵀ, the forward product
  NN = 1,  // a [m, k], b [k, n]: dy · w, the gradient of the input
  TN = 2,  // a [k, m], b [k, n]: dyᵀ · x, the gradient of the weight; k counts tokens
};

// The product of patch embedding: c has one row more per sequence than the product, its first (the class token's), which is left alone.
// Row r of the product, patch j = r mod rows of sequence s = r / rows, goes to row r + s + 1 of c; `pos` adds its row 1 + patch.
struct GemmSequences {
  int64_t rows = 0;              // rows of the product in a sequence; 0: c has the product's own rows
  const float* pos = nullptr;    // [opt] f32 [patches + 1, n]
  const int32_t* ids = nullptr;  // [opt: patch = j] patch = ids[s · ids_stride + j]
  int64_t ids_stride = 0;
};

// What happens to the product on its way to c. With p = a·b + bias:
//   c = f(p) + residual (+ c where `accumulate`), f = identity, GELU (`gelu`; `pre` keeps p) or multiplication by GELU'(dgelu_pre).
// Not everything goes together: `accumulate` goes with a_sums alone, `gelu` excludes `dgelu_pre`, `sequences` goes with the bias alone.
struct GemmEpilogue {
  const float* bias = nullptr;      // f32 [n]
  const void* residual = nullptr;   // [m, n], dtype of c
  bool gelu = false;                // exact erf
  void* pre = nullptr;              // [m, n], dtype of c; only with gelu
  const void* dgelu_pre = nullptr;  // [m, n], dtype of the operands
  bool accumulate = false;
  float* a_sums = nullptr;          // TN only: f32 [m], the sums of a's columns: the gradient of the bias
  bool a_sums_accumulate = false;
  GemmSequences sequences;          // NT only
};

// c[m, n] = epilogue(a · b). `operands`: dtype of a and b, F32 (true float32 arithmetic) or BF16 (float32 accumulation); c_dtype: F32 or
// BF16 (F32 where the operands are). Any m, n, k ≥ 1; sizes that make rows multiples of 16 bytes are the fast ones. Deterministic: the order
// of every sum follows from the shape and the chosen implementation. `workspace`: gemm_workspace(layout, operands, m, n, k) bytes, 256-byte
// aligned. Only enqueues; safe while the stream is captured, once a product of these operands has run plainly on the device.
void gemm(Context& context, GemmLayout layout, DType operands, int64_t m, int64_t n, int64_t k, const void* a, const void* b, void* c,
          DType c_dtype, const GemmEpilogue& epilogue, void* workspace);
size_t gemm_workspace(GemmLayout layout, DType operands, int64_t m, int64_t n, int64_t k);

}}  // namespace mae::cuda
