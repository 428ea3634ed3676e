#include "grid.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include <random>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// ---- fibers ----------------------------------------------------------------------------------------------------------------------------
// emulator_switch(&save, load): leaves the running stack, noting in `save` where, and goes on with the one that `load` notes.

#if defined(__x86_64__)
extern "C" void emulator_switch(void** save, void* load);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size emulator_switch, . - emulator_switch
)");
#else
static void emulator_switch(void** save, void* load) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, static_cast<ucontext_t*>(load));
}
#endif

namespace emulator {

Fiber* current;

namespace {

constexpr size_t kStackBytes = 256 * 1024, kPage = 4096;
constexpr unsigned char kGuard = 0xfd, kPoison = 0xff;  // floats of poison are NaN
constexpr size_t kSharedGuard = 1024;

const std::function<void()>* body;
void* scheduler;
bool late;
unsigned shared_size;
cudaError_t failure;
std::vector<Block> blocks;
Barrier all_blocks;
std::vector<Fiber> fibers;
std::vector<unsigned char*> stacks;
std::vector<std::pair<unsigned, Work>> engine_work;  // after so many turns
std::minstd_rand draw;

void run_thread() {
  (*body)();
  if (current->copies.size() > 1 || !current->copies[0].empty()) {
    for (const auto& group : current->copies)
      if (!group.empty()) fault(cudaErrorLaunchFailure, "a thread returned without waiting for its asynchronous copies");
  }
  Block& block = *current->block;
  Barrier& barrier = block.barriers[0];
  current->done = true;
  if (--block.live > 0 && barrier.arrived == block.live) barrier.arrived = 0, ++barrier.generation;  // who has returned is not waited for
  for (;;) emulator_switch(&current->context, scheduler);
}

unsigned char* stack_of(size_t i) {
  while (stacks.size() <= i) {
    void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) abort();
    mprotect(memory, kPage, PROT_NONE);  // what runs out of its stack stops here
    stacks.push_back(static_cast<unsigned char*>(memory));
  }
  return stacks[i];
}

void start(Fiber& fiber, size_t i) {
  unsigned char* stack = stack_of(i);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack + kPage, kStackBytes - kPage);
#endif
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // where run_thread would return to: keeps its stack aligned
  *--top = reinterpret_cast<void*>(run_thread);
  fiber.context = top - 6;  // the registers that a switch restores
#else
  static std::vector<ucontext_t> contexts(2048);
  ucontext_t& context = contexts[i];
  getcontext(&context);
  context.uc_stack.ss_sp = stack, context.uc_stack.ss_size = kStackBytes, context.uc_link = nullptr;
  makecontext(&context, run_thread, 0);
  fiber.context = &context;
#endif
}

// Runs the lanes of a warp that can go on, each up to where it waits. Whether there were any.
bool run_warp(Fiber* lanes, unsigned count, bool backwards) {
  bool any = false;
  for (unsigned i = 0; i < count && failure == cudaSuccess; ++i) {
    Fiber& fiber = lanes[backwards ? count - 1 - i : i];
    if (fiber.done || (fiber.waits_for && *fiber.waits_for == fiber.seen)) continue;
    fiber.waits_for = nullptr;
    current = &fiber;
    threadIdx = fiber.thread;
    blockIdx = fiber.block->index;
    emulator_switch(&scheduler, fiber.context);
    current = nullptr;
    any = true;
  }
  return any;
}

// An access to memory that is not there ends the grid, not the process.
struct sigaction previous_handler;
void on_bad_access(int signal, siginfo_t* info, void*) {
  if (current) fault(cudaErrorIllegalAddress, "an access to address %p", info->si_addr);
  sigaction(signal, &previous_handler, nullptr);  // not a kernel's: it happens again, to whoever was here before
}

bool run_engine() {
  bool any = false;
  for (size_t i = 0; i < engine_work.size();) {
    any = true;
    if (engine_work[i].first-- > 0) {
      ++i;
      continue;
    }
    const Work work = std::move(engine_work[i].second);
    engine_work.erase(engine_work.begin() + i);
    work();
  }
  return any;
}

// Nobody can go on.
void deadlock() {
  failure = cudaErrorLaunchTimeout;
  for (const Fiber& fiber : fibers) {
    if (fiber.done) continue;
    const uint3& b = fiber.block->index;
    fprintf(stderr, "CUDA emulator: deadlock: block (%u, %u, %u), thread %u waits for ever in %s\n", b.x, b.y, b.z, fiber.number,
            fiber.where);
    return;
  }
}

// What must be so when the blocks of a cluster have returned.
void check_end() {
  for (const Block& block : blocks) {
    for (const Barrier& barrier : block.barriers)
      if (barrier.arrived) failure = cudaErrorLaunchFailure, fputs("CUDA emulator: a barrier was left half full\n", stderr);
    for (size_t i = 0; i < kSharedGuard; ++i) {
      if (block.memory[i] == kGuard && block.memory[kSharedGuard + shared_size + i] == kGuard) continue;
      failure = cudaErrorIllegalAddress;
      const uint3& b = block.index;
      fprintf(stderr, "CUDA emulator: block (%u, %u, %u) wrote beside its %u bytes of dynamic shared memory\n", b.x, b.y, b.z, shared_size);
      break;
    }
  }
  if (engine_work.empty()) return;
  failure = cudaErrorIllegalAddress;
  fputs("CUDA emulator: blocks returned before their copies had come\n", stderr);
}

