// The instructions that the bf16 attention kernels are made of, one function each; all exist from sm_80 on. A lane of a warp is (g, t) =
// (lane / 4, lane % 4). Fragments of mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type"), every register
// two neighbouring bf16, the first in its low half:
//   A [16, 16]  a0 = A[g][2t, 2t+1]   a1 = A[g+8][2t, 2t+1]   a2 = A[g][2t+8, 2t+9]   a3 = A[g+8][2t+8, 2t+9]
//   B [16, 8]   b0 = B[2t, 2t+1][g]   b1 = B[2t+8, 2t+9][g]
//   C [16, 8]   c0, c1 = C[g][2t, 2t+1]   c2, c3 = C[g+8][2t, 2t+1]
// Two neighbouring C tiles, rounded, are therefore an A fragment: probabilities go from one product into the next in registers.
#pragma once
#include "common.cuh"

namespace mae { namespace cuda {

constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr uint32_t kOnes = 0x3f803f80u;  // two bf16 ones: a B fragment that sums A's rows

static __device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// c += a · b.
static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8×8 matrices of bf16. Lanes 8i … 8i+7 give the addresses of the rows of matrix i; r[i] = matrix i[g][2t, 2t+1].
static __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address));
}
// The same, each transposed: r[i] = matrix i[2t, 2t+1][g].
static __device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address));
}

// 16 bytes from global to shared memory, not waited for; zeros where `valid` is false (`from` is then not read, but is an address).
static __device__ __forceinline__ void copy_async_16(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}
// Ends a group of copies; copy_async_wait<N> waits until all groups of this thread but the last N have arrived.
static __device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
static __device__ __forceinline__ void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// 2^x, to 2 units in the last place; 0 for −∞.
static __device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two floats, rounded to nearest even, as a fragment's register.
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

}}  // namespace mae::cuda
