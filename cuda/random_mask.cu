// Random masking (paper 3): a patch is kept when its noise is among the `visible` smallest of its picture. One block a picture: the keys
// are sorted in shared memory, and ids, restore and mask written from there.
#include "../native/shared/control.h"
#include "../native/shared/philox.h"
#include "common.cuh"

namespace mae { namespace cuda {
namespace {

constexpr int kMostPatches = 4096;  // 32 KiB of keys
constexpr int kMostThreads = 1024;

// Bits that order as unsigned numbers do what the floats do: the sign bit is flipped, and for negative numbers all others too. −0 counts as
// 0.
__device__ __forceinline__ uint32_t ordered_bits(float noise) {
  const uint32_t u = __float_as_uint(noise + 0.0f);
  return u ^ (u >> 31 ? 0xffffffffu : 0x80000000u);
}

// A key is the noise, then the patch: equal noise keeps the order of the patches, and no two keys are equal. `slots` is the power of two
// that the patches are padded to (with keys that sort last), threads = slots / 2 up to 1024. noise [opt] f32 [batch, patches].
__global__ void random_mask_kernel(const Control* __restrict__ control, const int32_t* __restrict__ indices,
                                   const float* __restrict__ noise, int32_t* __restrict__ ids, int32_t* __restrict__ restore,
                                   float* __restrict__ mask, int patches, int visible, int slots, uint32_t seed) {
  uint64_t* const keys = dynamic_shared<uint64_t>();  // [slots]
  const int64_t first = int64_t(blockIdx.x) * patches;
  for (int p = threadIdx.x; p < slots; p += blockDim.x) {
    uint64_t key = ~uint64_t(0);
    if (p < patches) {
      const uint32_t bits =
          noise ? ordered_bits(noise[first + p]) : mask_noise_bits(seed, control->epoch, uint32_t(indices[blockIdx.x]), uint32_t(p));
      key = uint64_t(bits) << 32 | uint32_t(p);
    }
    keys[p] = key;
  }
  __syncthreads();

  // Bitonic sort (Batcher, 1968): runs of `run` keys, alternately ascending and descending, are merged to runs of twice that length.
  for (int run = 2; run <= slots; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      for (int pair = threadIdx.x; pair < slots / 2; pair += blockDim.x) {
        const int low = 2 * pair - (pair & (distance - 1)), high = low + distance;
        const uint64_t a = keys[low], b = keys[high];
        const bool ascending = (low & run) == 0;
        if ((a > b) == ascending) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      __syncthreads();
    }
  }

  for (int j = threadIdx.x; j < patches; j += blockDim.x) {
    const int p = int(uint32_t(keys[j]));
    ids[first + j] = p;
    restore[first + p] = j;
    mask[first + p] = j < visible ? 0.0f : 1.0f;
  }
}

}  // namespace

size_t random_mask_workspace(const random_mask_args&) { return 0; }

void random_mask(const random_mask_args& a, Context& context) {
  if (a.patches > kMostPatches) {
    throw Failure("MAE_SHAPE", "random_mask on CUDA sorts up to " + std::to_string(kMostPatches) +
                                   " patches of a picture in shared memory, got " + std::to_string(a.patches) +
                                   ": use a larger patch size or smaller pictures, or run on the CPU");
  }
  int slots = 2;
  while (slots < a.patches) slots *= 2;
  const int threads = slots / 2 < kWarp ? kWarp : slots / 2 < kMostThreads ? slots / 2 : kMostThreads;
  launch("random_mask", random_mask_kernel, unsigned(a.batch), threads, size_t(slots) * sizeof(uint64_t), context,
         static_cast<const Control*>(a.control.data), a.indices.i32(), a.noise.f32(), a.ids.i32_mut(), a.restore.i32_mut(),
         a.mask.f32_mut(), int(a.patches), int(a.visible), slots, uint32_t(a.seed));
}

}}  // namespace mae::cuda
