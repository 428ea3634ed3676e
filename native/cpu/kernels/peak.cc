// What this processor could do at best, for the benchmark suite: multiply-adds on registers alone, in the instructions that the GEMM uses.
#include "../../kernel.h"
#include "../pool.h"
#include "../simd.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// Independent accumulators: as many as a processor can have in flight (latency · units, 4 · 4 at most so far) where there are registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kChains = 24;
#else
constexpr int kChains = 12;
#endif

// At least `flops` of them; a value that depends on all, so that none is left out.
static float multiply_add(float x, int64_t flops) {
  const vf factor = splat(x);
  vf sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = splat(x * float(c));
  for (int64_t done = 0; done < flops; done += 2 * kLanes * kChains) {
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c) sums[c] = sums[c] * factor + factor;
  }
  for (int c = 1; c < kChains; ++c) sums[0] += sums[c];
  return hsum(sums[0]);
}

#if defined(__AVX512BF16__)
static float multiply_add_bf16(float x, int64_t flops) {
  const __m512bh factor = _mm512_cvtne2ps_pbh(_mm512_set1_ps(x), _mm512_set1_ps(x));
  __m512 sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = _mm512_set1_ps(x * float(c));
  for (int64_t done = 0; done < flops; done += 4 * kLanes * kChains) {  // two products a lane
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_dpbf16_ps(sums[c], factor, factor);
  }
  for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  return hsum((vf)sums[0]);
}
#else
// Without bf16 instructions the GEMM widens bf16 to f32.
static float multiply_add_bf16(float x, int64_t flops) { return multiply_add(x, flops); }
#endif

size_t peak_fma_workspace(const peak_fma_args&) { return 0; }

void peak_fma(const peak_fma_args& a, Context&) {
  const float x = *a.x.f32();
  float* const sums = a.sums.f32_mut();
  const int64_t flops = a.flops / a.chunks;
  parallel_for(a.chunks, [&](int64_t chunk, int) { sums[chunk] = a.bf16 ? multiply_add_bf16(x, flops) : multiply_add(x, flops); });
}

}}}  // namespace mae::cpu::MAE_ISA
