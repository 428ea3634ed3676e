// bf16 GEMM on tensor cores through mma.sync (sm_80 and later): cp.async fills a ring of four stages in swizzled shared memory, ldmatrix
// feeds m16n8k16 products, the next step's fragments are read while the current ones multiply. Four warps, each a quarter of the tile.
#include "common.cuh"
#include "gemm_epilogue.cuh"
#include "gemm_kernels.h"
#include "ptx.cuh"

namespace mae { namespace cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kStages = 4;
constexpr int kBand = 8;
constexpr uint32_t kOnes = 0x3f803f80;  // two bf16 ones

struct MmaArgs {
  const bf16* a;
  const bf16* b;
  int64_t m, n, k;
  int tiles_m, tiles_n, splits, k_tiles;
  int64_t partial_stride;
  float* sums;  // TN: where the sums of a's columns go, or null; per split where splits > 1
  bool sums_accumulate;
};

// kVec elements from global to shared memory; zeros, and no read, where `valid` is false. A single element moves through a register.
template <int kVec>
__device__ __forceinline__ void copy_elements(uint32_t to, const bf16* from, bool valid) {
  static_assert(kVec == 8 || kVec == 4 || kVec == 1, "accesses of 16, 8 or 2 bytes");
  if constexpr (kVec == 1) store_shared(to, valid ? *reinterpret_cast<const unsigned short*>(from) : static_cast<unsigned short>(0));
  else copy_async<kVec * 2>(to, from, valid);
}

// Copies one operand's tiles: kWidth rows or columns of the matrix by 32 steps of k. k-major: the matrix is [extent, k]; else [k, extent].
template <bool kKMajor, int kWidth, int kVec>
struct TileCopy {
  static constexpr int kPerRow = (kKMajor ? kMmaTileK : kWidth) / kVec;  // accesses to a row of the tile
  static constexpr int kRows = kKMajor ? kWidth : kMmaTileK;
  static constexpr int kRowsAtOnce = kThreads / kPerRow;
  static constexpr int kSteps = kRows / kRowsAtOnce;
  static_assert(kThreads % kPerRow == 0 && kRows % kRowsAtOnce == 0, "threads divide the tile evenly");

  const bf16* from;  // this thread's first element at k = 0
  int64_t ld;
  int row, column;
  int valid_mn;  // how many of the tile's kWidth rows or columns are inside the matrix

  __device__ __forceinline__ TileCopy(const bf16* matrix, int64_t mn, int64_t extent, int64_t ld) : ld(ld) {
    row = threadIdx.x / kPerRow;
    column = threadIdx.x % kPerRow * kVec;
    valid_mn = int(min(extent - mn, int64_t(kWidth)));
    from = kKMajor ? matrix + (mn + row) * ld + column : matrix + row * ld + mn + column;
  }

  // The tile whose first k is `k`; valid_k: how many k are left from there.
  __device__ __forceinline__ void copy(uint32_t stage, int64_t k, int64_t valid_k) const {
    const bf16* source = from + (kKMajor ? k : k * ld);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int r = row + i * kRowsAtOnce;
      const bool valid = kKMajor ? r < valid_mn && column < valid_k : column < valid_mn && r < valid_k;
      copy_elements<kVec>(stage + offset(i), source + i * kRowsAtOnce * ld, valid);
    }
  }

 private:
  __device__ __forceinline__ int offset(int i) const {
    constexpr bool kSameSwizzle = kRowsAtOnce % 8 == 0;  // rows a multiple of 8 apart are permuted alike
    const int first = kSameSwizzle ? row : row + i * kRowsAtOnce;
    const int base = kKMajor ? k_major_offset(first, column) : mn_major_offset(first, column, kWidth);
    return kSameSwizzle ? base + i * kRowsAtOnce * (kKMajor ? kMmaTileK : kWidth) * 2 : base;
  }
};

