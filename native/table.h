// The kernels by number: their signatures for JavaScript and each backend's functions, all from kernels.def.
#pragma once
#include "cpu/isa.h"
#include "device.h"

namespace mae {

struct KernelSignature {
  const char* name;
  const char* inputs;   // "x, weight, bias"
  const char* outputs;  // "y, mean, rstd"
  const char* dims;
  const char* reals;
  bool on_cuda;  // marked CPU_CUDA
  int operand_count, dim_count, real_count;
};

extern const KernelSignature kSignatures[];
extern const int kKernelCount;

const KernelFunctions* cpu_kernels(cpu::Isa isa);
#ifdef MAE_WITH_CUDA
const KernelFunctions* cuda_kernels();
#endif

}  // namespace mae
