// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): counter in, four 32-bit words out.
// lib/random.ts is the same function in TypeScript; test/random.test.ts compares them with the published test vectors.
#pragma once
#include "host_device.h"

namespace mae {
struct Philox4 {
  uint32_t v[4];
};

// What a stream of random numbers is for: the second word of the key, so that streams never share numbers.
enum Purpose : uint32_t { kPurposeMask = 1, kPurposeCrop = 2, kPurposeInit = 3, kPurposeShuffle = 4, kPurposeReplace = 5 };

MAE_HD Philox4 philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ k0, n2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c1 = uint32_t(p1), c3 = uint32_t(p0), c0 = n0, c2 = n2;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return Philox4{{c0, c1, c2, c3}};
}

// Uniform in [0, 1) with 24 bits: exact in float32.
MAE_HD float uniform24(uint32_t x) { return float(x >> 8) * (1.0f / 16777216.0f); }

// The mask noise of one patch. Counter (epoch, picture, patch, 0), key (seed, mask): one draw per patch, wherever it is computed.
MAE_HD uint32_t mask_noise_bits(uint32_t seed, uint32_t epoch, uint32_t picture, uint32_t patch) {
  return philox(epoch, picture, patch, 0, seed, kPurposeMask).v[0] >> 8;
}
}  // namespace mae
