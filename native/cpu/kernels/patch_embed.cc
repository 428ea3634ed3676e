// Patch embedding of the visible patches (paper 3): gather and normalise, then one GEMM whose store adds bias and position and skips the
// cls rows. The gradient goes to the weights only: pictures need none.
#include "../../shared/patches.h"
#include "../chunks.h"
#include "../typed.h"
#include "gemm.h"

namespace mae { namespace cpu { namespace MAE_ISA {
namespace {

int64_t patches_of(const patch_embed_args& a) { return a.height / a.patch * (a.width / a.patch); }

// One patch as a row (channel, row, column) of value · scale + shift.
template <class T, class Act>
void gather_patch(const patch_embed_args& a, const T* image, int64_t patch_index, Act* row) {
  const T* origin = image + patch_origin(patch_index, a.width, a.channels, a.patch);
  for (int64_t channel = 0; channel < a.channels; ++channel) {
    const float scale = a.scale.f32()[channel], shift = a.shift.f32()[channel];
    for (int64_t r = 0; r < a.patch; ++r, row += a.patch) {
      const T* from = origin + patch_offset(r, 0, channel, a.width, a.channels);
      for (int64_t column = 0; column < a.patch; ++column) store1(row + column, float(from[column * a.channels]) * scale + shift);
    }
  }
}

template <class T, class Act>
void gather(const patch_embed_args& a, const T* images, Act* patches) {
  const int64_t count = patches_of(a), width = a.channels * a.patch * a.patch;
  const Chunks rows = cut_rows(a.batch * a.visible, width);
  parallel_for(rows.count, [&](int64_t chunk, int) {
    for (int64_t row = chunk_begin(rows, chunk); row < chunk_end(rows, chunk); ++row) {
      const int64_t b = row / a.visible, j = row % a.visible;
      const int64_t patch_index = a.ids.data ? a.ids.i32()[b * count + j] : j;
      gather_patch(a, images + b * a.height * a.width * a.channels, patch_index, patches + row * width);
    }
  });
}

// tokens[b, 0] = cls + pos[0].
template <class Stream>
void write_cls(const patch_embed_args& a, Stream* tokens) {
  for (int64_t b = 0; b < a.batch; ++b) {
    Stream* row = tokens + b * (a.visible + 1) * a.width_out;
    for_lanes(a.width_out, [&](int64_t i, auto n) {
      const vf cls = load(a.cls.f32() + i, n);
      store(row + i, a.pos.data ? cls + load(a.pos.f32() + i, n) : cls, n);
    });
  }
}

Gemm embed(const patch_embed_args& a) {
  Gemm g = {};
  g.m = a.batch * a.visible, g.n = a.width_out, g.k = a.channels * a.patch * a.patch, g.type = a.patches.dtype;
  g.a = {a.patches.data, true};
  g.b = {a.w.data, true};
  g.c.out = a.tokens.data, g.c.out_type = a.tokens.dtype;
  g.c.bias = a.bias.f32();
  g.c.add = a.pos.data, g.c.add_type = F32;
  g.c.token_rows = a.visible;
  g.c.ids = a.ids.i32(), g.c.id_stride = patches_of(a);
  return g;
}

// The token gradients without their cls rows, in the type of the patches: what the GEMM reads.
int64_t dense_bytes(const patch_embed_grad_args& a) {
  return (a.batch * a.visible * a.width_out * (a.patches.dtype == BF16 ? 2 : 4) + 63) & ~int64_t(63);
}

Gemm weight_gradient(const patch_embed_grad_args& a, const void* dense) {
  Gemm g = {};
  g.m = a.width_out, g.n = a.patch_dim, g.k = a.batch * a.visible, g.type = a.patches.dtype;
  g.a = {dense, false};
  g.b = {a.patches.data, false};
  g.c.out = a.dw.data, g.c.out_type = F32, g.c.accumulate = a.dw.accumulate();
  g.split_k = true;
  return g;
}

// Columns [begin, end) of every token gradient: cls rows summed into dcls, the others into dbias and copied to `dense`.
template <class Stream, class Act>
void split_tokens(const patch_embed_grad_args& a, const Stream* dtokens, Act* dense, int64_t begin, int64_t end) {
  for_lanes(end - begin, [&](int64_t i, auto n) {
    const Stream* from = dtokens + begin + i;
    Act* to = dense + begin + i;
    vf cls = a.dcls.accumulate() ? load(a.dcls.f32() + begin + i, n) : vf{};
    vf bias = a.dbias.accumulate() ? load(a.dbias.f32() + begin + i, n) : vf{};
    for (int64_t b = 0; b < a.batch; ++b) {
      cls += load(from, n);
      from += a.width_out;
      for (int64_t j = 0; j < a.visible; ++j, from += a.width_out, to += a.width_out) {
        const vf value = load(from, n);
        bias += value;
        store(to, value, n);
      }
    }
    store(a.dcls.f32_mut() + begin + i, cls, n);
    store(a.dbias.f32_mut() + begin + i, bias, n);
  });
}

}  // namespace

void patch_embed(const patch_embed_args& a, Context& context) {
  with_float(a.patches, [&](auto* patches) {
    if (a.images.dtype == U8) gather(a, a.images.u8(), patches);
    else gather(a, a.images.f32(), patches);
  });
  with_float(a.tokens, [&](auto* tokens) { write_cls(a, tokens); });
  gemm(embed(a), context);
}
size_t patch_embed_workspace(const patch_embed_args& a) { return gemm_workspace(embed(a)); }

void patch_embed_grad(const patch_embed_grad_args& a, Context& context) {
  const int64_t dense = dense_bytes(a);
  with_float(a.dtokens, [&](auto* dtokens) {
    with_float(Operand{context.workspace, a.patches.dtype, 0}, [&](auto* rows) {
      const Chunks columns = cut(a.width_out, 64);
      parallel_for(columns.count, [&](int64_t chunk, int) {
        split_tokens(a, dtokens, rows, chunk_begin(columns, chunk), chunk_end(columns, chunk));
      });
    });
  });
  Context rest = {static_cast<char*>(context.workspace) + dense, context.workspace_bytes - size_t(dense), context.stream};
  gemm(weight_gradient(a, context.workspace), rest);
}
size_t patch_embed_grad_workspace(const patch_embed_grad_args& a) {
  return size_t(dense_bytes(a)) + gemm_workspace(weight_gradient(a, nullptr));
}

}}}  // namespace mae::cpu::MAE_ISA
