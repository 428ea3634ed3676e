// The instructions of cuda/ptx.cuh as the PTX ISA describes them, done lane by lane.
#pragma once
#include <cuda.h>

#include "grid.h"

namespace mae { namespace cuda {

inline uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }
inline void store_shared(uint32_t to, unsigned short value) { memcpy(emulator::shared_at(to, 2), &value, 2); }
inline void store_shared(uint32_t to, uint32_t value) { memcpy(emulator::shared_at(to, 4), &value, 4); }

// ex2.approx.ftz: subnormal operands and results are zero.
inline float exp2_fast(float x) {
  const float y = exp2f(x);
  return y < 1.17549435e-38f ? 0.0f : y;
}
inline uint32_t pack_bf16(float low, float high) { return __float2bfloat16_rn(low).bits | uint32_t(__float2bfloat16_rn(high).bits) << 16; }

// ---- sm_80: asynchronous copies, ldmatrix, mma.sync ------------------------------------------------------------------------------------

template <int kBytes>
void copy_async(uint32_t to, const void* from, bool valid) {
  unsigned char* const at = emulator::shared_at(to, kBytes);
  if (valid && reinterpret_cast<uintptr_t>(from) % kBytes) {
    emulator::fault(cudaErrorMisalignedAddress, "cp.async of %d bytes from %p", kBytes, from);
  }
  const auto copy = [=] {
    if (valid) memcpy(at, from, kBytes);
    else memset(at, 0, kBytes);
  };
  if (emulator::lazy()) emulator::current->copies.back().push_back(copy);
  else copy();
}
inline void commit_copies() { emulator::current->copies.emplace_back(); }

// Does the work of all committed groups but the last `pending`.
inline void finish_groups(emulator::WorkGroups& groups, size_t pending) {
  while (groups.size() - 1 > pending) {
    for (const emulator::Work& work : groups.front()) work();
    groups.erase(groups.begin());
  }
}
template <int kPending>
void wait_copies() {
  finish_groups(emulator::current->copies, kPending);
}

// ldmatrix.x4: lanes 8i … 8i + 7 name the rows of matrix i; lane (g, t) gets its elements [g][2t, 2t + 1], transposed [2t, 2t + 1][g].
template <bool kTranspose>
void load_matrices(uint32_t (&r)[4], uint32_t address) {
  emulator::warp_together(kTranspose ? "ldmatrix.trans" : "ldmatrix", address, r, [](auto in, auto out) {
    for (unsigned i = 0; i < 4; ++i) {
      uint16_t matrix[8][8];
      for (unsigned row = 0; row < 8; ++row) memcpy(matrix[row], emulator::shared_at(in(8 * i + row), 16), 16);
      for (unsigned lane = 0; lane < 32; ++lane) {
        const unsigned g = lane / 4, t = lane % 4;
        const uint16_t low = kTranspose ? matrix[2 * t][g] : matrix[g][2 * t];
        const uint16_t high = kTranspose ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
        out(lane)[i] = low | uint32_t(high) << 16;
      }
    }
  });
}

inline float half_of(uint32_t pair, unsigned which) { return __uint_as_float(which ? pair & 0xffff0000u : pair << 16); }

// mma.m16n8k16, fragments as in "Matrix Fragments for mma.m16n8k16 with floating point type".
inline void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct In {
    uint32_t a[4], b[2];
  };
  emulator::warp_together("mma.sync", In{{a[0], a[1], a[2], a[3]}, {b0, b1}}, d, [](auto in, auto out) {
    float a[16][16], b[16][8], c[16][8];
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned g = lane / 4, t = lane % 4;
      const In& mine = in(lane);
      for (unsigned e = 0; e < 2; ++e) {
        for (unsigned r = 0; r < 4; ++r) a[g + r % 2 * 8][2 * t + e + r / 2 * 8] = half_of(mine.a[r], e);
        for (unsigned r = 0; r < 2; ++r) b[2 * t + e + r * 8][g] = half_of(mine.b[r], e);
      }
      for (unsigned i = 0; i < 4; ++i) c[g + i / 2 * 8][2 * t + i % 2] = out(lane)[i];
    }
    for (unsigned row = 0; row < 16; ++row)
      for (unsigned k = 0; k < 16; ++k)
        for (unsigned column = 0; column < 8; ++column) c[row][column] += a[row][k] * b[k][column];
    for (unsigned lane = 0; lane < 32; ++lane)
      for (unsigned i = 0; i < 4; ++i) out(lane)[i] = c[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
  });
}

// ---- sm_90a: barriers ------------------------------------------------------------------------------------------------------------------

