#include "table.h"

#include <string.h>

namespace mae {

// --- signatures ----------------------------------------------------------------------------------------------------------------
static constexpr int count_names(const char* list) {
  int n = *list ? 1 : 0;
  for (; *list; ++list) n += *list == ',';
  return n;
}

#undef MAE_IN
#undef MAE_OUT
#undef MAE_DIMS
#undef MAE_REALS
#undef MAE_NO_REALS
#define MAE_IN(...) #__VA_ARGS__
#define MAE_OUT(...) #__VA_ARGS__
#define MAE_DIMS(...) #__VA_ARGS__
#define MAE_REALS(...) #__VA_ARGS__
#define MAE_NO_REALS ""
#define CPU false
#define CPU_CUDA true

#define KERNEL(backends, name, in, out, dims, reals) \
  {#name, in, out, dims, reals, backends, count_names(in) + count_names(out), count_names(dims), count_names(reals)},
const KernelSignature kSignatures[] = {
#include "kernels.def"
};
#undef KERNEL
const int kKernelCount = int(sizeof kSignatures / sizeof kSignatures[0]);

// The decoder (program.cc) writes operands, dims and reals one behind the other: the structs must have no padding.
#define KERNEL(backends, name, in, out, dims, reals)                                                                          \
  static_assert(sizeof(name##_args) == 16 * (count_names(in) + count_names(out)) + 8 * (count_names(dims) + count_names(reals)), \
                "arguments of " #name " are laid out without gaps");
#include "kernels.def"
#undef KERNEL

// --- columns -------------------------------------------------------------------------------------------------------------------
// A kernel that kernels.def marks and nobody wrote is an unresolved symbol: the addon does not link.
#define KERNEL(backends, name, in, out, dims, reals)   \
  void name(const name##_args& args, Context& context); \
  size_t name##_workspace(const name##_args& args);
#define DECLARE_ISA(isa)   \
  namespace cpu { namespace isa {
#define END_ISA \
  } }
DECLARE_ISA(portable)
#include "kernels.def"
END_ISA
#if MAE_X86
DECLARE_ISA(avx2)
#include "kernels.def"
END_ISA
DECLARE_ISA(avx512)
#include "kernels.def"
END_ISA
DECLARE_ISA(avx512bf16)
#include "kernels.def"
END_ISA
#endif
#undef KERNEL

#define KERNEL(backends, name, in, out, dims, reals)                                                                        \
  {[](const void* a, Context& c) { KERNEL_NAMESPACE::name(*static_cast<const name##_args*>(a), c); },                       \
   [](const void* a) -> size_t { return KERNEL_NAMESPACE::name##_workspace(*static_cast<const name##_args*>(a)); }},

#define KERNEL_NAMESPACE cpu::portable
static const KernelFunctions kPortable[] = {
#include "kernels.def"
};
#undef KERNEL_NAMESPACE
#if MAE_X86
#define KERNEL_NAMESPACE cpu::avx2
static const KernelFunctions kAvx2[] = {
#include "kernels.def"
};
#undef KERNEL_NAMESPACE
#define KERNEL_NAMESPACE cpu::avx512
static const KernelFunctions kAvx512[] = {
#include "kernels.def"
};
#undef KERNEL_NAMESPACE
#define KERNEL_NAMESPACE cpu::avx512bf16
static const KernelFunctions kAvx512bf16[] = {
#include "kernels.def"
};
#undef KERNEL_NAMESPACE
#endif
#undef KERNEL

const KernelFunctions* cpu_kernels(cpu::Isa isa) {
  switch (isa) {
#if MAE_X86
    case cpu::Isa::avx2: return kAvx2;
    case cpu::Isa::avx512: return kAvx512;
    case cpu::Isa::avx512bf16: return kAvx512bf16;
#endif
    default: return kPortable;
  }
}

#ifdef MAE_WITH_CUDA
#undef CPU
#undef CPU_CUDA
#define DECLARE_CPU(name)
#define DECLARE_CPU_CUDA(name)                         \
  void name(const name##_args& args, Context& context); \
  size_t name##_workspace(const name##_args& args);
#define KERNEL(backends, name, in, out, dims, reals) DECLARE_##backends(name)
namespace cuda {
#include "kernels.def"
}
#undef KERNEL

#define ROW_CPU(name) {nullptr, nullptr},
#define ROW_CPU_CUDA(name)                                                                              \
  {[](const void* a, Context& c) { cuda::name(*static_cast<const name##_args*>(a), c); },               \
   [](const void* a) -> size_t { return cuda::name##_workspace(*static_cast<const name##_args*>(a)); }},
#define KERNEL(backends, name, in, out, dims, reals) ROW_##backends(name)
static const KernelFunctions kCuda[] = {
#include "kernels.def"
};
#undef KERNEL

const KernelFunctions* cuda_kernels() { return kCuda; }
#endif

}  // namespace mae
