// The CUDA execution model on the CPU. Every CUDA thread is a fiber: a stack of its own, left where the thread waits. The blocks of a
// cluster run together, warp after warp, in an order drawn anew for every cluster; what hardware may do early or late (asynchronous copies,
// tensor products) is done early in one cluster and as late as allowed in another. Fences do nothing. A thread that does what hardware
// forbids ends the grid with CUDA's error and a line on stderr; so does a grid in which nobody can go on.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <map>
#include <vector>

#include "include/cuda_runtime.h"

namespace emulator {

// Where the lanes of a warp, or the threads of a warpgroup, meet for an instruction that they execute together.
struct Meeting {
  static constexpr unsigned kMost = 128;
  const char* instruction = nullptr;
  unsigned arrived = 0;
  uint64_t generation = 0;
  const void* in[kMost];
  void* out[kMost];
};

// __syncthreads and named barriers.
struct Barrier {
  unsigned arrived = 0;
  uint64_t generation = 0;
};

// mbarrier: a phase ends when all have arrived and all announced bytes have come.
struct TransferBarrier {
  unsigned expected, pending;
  int64_t bytes;
  uint64_t phases_done;
};

using Work = std::function<void()>;
using WorkGroups = std::vector<std::vector<Work>>;  // committed groups, oldest first; the last one is open

struct Warpgroup {
  Meeting meeting;
  WorkGroups products{1};
};

struct Block {
  uint3 index;
  unsigned rank;  // in the cluster
  unsigned live;  // threads that have not returned
  std::vector<unsigned char> memory;  // dynamic shared memory with guards around it
  Barrier barriers[16];
  std::map<uint32_t, TransferBarrier> transfers;
  std::vector<Meeting> warps;
  std::vector<Warpgroup> warpgroups;
};

struct Fiber {
  void* context;  // where to go on
  uint3 thread;
  Block* block;
  unsigned number;               // in the block
  bool done;
  const uint64_t* waits_for;     // until this counter is no longer `seen`
  uint64_t seen;
  const char* where;             // the instruction it waits in
  WorkGroups copies;
};

extern Fiber* current;

// Dynamic shared memory starts at this 32-bit address, which promises no more alignment than CUDA does.
constexpr uint32_t kSharedBase = 0x400 + 16;

bool lazy();  // whether asynchronous work is done as late as allowed in this cluster
std::vector<Block>& cluster();
Barrier& cluster_barrier();

// Ends the grid: `error` is what the runtime returns from now on.
[[noreturn]] void fault(cudaError_t error, const char* format, ...) __attribute__((format(printf, 2, 3)));
// Lets others run until the counter moves on.
void wait_for_change(const uint64_t& counter, const char* where);
// Work of the copy engine, done now or some turns later.
void engine(Work work);

inline unsigned lane() { return current->number % 32; }
inline unsigned char* dynamic_shared() { return current->block->memory.data() + 1024; }
// The bytes at a 32-bit shared address, in the block `rank` of the cluster; an access of `bytes` must be aligned to them and inside.
unsigned char* shared_at(uint32_t address, unsigned bytes, unsigned rank = current->block->rank);

void arrive(Barrier& barrier, unsigned threads);
void arrive_and_wait(Barrier& barrier, unsigned threads, const char* where);

// An instruction that `size` threads execute together: the last to come computes for all. compute(in, out): what thread i brought, and
// where its results go.
template <class In, class Out, class F>
void together(Meeting& meeting, unsigned size, unsigned place, const char* instruction, const In& in, Out& out, F&& compute) {
  if (meeting.arrived == 0) meeting.instruction = instruction;
  else if (strcmp(meeting.instruction, instruction) != 0) {
    fault(cudaErrorIllegalInstruction, "some threads of a warp execute %s and others %s", meeting.instruction, instruction);
  }
  meeting.in[place] = &in;
  meeting.out[place] = &out;
  if (++meeting.arrived < size) return wait_for_change(meeting.generation, instruction);
  compute([&](unsigned i) -> const In& { return *static_cast<const In*>(meeting.in[i]); },
          [&](unsigned i) -> Out& { return *static_cast<Out*>(meeting.out[i]); });
  meeting.arrived = 0;
  ++meeting.generation;
}
template <class In, class Out, class F>
void warp_together(const char* instruction, const In& in, Out& out, F&& compute) {
  together(current->block->warps[current->number / 32], 32, lane(), instruction, in, out, compute);
}

// r[i] = from what lane source(i, argument) brought. Only with all lanes of the warp.
template <class T, class F>
T shuffle(const char* instruction, unsigned mask, T value, F&& source) {
  if (mask != 0xffffffffu) fault(cudaErrorIllegalInstruction, "%s with the mask %08x: whole warps only", instruction, mask);
  struct In {
    T value;
    unsigned from;
  };
  T result;
  warp_together(instruction, In{value, source(lane()) & 31}, result, [](auto in, auto out) {
    for (unsigned i = 0; i < 32; ++i) out(i) = in(in(i).from).value;
  });
  return result;
}

cudaError_t run_grid(const cudaLaunchConfig_t& config, unsigned cluster, const std::function<void()>& body);

}  // namespace emulator

inline void __syncthreads() {
  emulator::Block& block = *emulator::current->block;
  emulator::arrive_and_wait(block.barriers[0], block.live, "__syncthreads");
}
inline void __syncwarp() {
  int nothing = 0;
  emulator::warp_together("__syncwarp", nothing, nothing, [](auto, auto) {});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with) {
  return emulator::shuffle("__shfl_xor_sync", mask, value, [&](unsigned lane) { return lane ^ unsigned(with); });
}
template <class T>
T __shfl_sync(unsigned mask, T value, int from) {
  return emulator::shuffle("__shfl_sync", mask, value, [&](unsigned) { return unsigned(from); });
}
inline unsigned __ballot_sync(unsigned mask, bool vote) {
  if (mask != 0xffffffffu) emulator::fault(cudaErrorIllegalInstruction, "__ballot_sync with the mask %08x: whole warps only", mask);
  unsigned votes = 0;
  emulator::warp_together("__ballot_sync", vote, votes, [](auto in, auto out) {
    unsigned all = 0;
    for (unsigned i = 0; i < 32; ++i) all |= unsigned(in(i)) << i;
    for (unsigned i = 0; i < 32; ++i) out(i) = all;
  });
  return votes;
}
inline bool __any_sync(unsigned mask, bool vote) { return __ballot_sync(mask, vote) != 0; }

// The shared address of a pointer into dynamic shared memory.
inline size_t __cvta_generic_to_shared(const void* p) {
  return size_t(static_cast<const unsigned char*>(p) - emulator::dynamic_shared()) + emulator::kSharedBase;
}
