// C[m, n] = A[m, k] · B[k, n], float32 accumulation, with what the MAE layers do to C fused into its store. One driver for the three
// orientations: y = x·wᵀ (both operands contiguous along k), dx = dy·w, dw = dyᵀ·x. Every element of C is one chain of fused
// multiply-adds along k (one chain per split of k, for the weight gradient), whatever the blocking: the number of threads changes no bit.
#pragma once
#include "../../kernel.h"
#include "../simd.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// A dense row-major operand. k_contiguous: A[m, k] or B[n, k]; otherwise A[k, m] or B[k, n].
struct Factor {
  const void* data;
  bool k_contiguous;
};

// What becomes of a value c of the product at (row, column), in this order; null pointers are steps left out.
struct Epilogue {
  void* out;  // [rows, n], f32 or bf16
  DType out_type;
  bool accumulate;      // the product itself, f32, no other step: c += out
  const float* bias;    // [n]: c += bias
  void* pre;            // [rows, n], type of out: keeps c here
  bool gelu;            // c = gelu(c)
  const void* gelu_of;  // [rows, n], type of A: c *= gelu'(gelu_of)
  const void* add;      // [rows, n]: c += add
  DType add_type;
  // Row maps of the patch embedding, token_rows > 0: row r of the product, with b = r / token_rows and j = r % token_rows, is row
  // b·(token_rows + 1) + 1 + j of out; and `add` is then a table [.., n] of which it meets row 1 + (ids ? ids[b·id_stride + j] : j).
  int64_t token_rows;
  const int32_t* ids;
  int64_t id_stride;
};

struct Gemm {
  int64_t m, n, k;
  DType type;  // of A and B
  Factor a, b;
  Epilogue c;
  // Weight gradients (A not k_contiguous; c has no step but accumulate): k may be split, and row_sums [m] (+)= Σ_k A[k, m] where not null.
  bool split_k;
  float* row_sums;
  bool accumulate_row_sums;
};

void gemm(const Gemm& g, Context& context);
size_t gemm_workspace(const Gemm& g);

}}}  // namespace mae::cpu::MAE_ISA
