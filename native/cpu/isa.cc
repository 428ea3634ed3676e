#include "isa.h"
#include <string.h>

namespace mae { namespace cpu {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512bf16: return "avx512bf16";
    case Isa::portable: break;
  }
  return "portable";
}

bool parse_isa(const char* text, Isa* isa) {
  for (int i = 0; text && i < kIsaCount; ++i) {
    if (strcmp(text, isa_name(Isa(i))) != 0) continue;
    *isa = Isa(i);
    return true;
  }
  return false;
}

#if defined(__x86_64__)
// __builtin_cpu_supports reads CPUID and, for AVX and AVX-512, XCR0: a feature whose registers the operating system does not save is not
// reported. F16C, which the AVX2 build may also use, has no name there in older compilers; no processor has AVX2 without it.
bool isa_supported(Isa isa) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::avx2: return avx2;
    case Isa::avx512: return avx512;
    case Isa::avx512bf16: return avx512 && __builtin_cpu_supports("avx512bf16");
    case Isa::portable: break;
  }
  return true;
}
#else
bool isa_supported(Isa isa) { return isa == Isa::portable; }
#endif

Isa best_isa() {
  int best = kIsaCount - 1;
  while (!isa_supported(Isa(best))) --best;
  return Isa(best);
}

}}  // namespace mae::cpu
