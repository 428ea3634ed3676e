// What the GEMM kernels do with a finished tile (GemmEpilogue of gemm.cuh): eight (or four) neighbouring elements of a row at a time.
#pragma once
#include <type_traits>

#include "common.cuh"
#include "gemm.cuh"
#include "gemm_maps.h"

namespace mae { namespace cuda {

// One compiled epilogue per kind: what would otherwise be tests and dead registers in every kernel.
enum EpilogueKind : int { kPlain, kGelu, kGeluGrad, kSequences };

// A GemmEpilogue as kernels take it.
struct EpilogueArgs {
  void* c;
  const float* bias;
  const void* addend;     // residual, or c itself where it accumulates; dtype of c
  void* pre;              // kGelu
  const void* gelu_pre;   // kGeluGrad; dtype of the operands
  GemmSequences sequences;  // kSequences
  int64_t m, n;
  bool c_is_bf16;
  int access;  // elements of one access to rows of n: 8 or 4 where sizes and addresses are multiples of that, else 1
};

inline EpilogueKind epilogue_kind(const GemmEpilogue& e) {
  if (e.sequences.rows) return kSequences;
  return e.gelu ? kGelu : e.dgelu_pre ? kGeluGrad : kPlain;
}

inline EpilogueArgs epilogue_args(const GemmEpilogue& e, int64_t m, int64_t n, DType operands, void* c, DType c_dtype) {
  EpilogueArgs args = {c, e.bias, e.accumulate ? c : e.residual, e.pre, e.dgelu_pre, e.sequences, m, n, c_dtype == BF16, 1};
  for (int access : {8, 4}) {
    const uintptr_t c_bytes = access * (c_dtype == BF16 ? 2 : 4), pre_bytes = access * (operands == BF16 ? 2 : 4);
    const bool fits = n % access == 0 && aligned(c_bytes < 16 ? c_bytes : 16, c, args.addend, e.pre) &&
                      aligned(pre_bytes < 16 ? pre_bytes : 16, e.dgelu_pre) && aligned(16, e.bias, e.sequences.pos);
    if (fits && args.access == 1) args.access = access;
  }
  return args;
}

// Calls body(layout, kind) with both as compile-time constants, for the pairs that occur.
template <bool kWithSequences, class F>
void with_layout_and_kind(GemmLayout layout, int kind, F&& body) {
  constexpr auto nt = std::integral_constant<GemmLayout, GemmLayout::NT>();
  constexpr auto nn = std::integral_constant<GemmLayout, GemmLayout::NN>();
  constexpr auto tn = std::integral_constant<GemmLayout, GemmLayout::TN>();
  constexpr auto plain = std::integral_constant<int, kPlain>();
  if (layout == GemmLayout::TN) return body(tn, plain);
  if (layout == GemmLayout::NN) return kind == kGeluGrad ? body(nn, std::integral_constant<int, kGeluGrad>()) : body(nn, plain);
  if constexpr (kWithSequences) {
    if (kind == kSequences) return body(nt, std::integral_constant<int, kSequences>());
  }
  kind == kGelu ? body(nt, std::integral_constant<int, kGelu>()) : body(nt, plain);
}

// GELU(x) = x·Φ(x) and GELU'(x) = Φ(x) + x·φ(x), Φ and φ the standard normal distribution and density (Hendrycks & Gimpel 2016).
static __device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }
static __device__ __forceinline__ float gelu_grad(float x) {
  return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.39894228f * __expf(-0.5f * x * x);
}

// v = p[0 … W), as floats; elements from `count` on are left as they are. `access` as in EpilogueArgs.
template <int W, class T>
static __device__ __forceinline__ void load_part(const T* p, int count, int access, float (&v)[W]) {
  if (access >= W) {
    load<W>(p, v);
  } else if (access == 4) {
#pragma unroll
    for (int part = 0; part < W; part += 4) {
      if (part >= count) break;
      float four[4];
      load<4>(p + part, four);
#pragma unroll
      for (int i = 0; i < 4; ++i) v[part + i] = four[i];
    }
  } else {
#pragma unroll
    for (int i = 0; i < W; ++i)
      if (i < count) v[i] = to_float(p[i]);
  }
}
template <int W, class T>
static __device__ __forceinline__ void store_part(T* p, int count, int access, const float (&v)[W]) {
  if (access >= W) {
    store<W>(p, v);
  } else if (access == 4) {
#pragma unroll
    for (int part = 0; part < W; part += 4) {
      if (part >= count) break;
      const float four[4] = {v[part], v[part + 1], v[part + 2], v[part + 3]};
      store<4>(p + part, four);
    }
  } else {
#pragma unroll
    for (int i = 0; i < W; ++i)
      if (i < count) p[i] = from_float<T>(v[i]);
  }
}
// The same where dtype is known at run time only.
template <int W>
static __device__ __forceinline__ void load_any(const void* p, int64_t at, bool is_bf16, int count, int access, float (&v)[W]) {
  if (is_bf16) load_part<W>(static_cast<const bf16*>(p) + at, count, access, v);
  else load_part<W>(static_cast<const float*>(p) + at, count, access, v);
}
template <int W>
static __device__ __forceinline__ void store_any(void* p, int64_t at, bool is_bf16, int count, int access, const float (&v)[W]) {
  if (is_bf16) store_part<W>(static_cast<bf16*>(p) + at, count, access, v);
  else store_part<W>(static_cast<float*>(p) + at, count, access, v);
}

// The epilogue of W neighbouring elements: fetch() what it reads for several groups first, then finish() them, so that the reads overlap.
// Operand: the dtype of a and b. kAccess: e.access where it is known at compile time, else 0.
template <int kKind, class Operand, int W, int kAccess = 0>
struct EpilogueGroup {
  float addend[W];
  float gelu_pre[W];
  int64_t at;  // where the group starts in c
  int count;   // how many of its elements are inside the matrix; may be ≤ 0

