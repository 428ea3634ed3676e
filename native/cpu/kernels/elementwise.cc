// Element by element: dtype conversion and addition.
#include "../../kernel.h"
#include "../chunks.h"
#include "../lanes.h"
#include "../pool.h"
#include "../typed.h"

namespace mae { namespace cpu { namespace MAE_ISA {

constexpr int64_t kElements = 32768;  // a chunk

size_t cast_workspace(const cast_args&) { return 0; }

void cast(const cast_args& a, Context&) {
  const Chunks chunks = cut(a.count, kElements);
  with_float(a.x, [&](auto* x) {
    with_float(a.y, [&](auto* y) {
      parallel_for(chunks.count, [&](int64_t chunk, int) {
        const int64_t begin = chunk_begin(chunks, chunk);
        for_lanes(chunk_end(chunks, chunk) - begin, [&](int64_t i, auto n) { store(y + begin + i, load(x + begin + i, n), n); });
      });
    });
  });
}

size_t add_workspace(const add_args&) { return 0; }

void add(const add_args& args, Context&) {
  const Chunks chunks = cut(args.count, kElements);
  with_float(args.y, [&](auto* y) {
    const auto* a = same_type(y, args.a);
    const auto* b = same_type(y, args.b);
    parallel_for(chunks.count, [&](int64_t chunk, int) {
      const int64_t begin = chunk_begin(chunks, chunk);
      for_lanes(chunk_end(chunks, chunk) - begin, [&](int64_t i, auto n) {
        store(y + begin + i, load(a + begin + i, n) + load(b + begin + i, n), n);
      });
    });
  });
}

}}}  // namespace mae::cpu::MAE_ISA
