// bf16 GEMM for Hopper (sm_90a): one persistent block per multiprocessor, three warpgroups. The first drives the copy engine (TMA), which
// fills a ring of k steps in 128-byte-swizzled shared memory; the other two multiply straight from there with wgmma.
//  tile_n 256: the two share a tile of 128 × 256, 64 rows each: the least memory traffic per product.
//  tile_n 128: each has tiles of 128 × 128 of its own, in turn, so that one's epilogue runs while the other multiplies: for short k.
// Clusters of two blocks work on tiles one above the other, and each fetches half of the tile of b for both.
#include <algorithm>
#include <type_traits>

#include "common.cuh"
#include "gemm_epilogue.cuh"
#include "gemm_kernels.h"
#include "ptx.cuh"

namespace mae { namespace cuda {
namespace {

constexpr int kGroup = 128;  // threads of a warpgroup
constexpr int kThreads = 3 * kGroup;
constexpr int kTileM = 128;
constexpr int kOnesBytes = kSwizzleAtom;  // 8 columns of 64 ones

// The parts of shared memory, from a multiple of 1024 on: stages (a, then b), ones, barriers.
template <int kTileN>
struct Ring {
  static constexpr int kStages = kTileN == 256 ? 4 : 6;
  static constexpr int kABytes = kTileM * kWgmmaTileK * 2, kBBytes = kTileN * kWgmmaTileK * 2, kStageBytes = kABytes + kBBytes;
  static constexpr int kBytes = kStages * kStageBytes + kOnesBytes + 2 * kStages * 8;
};

struct WgmmaArgs {
  int64_t m;
  int tiles_m, tiles_n;  // tiles_m counts rows of clusters: `cluster` tiles each
  int k_tiles, splits, cluster;
  int64_t partial_stride;
  float* sums;  // TN: where the sums of a's columns go, or null; per split where splits > 1
  bool sums_accumulate;
};

// A piece of work: one tile, one part of k.
struct Work {
  int split, tile_n, m, n, k_begin, k_end;
};

template <int kTileN>
__device__ __forceinline__ Work work_of(const WgmmaArgs& p, int item, int rank) {
  constexpr int kBand = 8;
  const int tiles = p.tiles_m * p.tiles_n;
  Work w;
  w.split = item / tiles;
  const TileIndex tile = tile_of(item - w.split * tiles, p.tiles_m, p.tiles_n, kBand);
  w.tile_n = tile.n;
  w.m = (tile.m * p.cluster + rank) * kTileM;
  w.n = tile.n * kTileN;
  w.k_begin = split_begin(w.split, p.splits, p.k_tiles);
  w.k_end = split_begin(w.split + 1, p.splits, p.k_tiles);
  return w;
}

template <GemmLayout kLayout, int kTileN, int kKind>
__global__ void __launch_bounds__(kThreads, 1)
    wgmma_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, WgmmaArgs p, EpilogueArgs e) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // elsewhere the kernel is empty and gemm_wgmma_fits says no
  using R = Ring<kTileN>;
  constexpr bool kAKMajor = kLayout != GemmLayout::TN, kBKMajor = kLayout == GemmLayout::NT;
  constexpr bool kTakeTurns = kTileN == 128;
  constexpr int kHalves = kTakeTurns ? 2 : 1;  // m64 halves of the tile that a warpgroup computes
  constexpr uint32_t kOnes = 0x3f803f80;  // two bf16 ones
  constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  // 8-column blocks that go through the epilogue together: 8 keep more reads in flight, 4 fit the registers where more is live.
  constexpr int kBlocks = kLayout == GemmLayout::TN || kKind == kGeluGrad ? 4 : 8;

