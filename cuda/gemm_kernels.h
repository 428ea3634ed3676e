// The implementations behind gemm(), as gemm.cu sees them. Each enqueues one product; gemm.cu has checked that it can.
#pragma once
#include <vector>

#include "gemm.cuh"
#include "gemm_choice.h"

namespace mae { namespace cuda {

struct EpilogueArgs;

// One product as an implementation gets it. With splits > 1, k is cut into that many parts: part s writes its bare product to
// partials + s · partial_stride, [m, n] and then, if a_sums is not null, [m]; gemm.cu adds them up.
struct GemmProblem {
  GemmLayout layout;
  int64_t m, n, k;
  const void* a;
  const void* b;
  float* a_sums;  // null: not wanted
  bool a_sums_accumulate;
  int splits;
  float* partials;
  int64_t partial_stride;
};

// Tensor cores through mma.sync, bf16; tile 128 or 64. Any sizes.
void gemm_mma(Context& context, const GemmProblem& problem, const EpilogueArgs& epilogue, int kind, int tile);
// float32 in float32 arithmetic. Any sizes. Leaves a_sums to gemm.cu.
void gemm_simt(Context& context, const GemmProblem& problem, const EpilogueArgs& epilogue, int kind);
// Tensor cores through wgmma, bf16; tile_n 256 (two warpgroups share a tile) or 128 (they alternate); clusters of `cluster` (1 or 2) blocks
// share the tiles of b. gemm_wgmma_fits: whether this build, this GPU and this product allow it.
void gemm_wgmma(Context& context, const GemmProblem& problem, const EpilogueArgs& epilogue, int kind, int tile_n, int cluster);
bool gemm_wgmma_fits(const GemmProblem& problem, const EpilogueArgs& epilogue, int kind);

// c[m, n] and a_sums[m] from the partial results of a split problem, added in the order of the splits; c f32.
void gemm_reduce(Context& context, const GemmProblem& problem, float* c, bool accumulate);
// sums[columns] = Σ_rows a (+ sums where `accumulate`); workspace: column_sums_workspace bytes.
void column_sums(Context& context, const void* a, DType dtype, int64_t rows, int64_t columns, float* sums, bool accumulate,
                 void* workspace);
size_t column_sums_workspace(int64_t rows, int64_t columns);
// The epilogue as a kernel of its own, for products whose library cannot do it: `product`, [m, n] in dtype of c, may be c or pre itself.
void gemm_finish(Context& context, const void* product, DType operands, const EpilogueArgs& epilogue, int kind);

// The key of a call of gemm() in the table of choices, and every choice that can compute it (what tuning times); arguments as of gemm().
GemmKey gemm_key(GemmLayout layout, DType operands, int64_t m, int64_t n, int64_t k, DType c_dtype, const GemmEpilogue& epilogue);
std::vector<GemmChoice> gemm_candidates(GemmLayout layout, DType operands, int64_t m, int64_t n, int64_t k, const void* a, const void* b,
                                        void* c, DType c_dtype, const GemmEpilogue& epilogue);

}}  // namespace mae::cuda
