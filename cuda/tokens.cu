// Tokens moved to their places and back: the decoder's input (unshuffle), a selection of rows, and both gradients.
#include "row_moves.cuh"

namespace mae { namespace cuda {
namespace {

constexpr int kUnshuffleWarps = 8;

// y[b, 0] = x[b, 0] + pos[0]; y[b, 1 + p] = (restore[p] < visible ? x[b, 1 + restore[p]] : mask_token) + pos[1 + p]. One warp a row.
template <int N, class X, class Y>
__global__ void __launch_bounds__(kUnshuffleWarps* kWarp)
    unshuffle_kernel(const X* __restrict__ x, const float* __restrict__ mask_token, const float* __restrict__ pos,
                     const int32_t* __restrict__ restore, Y* __restrict__ y, int rows, int visible, int patches, int width) {
  const int lane = threadIdx.x % kWarp, row = blockIdx.x * kUnshuffleWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const int b = row / (patches + 1), t = row % (patches + 1);
  const int from = t == 0 ? 0 : 1 + index_at(restore, b, patches, t - 1);
  const X* source = x + (int64_t(b) * (visible + 1) + from) * width;
  pos += int64_t(t) * width;
  y += int64_t(row) * width;
  const bool kept = from <= visible;
#pragma unroll 4
  for (int column = lane * N; column < width; column += kWarp * N) {
    float v[N], p[N];
    load(pos + column, p);
    if (kept) load(source + column, v);
    else load(mask_token + column, v);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] += p[i];
    store(y + column, v);
  }
}

// Rows in the order of ids: a picture's cls, its visible patches (→ dx), its removed patches (→ the sum, dmask_token).
struct UnshuffleGradMap {
  const int32_t* ids;
  int visible, patches, visited;  // visited: rows of a picture that are looked at
  __device__ RowMove operator()(int row) const {
    const int b = row / visited, j = row % visited;
    const int from = b * (patches + 1) + (j == 0 ? 0 : 1 + index_at(ids, b, patches, j - 1));
    return {from, j <= visible ? b * (visible + 1) + j : RowMove::kNone};
  }
};

struct SelectMap {
  const int32_t* ids;
  int patches, first, count;
  __device__ RowMove operator()(int row) const {
    const int b = row / count;
    return {b * (patches + 1) + 1 + index_at(ids, b, patches, first + row % count), row};
  }
};

struct SelectGradMap {
  const int32_t* restore;
  int patches, first, count;
  __device__ RowMove operator()(int row) const {
    const int b = row / (patches + 1), t = row % (patches + 1);
    const int j = t == 0 ? -1 : index_at(restore, b, patches, t - 1) - first;
    return {j >= 0 && j < count ? b * count + j : RowMove::kNone, row};
  }
};

}  // namespace

size_t unshuffle_workspace(const unshuffle_args&) { return 0; }

void unshuffle(const unshuffle_args& a, Context& context) {
  const int64_t rows = a.batch * (a.patches + 1);
  const bool packed = a.width % 4 == 0 && aligned(16, a.x.f32(), a.mask_token.f32(), a.pos.f32(), a.y.f32());
  with_type(a.x.dtype, [&](auto x_tag) {
    with_type(a.y.dtype, [&](auto y_tag) {
      using X = typename decltype(x_tag)::type;
      using Y = typename decltype(y_tag)::type;
      launch("unshuffle", packed ? unshuffle_kernel<4, X, Y> : unshuffle_kernel<1, X, Y>, dim3(unsigned(ceil_div(rows, kUnshuffleWarps))),
             kUnshuffleWarps * kWarp, 0, context, static_cast<const X*>(a.x.data), a.mask_token.f32(), a.pos.f32(), a.restore.i32(),
             static_cast<Y*>(a.y.data), int(rows), int(a.visible), int(a.patches), int(a.width));
    });
  });
}

namespace {
// The rows that unshuffle_grad looks at: all, or those that were visible where no one asks for dmask_token.
int64_t visited_rows(const unshuffle_grad_args& a) { return (a.dmask_token.data ? a.patches : a.visible) + 1; }
}  // namespace

size_t unshuffle_grad_workspace(const unshuffle_grad_args& a) {
  return a.dmask_token.data ? move_rows_workspace(1, a.batch * visited_rows(a), a.width) : 0;
}

void unshuffle_grad(const unshuffle_grad_args& a, Context& context) {
  const int64_t visited = visited_rows(a);
  const UnshuffleGradMap map = {a.ids.i32(), int(a.visible), int(a.patches), int(visited)};
  with_type(a.dy.dtype, [&](auto dy_tag) {
    with_type(a.dx.dtype, [&](auto dx_tag) {
      using D = typename decltype(dy_tag)::type;
      using X = typename decltype(dx_tag)::type;
      const D* dy = static_cast<const D*>(a.dy.data);
      X* dx = static_cast<X*>(a.dx.data);
      bf16* dx_low = static_cast<bf16*>(a.dx_low.data);
      const int64_t rows = a.batch * visited;
      if (a.dmask_token.data) move_rows<1>("unshuffle_grad", context, dy, dx, dx_low, rows, a.width, map, &a.dmask_token);
      else move_rows<0>("unshuffle_grad", context, dy, dx, dx_low, rows, a.width, map);
    });
  });
}

size_t select_tokens_workspace(const select_tokens_args&) { return 0; }

void select_tokens(const select_tokens_args& a, Context& context) {
  const SelectMap map = {a.ids.i32(), int(a.patches), int(a.first), int(a.count)};
  with_type(a.x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = static_cast<const T*>(a.x.data);
    move_rows<0>("select_tokens", context, x, static_cast<T*>(a.y.data), nullptr, a.batch * a.count, a.width, map);
  });
}

size_t select_tokens_grad_workspace(const select_tokens_grad_args&) { return 0; }

void select_tokens_grad(const select_tokens_grad_args& a, Context& context) {
  const SelectGradMap map = {a.restore.i32(), int(a.patches), int(a.first), int(a.count)};
  with_type(a.dx.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* dy = static_cast<const T*>(a.dy.data);
    bf16* dx_low = static_cast<bf16*>(a.dx_low.data);
    move_rows<0>("select_tokens_grad", context, dy, static_cast<T*>(a.dx.data), dx_low, a.batch * (a.patches + 1), a.width, map);
  });
}

}}  // namespace mae::cuda
