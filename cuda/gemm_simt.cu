// float32 GEMM in plain float32 arithmetic (no TF32): for parity, and for float32 programs. Tiles of 128 × 128 × 8, 256 threads with
// 8 × 8 results each, two buffers of shared memory.
#include "common.cuh"
#include "gemm_epilogue.cuh"
#include "gemm_kernels.h"

namespace mae { namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 128;
constexpr int kTileK = 8;
constexpr int kBand = 8;
constexpr int kPitch = kTile + 4;  // floats from one k to the next: whole 16 bytes, transposed writes spread over the banks

struct SimtArgs {
  const float* a;
  const float* b;
  int64_t m, n, k;
  int tiles_m, tiles_n, splits, k_tiles;
  int64_t partial_stride;
  bool vector_a, vector_b;  // rows allow 16-byte accesses
};

// Four neighbouring elements of an operand's tile a thread: along k of row tid / 2 where the matrix is [extent, k], along the other
// dimension at k = tid / 32 where it is [k, extent].
template <bool kKMajor>
struct Operand {
  int mn, k;
  float v[4];

  __device__ __forceinline__ Operand() {
    mn = kKMajor ? threadIdx.x / 2 : threadIdx.x % 32 * 4;
    k = kKMajor ? threadIdx.x % 2 * 4 : threadIdx.x / 32;
  }
  __device__ __forceinline__ void fetch(const float* matrix, int64_t extent, int64_t all_k, int64_t mn0, int64_t k0, bool vector) {
    const int64_t row = mn0 + mn, at = k0 + k;
    const float* from = kKMajor ? matrix + row * all_k + at : matrix + at * extent + row;
    const int64_t left = kKMajor ? (row < extent ? all_k - at : 0) : (at < all_k ? extent - row : 0);
    if (vector && left >= 4) {
      load<4>(from, v);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = i < left ? from[i] : 0.0f;
    }
  }
  __device__ __forceinline__ void put(float (&tile)[kTileK][kPitch]) const {
    if (kKMajor) {
#pragma unroll
      for (int i = 0; i < 4; ++i) tile[k + i][mn] = v[i];
    } else {
      store<4>(&tile[k][mn], v);
    }
  }
};

template <GemmLayout kLayout, int kKind>
__global__ void __launch_bounds__(kThreads, 2) simt_kernel(SimtArgs p, EpilogueArgs e) {
  __shared__ __align__(16) float tiles_a[2][kTileK][kPitch];
  __shared__ __align__(16) float tiles_b[2][kTileK][kPitch];
  const int tiles = p.tiles_m * p.tiles_n;
  const int split = blockIdx.x / tiles;
  const TileIndex tile = tile_of(blockIdx.x % tiles, p.tiles_m, p.tiles_n, kBand);
  const int k_begin = split_begin(split, p.splits, p.k_tiles), k_end = split_begin(split + 1, p.splits, p.k_tiles);
  const int64_t m0 = int64_t(tile.m) * kTile, n0 = int64_t(tile.n) * kTile;
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;  // this thread's results: rows and columns from here and 64 further

  Operand<kLayout != GemmLayout::TN> a;
  Operand<kLayout == GemmLayout::NT> b;
  float acc[8][8] = {};
  a.fetch(p.a, p.m, p.k, m0, int64_t(k_begin) * kTileK, p.vector_a);
  b.fetch(p.b, p.n, p.k, n0, int64_t(k_begin) * kTileK, p.vector_b);
  for (int k_tile = k_begin; k_tile < k_end; ++k_tile) {
    const int buffer = (k_tile - k_begin) & 1;
    a.put(tiles_a[buffer]);
    b.put(tiles_b[buffer]);
    __syncthreads();  // one barrier a step: the buffer written next was last read before it
    if (k_tile + 1 < k_end) {
      a.fetch(p.a, p.m, p.k, m0, int64_t(k_tile + 1) * kTileK, p.vector_a);
      b.fetch(p.b, p.n, p.k, n0, int64_t(k_tile + 1) * kTileK, p.vector_b);
    }
#pragma unroll 2
    for (int k = 0; k < kTileK; ++k) {
      float x[8], y[8];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float four[4];
        load<4>(&tiles_a[buffer][k][row + half * 64], four);
#pragma unroll
        for (int i = 0; i < 4; ++i) x[half * 4 + i] = four[i];
        load<4>(&tiles_b[buffer][k][column + half * 64], four);
#pragma unroll
        for (int i = 0; i < 4; ++i) y[half * 4 + i] = four[i];
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) acc[i][j] += x[i] * y[j];
      }
    }
  }

  if (p.splits > 1) e.c = static_cast<float*>(e.c) + split * p.partial_stride;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      EpilogueGroup<kKind, float, 4> group;
      group.fetch(e, m0 + row + i / 4 * 64 + i % 4, n0 + column + half * 64);
      float v[4] = {acc[i][half * 4], acc[i][half * 4 + 1], acc[i][half * 4 + 2], acc[i][half * 4 + 3]};
      group.finish(e, n0 + column + half * 64, v);
    }
  }
}

template <GemmLayout kLayout, int kKind>
void run(Context& context, const GemmProblem& p, const EpilogueArgs& epilogue) {
  SimtArgs args = {};
  args.a = static_cast<const float*>(p.a), args.b = static_cast<const float*>(p.b);
  args.m = p.m, args.n = p.n, args.k = p.k;
  args.tiles_m = int(ceil_div(p.m, kTile)), args.tiles_n = int(ceil_div(p.n, kTile)), args.k_tiles = int(ceil_div(p.k, kTileK));
  args.splits = p.splits, args.partial_stride = p.partial_stride;
  args.vector_a = (kLayout == GemmLayout::TN ? p.m : p.k) % 4 == 0 && aligned(16, p.a);
  args.vector_b = (kLayout == GemmLayout::NT ? p.k : p.n) % 4 == 0 && aligned(16, p.b);
  const dim3 grid(args.tiles_m * args.tiles_n * p.splits);
  launch("gemm_simt", simt_kernel<kLayout, kKind>, grid, dim3(kThreads), 0, context, args, epilogue);
}

}  // namespace

void gemm_simt(Context& context, const GemmProblem& p, const EpilogueArgs& epilogue, int kind) {
  with_layout_and_kind<true>(p.layout, kind, [&](auto layout, auto kind) { run<layout.value, kind.value>(context, p, epilogue); });
}

}}  // namespace mae::cuda
