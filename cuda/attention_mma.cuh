// What the bf16 attention kernels need to know of tensor cores (most instructions are in ptx.cuh; all exist from sm_80 on). A lane of
// a warp is (g, t) = (lane / 4, lane % 4). Fragments of mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point
// type"), every register two neighbouring bf16, the first in its low half:
//   A [16, 16]  a0 = A[g][2t, 2t+1]   a1 = A[g+8][2t, 2t+1]   a2 = A[g][2t+8, 2t+9]   a3 = A[g+8][2t+8, 2t+9]
//   B [16, 8]   b0 = B[2t, 2t+1][g]   b1 = B[2t+8, 2t+9][g]
//   C [16, 8]   c0, c1 = C[g][2t, 2t+1]   c2, c3 = C[g+8][2t, 2t+1]
// Two neighbouring C tiles, rounded, are therefore an A fragment: probabilities go from one product into the next in registers.
// ldmatrix: lanes 8i … 8i + 7 give the addresses of the rows of 8×8 matrix i; register i is its [g][2t, 2t+1], transposed [2t, 2t+1][g].
#pragma once
#include "common.cuh"
#include "ptx.cuh"

namespace mae { namespace cuda {

constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr uint32_t kOnes = 0x3f803f80u;  // two bf16 ones: a B fragment that sums A's rows

}}  // namespace mae::cuda
