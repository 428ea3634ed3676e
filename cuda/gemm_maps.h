// Where things are in a tiled matrix product: tile order, k ranges, swizzled shared memory, and the lanes' places in ldmatrix, mma and
// wgmma fragments (PTX ISA, "mma.m16n8k16" and "wgmma.mma_async"). Plain functions of integers, so that the host can check them.
#pragma once
#include "../native/shared/host_device.h"

namespace mae { namespace cuda {

struct TileIndex {
  int m, n;
};

// Tile number `index` of a tiles_m × tiles_n grid. Bands of `band` tile rows, walked column by column, so that tiles which run at the same
// time form a near-square block and share what they read through the L2 cache.
MAE_HD TileIndex tile_of(int index, int tiles_m, int tiles_n, int band) {
  const int first_m = index / (band * tiles_n) * band;
  const int height = tiles_m - first_m < band ? tiles_m - first_m : band;
  const int inside = index - first_m * tiles_n;
  return TileIndex{first_m + inside % height, inside / height};
}

// Split `split` of `splits` covers the k tiles [begin, end): as equal as whole tiles allow.
MAE_HD int split_begin(int split, int splits, int k_tiles) { return int(int64_t(k_tiles) * split / splits); }

// Into how many parts to cut k, for `tiles` output tiles of k_tiles steps each on a GPU that holds `slots` tiles at a time: the s that
// minimises (rounds of tiles) · (steps of a part + the epilogue) + (the time to write and reduce s partial results of `elements` floats),
// counted in steps. The constants are those of a GPU of 132 multiprocessors; only the shape enters, so a shape always splits alike.
MAE_HD int split_count(int64_t tiles, int64_t k_tiles, int64_t elements, int64_t slots) {
  constexpr int64_t kMaxSplits = 64, kMinSteps = 8, kEpilogueSteps = 8;
  constexpr int64_t kBytesPerStep = 2500000;  // what memory moves while a tile makes one step
  int best = 1;
  int64_t best_cost = -1;
  for (int64_t s = 1; s <= kMaxSplits && (s == 1 || s * kMinSteps <= k_tiles); ++s) {
    const int64_t rounds = (tiles * s + slots - 1) / slots;
    const int64_t reduce = s == 1 ? 0 : s * elements * 8 / kBytesPerStep;
    const int64_t cost = rounds * ((k_tiles + s - 1) / s + kEpilogueSteps) + reduce;
    if (best_cost < 0 || cost < best_cost) best = int(s), best_cost = cost;
  }
  return best;
}

// ---- Shared memory of the mma.sync kernel: k steps of 32 bf16 -------------------------------------------------------------------------

constexpr int kMmaTileK = 32;

// Byte of element k in row `mn` of a k-major tile [rows][32]: 64-byte rows of four 16-byte chunks, permuted so that the eight rows which
// one ldmatrix phase reads (rows r … r+7, one chunk) lie in eight different 16-byte columns of the 128-byte bank line.
MAE_HD int k_major_offset(int mn, int k) { return mn * 64 + (((k >> 3) ^ ((mn >> 1) & 3)) << 4) + (k & 7) * 2; }

// Byte of element `mn` in row k of an mn-major tile [32][width], width 64 or 128: ldmatrix.trans reads rows k … k+7 of one chunk.
MAE_HD int mn_major_offset(int k, int mn, int width) { return k * width * 2 + (((mn >> 3) ^ (k & 7)) << 4) + (mn & 7) * 2; }

struct Place {
  int mn, k;
};

// The 8-element row whose address lane `lane` gives to ldmatrix.x4 (k-major tile) or ldmatrix.x4.trans (mn-major tile), relative to
// the fragment's corner. A: the four 8×8 matrices are (m 0–7, k 0–7), (m 8–15, k 0–7), (m 0–7, k 8–15), (m 8–15, k 8–15): registers a0 … a3
// of one m16k16 fragment. In an mn-major tile the row runs along m.
MAE_HD Place a_lane_k_major(int lane) { return Place{(lane & 7) + (lane & 8), (lane >> 4) * 8}; }
MAE_HD Place a_lane_mn_major(int lane) { return Place{lane & 8, (lane & 7) + (lane >> 4) * 8}; }
// B: (n 0–7, k 0–7), (n 0–7, k 8–15), (n 8–15, k 0–7), (n 8–15, k 8–15): registers b0, b1 of two n8k16 fragments.
MAE_HD Place b_lane_k_major(int lane) { return Place{(lane & 7) + (lane >> 4) * 8, lane & 8}; }
MAE_HD Place b_lane_mn_major(int lane) { return Place{(lane >> 4) * 8, (lane & 7) + (lane & 8)}; }

// The offset of fragment `step` (16 rows further in m or n each) at k 16·kk, from `base`, that of the lane's own place at step 0, kk 0. The
// swizzle only ever flips bits that the other term leaves alone.
MAE_HD int fragment_offset(bool k_major, int base, int step, int kk, int width) {
  return k_major ? (base ^ (kk * 32)) + step * 16 * 64 : (base ^ (step * 32)) + kk * 16 * width * 2;
}

// An accumulator fragment (m16n8 of mma, and each 8 columns of a warp's 16 rows in wgmma): lane holds columns 2·(lane mod 4) and the next
// of row lane / 4 (registers 0, 1) and of row lane / 4 + 8 (registers 2, 3).
MAE_HD int fragment_row(int lane) { return lane >> 2; }
MAE_HD int fragment_column(int lane) { return (lane & 3) * 2; }

// ---- Shared memory of the wgmma kernel: k steps of 64 bf16, 128-byte swizzle -----------------------------------------------------------

constexpr int kWgmmaTileK = 64;
constexpr int kSwizzleAtom = 1024;  // 8 rows of 128 bytes
constexpr int kSwizzleBox = 8192;   // 64 rows of 128 bytes: 64 × 64 bf16

// The copy engine's and wgmma's 128-byte swizzle: 16-byte chunk (address bits 4–6) xor row in the atom (bits 7–9).
MAE_HD uint32_t swizzle128(uint32_t byte) { return byte ^ ((byte >> 3) & 0x70); }

// Matrix descriptor of wgmma for the 128-byte swizzle (PTX ISA, "Matrix Descriptor Format"): address, leading and stride byte offset, each
// without its four low bits; layout type 1 in bits 62–63.
//  k-major: rows of 64 k; stride = from 8 rows to the next 8; leading is not used.
//  mn-major: boxes [64 k][64 mn]; stride = from 8 k to the next 8; leading = from one box to the next (64 mn).
MAE_HD uint64_t wgmma_descriptor(uint32_t shared_address, bool k_major) {
  const uint64_t leading = k_major ? 1 : kSwizzleBox >> 4;
  return uint64_t((shared_address & 0x3ffff) >> 4) | leading << 16 | uint64_t(kSwizzleAtom >> 4) << 32 | uint64_t(1) << 62;
}
// What 16 further k add to a descriptor's address field: 32 bytes along a row, or 16 rows of 128 bytes.
MAE_HD uint32_t wgmma_k_step(bool k_major) { return (k_major ? 32 : 16 * 128) >> 4; }

}}  // namespace mae::cuda
