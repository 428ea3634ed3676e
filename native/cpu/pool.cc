// The thread pool. One job at a time; threads take numbered chunks from an atomic counter. A worker that is still asleep when the work is
// done is not waited for, so a short job costs no wake-up latency.
#include "pool.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace mae { namespace cpu {
namespace {

constexpr int kMaxThreads = 256;
constexpr int kSpins = 4000;  // pauses before sleeping: about 50 µs, longer than the gap between two kernels of a program

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

int default_threads() {
  if (const char* text = getenv("MAE_THREADS")) {
    const long n = strtol(text, nullptr, 10);
    if (n >= 1) return n < kMaxThreads ? int(n) : kMaxThreads;
  }
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    const int n = CPU_COUNT(&set);
    return n < kMaxThreads ? n : kMaxThreads;
  }
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n < 1 ? 1 : n < kMaxThreads ? int(n) : kMaxThreads;
}

std::atomic<int> chosen_threads{0};  // 0: not yet asked

struct Pool {
  std::mutex running;  // held by the caller of run_chunks while its job runs
  int workers = 0;     // threads started; worker i is thread i + 1 of a job

  // The job. Written while `ticket` is even and nobody is inside.
  void (*body)(void*, int64_t, int) = nullptr;
  void* context = nullptr;
  int64_t chunks = 0;
  int limit = 0;  // threads of this job, the caller included
  alignas(64) std::atomic<int64_t> next{0};
  // Odd while a job is open. A worker adds itself to `inside` and then looks whether its ticket is still the open one; the caller closes
  // the job and then waits for `inside` to be 0. Both in the single order of seq_cst, so no worker runs a job that its caller has left.
  alignas(64) std::atomic<uint64_t> ticket{0};
  alignas(64) std::atomic<int> inside{0};

  std::atomic<int> sleepers{0};
  std::mutex sleep;
  std::condition_variable wake;

  void work(int thread) {
    for (int64_t chunk; (chunk = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) body(context, chunk, thread);
  }

  uint64_t wait_for_job(uint64_t seen) {
    for (int spin = 0; spin < kSpins; ++spin) {
      const uint64_t now = ticket.load(std::memory_order_acquire);
      if (now != seen && (now & 1)) return now;
      pause();
    }
    std::unique_lock<std::mutex> lock(sleep);
    sleepers.fetch_add(1);
    uint64_t now;
    while ((now = ticket.load()) == seen || !(now & 1)) wake.wait(lock);
    sleepers.fetch_sub(1);
    return now;
  }

  [[noreturn]] void serve(int thread) {
    for (uint64_t seen = 0;;) {
      seen = wait_for_job(seen);
      inside.fetch_add(1);
      if (ticket.load() == seen && thread < limit) work(thread);
      inside.fetch_sub(1);
    }
  }

  void start_workers(int wanted);
  void run(int64_t count, void (*f)(void*, int64_t, int), void* argument, int most);
};

struct WorkerStart {
  Pool* pool;
  int thread;
};

void* worker_main(void* argument) {
  const WorkerStart start = *static_cast<WorkerStart*>(argument);
  delete static_cast<WorkerStart*>(argument);
  start.pool->serve(start.thread);
}

// Threads are detached and the pool is never freed: at exit the workers sleep on memory that stays valid. A thread that cannot be started
// is done without; the others take its chunks.
void Pool::start_workers(int wanted) {
  if (workers >= wanted) return;
  sigset_t all, before;  // signals stay with Node's own threads
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (workers < wanted) {
    WorkerStart* start = new WorkerStart{this, workers + 1};
    pthread_t id;
    if (pthread_create(&id, nullptr, worker_main, start) != 0) {
      delete start;
      break;
    }
    pthread_detach(id);
    ++workers;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Pool::run(int64_t count, void (*f)(void*, int64_t, int), void* argument, int most) {
  std::lock_guard<std::mutex> lock(running);
  start_workers(most - 1);
  body = f, context = argument, chunks = count, limit = most;
  next.store(0, std::memory_order_relaxed);
  ticket.fetch_add(1);
  if (sleepers.load() > 0) {
    { std::lock_guard<std::mutex> sleeping(sleep); }
    wake.notify_all();
  }
  work(0);
  ticket.fetch_add(1);
  for (int spin = 0; inside.load() != 0; ++spin) {
    if (spin < kSpins) pause();
    else sched_yield();
  }
}

std::atomic<Pool*> current{nullptr};

// The child of a fork has none of the workers: it starts over with a new pool.
void forget_pool() { current.store(nullptr); }

Pool* create_pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, forget_pool);
    // The workers run this library's code: it must stay mapped when the Node environment that loaded it goes.
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(&forget_pool), &info)) dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  });
  Pool* fresh = new Pool;
  Pool* expected = nullptr;
  if (current.compare_exchange_strong(expected, fresh)) return fresh;
  delete fresh;
  return expected;
}

}  // namespace

int threads() {
  int n = chosen_threads.load(std::memory_order_relaxed);
  if (n == 0) chosen_threads.store(n = default_threads(), std::memory_order_relaxed);
  return n;
}

void set_threads(int n) { chosen_threads.store(n < 1 ? 0 : n < kMaxThreads ? n : kMaxThreads, std::memory_order_relaxed); }

void run_chunks(int64_t chunks, void (*body)(void* context, int64_t chunk, int thread), void* context) {
  const int most = threads();
  if (most == 1 || chunks <= 1) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) body(context, chunk, 0);
    return;
  }
  Pool* pool = current.load();
  if (!pool) pool = create_pool();
  pool->run(chunks, body, context, most);
}

}}  // namespace mae::cpu
