// Tokens moved to their places and back: the decoder's input (unshuffle), a selection of rows, and both gradients.
#include "../../kernel.h"
#include "../chunks.h"
#include "../lanes.h"
#include "../pool.h"
#include "../typed.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// y [width] = x [width] + pos [width].
template <class X, class Y>
static inline void add_row(const X* x, const float* pos, Y* y, int64_t width) {
  for_lanes(width, [&](int64_t i, auto n) { store(y + i, load(x + i, n) + load(pos + i, n), n); });
}

// y [width] = x [width], rounded to bf16 in y_low [width] too, which may be null.
template <class X, class Y>
static inline void copy_row(const X* x, Y* y, uint16_t* y_low, int64_t width) {
  for_lanes(width, [&](int64_t i, auto n) {
    const vf v = load(x + i, n);
    store(y + i, v, n);
    if (y_low) store(y_low + i, v, n);
  });
}

template <class T>
static inline void copy_row(const T* x, T* y, uint16_t* y_low, int64_t width) {
  if (!y_low) memcpy(y, x, size_t(width) * sizeof *x);
  else copy_row<T, T>(x, y, y_low, width);
}

// The index at [b, j] of an index operand [batch, patches]; absent: the identity.
static inline int64_t index_at(const Operand& indices, int64_t b, int64_t patches, int64_t j) {
  return indices.data ? indices.i32()[b * patches + j] : j;
}

size_t unshuffle_workspace(const unshuffle_args&) { return 0; }

void unshuffle(const unshuffle_args& a, Context&) {
  const int64_t width = a.width, tokens = a.patches + 1;
  const Chunks chunks = cut_rows(a.batch * tokens, width);
  const float* mask_token = a.mask_token.f32();
  with_float(a.x, [&](auto* x) {
    with_float(a.y, [&](auto* y) {
      parallel_for(chunks.count, [&](int64_t chunk, int) {
        for (int64_t row = chunk_begin(chunks, chunk); row < chunk_end(chunks, chunk); ++row) {
          const int64_t b = row / tokens, t = row % tokens;
          const int64_t from = t == 0 ? 0 : 1 + index_at(a.restore, b, a.patches, t - 1);
          const float* pos = a.pos.f32() + t * width;
          if (from <= a.visible) add_row(x + (b * (a.visible + 1) + from) * width, pos, y + row * width, width);
          else add_row(mask_token, pos, y + row * width, width);
        }
      });
    });
  });
}

// Rows are taken in the order of ids: a picture's cls, its visible patches (→ dx), its removed patches (→ dmask_token).
static Chunks unshuffle_grad_chunks(const unshuffle_grad_args& a) { return cut_for_partials(a.batch * (a.patches + 1), 32); }

// A chunk's partial dmask_token [width].
size_t unshuffle_grad_workspace(const unshuffle_grad_args& a) {
  return a.dmask_token.data ? size_t(unshuffle_grad_chunks(a).count * a.width) * sizeof(float) : 0;
}

void unshuffle_grad(const unshuffle_grad_args& a, Context& context) {
  const int64_t width = a.width, tokens = a.patches + 1, kept = a.visible + 1;
  const Chunks chunks = unshuffle_grad_chunks(a);
  float* partials = a.dmask_token.data ? static_cast<float*>(context.workspace) : nullptr;
  with_float(a.dy, [&](auto* dy) {
    with_float(a.dx, [&](auto* dx) {
      parallel_for(chunks.count, [&](int64_t chunk, int) {
        float* removed = advance(partials, chunk * width);
        if (removed) memset(removed, 0, size_t(width) * sizeof(float));
        for (int64_t row = chunk_begin(chunks, chunk); row < chunk_end(chunks, chunk); ++row) {
          const int64_t b = row / tokens, j = row % tokens;
          const int64_t from = j == 0 ? 0 : 1 + index_at(a.ids, b, a.patches, j - 1);
          const auto* gradient = dy + (b * tokens + from) * width;
          if (j < kept) {
            const int64_t to = (b * kept + j) * width;
            copy_row(gradient, dx + to, advance(a.dx_low.bf16_mut(), to), width);
          } else if (removed) {
            for_lanes(width, [&](int64_t i, auto n) { store(removed + i, load(removed + i, n) + load(gradient + i, n), n); });
          }
        }
      });
    });
  });
  if (partials) sum_partials(partials, chunks.count, width, width, a.dmask_token);
}

size_t select_tokens_workspace(const select_tokens_args&) { return 0; }

void select_tokens(const select_tokens_args& a, Context&) {
  const int64_t width = a.width;
  const Chunks chunks = cut_rows(a.batch * a.count, width);
  with_float(a.x, [&](auto* x) {
    auto* y = same_type(x, a.y);
    parallel_for(chunks.count, [&](int64_t chunk, int) {
      for (int64_t row = chunk_begin(chunks, chunk); row < chunk_end(chunks, chunk); ++row) {
        const int64_t b = row / a.count, p = index_at(a.ids, b, a.patches, a.first + row % a.count);
        memcpy(y + row * width, x + (b * (a.patches + 1) + 1 + p) * width, size_t(width) * sizeof *x);
      }
    });
  });
}

size_t select_tokens_grad_workspace(const select_tokens_grad_args&) { return 0; }

void select_tokens_grad(const select_tokens_grad_args& a, Context&) {
  const int64_t width = a.width, tokens = a.patches + 1;
  const Chunks chunks = cut_rows(a.batch * tokens, width);
  with_float(a.dx, [&](auto* dx) {
    const auto* dy = same_type(dx, a.dy);
    parallel_for(chunks.count, [&](int64_t chunk, int) {
      for (int64_t row = chunk_begin(chunks, chunk); row < chunk_end(chunks, chunk); ++row) {
        const int64_t b = row / tokens, t = row % tokens;
        const int64_t j = t == 0 ? -1 : index_at(a.restore, b, a.patches, t - 1) - a.first;
        auto* to = dx + row * width;
        uint16_t* to_low = advance(a.dx_low.bf16_mut(), row * width);
        if (j >= 0 && j < a.count) {
          copy_row(dy + (b * a.count + j) * width, to, to_low, width);
        } else {
          memset(to, 0, size_t(width) * sizeof *to);
          if (to_low) memset(to_low, 0, size_t(width) * sizeof *to_low);
        }
      }
    });
  });
}

}}}  // namespace mae::cpu::MAE_ISA