inline emulator::TransferBarrier& transfer_barrier(uint32_t address, unsigned rank) {
  auto& all = emulator::cluster()[rank].transfers;
  const auto found = all.find(address);
  if (found == all.end()) emulator::fault(cudaErrorIllegalInstruction, "no mbarrier was initialised at shared address %u", address);
  return found->second;
}
inline void settle(emulator::TransferBarrier& barrier) {
  if (barrier.pending == 0 && barrier.bytes == 0) barrier.pending = barrier.expected, ++barrier.phases_done;
}
inline void arrive_at(emulator::TransferBarrier& barrier) {
  if (barrier.pending == 0) emulator::fault(cudaErrorIllegalInstruction, "an mbarrier got more arrivals than it was initialised for");
  --barrier.pending;
  settle(barrier);
}
inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
  emulator::shared_at(barrier, 8);
  emulator::current->block->transfers[barrier] = {arrivals, arrivals, 0, 0};
}
inline void barrier_init_fence() {}
inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  emulator::TransferBarrier& mine = transfer_barrier(barrier, emulator::current->block->rank);
  mine.bytes += bytes;
  arrive_at(mine);
}
inline void barrier_arrive(uint32_t barrier, uint32_t rank) { arrive_at(transfer_barrier(barrier, rank)); }
// Phases are counted from 0; the parity says which of the current phase and the one before is meant.
inline void barrier_wait(uint32_t barrier, uint32_t parity) {
  const emulator::TransferBarrier& mine = transfer_barrier(barrier, emulator::current->block->rank);
  while (mine.phases_done % 2 == parity) emulator::wait_for_change(mine.phases_done, "mbarrier.try_wait");
}
inline void named_sync(int id, int threads) {
  emulator::arrive_and_wait(emulator::current->block->barriers[id], unsigned(threads), "bar.sync");
}
inline void named_arrive(int id, int threads) { emulator::arrive(emulator::current->block->barriers[id], unsigned(threads)); }
inline uint32_t cluster_rank() { return emulator::current->block->rank; }
inline void cluster_sync() {
  unsigned live = 0;
  for (const emulator::Block& block : emulator::cluster()) live += block.live;
  emulator::arrive_and_wait(emulator::cluster_barrier(), live, "barrier.cluster");
}

// ---- sm_90a: the copy engine -----------------------------------------------------------------------------------------------------------

// The 128-byte swizzle, on absolute shared addresses.
inline uint32_t swizzled(uint32_t address) { return address ^ ((address >> 3) & 0x70); }

inline void load_box_multicast(uint32_t to, const CUtensorMap& map, int x, int y, uint32_t barrier, unsigned short blocks) {
  if (to % 1024) emulator::fault(cudaErrorMisalignedAddress, "a swizzled box goes to shared address %u, which is no multiple of 1024", to);
  std::vector<emulator::TransferBarrier*> barriers;
  std::vector<unsigned char*> memory;  // of the whole block: shared address 0
  const uint32_t bytes = map.box[0] * map.box[1] * 2;
  for (unsigned rank = 0; rank < emulator::cluster().size(); ++rank) {
    if (!(blocks >> rank & 1)) continue;
    emulator::shared_at(to + bytes - 1, 1, rank);
    memory.push_back(emulator::shared_at(to, 1, rank) - to);
    barriers.push_back(&transfer_barrier(barrier, rank));
  }
  emulator::engine([=] {
    for (size_t i = 0; i < memory.size(); ++i) {
      for (uint32_t row = 0; row < map.box[1]; ++row) {
        for (uint32_t column = 0; column < map.box[0]; ++column) {
          const int64_t from_x = int64_t(x) + column, from_y = int64_t(y) + row;
          const bool inside = from_x >= 0 && from_y >= 0 && uint64_t(from_x) < map.sizes[0] && uint64_t(from_y) < map.sizes[1];
          uint16_t value = 0;
          if (inside) memcpy(&value, map.matrix + uint64_t(from_y) * map.row_bytes + from_x * 2, 2);
          memcpy(memory[i] + swizzled(to + row * 128 + column * 2), &value, 2);
        }
      }
      barriers[i]->bytes -= bytes;
      settle(*barriers[i]);
    }
  });
}
inline void load_box(uint32_t to, const CUtensorMap& map, int x, int y, uint32_t barrier) {
  load_box_multicast(to, map, x, y, barrier, static_cast<unsigned short>(1u << cluster_rank()));
}
inline void prefetch_map(const CUtensorMap&) {}
inline void async_proxy_fence() {}

