// The thread pool of the CPU backend. Work is cut into `chunks` numbered pieces whose boundaries depend on shapes alone; which thread takes
// which piece changes no result.
#pragma once
#include <stdint.h>

namespace mae { namespace cpu {

// Threads that take part, the caller included. set_threads(0): one per core of this process's affinity (MAE_THREADS overrides).
int threads();
void set_threads(int n);

// Runs body(context, chunk, thread) for every chunk in [0, chunks); returns when all are done. thread < threads() names scratch space.
// Not reentrant: a body never calls it.
void run_chunks(int64_t chunks, void (*body)(void* context, int64_t chunk, int thread), void* context);

// The same with a lambda: parallel_for(n, [&](int64_t chunk, int thread) { … }).
template <class F>
static inline void parallel_for(int64_t chunks, const F& f) {
  run_chunks(chunks, [](void* context, int64_t chunk, int thread) { (*static_cast<const F*>(context))(chunk, thread); }, const_cast<F*>(&f));
}

}}  // namespace mae::cpu
