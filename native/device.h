// A device runs kernels in order on one queue and owns the memory they work in. The CPU (native/cpu/device.cc) does everything at once, on
// the calling thread; CUDA (cuda/device.cc) enqueues on a stream. One thread at a time uses a device: the executor's (native/executor.h),
// or the JavaScript thread while the executor is idle.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernel.h"

namespace mae {

// One backend's functions for one line of kernels.def.
struct KernelFunctions {
  void (*run)(const void* args, Context& context);
  size_t (*workspace)(const void* args);
};

// A failure that reaches the user as MaeError(code, what()).
struct Failure : std::runtime_error {
  Failure(std::string code, const std::string& message) : std::runtime_error(message), code(std::move(code)) {}
  std::string code;
};

// A recorded sequence of launches (CUDA graph).
struct Recording {
  virtual ~Recording() = default;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual const std::string& name() const = 0;       // "cpu (avx512bf16, 2 threads)", "cuda:0 NVIDIA H200"
  virtual const KernelFunctions* kernels() const = 0;  // indexed as kernels.def; run is null where this backend has no such kernel

  // Device memory, 256-byte aligned, undefined contents. Throws Failure MAE_MEMORY.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  // Host memory that uploads read from and downloads write to (pinned on CUDA).
  virtual void* allocate_host(size_t bytes) = 0;
  virtual void release_host(void* memory) noexcept = 0;
  virtual void memory_info(size_t* free_bytes, size_t* total_bytes) = 0;

  // Queue operations, in order. Host pointers stay valid until the queue has passed them.
  virtual void upload(void* device, const void* host, size_t bytes) = 0;
  virtual void download(void* host, const void* device, size_t bytes) = 0;
  virtual void fill(void* device, uint8_t value, size_t bytes) = 0;
  virtual void* stream() = 0;  // what Context::stream gets

  // Marks a place in the queue; wait blocks the calling thread until the queue has passed it (and throws what failed before it).
  virtual uint64_t mark() = 0;
  virtual void wait(uint64_t mark) = 0;
  void synchronize() { wait(mark()); }

  // Whether the picture upload of the next step can overlap this step's kernels (a second queue): uploads on it are ordered after
  // `after` (a mark) and kernels launched later on the main queue wait for them.
  virtual void upload_ahead(void* device, const void* host, size_t bytes, uint64_t after) { (void)after; upload(device, host, bytes); }

  // Records what is launched between begin and end instead of running it. Null: this device cannot record (CPU).
  virtual bool can_record() const { return false; }
  virtual void begin_recording() {}
  virtual std::unique_ptr<Recording> end_recording() { return nullptr; }
  virtual void replay(Recording&) {}

  // While on, kernels that have several implementations time them on the buffers they are given and keep the fastest (CUDA: the matrix
  // products, cuda/gemm_choice.h). Leaves outputs that accumulate undefined.
  virtual void set_tuning(bool on) { (void)on; }
};

// All devices of this machine that this build can use; the CPU is always last. Never throws: a missing driver just lists less.
struct DeviceInfo {
  std::string id;      // "cpu", "cuda:0"
  std::string name;    // for people
  std::string detail;  // instruction set / compute capability, memory; for `mae doctor`
  bool usable;
  std::string reason;  // why not usable
};

std::shared_ptr<Device> open_cpu();  // throws Failure
// cuda/device.cc; absent from builds without nvcc (MAE_WITH_CUDA undefined).
std::vector<DeviceInfo> list_cuda();
std::shared_ptr<Device> open_cuda(int index);  // throws Failure MAE_NO_CUDA, MAE_CUDA

}  // namespace mae
