// The CPU as a device: everything happens at once, on the calling thread and the pool.
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "../table.h"
#include "isa.h"
#include "pool.h"

namespace mae {
namespace {

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(cpu::Isa isa)
      : name_(std::string("cpu (") + cpu::isa_name(isa) + ", " + std::to_string(cpu::threads()) + " threads)"), kernels_(cpu_kernels(isa)) {}

  const std::string& name() const override { return name_; }
  const KernelFunctions* kernels() const override { return kernels_; }

  void* allocate(size_t bytes) override {
    // 2 MiB alignment lets large arenas sit on huge pages: fewer TLB misses in the GEMM's strided packing.
    const size_t alignment = bytes >= (size_t(8) << 20) ? size_t(2) << 20 : 256;
    void* memory = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (!memory) {
      throw Failure("MAE_MEMORY", "could not allocate " + std::to_string(bytes >> 20) +
                                      " MiB of memory: use recompute, a smaller batchSize (accumIter keeps the effective batch) or a smaller model");
    }
#if defined(__linux__)
    if (alignment > 256) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
  }
  void release(void* memory) noexcept override { free(memory); }
  void* allocate_host(size_t bytes) override { return allocate(bytes); }
  void release_host(void* memory) noexcept override { free(memory); }
  void memory_info(size_t* free_bytes, size_t* total_bytes) override {
#if defined(__linux__)
    const size_t page = size_t(sysconf(_SC_PAGESIZE));
    *free_bytes = page * size_t(sysconf(_SC_AVPHYS_PAGES));
    *total_bytes = page * size_t(sysconf(_SC_PHYS_PAGES));
#else
    *free_bytes = *total_bytes = 0;
#endif
  }

  void upload(void* device, const void* host, size_t bytes) override { memcpy(device, host, bytes); }
  void download(void* host, const void* device, size_t bytes) override { memcpy(host, device, bytes); }
  void fill(void* device, uint8_t value, size_t bytes) override { memset(device, value, bytes); }
  void* stream() override { return nullptr; }
  uint64_t mark() override { return 0; }
  void wait(uint64_t) override {}

 private:
  std::string name_;
  const KernelFunctions* kernels_;
};

}  // namespace

std::shared_ptr<Device> open_cpu() {
  cpu::Isa isa = cpu::best_isa();
  if (const char* wanted = getenv("MAE_CPU")) {
    if (*wanted) {
      if (!cpu::parse_isa(wanted, &isa)) {
        throw Failure("MAE_ARGUMENT", std::string("MAE_CPU must be portable, avx2, avx512 or avx512bf16, got '") + wanted + "'");
      }
      if (!cpu::isa_supported(isa)) {
        throw Failure("MAE_ARGUMENT", std::string("MAE_CPU=") + wanted + ": this processor does not have it; the best here is " +
                                          cpu::isa_name(cpu::best_isa()));
      }
    }
  }
  return std::make_shared<CpuDevice>(isa);
}

}  // namespace mae