template <GemmLayout kLayout, int kTile, int kVec, int kKind>
__global__ void __launch_bounds__(kThreads, 2) mma_kernel(MmaArgs p, EpilogueArgs e) {
  constexpr bool kAKMajor = kLayout != GemmLayout::TN, kBKMajor = kLayout == GemmLayout::NT;
  constexpr int kWarpTile = kTile / 2;
  constexpr int kFragments = kWarpTile / 16;  // m16 fragments of A, and pairs of n8 fragments of B
  constexpr int kTileBytes = kTile * kMmaTileK * 2;
  const uint32_t stages = shared_address(dynamic_shared<char>());

  const int tiles = p.tiles_m * p.tiles_n;
  const int split = blockIdx.x / tiles;
  const TileIndex tile = tile_of(blockIdx.x % tiles, p.tiles_m, p.tiles_n, kBand);
  const int k_begin = split_begin(split, p.splits, p.k_tiles), k_end = split_begin(split + 1, p.splits, p.k_tiles);
  const int64_t m0 = int64_t(tile.m) * kTile, n0 = int64_t(tile.n) * kTile;
  const TileCopy<kAKMajor, kTile, kVec> copy_a(p.a, m0, p.m, kAKMajor ? p.k : p.m);
  const TileCopy<kBKMajor, kTile, kVec> copy_b(p.b, n0, p.n, kBKMajor ? p.k : p.n);
  const auto copy_stage = [&](int k_tile) {
    if (k_tile < k_end) {
      const uint32_t stage = stages + (k_tile - k_begin) % kStages * (2 * kTileBytes);
      const int64_t k = int64_t(k_tile) * kMmaTileK, valid_k = p.k - k;
      copy_a.copy(stage, k, valid_k);
      copy_b.copy(stage + kTileBytes, k, valid_k);
    }
    commit_copies();  // also an empty group: waiting counts groups
  };

  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int warp_m = (warp & 1) * kWarpTile, warp_n = (warp >> 1) * kWarpTile;
  const Place lane_a = kAKMajor ? a_lane_k_major(lane) : a_lane_mn_major(lane);
  const Place lane_b = kBKMajor ? b_lane_k_major(lane) : b_lane_mn_major(lane);
  const int base_a = kAKMajor ? k_major_offset(warp_m + lane_a.mn, lane_a.k) : mn_major_offset(lane_a.k, warp_m + lane_a.mn, kTile);
  const int base_b = kBKMajor ? k_major_offset(warp_n + lane_b.mn, lane_b.k) : mn_major_offset(lane_b.k, warp_n + lane_b.mn, kTile);

  uint32_t a[2][kFragments][4], b[2][kFragments][4];
  const auto load_fragments = [&](int buffer, int k_tile, int kk) {
    const uint32_t stage = stages + (k_tile - k_begin) % kStages * (2 * kTileBytes);
#pragma unroll
    for (int i = 0; i < kFragments; ++i) {
      load_matrices<!kAKMajor>(a[buffer][i], stage + fragment_offset(kAKMajor, base_a, i, kk, kTile));
      load_matrices<!kBKMajor>(b[buffer][i], stage + kTileBytes + fragment_offset(kBKMajor, base_b, i, kk, kTile));
    }
  };

  float acc[kFragments][2 * kFragments][4] = {};
  // The sums of a's columns are a product with ones: one more n8 fragment, whose columns are all alike.
  float sums[kFragments][4] = {};
  const bool with_sums = kLayout == GemmLayout::TN && p.sums && tile.n == 0 && warp_n == 0;

  for (int s = 0; s < kStages - 1; ++s) copy_stage(k_begin + s);
  wait_copies<kStages - 2>();
  __syncthreads();
  load_fragments(0, k_begin, 0);
  constexpr int kSteps = kMmaTileK / 16;
  for (int k_tile = k_begin; k_tile < k_end; ++k_tile) {
#pragma unroll
    for (int kk = 0; kk < kSteps; ++kk) {
      if (kk == kSteps - 1) {
        // Tile k_tile + 1 has arrived for everyone, and nobody reads tile k_tile any more once this step's fragments are in registers.
        wait_copies<kStages - 2>();
        __syncthreads();
        if (k_tile + 1 < k_end) load_fragments((kk + 1) & 1, k_tile + 1, 0);
      } else {
        load_fragments((kk + 1) & 1, k_tile, kk + 1);
      }
      if (kk == 0) copy_stage(k_tile + kStages - 1);  // over tile k_tile − 1
#pragma unroll
      for (int i = 0; i < kFragments; ++i) {
#pragma unroll
        for (int j = 0; j < 2 * kFragments; ++j) {
          const uint32_t(&pair)[4] = b[kk & 1][j / 2];
          multiply(acc[i][j], a[kk & 1][i], pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
        }
        if (with_sums) multiply(sums[i], a[kk & 1][i], kOnes, kOnes);
      }
    }
  }

  if (p.splits > 1) e.c = static_cast<float*>(e.c) + split * p.partial_stride;
#pragma unroll
  for (int i = 0; i < kFragments; ++i) {
    const int64_t row = m0 + warp_m + i * 16;
    finish_fragments<kKind, 2 * kFragments>(e, row, n0 + warp_n, acc[i]);
    if (with_sums && (lane & 3) == 0) {
      float* to = p.sums + (p.splits > 1 ? split * p.partial_stride : 0);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t r = row + fragment_row(lane) + half * 8;
        if (r < p.m) to[r] = sums[i][half * 2] + (p.sums_accumulate ? to[r] : 0.0f);
      }
    }
  }
}

