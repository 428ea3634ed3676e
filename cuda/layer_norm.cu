// LayerNorm over the last axis (Ba et al., 2016): y = x̂·weight + bias, x̂ = (x − μ)·rstd, rstd = 1/√(σ² + eps), σ² biased.
// The widths that models have: one warp a row, the row in registers. Any other width: one block a row, the row read again from the cache.
#include "partial_sums.cuh"

namespace mae { namespace cuda {
namespace {

constexpr int kRowPack = 4;   // elements of an access: 16 bytes of f32, 8 of bf16
constexpr int kRowWarps = 4;  // warps of a block where a warp has a row
constexpr int kGeneralThreads = 256;

// What one lane holds of a row: packs p < kPacks, pack p being columns (p·32 + lane)·4 … + 3. Where Width is no multiple of 128 the last
// pack exists in some lanes only.
template <int Width>
struct LaneRow {
  static_assert(Width % kRowPack == 0, "a row is whole packs");
  static constexpr int kPacks = ceil_div(Width, kWarp * kRowPack);
  static __device__ __forceinline__ int column(int pack, int lane) { return (pack * kWarp + lane) * kRowPack; }
  static __device__ __forceinline__ bool has(int pack, int lane) { return Width % (kWarp * kRowPack) == 0 || column(pack, lane) < Width; }
};

// Blocks that a multiprocessor must hold; 0: the compiler decides. At 768 it decides for 48 registers on sm_89, which do not suffice.
template <int Width>
constexpr int kForwardBlocks = Width == 768 ? 8 : 0;

template <int Width, class X, class Y>
__global__ void __launch_bounds__(kRowWarps* kWarp, kForwardBlocks<Width>)
    layer_norm_kernel(const X* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, Y* __restrict__ y,
                      float* __restrict__ mean, float* __restrict__ rstd, int64_t rows, float eps) {
  using Row = LaneRow<Width>;
  const int lane = threadIdx.x % kWarp;
  const int64_t row = int64_t(blockIdx.x) * kRowWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  x += row * Width;
  y += row * Width;

  float v[Row::kPacks][kRowPack];
  float sum = 0.0f;
#pragma unroll
  for (int p = 0; p < Row::kPacks; ++p) {
    if (!Row::has(p, lane)) continue;
    load(x + Row::column(p, lane), v[p]);
#pragma unroll
    for (int i = 0; i < kRowPack; ++i) sum += v[p][i];
  }
  const float mu = warp_sum(sum) * (1.0f / Width);
  float squares = 0.0f;
#pragma unroll
  for (int p = 0; p < Row::kPacks; ++p) {
    if (!Row::has(p, lane)) continue;
#pragma unroll
    for (int i = 0; i < kRowPack; ++i) {
      v[p][i] -= mu;
      squares += v[p][i] * v[p][i];
    }
  }
  const float r = 1.0f / sqrtf(warp_sum(squares) * (1.0f / Width) + eps);
#pragma unroll
  for (int p = 0; p < Row::kPacks; ++p) {
    if (!Row::has(p, lane)) continue;
    float w[kRowPack], b[kRowPack];
    load(weight + Row::column(p, lane), w);
    load(bias + Row::column(p, lane), b);
#pragma unroll
    for (int i = 0; i < kRowPack; ++i) v[p][i] = v[p][i] * r * w[i] + b[i];
    store(y + Row::column(p, lane), v[p]);
  }
  if (lane == 0) {
    mean[row] = mu;
    rstd[row] = r;
  }
}

template <class X, class Y>
__global__ void __launch_bounds__(kGeneralThreads)
    layer_norm_general_kernel(const X* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, Y* __restrict__ y,
                              float* __restrict__ mean, float* __restrict__ rstd, int64_t width, float eps) {
  __shared__ float shared[kWarp];
  const int64_t row = blockIdx.x;
  x += row * width;
  y += row * width;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < width; i += kGeneralThreads) sum += to_float(x[i]);
  const float mu = block_sum<kGeneralThreads>(sum, shared) / float(width);
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < width; i += kGeneralThreads) {
    const float d = to_float(x[i]) - mu;
    squares += d * d;
  }
  const float r = 1.0f / sqrtf(block_sum<kGeneralThreads>(squares, shared) / float(width) + eps);
  for (int64_t i = threadIdx.x; i < width; i += kGeneralThreads) y[i] = from_float<Y>((to_float(x[i]) - mu) * r * weight[i] + bias[i]);
  if (threadIdx.x == 0) {
    mean[row] = mu;
    rstd[row] = r;
  }
}

// Calls body(std::integral_constant<int, Width>()) with a width that has its own kernel, or with 0 for the general one.
template <class F>
void with_width(int64_t width, bool packed, F&& body) {
  switch (packed ? width : 0) {
    case 192: return body(std::integral_constant<int, 192>());
    case 384: return body(std::integral_constant<int, 384>());
    case 512: return body(std::integral_constant<int, 512>());
    case 768: return body(std::integral_constant<int, 768>());
    case 1024: return body(std::integral_constant<int, 1024>());
    case 1280: return body(std::integral_constant<int, 1280>());
    default: return body(std::integral_constant<int, 0>());
  }
}

}  // namespace