  __device__ __forceinline__ static int access(const EpilogueArgs& e) { return kAccess ? kAccess : e.access; }

  __device__ __forceinline__ void fetch(const EpilogueArgs& e, int64_t row, int64_t column) {
    count = row < e.m ? int(min(e.n - column, int64_t(W))) : 0;
    if (kKind == kSequences) at = (row + row / e.sequences.rows + 1) * e.n + column;
    else at = row * e.n + column;
#pragma unroll
    for (int i = 0; i < W; ++i) addend[i] = 0.0f;
    if (count <= 0) return;
    if (kKind == kGeluGrad) load_part<W>(static_cast<const Operand*>(e.gelu_pre) + at, count, access(e), gelu_pre);
    if (kKind == kSequences) {
      if (!e.sequences.pos) return;
      const int64_t s = row / e.sequences.rows, j = row - s * e.sequences.rows;
      const int64_t patch = e.sequences.ids ? e.sequences.ids[s * e.sequences.ids_stride + j] : j;
      load_part<W>(e.sequences.pos + (patch + 1) * e.n + column, count, access(e), addend);
    } else if (e.addend) {
      load_any<W>(e.addend, at, e.c_is_bf16, count, access(e), addend);
    }
  }

  __device__ __forceinline__ void finish(const EpilogueArgs& e, int64_t column, float (&v)[W]) const {
    if (count <= 0) return;
    if (e.bias) {
      float bias[W] = {};
      load_part<W>(e.bias + column, count, access(e), bias);
#pragma unroll
      for (int i = 0; i < W; ++i) v[i] += bias[i];
    }
    if (kKind == kGelu) {
      if (e.pre) store_any<W>(e.pre, at, e.c_is_bf16, count, access(e), v);
#pragma unroll
      for (int i = 0; i < W; ++i) v[i] = gelu(v[i]);
    }
    if (kKind == kGeluGrad) {
#pragma unroll
      for (int i = 0; i < W; ++i) v[i] *= gelu_grad(gelu_pre[i]);
    }
#pragma unroll
    for (int i = 0; i < W; ++i) v[i] += addend[i];
    store_any<W>(e.c, at, e.c_is_bf16, count, access(e), v);
  }
};

// Four lanes of a row hold columns 2q, 2q+1 of each of four 8-column blocks (x[block][0 … 1], q = lane mod 4). Afterwards lane q holds all
// eight columns of block q in v: a 4×4 transpose of pairs in two butterfly steps.
static __device__ __forceinline__ void gather_block(const float (&x)[4][2], float (&v)[8]) {
  const bool high = threadIdx.x & 2, odd = threadIdx.x & 1;
  float y[4][2];  // y[2a + b]: columns of lane 2a + (q & 1), block 2·(q >> 1) + b
#pragma unroll
  for (int b = 0; b < 2; ++b) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float received = __shfl_xor_sync(0xffffffffu, high ? x[b][i] : x[2 + b][i], 2);
      y[b][i] = high ? received : x[b][i];
      y[2 + b][i] = high ? x[2 + b][i] : received;
    }
  }
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float received = __shfl_xor_sync(0xffffffffu, odd ? y[2 * a][i] : y[2 * a + 1][i], 1);
      v[4 * a + i] = odd ? received : y[2 * a][i];
      v[4 * a + 2 + i] = odd ? y[2 * a + 1][i] : received;
    }
  }
}

// The epilogue of a warp's 16 rows × 8·kBlocks columns whose corner is (row, column); acc[block] is an m16n8 accumulator fragment.
// kBlocks is 4 or 8. All lanes of the warp call it.
template <int kKind, int kBlocks, int kAccess = 0>
static __device__ __forceinline__ void finish_fragments(const EpilogueArgs& e, int64_t row, int64_t column,
                                                        const float (&acc)[kBlocks][4]) {
  constexpr int kGroups = kBlocks / 2;  // two row halves × kBlocks / 4
  const int lane = threadIdx.x % kWarp, q = lane & 3;
  EpilogueGroup<kKind, bf16, 8, kAccess> group[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    group[g].fetch(e, row + fragment_row(lane) + (g & 1) * 8, column + ((g >> 1) * 4 + q) * 8);
  }
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    float x[4][2], v[8];
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      x[block][0] = acc[(g >> 1) * 4 + block][(g & 1) * 2];
      x[block][1] = acc[(g >> 1) * 4 + block][(g & 1) * 2 + 1];
    }
    gather_block(x, v);
    group[g].finish(e, column + ((g >> 1) * 4 + q) * 8, v);
  }
}

}}  // namespace mae::cuda
