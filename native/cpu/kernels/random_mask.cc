// Random masking (paper 3): a patch is kept when its noise is among the `visible` smallest of its picture.
#include "../../kernel.h"
#include "../../shared/control.h"
#include "../../shared/philox.h"
#include "../chunks.h"
#include "../pool.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// A patch to be sorted: the noise as an unsigned number of the same order, and the patch's index.
struct Key {
  uint32_t noise;
  int32_t patch;
};

constexpr int kDigitBits = 8, kDigits = 32 / kDigitBits, kBuckets = 1 << kDigitBits;

// The bits of a float, changed so that they order as unsigned numbers the way the floats do: the sign bit is flipped, and for negative
// numbers all others too. −0 counts as 0.
static inline uint32_t ordered_bits(float noise) {
  noise += 0.0f;
  uint32_t u;
  memcpy(&u, &noise, sizeof u);
  return u ^ (u >> 31 ? 0xffffffffu : 0x80000000u);
}

// Sorts keys [count] ascending by noise, stable, so that ties stay in the order of the patches: a radix sort from the lowest digit. A digit
// that all keys share (the highest of Philox noise, which has 24 bits) takes no pass. `other` [count] is scratch; returns whichever of
// the two holds the result.
static Key* sort_keys(Key* keys, Key* other, int64_t count) {
  uint32_t histogram[kDigits][kBuckets] = {};
  for (int64_t i = 0; i < count; ++i) {
    for (int d = 0; d < kDigits; ++d) ++histogram[d][keys[i].noise >> (d * kDigitBits) & (kBuckets - 1)];
  }
  for (int d = 0; d < kDigits; ++d) {
    uint32_t* place = histogram[d];
    if (place[keys[0].noise >> (d * kDigitBits) & (kBuckets - 1)] == uint32_t(count)) continue;
    uint32_t sum = 0;
    for (int b = 0; b < kBuckets; ++b) {
      const uint32_t here = place[b];
      place[b] = sum;
      sum += here;
    }
    for (int64_t i = 0; i < count; ++i) other[place[keys[i].noise >> (d * kDigitBits) & (kBuckets - 1)]++] = keys[i];
    Key* const sorted = other;
    other = keys;
    keys = sorted;
  }
  return keys;
}

static Chunks picture_chunks(const random_mask_args& a) { return cut_for_partials(a.batch, 1); }

// Two arrays of keys for each chunk of pictures.
size_t random_mask_workspace(const random_mask_args& a) { return size_t(picture_chunks(a).count * 2 * a.patches) * sizeof(Key); }

void random_mask(const random_mask_args& a, Context& context) {
  const int64_t patches = a.patches;
  const uint32_t epoch = static_cast<const Control*>(a.control.data)->epoch;
  const Chunks chunks = picture_chunks(a);
  parallel_for(chunks.count, [&](int64_t chunk, int) {
    Key* const keys = static_cast<Key*>(context.workspace) + chunk * 2 * patches;
    for (int64_t b = chunk_begin(chunks, chunk); b < chunk_end(chunks, chunk); ++b) {
      if (a.noise.data) {
        const float* noise = a.noise.f32() + b * patches;
        for (int64_t p = 0; p < patches; ++p) keys[p] = {ordered_bits(noise[p]), int32_t(p)};
      } else {
        const uint32_t picture = uint32_t(a.indices.i32()[b]);
        for (int64_t p = 0; p < patches; ++p) keys[p] = {mask_noise_bits(uint32_t(a.seed), epoch, picture, uint32_t(p)), int32_t(p)};
      }
      const Key* sorted = sort_keys(keys, keys + patches, patches);
      int32_t* ids = a.ids.i32_mut() + b * patches;
      int32_t* restore = a.restore.i32_mut() + b * patches;
      float* mask = a.mask.f32_mut() + b * patches;
      for (int64_t j = 0; j < patches; ++j) {
        const int32_t p = sorted[j].patch;
        ids[j] = p;
        restore[p] = int32_t(j);
        mask[p] = j < a.visible ? 0.0f : 1.0f;
      }
    }
  });
}

}}}  // namespace mae::cpu::MAE_ISA