size_t layer_norm_workspace(const layer_norm_args&) { return 0; }

void layer_norm(const layer_norm_args& a, Context& context) {
  const bool packed = aligned(16, a.x.f32(), a.weight.f32(), a.bias.f32(), a.y.f32());
  const float eps = float(a.eps);
  with_type(a.x.dtype, [&](auto x_tag) {
    with_type(a.y.dtype, [&](auto y_tag) {
      using X = typename decltype(x_tag)::type;
      using Y = typename decltype(y_tag)::type;
      const X* x = static_cast<const X*>(a.x.data);
      Y* y = static_cast<Y*>(a.y.data);
      with_width(a.width, packed, [&](auto width) {
        constexpr int kWidth = decltype(width)::value;
        if constexpr (kWidth > 0) {
          const unsigned blocks = unsigned(ceil_div(a.rows, kRowWarps));
          launch("layer_norm", layer_norm_kernel<kWidth, X, Y>, blocks, kRowWarps * kWarp, 0, context, x, a.weight.f32(), a.bias.f32(), y,
                 a.mean.f32_mut(), a.rstd.f32_mut(), a.rows, eps);
        } else {
          launch("layer_norm (general)", layer_norm_general_kernel<X, Y>, unsigned(a.rows), kGeneralThreads, 0, context, x,
                 a.weight.f32(), a.bias.f32(), y, a.mean.f32_mut(), a.rstd.f32_mut(), a.width, eps);
        }
      });
    });
  });
}

