// A CUDA GPU as a device: one stream that kernels, copies and graphs run on in order, and a second one for uploads that run ahead.
#include <deque>
#include <string.h>

#include "../native/table.h"
#include "check.h"
#include "gemm_choice.h"

namespace mae {
namespace cuda {
namespace {

// ---- what is here ----------------------------------------------------------------------------------------------------------------------

// Architectures that this binary has machine code for, as nvcc counts them (sm_90 or sm_90a: 900).
constexpr int kArchitectures[] = {__CUDA_ARCH_LIST__};

// Asks the driver whether it has code for a device; launched never.
__global__ void probe_kernel() {}

std::string capability_of(const cudaDeviceProp& properties) {
  return std::to_string(properties.major) + "." + std::to_string(properties.minor);
}

std::string architectures() {
  std::string list;
  for (const int arch : kArchitectures) list += (list.empty() ? "sm_" : ", sm_") + std::to_string(arch / 10);
  return list;
}

// Whether the kernels can run on device `index`, which becomes the current one. Machine code runs on its own architecture; for others the
// driver is asked, who may translate the PTX that a release build carries for GPUs that came after it.
bool has_code_for(int index, const cudaDeviceProp& properties) {
  for (const int arch : kArchitectures) {
    if (arch == properties.major * 100 + properties.minor * 10) return true;
  }
  cudaFuncAttributes attributes;
  const bool found = cudaSetDevice(index) == cudaSuccess &&
                     cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(probe_kernel)) == cudaSuccess;
  cudaGetLastError();
  return found;
}

std::string no_code_reason(const cudaDeviceProp& properties) {
  const std::string arch = std::to_string(properties.major) + std::to_string(properties.minor) + (properties.major == 9 ? "a" : "");
  return "this build has kernels for " + architectures() + ", the GPU needs sm_" + arch + ": build again with MAE_CUDA_ARCH=" + arch;
}

// Empty: CUDA works and *count devices are there.
std::string why_no_devices(int* count) {
  *count = 0;
  const cudaError_t error = cudaGetDeviceCount(count);
  if (error == cudaSuccess) return *count > 0 ? "" : "the NVIDIA driver lists no GPU";
  cudaGetLastError();
  switch (error) {
    case cudaErrorInsufficientDriver: {
      int runtime = 0, driver = 0;
      cudaRuntimeGetVersion(&runtime);
      cudaDriverGetVersion(&driver);
      const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
      if (driver == 0) return "no NVIDIA driver on this machine: install one, and nvidia-smi lists the GPUs";
      return "the NVIDIA driver is for CUDA " + version(driver) + ", this build needs " + version(runtime) +
             ": update the driver, or build with an older CUDA toolkit";
    }
    case cudaErrorNoDevice:
      return "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES empty?)";
    default:
      return "the NVIDIA driver does not start: " + describe(error);
  }
}

std::string id_of(int index) { return "cuda:" + std::to_string(index); }

std::string mebibytes(size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

// ---- the device ------------------------------------------------------------------------------------------------------------------------

struct Graph final : Recording {
  Graph(int device, cudaGraphExec_t executable) : device(device), executable(executable) {}
  ~Graph() override {
    cudaSetDevice(device);
    cudaGraphExecDestroy(executable);
  }
  const int device;
  const cudaGraphExec_t executable;
};

class CudaDevice final : public Device {
 public:
  CudaDevice(int index, const cudaDeviceProp& properties) : index_(index), name_(id_of(index) + " " + properties.name) {
    CUDA_CHECK(cudaSetDevice(index_));
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    CUDA_CHECK(cudaStreamCreateWithFlags(&upload_stream_, cudaStreamNonBlocking));
    // Blocking: a thread that waits sleeps and leaves its core to the picture loader.
    for (cudaEvent_t& event : marks_) CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync));
    CUDA_CHECK(cudaEventCreateWithFlags(&uploaded_, cudaEventDisableTiming));
    CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&staging_), kStagingBytes));
  }

  ~CudaDevice() override {
    // Destructors do not throw; a context that failed is torn down by the driver with the process.
    cudaSetDevice(index_);
    cudaStreamSynchronize(stream_);
    for (const cudaEvent_t event : marks_) cudaEventDestroy(event);
    cudaEventDestroy(uploaded_);
    cudaStreamDestroy(upload_stream_);
    cudaStreamDestroy(stream_);
    cudaFreeHost(staging_);
    cudaGetLastError();
  }

  const std::string& name() const override { return name_; }
  const KernelFunctions* kernels() const override { return cuda_kernels(); }

  void* allocate(size_t bytes) override {
    use();
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      size_t free_bytes = 0, total_bytes = 0;
      cudaMemGetInfo(&free_bytes, &total_bytes);
      throw Failure("MAE_MEMORY", "could not allocate " + mebibytes(bytes) + " on " + name_ + ", which has " + mebibytes(free_bytes) +
                                      " of " + mebibytes(total_bytes) + " free: use recompute, a smaller batchSize (a larger accumIter keeps " +
                                      "the effective batch) or a smaller model");
    }
    check(error, "cudaMalloc", __FILE__, __LINE__);
    return memory;
  }
  void release(void* memory) noexcept override {
    if (!memory) return;
    cudaSetDevice(index_);
    cudaFree(memory);
    cudaGetLastError();
  }

  void* allocate_host(size_t bytes) override {
    use();
    void* memory = nullptr;
    const cudaError_t error = cudaMallocHost(&memory, bytes > 0 ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw Failure("MAE_MEMORY", "could not allocate " + mebibytes(bytes) +
                                      " of page-locked host memory: use a smaller batchSize (a larger accumIter keeps the effective " +
                                      "batch)");
    }
    check(error, "cudaMallocHost", __FILE__, __LINE__);
    return memory;
  }
  void release_host(void* memory) noexcept override {
    if (!memory) return;
    cudaSetDevice(index_);
    cudaFreeHost(memory);
    cudaGetLastError();
  }

  void memory_info(size_t* free_bytes, size_t* total_bytes) override {
    use();
    CUDA_CHECK(cudaMemGetInfo(free_bytes, total_bytes));
  }

  void upload(void* device, const void* host, size_t bytes) override {
    use();
    CUDA_CHECK(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_));
  }

  // A copy to memory that is not page-locked would hold this thread until all that was enqueued is done. What fits goes to page-locked
  // memory of the device first and on to its place when its mark is waited for.
  void download(void* host, const void* device, size_t bytes) override {
    use();
    const size_t at = arrivals_.empty() ? 0 : staged_;
    const bool staged = bytes <= kStagingBytes - at;
    const cudaError_t error = cudaMemcpyAsync(staged ? staging_ + at : host, device, bytes, cudaMemcpyDeviceToHost, stream_);
    if (error != cudaSuccess) {
      // The caller gives up this stretch of work: nothing of it may arrive in memory that is no longer its own.
      while (!arrivals_.empty() && arrivals_.back().mark > last_mark_) arrivals_.pop_back();
      fail(error, "cudaMemcpyAsync to the host", __FILE__, __LINE__);
    }
    if (!staged) return;
    arrivals_.push_back({host, staging_ + at, bytes, last_mark_ + 1});
    staged_ = at + bytes;
  }

  void fill(void* device, uint8_t value, size_t bytes) override {
    use();
    CUDA_CHECK(cudaMemsetAsync(device, value, bytes, stream_));
  }

  void* stream() override {
    use();  // whoever asks is about to launch
    return stream_;
  }

  // Marks are numbered from 1. An event is used again after kMarks marks: an old mark then means that younger one, which is later and safe.
  uint64_t mark() override {
    use();
    CUDA_CHECK(cudaEventRecord(event_of(last_mark_ + 1), stream_));
    return ++last_mark_;
  }

  void wait(uint64_t mark) override {
    if (mark == 0) return;
    use();
    const cudaError_t error = cudaEventSynchronize(event_of(mark));
    if (error != cudaSuccess) {
      arrivals_.clear();
      fail(error, "waiting for the GPU", __FILE__, __LINE__);
    }
    for (; !arrivals_.empty() && arrivals_.front().mark <= mark; arrivals_.pop_front()) {
      const Arrival& arrival = arrivals_.front();
      memcpy(arrival.host, arrival.staged, arrival.bytes);
    }
  }

  void upload_ahead(void* device, const void* host, size_t bytes, uint64_t after) override {
    use();
    if (after > 0) CUDA_CHECK(cudaStreamWaitEvent(upload_stream_, event_of(after)));
    CUDA_CHECK(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, upload_stream_));
    CUDA_CHECK(cudaEventRecord(uploaded_, upload_stream_));
    CUDA_CHECK(cudaStreamWaitEvent(stream_, uploaded_));
  }

  bool can_record() const override { return true; }

  void begin_recording() override {
    use();
    CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  }

  std::unique_ptr<Recording> end_recording() override {
    use();
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    cudaGraphExec_t executable = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "cudaGraphInstantiate", __FILE__, __LINE__);
    return std::make_unique<Graph>(index_, executable);
  }

  void replay(Recording& recording) override {
    use();
    CUDA_CHECK(cudaGraphLaunch(static_cast<Graph&>(recording).executable, stream_));
  }

  void set_tuning(bool on) override { set_gemm_tuning(on); }

 private:
  static constexpr size_t kMarks = 64;
  static constexpr size_t kStagingBytes = size_t(1) << 20;

  // Bytes on their way to `host`, there once `mark` is passed.
  struct Arrival {
    void* host;
    const uint8_t* staged;
    size_t bytes;
    uint64_t mark;
  };

  void use() { CUDA_CHECK(cudaSetDevice(index_)); }  // the current device is a property of the calling thread
  cudaEvent_t event_of(uint64_t mark) const { return marks_[mark % kMarks]; }

  const int index_;
  const std::string name_;
  cudaStream_t stream_ = nullptr, upload_stream_ = nullptr;
  cudaEvent_t marks_[kMarks] = {};
  cudaEvent_t uploaded_ = nullptr;
  uint64_t last_mark_ = 0;
  uint8_t* staging_ = nullptr;
  size_t staged_ = 0;  // bytes of staging_ that are taken; free again when nothing is on its way
  std::deque<Arrival> arrivals_;
};

}  // namespace
}  // namespace cuda

