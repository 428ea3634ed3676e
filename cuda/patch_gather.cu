#include "patch_gather.cuh"

#include "../native/shared/patches.h"
#include "row_moves.cuh"

namespace mae { namespace cuda {
namespace {

constexpr int kGatherWarps = 8;

template <class I, class A, class S>
struct GatherArgs {
  const I* images;
  const int32_t* ids;  // may be null
  const float *scale, *shift, *cls, *pos;  // pos may be null
  A* patches;
  S* tokens;
  int rows, visible, all_patches;  // rows: batch · (visible + 1)
  int64_t picture;                 // values of a picture
  int width, channels, patch, width_out;
};

// One warp a token. Token 0 of a picture is its cls row; the others gather their patch, N values of one row of one channel at a time: those
// lie `channels` apart in the picture, and the cache serves them to the other channels.
template <int N, class I, class A, class S>
__global__ void __launch_bounds__(kGatherWarps* kWarp) patch_gather_kernel(const GatherArgs<I, A, S> a) {
  const int lane = threadIdx.x % kWarp, row = blockIdx.x * kGatherWarps + threadIdx.x / kWarp;
  if (row >= a.rows) return;
  const int b = row / (a.visible + 1), token = row % (a.visible + 1);
  if (token == 0) {
    S* to = a.tokens + int64_t(row) * a.width_out;
    for (int i = lane; i < a.width_out; i += kWarp) to[i] = from_float<S>(a.pos ? a.cls[i] + a.pos[i] : a.cls[i]);
    return;
  }
  const int area = a.patch * a.patch, dim = area * a.channels, pitch = a.width * a.channels;
  const int index = index_at(a.ids, b, a.all_patches, token - 1);
  const I* from = a.images + b * a.picture + patch_origin(index, a.width, a.channels, a.patch);
  A* to = a.patches + int64_t(b * a.visible + token - 1) * dim;
#pragma unroll 2
  for (int k = lane * N; k < dim; k += kWarp * N) {
    const int channel = k / area, inside = k % area;
    const I* values = from + int64_t(inside / a.patch) * pitch + (inside % a.patch) * a.channels + channel;
    const float scale = a.scale[channel], shift = a.shift[channel];
    float v[N];
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = to_float(values[i * a.channels]) * scale + shift;
    store(to + k, v);
  }
}

template <class I, class A, class S>
void gather(const patch_embed_args& a, Context& context) {
  const GatherArgs<I, A, S> args = {static_cast<const I*>(a.images.data),
                                    a.ids.i32(),
                                    a.scale.f32(),
                                    a.shift.f32(),
                                    a.cls.f32(),
                                    a.pos.f32(),
                                    static_cast<A*>(a.patches.data),
                                    static_cast<S*>(a.tokens.data),
                                    int(a.batch * (a.visible + 1)),
                                    int(a.visible),
                                    int((a.height / a.patch) * (a.width / a.patch)),
                                    a.height * a.width * a.channels,
                                    int(a.width),
                                    int(a.channels),
                                    int(a.patch),
                                    int(a.width_out)};
  const bool packed = aligned(16, args.patches);
  const auto run = [&](auto* kernel) {
    launch("patch_gather", kernel, dim3(unsigned(ceil_div(args.rows, kGatherWarps))), kGatherWarps * kWarp, 0, context, args);
  };
  if (packed && a.patch % 4 == 0) run(patch_gather_kernel<4, I, A, S>);
  else if (packed && a.patch % 2 == 0) run(patch_gather_kernel<2, I, A, S>);
  else run(patch_gather_kernel<1, I, A, S>);
}

struct CompactMap {
  int visible;
  __device__ RowMove operator()(int row) const {
    const int b = row / (visible + 1), token = row % (visible + 1);
    return {row, token == 0 ? RowMove::kNone : b * visible + token - 1};
  }
};

}  // namespace

void patch_gather(const patch_embed_args& a, Context& context) {
  with_type(a.patches.dtype, [&](auto patches_tag) {
    with_type(a.tokens.dtype, [&](auto tokens_tag) {
      using A = typename decltype(patches_tag)::type;
      using S = typename decltype(tokens_tag)::type;
      if (a.images.dtype == U8) gather<uint8_t, A, S>(a, context);
      else gather<float, A, S>(a, context);
    });
  });
}

size_t patch_compact_workspace(const patch_embed_grad_args& a) { return move_rows_workspace(2, a.batch * (a.visible + 1), a.width_out); }

void patch_compact(const patch_embed_grad_args& a, void* compact, Context& context) {
  with_type(a.dtokens.dtype, [&](auto dtokens_tag) {
    with_type(a.patches.dtype, [&](auto patches_tag) {
      using D = typename decltype(dtokens_tag)::type;
      using A = typename decltype(patches_tag)::type;
      move_rows<2>("patch_embed_grad (compact)", context, static_cast<const D*>(a.dtokens.data), static_cast<A*>(compact), nullptr,
                   a.batch * (a.visible + 1), a.width_out, CompactMap{int(a.visible)}, &a.dcls, &a.dbias);
    });
  });
}

}}  // namespace mae::cuda