namespace {

// dx, acc and x have one dtype; dx may be acc. partials f32 [chunks, 2, width]: dweight, dbias of a chunk.
template <class X, class D>
struct GradArgs {
  const X* x;
  const D* dy;
  const float *weight, *mean, *rstd;
  const X* acc;   // may be null
  X* dx;
  bf16* dx_low;   // may be null
  float* partials;
  int64_t rows, chunk_rows, width;
};

// With g = dy ∘ weight: dx = rstd·(g − mean(g) − x̂·mean(g ∘ x̂)) + acc, dweight = Σ_rows dy ∘ x̂, dbias = Σ_rows dy. A warp takes every
// fourth row of the block's chunk; x and dy are read once; the sums over rows stay in registers until the chunk is done.
template <int Width, class X, class D>
__global__ void __launch_bounds__(kRowWarps* kWarp) layer_norm_grad_kernel(const GradArgs<X, D> a) {
  using Row = LaneRow<Width>;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t begin = blockIdx.x * a.chunk_rows, end = min(begin + a.chunk_rows, a.rows);

  float dweight[Row::kPacks][kRowPack] = {}, dbias[Row::kPacks][kRowPack] = {};
  for (int64_t row = begin + warp; row < end; row += kRowWarps) {
    const float mu = a.mean[row], r = a.rstd[row];
    const X* x = a.x + row * Width;
    const D* dy = a.dy + row * Width;
    float x_hat[Row::kPacks][kRowPack], g[Row::kPacks][kRowPack];
#pragma unroll
    for (int p = 0; p < Row::kPacks; ++p) {
      if (!Row::has(p, lane)) continue;
      load(x + Row::column(p, lane), x_hat[p]);
      load(dy + Row::column(p, lane), g[p]);
    }
    float sum_g = 0.0f, sum_gx = 0.0f;
#pragma unroll
    for (int p = 0; p < Row::kPacks; ++p) {
      if (!Row::has(p, lane)) continue;
      float w[kRowPack];
      load(a.weight + Row::column(p, lane), w);
#pragma unroll
      for (int i = 0; i < kRowPack; ++i) {
        x_hat[p][i] = (x_hat[p][i] - mu) * r;
        dbias[p][i] += g[p][i];
        dweight[p][i] += g[p][i] * x_hat[p][i];
        g[p][i] *= w[i];
        sum_g += g[p][i];
        sum_gx += g[p][i] * x_hat[p][i];
      }
    }
    const float mean_g = warp_sum(sum_g) * (1.0f / Width), mean_gx = warp_sum(sum_gx) * (1.0f / Width);
#pragma unroll
    for (int p = 0; p < Row::kPacks; ++p) {
      if (!Row::has(p, lane)) continue;
#pragma unroll
      for (int i = 0; i < kRowPack; ++i) g[p][i] = r * (g[p][i] - mean_g - x_hat[p][i] * mean_gx);  // dx
    }
    if (a.acc) {  // all of it before the first store: dx may be acc, so the compiler moves no load in front of a store
      float(&acc)[Row::kPacks][kRowPack] = x_hat;
#pragma unroll
      for (int p = 0; p < Row::kPacks; ++p) {
        if (Row::has(p, lane)) load(a.acc + row * Width + Row::column(p, lane), acc[p]);
      }
#pragma unroll
      for (int p = 0; p < Row::kPacks; ++p) {
        if (!Row::has(p, lane)) continue;
#pragma unroll
        for (int i = 0; i < kRowPack; ++i) g[p][i] += acc[p][i];
      }
    }
#pragma unroll
    for (int p = 0; p < Row::kPacks; ++p) {
      if (!Row::has(p, lane)) continue;
      const int64_t at = row * Width + Row::column(p, lane);
      store(a.dx + at, g[p]);
      if (a.dx_low) store(a.dx_low + at, g[p]);
    }
  }

  // The warps' sums, added in the order of the warps.
  __shared__ __align__(16) float sums[2][Width];
#pragma unroll 1
  for (int turn = 0; turn < kRowWarps; ++turn) {
    if (warp == turn) {
#pragma unroll
      for (int p = 0; p < Row::kPacks; ++p) {
        if (!Row::has(p, lane)) continue;
        float* to[2] = {sums[0] + Row::column(p, lane), sums[1] + Row::column(p, lane)};
        if (turn > 0) {
          float before[2][kRowPack];
          load(to[0], before[0]);
          load(to[1], before[1]);
#pragma unroll
          for (int i = 0; i < kRowPack; ++i) dweight[p][i] += before[0][i], dbias[p][i] += before[1][i];
        }
        store(to[0], dweight[p]);
        store(to[1], dbias[p]);
      }
    }
    __syncthreads();
  }
  float* partial = a.partials + int64_t(blockIdx.x) * 2 * Width;
  for (int i = threadIdx.x * kRowPack; i < 2 * Width; i += kRowWarps * kWarp * kRowPack) {
    float v[kRowPack];
    load(&sums[0][0] + i, v);
    store(partial + i, v);
  }
}

template <class X, class D>
__global__ void __launch_bounds__(kGeneralThreads) layer_norm_grad_general_kernel(const GradArgs<X, D> a) {
  __shared__ float shared[kWarp];
  const int64_t width = a.width, begin = blockIdx.x * a.chunk_rows, end = min(begin + a.chunk_rows, a.rows);
  // A thread meets the same columns in every row, so it alone reads and writes their partial sums.
  float* dweight = a.partials + int64_t(blockIdx.x) * 2 * width;
  float* dbias = dweight + width;
  for (int64_t i = threadIdx.x; i < width; i += kGeneralThreads) dweight[i] = dbias[i] = 0.0f;
  for (int64_t row = begin; row < end; ++row) {
    const float mu = a.mean[row], r = a.rstd[row];
    const int64_t at = row * width;
    float sum_g = 0.0f, sum_gx = 0.0f;
    for (int64_t i = threadIdx.x; i < width; i += kGeneralThreads) {
      const float x_hat = (to_float(a.x[at + i]) - mu) * r, d = to_float(a.dy[at + i]), g = d * a.weight[i];
      dbias[i] += d;
      dweight[i] += d * x_hat;
      sum_g += g;
      sum_gx += g * x_hat;
    }
    const float mean_g = block_sum<kGeneralThreads>(sum_g, shared) / float(width);
    const float mean_gx = block_sum<kGeneralThreads>(sum_gx, shared) / float(width);
    for (int64_t i = threadIdx.x; i < width; i += kGeneralThreads) {
      const float x_hat = (to_float(a.x[at + i]) - mu) * r;
      float dx = r * (to_float(a.dy[at + i]) * a.weight[i] - mean_g - x_hat * mean_gx);
      if (a.acc) dx += to_float(a.acc[at + i]);
      a.dx[at + i] = from_float<X>(dx);
      if (a.dx_low) a.dx_low[at + i] = from_float<bf16>(dx);
    }
  }
}

}  // namespace

