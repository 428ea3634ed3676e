// Loops over a row in vectors, its last, partial vector included: the body is written once, as a lambda that gets a position and how many
// lanes count there (Full or Part), which it hands on to load and store.
#pragma once
#include "simd.h"

namespace mae { namespace cpu { namespace MAE_ISA {

struct Full {};
struct Part {
  int lanes;  // 0 < lanes < kLanes
};

template <class T> static inline vf load(const T* p, Full) { return load(p); }
template <class T> static inline vf load(const T* p, Part n) { return load_n(p, n.lanes); }
template <class T> static inline void store(T* p, vf v, Full) { store(p, v); }
template <class T> static inline void store(T* p, vf v, Part n) { store_n(p, v, n.lanes); }

// v with the lanes that do not count set to 0.
static inline vf keep(vf v, Full) { return v; }
static inline vf keep(vf v, Part n) {
  for (int i = n.lanes; i < kLanes; ++i) v[i] = 0;
  return v;
}

// body(i, n) for every vector of [0, count).
template <class F>
static inline void for_lanes(int64_t count, const F& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, Full{});
  if (i < count) body(i, Part{int(count - i)});
}

// Σ term(i, n) over the lanes of [0, count), in four chains so that the additions overlap.
template <class F>
static inline float sum_lanes(int64_t count, const F& term) {
  vf s0 = {}, s1 = {}, s2 = {}, s3 = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    s0 += term(i, Full{});
    s1 += term(i + kLanes, Full{});
    s2 += term(i + 2 * kLanes, Full{});
    s3 += term(i + 3 * kLanes, Full{});
  }
  for (; i + kLanes <= count; i += kLanes) s0 += term(i, Full{});
  if (i < count) s1 += keep(term(i, Part{int(count - i)}), Part{int(count - i)});
  return hsum((s0 + s1) + (s2 + s3));
}

}}}  // namespace mae::cpu::MAE_ISA