  const uint32_t stages = (shared_address(dynamic_shared<char>()) + 1023) & ~1023u;
  const uint32_t ones = stages + R::kStages * R::kStageBytes;
  const auto full = [&](int stage) { return ones + kOnesBytes + stage * 8; };
  const auto empty = [&](int stage) { return ones + kOnesBytes + (R::kStages + stage) * 8; };
  const int cluster = p.cluster, rank = cluster == 1 ? 0 : int(cluster_rank());
  const int items = p.tiles_m * p.tiles_n * p.splits;
  const int first = blockIdx.x / cluster, step = gridDim.x / cluster;

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < R::kStages; ++stage) {
      barrier_init(full(stage), 1);
      barrier_init(empty(stage), (kTakeTurns ? 4 : 8) * cluster);  // one arrival per reading warp
    }
    barrier_init_fence();
  }
  if (kLayout == GemmLayout::TN) {
    if (threadIdx.x < kOnesBytes / 4) store_shared(ones + threadIdx.x * 4, kOnes);
    async_proxy_fence();
  }
  if (cluster == 1) __syncthreads();
  else cluster_sync();

  const int group = threadIdx.x / kGroup;
  if (group == 0) {
    give_registers<kProducerRegisters>();
    if (threadIdx.x == 0) {
      prefetch_map(map_a);
      prefetch_map(map_b);
      int stage = 0;
      uint32_t parity = 0;
      for (int item = first; item < items; item += step) {
        const Work w = work_of<kTileN>(p, item, rank);
        for (int k_tile = w.k_begin; k_tile < w.k_end; ++k_tile) {
          const uint32_t a = stages + stage * R::kStageBytes, b = a + R::kABytes;
          const int k = k_tile * kWgmmaTileK;
          barrier_wait(empty(stage), parity ^ 1);  // a new barrier lets the parity before its first phase pass
          barrier_expect(full(stage), R::kStageBytes);
          if (kAKMajor) {
            load_box(a, map_a, k, w.m, full(stage));
          } else {
            for (int box = 0; box < 2; ++box) load_box(a + box * kSwizzleBox, map_a, w.m + box * 64, k, full(stage));
          }
          for (int half = 0; half < 2; ++half) {
            if (cluster == 2 && half != rank) continue;
            constexpr int kBoxes = kBKMajor ? 1 : kTileN / 128, kBoxColumns = kTileN / 2 / kBoxes;
            for (int box = 0; box < kBoxes; ++box) {
              const int column = half * (kTileN / 2) + box * kBoxColumns;
              const uint32_t to = b + column * 128;
              const int x = kBKMajor ? k : w.n + column, y = kBKMajor ? w.n + column : k;
              if (cluster == 1) load_box(to, map_b, x, y, full(stage));
              else load_box_multicast(to, map_b, x, y, full(stage), 3);
            }
          }
          if (++stage == R::kStages) stage = 0, parity ^= 1;
        }
      }
    }
  } else {
    take_registers<kConsumerRegisters>();
    const int consumer = group - 1, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp % 4;
    int stage = 0;
    uint32_t parity = 0;
    const auto release = [&](int done) {
      if (lane < cluster) barrier_arrive(empty(done), lane);
    };
    float acc[kHalves][kTileN / 2];
    float sums[kHalves][4];  // of a's columns: a product with ones
    // Warpgroups that take turns multiply one after the other: named barrier 1 + i is what consumer i waits for. Besides sparing the tensor
    // cores two interleaved streams, this is what makes waiting by parity sound: parity tells a phase from the one before it and from no
    // other, and every phase before those of this turn has ended once the other warpgroup has waited for all of its own.
    if (kTakeTurns && consumer == 1) named_arrive(1, 2 * kGroup);
    const auto multiply_tiles = [&](int steps, bool another_turn, auto with_sums) {
      if (kTakeTurns) named_sync(1 + consumer, 2 * kGroup);
      for (int s = 0; s < steps; ++s) {
        const uint32_t a = stages + stage * R::kStageBytes + (kTakeTurns ? 0 : consumer * kSwizzleBox);
        uint64_t descriptor_a = wgmma_descriptor(a, kAKMajor);
        uint64_t descriptor_b = wgmma_descriptor(stages + stage * R::kStageBytes + R::kABytes, kBKMajor);
        barrier_wait(full(stage), parity);
        wgmma_fence();
#pragma unroll
        for (int kk = 0; kk < kWgmmaTileK / 16; ++kk) {
#pragma unroll
          for (int half = 0; half < kHalves; ++half) {
            const uint64_t rows = descriptor_a + half * (kSwizzleBox >> 4);
            wgmma<kAKMajor, kBKMajor>(acc[half], rows, descriptor_b, s > 0 || kk > 0);
            if (decltype(with_sums)::value) wgmma<kAKMajor, true>(sums[half], rows, wgmma_descriptor(ones, true), s > 0 || kk > 0);
          }
          descriptor_a += wgmma_k_step(kAKMajor);
          descriptor_b += wgmma_k_step(kBKMajor);
        }
        wgmma_commit();
        wgmma_wait<1>();  // this step's products stay in flight; those of the step before are done with its stage
        if (s > 0) release(stage == 0 ? R::kStages - 1 : stage - 1);
        if (++stage == R::kStages) stage = 0, parity ^= 1;
      }
      if (kTakeTurns && another_turn) named_arrive(2 - consumer, 2 * kGroup);
      wgmma_wait<0>();
      release(stage == 0 ? R::kStages - 1 : stage - 1);
    };
    int turn = 0;
    for (int item = first; item < items; item += step, ++turn) {
      const Work w = work_of<kTileN>(p, item, rank);
      if (kTakeTurns && (turn & 1) != consumer) {  // the other warpgroup's stages
        const int place = stage + w.k_end - w.k_begin;
        stage = place % R::kStages;
        parity ^= (place / R::kStages) & 1;
        continue;
      }
      const bool with_sums = kLayout == GemmLayout::TN && p.sums && w.tile_n == 0;
      const bool another_turn = item + step < items;
      if (kLayout == GemmLayout::TN && with_sums) multiply_tiles(w.k_end - w.k_begin, another_turn, std::true_type());
      else multiply_tiles(w.k_end - w.k_begin, another_turn, std::false_type());
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
#pragma unroll
        for (int i = 0; i < kTileN / 2; ++i) keep(acc[half][i]);
      }

      EpilogueArgs mine = e;
      if (kLayout == GemmLayout::TN && p.splits > 1) mine.c = static_cast<float*>(e.c) + w.split * p.partial_stride;
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        const int row = w.m + (kTakeTurns ? half : consumer) * 64 + warp * 16;
#pragma unroll
        for (int part = 0; part < kTileN / 8 / kBlocks; ++part) {
          float fragments[kBlocks][4];
#pragma unroll
          for (int i = 0; i < kBlocks * 4; ++i) fragments[i / 4][i % 4] = acc[half][part * kBlocks * 4 + i];
          finish_fragments<kKind, kBlocks, 8>(mine, row, w.n + part * kBlocks * 8, fragments);
        }
        if (kLayout == GemmLayout::TN && with_sums) {
          float* to = p.sums + (p.splits > 1 ? w.split * p.partial_stride : 0);
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            keep(sums[half][i * 2]);
            const int r = row + fragment_row(lane) + i * 8;
            if ((lane & 3) == 0 && r < p.m) to[r] = sums[half][i * 2] + (p.sums_accumulate ? to[r] : 0.0f);
          }
        }
      }
    }
  }
  // A block must not end while the other may still copy into its shared memory or arrive at its barriers.
  if (cluster == 2) cluster_sync();
