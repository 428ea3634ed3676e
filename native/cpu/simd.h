// Vectors of float for one instruction set, on GCC/Clang vector extensions: + − * / and comparisons are the compiler's, only what has no
// operator is a function here. Every file under native/cpu/kernels is compiled once per instruction set, in namespace mae::cpu::MAE_ISA.
// Include only C headers and headers of this project in those files: an inline std:: function compiled here for AVX-512 would be
// linked for everyone (test/native.test.ts looks for such symbols).
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "../shared/bf16.h"
#if defined(__AVX2__) || defined(__AVX512F__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own _mm512_undefined_ps() and what it is inlined into
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#ifndef MAE_ISA
#define MAE_ISA portable
#endif

#if defined(__AVX512F__)
#define MAE_LANES 16
#elif defined(__AVX2__)
#define MAE_LANES 8
#else
#define MAE_LANES 4
#endif

namespace mae { namespace cpu { namespace MAE_ISA {

constexpr int kLanes = MAE_LANES;
typedef float vf __attribute__((vector_size(MAE_LANES * 4)));
typedef int32_t vi __attribute__((vector_size(MAE_LANES * 4)));

static inline vf splat(float x) { return x - (vf){}; }
static inline vf load(const float* p) { vf v; memcpy(&v, p, sizeof v); return v; }
static inline void store(float* p, vf v) { memcpy(p, &v, sizeof v); }
static inline vf select(vi m, vf a, vf b) { return m ? a : b; }
static inline vf vmax(vf a, vf b) { return a > b ? a : b; }
static inline vf vmin(vf a, vf b) { return a < b ? a : b; }

// load_n and store_n: the first n < kLanes values; the other lanes are 0 / not written. What lies beyond is not touched.
#if defined(__AVX512F__)
static inline __mmask16 first_lanes(int n) { return __mmask16((1u << n) - 1); }
static inline vf load_n(const float* p, int n) { return (vf)_mm512_maskz_loadu_ps(first_lanes(n), p); }
static inline void store_n(float* p, vf v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v); }
#else
static inline vf load_n(const float* p, int n) { vf v = {}; memcpy(&v, p, size_t(n) * 4); return v; }
static inline void store_n(float* p, vf v, int n) { memcpy(p, &v, size_t(n) * 4); }
#endif

typedef uint32_t vu __attribute__((vector_size(MAE_LANES * 4)));
typedef uint16_t vh __attribute__((vector_size(MAE_LANES * 2)));  // bf16

static inline vf widen(vh h) {  // bf16 → f32
#if defined(__AVX512F__)
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
#elif defined(__AVX2__)
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16);
#else
  return (vf)(__builtin_convertvector(h, vu) << 16);
#endif
}
static inline vh narrow(vf v) {  // f32 → bf16, nearest even
#if defined(__AVX512BF16__)
  return (vh)_mm512_cvtneps_pbh((__m512)v);  // differs from the formula only in flushing denormals to zero
#else
  const vu u = (vu)v;
  const vu rounded = v != v ? u | 0x400000 : u + 0x7fff + ((u >> 16) & 1);
#if defined(__AVX512F__)
  return (vh)_mm512_cvtepi32_epi16(_mm512_srli_epi32((__m512i)rounded, 16));
#elif defined(__AVX2__)
  const __m256i h = _mm256_srli_epi32((__m256i)rounded, 16);
  return (vh)_mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
#else
  return __builtin_convertvector(rounded >> 16, vh);
#endif
#endif
}
static inline vf load(const uint16_t* p) { vh h; memcpy(&h, p, sizeof h); return widen(h); }
static inline void store(uint16_t* p, vf v) { const vh h = narrow(v); memcpy(p, &h, sizeof h); }
#if defined(__AVX512F__)
static inline vf load_n(const uint16_t* p, int n) { return widen((vh)_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
static inline void store_n(uint16_t* p, vf v, int n) { _mm256_mask_storeu_epi16(p, first_lanes(n), (__m256i)narrow(v)); }
#else
static inline vf load_n(const uint16_t* p, int n) { vh h = {}; memcpy(&h, p, size_t(n) * 2); return widen(h); }
static inline void store_n(uint16_t* p, vf v, int n) { const vh h = narrow(v); memcpy(p, &h, size_t(n) * 2); }
#endif

static inline vf load(const uint8_t* p) {  // 0 … 255
#if defined(__AVX512F__)
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
  typedef uint8_t vb __attribute__((vector_size(MAE_LANES)));
  vb b;
  memcpy(&b, p, sizeof b);
  return __builtin_convertvector(__builtin_convertvector(b, vi), vf);
#endif
}
static inline vf load_n(const uint8_t* p, int n) { uint8_t b[MAE_LANES] = {}; memcpy(b, p, size_t(n)); return load(b); }

static inline float load1(const float* p) { return *p; }
static inline float load1(const uint16_t* p) { return bf16_to_f32(*p); }
static inline void store1(float* p, float v) { *p = v; }
static inline void store1(uint16_t* p, float v) { *p = f32_to_bf16(v); }

static inline vf vsqrt(vf x) {
#if defined(__AVX512F__)
  return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
  return (vf)_mm256_sqrt_ps((__m256)x);
#else
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

// The lanes combined as a tree, lane i with lane i + half: the same order on every machine with this many lanes.
template <class Op>
static inline float combine_lanes(vf v, const Op& op) {
#if defined(__AVX512F__)
  const __m256 w = op(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
  const __m128 q = op(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
#elif defined(__AVX2__)
  const __m128 q = op(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
#else
  const vf q = v;
#endif
  return op(op(q[0], q[2]), op(q[1], q[3]));
}
static inline float hsum(vf v) { return combine_lanes(v, [](auto a, auto b) { return a + b; }); }
static inline float hmax(vf v) { return combine_lanes(v, [](auto a, auto b) { return a > b ? a : b; }); }

}}}  // namespace mae::cpu::MAE_ISA