void run_cluster(uint3 first, unsigned count, dim3 block_size) {
  const unsigned threads = block_size.x * block_size.y * block_size.z, warps = (threads + 31) / 32;
  engine_work.clear();
  blocks.assign(count, Block());
  all_blocks = Barrier();
  fibers.resize(size_t(count) * threads);
  late = draw() % 2;
  const bool backwards = draw() % 2;
  for (unsigned c = 0; c < count; ++c) {
    Block& block = blocks[c];
    block.index = {first.x + c, first.y, first.z};
    block.rank = c;
    block.live = threads;
    block.memory.assign(shared_size + 2 * kSharedGuard, kGuard);
    memset(block.memory.data() + kSharedGuard, kPoison, shared_size);
    block.warps.resize(warps);
    block.warpgroups.resize((warps + 3) / 4);
    for (unsigned t = 0; t < threads; ++t) {
      Fiber& fiber = fibers[c * threads + t];
      fiber.thread = {t % block_size.x, t / block_size.x % block_size.y, t / block_size.x / block_size.y};
      fiber.block = &block, fiber.number = t, fiber.done = false, fiber.waits_for = nullptr;
      fiber.copies.assign(1, {});
      start(fiber, c * threads + t);
    }
  }
  std::vector<std::pair<unsigned, unsigned>> order;  // first fiber and lanes of each warp
  for (unsigned c = 0; c < count; ++c)
    for (unsigned t = 0; t < threads; t += 32) order.push_back({c * threads + t, std::min(32u, threads - t)});
  for (;;) {
    std::shuffle(order.begin(), order.end(), draw);
    bool any = false;
    for (const auto& [fiber, lanes] : order)
      while (run_warp(&fibers[fiber], lanes, backwards)) any = true;
    if (failure != cudaSuccess) return;
    if (std::all_of(blocks.begin(), blocks.end(), [](const Block& block) { return block.live == 0; })) break;
    if (!run_engine() && !any) return deadlock();
  }
  check_end();
}

}  // namespace

bool lazy() { return late; }
std::vector<Block>& cluster() { return blocks; }
Barrier& cluster_barrier() { return all_blocks; }

void fault(cudaError_t error, const char* format, ...) {
  const uint3& b = current->block->index;
  va_list arguments;
  va_start(arguments, format);
  fputs("CUDA emulator: ", stderr);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, " (block (%u, %u, %u), thread %u)\n", b.x, b.y, b.z, current->number);
  failure = error;
  for (;;) emulator_switch(&current->context, scheduler);
}

void wait_for_change(const uint64_t& counter, const char* where) {
  current->waits_for = &counter;
  current->seen = counter;
  current->where = where;
  emulator_switch(&current->context, scheduler);
}

void engine(Work work) {
  if (late) engine_work.push_back({unsigned(draw() % 8), std::move(work)});
  else work();
}

unsigned char* shared_at(uint32_t address, unsigned bytes, unsigned rank) {
  if (address < kSharedBase || address - kSharedBase + bytes > shared_size) {
    fault(cudaErrorIllegalAddress, "an access of %u bytes at shared address %u: the block has %u bytes from %u on", bytes, address,
          shared_size, kSharedBase);
  }
  if (address % bytes) fault(cudaErrorMisalignedAddress, "an access of %u bytes at shared address %u", bytes, address);
  return blocks[rank].memory.data() + kSharedGuard + (address - kSharedBase);
}

void arrive(Barrier& barrier, unsigned threads) {
  if (++barrier.arrived > threads) fault(cudaErrorLaunchFailure, "a barrier for %u threads got one more", threads);
  if (barrier.arrived == threads) barrier.arrived = 0, ++barrier.generation;
}

void arrive_and_wait(Barrier& barrier, unsigned threads, const char* where) {
  const uint64_t before = barrier.generation;
  arrive(barrier, threads);
  if (barrier.generation == before) wait_for_change(barrier.generation, where);
}

cudaError_t run_grid(const cudaLaunchConfig_t& config, unsigned cluster, const std::function<void()>& thread_body) {
  gridDim = config.gridDim, blockDim = config.blockDim;
  body = &thread_body;
  shared_size = unsigned(config.dynamicSmemBytes);
  failure = cudaSuccess;
  const uint64_t count = uint64_t(gridDim.x) * gridDim.y * gridDim.z;
  struct sigaction handler = {};
  handler.sa_sigaction = on_bad_access;
  handler.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &handler, &previous_handler);
  const bool from_the_end = draw() % 2;  // blocks come in no promised order
  for (uint64_t i = 0; i < count && failure == cudaSuccess; i += cluster) {
    const uint64_t b = from_the_end ? count - cluster - i : i;
    run_cluster({unsigned(b % gridDim.x), unsigned(b / gridDim.x % gridDim.y), unsigned(b / gridDim.x / gridDim.y)}, cluster, blockDim);
  }
  sigaction(SIGSEGV, &previous_handler, nullptr);
  return failure;
}

}  // namespace emulator

#if defined(MAE_CHECK_ALIGNMENT)
// -fsanitize=alignment in the kernels calls this before every access that its type does not allow at its address.
extern "C" __attribute__((visibility("default"))) void __ubsan_handle_type_mismatch_v1(void* data, void* address) {
  struct Place {
    const char* file;
    unsigned line, column;
  };
  const Place& place = *static_cast<const Place*>(data);
  if (emulator::current) {
    emulator::fault(cudaErrorMisalignedAddress, "%s:%u: a misaligned access at %p", place.file, place.line, address);
  }
  fprintf(stderr, "%s:%u: a misaligned access at %p\n", place.file, place.line, address);
  abort();
}
#endif