#endif
}

// ---- Host ------------------------------------------------------------------------------------------------------------------------------

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                                 const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                                 CUtensorMapFloatOOBfill);

// The driver's cuTensorMapEncodeTiled (CUDA 12.0), or null: found at run time, so that nothing links against libcuda.
EncodeTiled encode_tiled() {
  static const EncodeTiled function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult status;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &status);
    if (error != cudaSuccess) cudaGetLastError();
    return error == cudaSuccess && status == cudaDriverEntryPointSuccess ? reinterpret_cast<EncodeTiled>(found) : nullptr;
  }();
  return function;
}

// A row-major bf16 matrix [rows, columns] in boxes [box_rows][64]; what lies outside reads as zero.
CUtensorMap tensor_map(const void* matrix, int64_t rows, int64_t columns, int box_rows) {
  CUtensorMap map;
  const cuuint64_t sizes[2] = {cuuint64_t(columns), cuuint64_t(rows)}, row_bytes[1] = {cuuint64_t(columns) * 2};
  const cuuint32_t box[2] = {64, cuuint32_t(box_rows)}, strides[2] = {1, 1};
  const CUresult result = encode_tiled()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(matrix), sizes, row_bytes, box,
                                         strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                         CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Failure("MAE_CUDA", "cuTensorMapEncodeTiled failed with CUresult " + std::to_string(int(result)) + " for a bf16 matrix of " +
                                  std::to_string(rows) + " x " + std::to_string(columns));
  }
  return map;
}