// ---- sm_90a: wgmma ---------------------------------------------------------------------------------------------------------------------

template <class In, class Out, class F>
void warpgroup_together(const char* instruction, const In& in, Out& out, F&& compute) {
  const unsigned number = emulator::current->number;
  emulator::together(emulator::current->block->warpgroups[number / 128].meeting, 128, number % 128, instruction, in, out, compute);
}
inline emulator::WorkGroups& products() { return emulator::current->block->warpgroups[emulator::current->number / 128].products; }

template <int kRegisters>
void take_registers() {}
template <int kRegisters>
void give_registers() {}
inline void wgmma_fence() {}
inline void wgmma_commit() {
  int nothing = 0;
  warpgroup_together("wgmma.commit_group", nothing, nothing, [](auto, auto) { products().emplace_back(); });
}
template <int kPending>
void wgmma_wait() {
  int nothing = 0;
  warpgroup_together("wgmma.wait_group", nothing, nothing, [](auto, auto) { finish_groups(products(), kPending); });
}
inline void keep(float&) {}

// Elements (mn, k) of the operand that a descriptor names, k < 16: the canonical layouts of the 128-byte swizzle (PTX ISA, "Strides", and
// "Matrix Descriptor Format"). Rows of 8 mn (k-major) or 8 k (mn-major) are 128 bytes apart.
inline std::vector<float> operand(uint64_t descriptor, bool k_major, unsigned extent) {
  const uint32_t start = uint32_t(descriptor & 0x3fff) << 4, leading = uint32_t(descriptor >> 16 & 0x3fff) << 4,
                 stride = uint32_t(descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7)) {
    emulator::fault(cudaErrorIllegalInstruction, "not a descriptor of the 128-byte swizzle");
  }
  std::vector<float> values(extent * 16);
  for (unsigned mn = 0; mn < extent; ++mn) {
    for (unsigned k = 0; k < 16; ++k) {
      const uint32_t at = k_major ? start + mn % 8 * 128 + mn / 8 * stride + k * 2
                                  : start + mn % 64 * 2 + mn / 64 * leading + k % 8 * 128 + k / 8 * stride;
      uint16_t bits;
      memcpy(&bits, emulator::shared_at(swizzled(at), 2), 2);
      values[mn * 16 + k] = __uint_as_float(uint32_t(bits) << 16);
    }
  }
  return values;
}

// Thread (warp w, g, t) of the warpgroup has rows 16w + g and + 8, and of each 8 columns 2t and 2t + 1.
template <bool kAKMajor, bool kBKMajor, int kRegisters>
void wgmma(float (&d)[kRegisters], uint64_t a, uint64_t b, bool accumulate) {
  struct In {
    uint64_t a, b;
    bool accumulate;
  };
  warpgroup_together("wgmma.mma_async", In{a, b, accumulate}, d, [](auto in, auto out) {
    std::vector<float*> registers(128);
    for (unsigned thread = 0; thread < 128; ++thread) {
      registers[thread] = out(thread);
      const In &mine = in(thread), &first = in(0);
      if (mine.a != first.a || mine.b != first.b || mine.accumulate != first.accumulate) {
        emulator::fault(cudaErrorIllegalInstruction, "threads of a warpgroup multiply different matrices");
      }
    }
    const auto work = [registers, product = in(0)] {
      constexpr unsigned kColumns = kRegisters * 2;
      const std::vector<float> a = operand(product.a, kAKMajor, 64), b = operand(product.b, kBKMajor, kColumns);
      float b_rows[16][kColumns], c[kColumns];
      for (unsigned column = 0; column < kColumns; ++column)
        for (unsigned k = 0; k < 16; ++k) b_rows[k][column] = b[column * 16 + k];
      for (unsigned row = 0; row < 64; ++row) {
        const unsigned first = row / 16 * 32 + row % 8 * 4, half = row / 8 % 2 * 2;
        for (unsigned column = 0; column < kColumns; ++column) {
          c[column] = product.accumulate ? registers[first + column % 8 / 2][column / 8 * 4 + half + column % 2] : 0.0f;
        }
        for (unsigned k = 0; k < 16; ++k)
          for (unsigned column = 0; column < kColumns; ++column) c[column] += a[row * 16 + k] * b_rows[k][column];
        for (unsigned column = 0; column < kColumns; ++column) {
          registers[first + column % 8 / 2][column / 8 * 4 + half + column % 2] = c[column];
        }
      }
    };
    if (emulator::lazy()) products().back().push_back(work);
    else work();
  });
}

}}  // namespace mae::cuda