// A GPU that cannot be used is listed with the reason; so is CUDA as a whole, as cuda:0, where no GPU can be reached.
std::vector<DeviceInfo> list_cuda() {
  int count = 0;
  const std::string reason = cuda::why_no_devices(&count);
  if (!reason.empty()) return {{"cuda:0", "CUDA", "", false, reason}};
  std::vector<DeviceInfo> devices;
  for (int index = 0; index < count; ++index) {
    DeviceInfo info = {cuda::id_of(index), "GPU", "", false, ""};
    cudaDeviceProp properties;
    const cudaError_t error = cudaGetDeviceProperties(&properties, index);
    if (error != cudaSuccess) {
      cudaGetLastError();
      info.reason = cuda::describe(error);
    } else {
      info.name = properties.name;
      info.detail = "compute capability " + cuda::capability_of(properties) + ", " + cuda::mebibytes(properties.totalGlobalMem) + ", " +
                    std::to_string(properties.multiProcessorCount) + " multiprocessors";
      info.usable = cuda::has_code_for(index, properties);
      if (!info.usable) info.reason = cuda::no_code_reason(properties);
    }
    devices.push_back(std::move(info));
  }
  return devices;
}

std::shared_ptr<Device> open_cuda(int index) {
  int count = 0;
  const std::string id = "device '" + cuda::id_of(index) + "': ", reason = cuda::why_no_devices(&count);
  if (!reason.empty()) throw Failure("MAE_NO_CUDA", id + reason);
  if (index < 0 || index >= count) {
    const std::string gpus = std::to_string(count) + (count == 1 ? " GPU" : " GPUs");
    throw Failure("MAE_NO_CUDA", id + "this machine has " + gpus + ", counted from cuda:0");
  }
  cudaDeviceProp properties;
  CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  if (!cuda::has_code_for(index, properties)) throw Failure("MAE_NO_CUDA", id + cuda::no_code_reason(properties));
  return std::make_shared<cuda::CudaDevice>(index, properties);
}

}  // namespace mae