template <GemmLayout kLayout, int kTileN, int kKind>
void run(Context& context, const GemmProblem& p, const EpilogueArgs& epilogue, int cluster) {
  const bool a_k_major = kLayout != GemmLayout::TN, b_k_major = kLayout == GemmLayout::NT;
  const CUtensorMap map_a = a_k_major ? tensor_map(p.a, p.m, p.k, kTileM) : tensor_map(p.a, p.k, p.m, kWgmmaTileK);
  const CUtensorMap map_b = b_k_major ? tensor_map(p.b, p.n, p.k, kTileN / 2) : tensor_map(p.b, p.k, p.n, kWgmmaTileK);
  WgmmaArgs args = {};
  args.m = p.m;
  args.tiles_m = int(ceil_div(p.m, kTileM * cluster)), args.tiles_n = int(ceil_div(p.n, kTileN));
  args.k_tiles = int(ceil_div(p.k, kWgmmaTileK)), args.splits = p.splits, args.cluster = cluster;
  args.partial_stride = p.partial_stride;
  if (p.a_sums) args.sums = p.splits > 1 ? p.partials + p.m * p.n : p.a_sums;
  args.sums_accumulate = p.splits == 1 && p.a_sums_accumulate;

  const auto kernel = wgmma_kernel<kLayout, kTileN, kKind>;
  constexpr int kSharedBytes = Ring<kTileN>::kBytes + 1024;  // 1024: to start at a multiple of it
  CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster, attribute.val.clusterDim.y = 1, attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(cluster);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kSharedBytes;
  config.stream = static_cast<cudaStream_t>(context.stream);
  config.attrs = &attribute, config.numAttrs = 1;
  static int resident[3] = {};  // how many clusters of 1, of 2 blocks the GPU runs at a time
  if (!resident[cluster]) {
    CUDA_CHECK(cudaOccupancyMaxActiveClusters(&resident[cluster], reinterpret_cast<const void*>(kernel), &config));
  }
  const int items = args.tiles_m * args.tiles_n * args.splits;
  config.gridDim = dim3(std::min(items, std::max(resident[cluster], 1)) * cluster);
  check(cudaLaunchKernelEx(&config, kernel, map_a, map_b, args, epilogue), "launching kernel gemm_wgmma", __FILE__, __LINE__);
}

// Whether `device`, the current one, is of compute capability 9.0 and this library holds code for it that has the kernel's body (sm_90a;
// any other target compiles an empty one, which needs few registers).
bool device_has_kernel(int device) {
  int major, minor;
  cudaFuncAttributes attributes;
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  if (major != 9 || minor != 0) return false;
  CUDA_CHECK(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(wgmma_kernel<GemmLayout::NT, 128, kPlain>)));
  return attributes.numRegs > 100;
}

}  // namespace

bool gemm_wgmma_fits(const GemmProblem& p, const EpilogueArgs& epilogue, int kind) {
  const int64_t row_a = p.layout == GemmLayout::TN ? p.m : p.k, row_b = p.layout == GemmLayout::NT ? p.k : p.n;
  constexpr int64_t kMost = int64_t(1) << 30;  // coordinates are 32-bit
  if (kind == kSequences || epilogue.access != 8 || row_a % 8 || row_b % 8 || !aligned(16, p.a, p.b)) return false;
  if (p.m > kMost || p.n > kMost || p.k > kMost) return false;
  // A thread works for one device at a time, and the GPUs of a machine may differ.
  thread_local int known_device = -1;
  thread_local bool available = false;
  int device;
  CUDA_CHECK(cudaGetDevice(&device));
  if (device != known_device) available = device_has_kernel(device) && encode_tiled(), known_device = device;
  return available;
}

void gemm_wgmma(Context& context, const GemmProblem& p, const EpilogueArgs& epilogue, int kind, int tile_n, int cluster) {
  with_layout_and_kind<false>(p.layout, kind, [&](auto layout, auto kind) {
    if (tile_n == 256) run<layout.value, 256, kind.value>(context, p, epilogue, cluster);
    else run<layout.value, 128, kind.value>(context, p, epilogue, cluster);
  });
}

}}  // namespace mae::cuda