// The partial sums of every chunk of rows: dweight [width], dbias [width].
size_t layer_norm_grad_workspace(const layer_norm_grad_args& a) { return size_t(cut_rows(a.rows).count * 2 * a.width) * sizeof(float); }

void layer_norm_grad(const layer_norm_grad_args& a, Context& context) {
  const bool packed = aligned(16, a.x.f32(), a.dy.f32(), a.weight.f32(), a.acc.f32(), a.dx.f32(), a.dx_low.bf16());
  const RowChunks chunks = cut_rows(a.rows);
  float* partials = static_cast<float*>(context.workspace);
  with_type(a.x.dtype, [&](auto x_tag) {
    with_type(a.dy.dtype, [&](auto dy_tag) {
      using X = typename decltype(x_tag)::type;
      using D = typename decltype(dy_tag)::type;
      const GradArgs<X, D> args = {static_cast<const X*>(a.x.data),   static_cast<const D*>(a.dy.data), a.weight.f32(), a.mean.f32(),
                                   a.rstd.f32(),                      static_cast<const X*>(a.acc.data), static_cast<X*>(a.dx.data),
                                   static_cast<bf16*>(a.dx_low.data), partials,                          a.rows,
                                   chunks.size,                       a.width};
      const unsigned blocks = unsigned(chunks.count);
      with_width(a.width, packed, [&](auto width) {
        constexpr int kWidth = decltype(width)::value;
        if constexpr (kWidth > 0) {
          launch("layer_norm_grad", layer_norm_grad_kernel<kWidth, X, D>, blocks, kRowWarps * kWarp, 0, context, args);
        } else {
          launch("layer_norm_grad (general)", layer_norm_grad_general_kernel<X, D>, blocks, kGeneralThreads, 0, context, args);
        }
      });
    });
  });
  sum_partials(context, partials, chunks.count, a.width, a.dweight, &a.dbias);
}

}}  // namespace mae::cuda
