// MAE_HD: a function that both the host compilers and nvcc's device pass compile. Internal linkage on purpose: each instruction-set
// library gets its own copy, so that no AVX-512 version of an inline function is linked for everyone.
#pragma once
#include <stdint.h>

#if defined(__CUDACC__)
#define MAE_HD static __host__ __device__ __forceinline__
#else
#define MAE_HD static inline
#endif