template <GemmLayout kLayout, int kTile, int kVec, int kKind>
void run(Context& context, const GemmProblem& p, const EpilogueArgs& epilogue) {
  MmaArgs args = {};
  args.a = static_cast<const bf16*>(p.a), args.b = static_cast<const bf16*>(p.b);
  args.m = p.m, args.n = p.n, args.k = p.k;
  args.tiles_m = int(ceil_div(p.m, kTile)), args.tiles_n = int(ceil_div(p.n, kTile)), args.k_tiles = int(ceil_div(p.k, kMmaTileK));
  args.splits = p.splits, args.partial_stride = p.partial_stride;
  if (p.a_sums) args.sums = p.splits > 1 ? p.partials + p.m * p.n : p.a_sums;
  args.sums_accumulate = p.splits == 1 && p.a_sums_accumulate;
  launch("gemm_mma", mma_kernel<kLayout, kTile, kVec, kKind>, dim3(args.tiles_m * args.tiles_n * p.splits), dim3(kThreads),
         kStages * 2 * kTile * kMmaTileK * 2, context, args, epilogue);
}

template <GemmLayout kLayout, int kKind>
void choose(Context& context, const GemmProblem& p, const EpilogueArgs& epilogue, int tile) {
  const int64_t row_a = kLayout == GemmLayout::TN ? p.m : p.k, row_b = kLayout == GemmLayout::NT ? p.k : p.n;
  const auto rows_allow = [&](int elements) { return row_a % elements == 0 && row_b % elements == 0 && aligned(elements * 2, p.a, p.b); };
  if (rows_allow(8)) {
    if (tile == 128) return run<kLayout, 128, 8, kKind>(context, p, epilogue);
    return run<kLayout, 64, 8, kKind>(context, p, epilogue);
  }
  if (rows_allow(4)) return run<kLayout, 128, 4, kKind>(context, p, epilogue);
  run<kLayout, 64, 1, kKind>(context, p, epilogue);
}

}  // namespace

void gemm_mma(Context& context, const GemmProblem& p, const EpilogueArgs& epilogue, int kind, int tile) {
  with_layout_and_kind<true>(p.layout, kind, [&](auto layout, auto kind) { choose<layout.value, kind.value>(context, p, epilogue, tile); });
}

}}  // namespace mae::cuda
