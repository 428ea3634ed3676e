// The CUDA runtime of the emulator. Streams are queues: what is enqueued runs at some moment, drawn anew, between the call and the wait for
// it, so that a missing wait shows. Device memory is host memory, full of NaN when it is made, with guards around it, which are looked at
// whenever someone waits, and beyond them addresses that nobody may touch.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cuda.h"
#include "grid.h"

namespace {

using Clock = std::chrono::steady_clock;
using Run = std::function<cudaError_t()>;

struct EventState {
  uint64_t recorded = 0, done = 0;  // records enqueued, records that ran
  Clock::time_point time;
};
struct Operation {
  Run run;
  std::shared_ptr<EventState> waits_for;  // runs once `done` has come to `record`
  uint64_t record = 0;
};

}  // namespace

struct emulated_event {
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
};
struct emulated_graph {
  std::vector<Operation> operations;
};
struct emulated_stream {
  std::deque<Operation> queue;
  std::unique_ptr<emulated_graph> captured;
};

namespace {

struct Allocation {
  size_t bytes;
  bool host;
};

constexpr size_t kGuardBytes = 4096, kWallBytes = size_t(1) << 20, kTotalBytes = size_t(4) << 30;
constexpr unsigned char kGuard = 0xfd, kPoison = 0xff;

std::recursive_mutex mutex;
cudaError_t broken = cudaSuccess;  // what every call returns after a kernel's fault
cudaError_t last_error = cudaSuccess;
std::map<unsigned char*, Allocation> allocations;
size_t device_bytes = 0;
std::set<cudaStream_t> streams;
std::map<const void*, int> shared_allowed;  // dynamic shared memory that a kernel may ask for, above 48 KiB
std::minstd_rand draw;

// The architecture: MAE_EMULATE_SM=90 (default), 89 or 80. Zero: something else was asked for.
int architecture() {
  static const int value = [] {
    const char* text = getenv("MAE_EMULATE_SM");
    const std::string name = text && *text ? text : "90";
    return name == "90" || name == "89" || name == "80" ? atoi(name.c_str()) : 0;
  }();
  return value;
}
size_t most_shared_bytes() { return size_t(architecture() == 90 ? 227 : architecture() == 80 ? 163 : 99) * 1024; }

// What every entry shares: one thread at a time, and nothing works any more after a fault.
template <class F>
cudaError_t entry(F&& body) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  const cudaError_t error = broken != cudaSuccess ? broken : body();
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t check_guards() {
  for (const auto& [memory, a] : allocations) {
    for (size_t i = 0; i < kGuardBytes; ++i) {
      const bool before = memory[int64_t(i) - int64_t(kGuardBytes)] != kGuard, behind = memory[a.bytes + i] != kGuard;
      if (!before && !behind) continue;
      fprintf(stderr, "CUDA emulator: something wrote %zu bytes %s an allocation of %zu bytes\n", before ? kGuardBytes - i : i + 1,
              before ? "in front of" : "behind", a.bytes);
      return broken = cudaErrorIllegalAddress;
    }
  }
  return cudaSuccess;
}

// The allocation that [p, p + bytes) lies in.
const Allocation* allocation_of(const void* p, size_t bytes) {
  unsigned char* const at = static_cast<unsigned char*>(const_cast<void*>(p));
  auto next = allocations.upper_bound(at);
  if (next == allocations.begin()) return nullptr;
  const auto& [memory, a] = *std::prev(next);
  return size_t(at - memory) + bytes <= a.bytes ? &a : nullptr;
}

bool ready(const Operation& operation) { return !operation.waits_for || operation.waits_for->done >= operation.record; }

void step(emulated_stream& stream) {
  const Operation operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  const cudaError_t error = operation.run ? operation.run() : cudaSuccess;
  if (error == cudaSuccess) return;
  broken = error;
  for (cudaStream_t other : streams) other->queue.clear();
}

// Runs what the streams have, in a drawn order, until `done` says so.
template <class F>
cudaError_t run_until(F&& done) {
  while (broken == cudaSuccess && !done()) {
    std::vector<cudaStream_t> able;
    for (cudaStream_t stream : streams)
      if (!stream->queue.empty() && ready(stream->queue.front())) able.push_back(stream);
    if (able.empty()) {
      fputs("CUDA emulator: streams wait for events that nobody records\n", stderr);
      return broken = cudaErrorLaunchTimeout;
    }
    step(*able[draw() % able.size()]);
  }
  return broken != cudaSuccess ? broken : check_guards();
}
cudaError_t run_everything() {
  return run_until([] { return std::all_of(streams.begin(), streams.end(), [](cudaStream_t s) { return s->queue.empty(); }); });
}

bool capturing() {
  return std::any_of(streams.begin(), streams.end(), [](cudaStream_t s) { return s->captured != nullptr; });
}

cudaError_t push(cudaStream_t stream, Operation operation) {
  if (!stream || !streams.count(stream)) return cudaErrorInvalidValue;  // nothing here uses the default stream
  if (stream->captured) {
    stream->captured->operations.push_back(std::move(operation));
    return cudaSuccess;
  }
  stream->queue.push_back(std::move(operation));
  if (draw() % 2) {
    while (!stream->queue.empty() && ready(stream->queue.front())) step(*stream);
  }
  return cudaSuccess;
}

// Wall, guard, memory, guard up to the end of a page, wall.
size_t between_walls(size_t bytes) { return (kGuardBytes + bytes + 2 * kGuardBytes - 1) / kGuardBytes * kGuardBytes; }

cudaError_t allocate(void** memory, size_t bytes, bool host) {
  if (capturing()) return cudaErrorStreamCaptureUnsupported;
  if (!host && bytes > kTotalBytes - device_bytes) return cudaErrorMemoryAllocation;
  const size_t inside = between_walls(bytes);
  void* const mapped = mmap(nullptr, inside + 2 * kWallBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return cudaErrorMemoryAllocation;
  unsigned char* const begin = static_cast<unsigned char*>(mapped) + kWallBytes;
  mprotect(begin, inside, PROT_READ | PROT_WRITE);
  memset(begin, kGuard, inside);
  memset(begin + kGuardBytes, kPoison, bytes);
  allocations[begin + kGuardBytes] = {bytes, host};
  if (!host) device_bytes += bytes;
  *memory = begin + kGuardBytes;
  return cudaSuccess;
}

// Whoever still has the address meets nothing there.
cudaError_t release(void* memory, bool host) {
  if (!memory) return cudaSuccess;
  const cudaError_t error = run_everything();
  const auto found = allocations.find(static_cast<unsigned char*>(memory));
  if (found == allocations.end() || found->second.host != host) return cudaErrorInvalidValue;
  if (!host) device_bytes -= found->second.bytes;
  munmap(found->first - kGuardBytes - kWallBytes, between_walls(found->second.bytes) + 2 * kWallBytes);
  allocations.erase(found);
  return error;
}

// scripts/emulate-cuda.sh asks in MAE_EMULATE_RAN for the kernels that ran: a line for each, its place in the addon.
void note_kernel(const void* kernel) {
  static const char* const file = getenv("MAE_EMULATE_RAN");
  static std::set<const void*> noted;
  Dl_info library;
  if (!file || !noted.insert(kernel).second || !dladdr(kernel, &library)) return;
  if (FILE* out = fopen(file, "a")) {
    fprintf(out, "%zx\n", size_t(static_cast<const char*>(kernel) - static_cast<const char*>(library.dli_fbase)));
    fclose(out);
  }
}

unsigned cluster_of(const cudaLaunchConfig_t& config) {
  unsigned cluster = 1;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    if (config.attrs[i].id != cudaLaunchAttributeClusterDimension) continue;
    const auto& size = config.attrs[i].val.clusterDim;
    cluster = size.y == 1 && size.z == 1 ? size.x : 0;
  }
  return cluster;
}

cudaError_t check_launch(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64) return cudaErrorInvalidConfiguration;
  const bool empty = grid.x == 0 || grid.y == 0 || grid.z == 0;
  if (empty || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidConfiguration;
  const auto allowed = shared_allowed.find(kernel);
  if (config.dynamicSmemBytes > size_t(allowed == shared_allowed.end() ? 48 * 1024 : allowed->second)) return cudaErrorInvalidValue;
  const unsigned cluster = cluster_of(config);
  if (cluster == 0 || cluster > 8 || grid.x % cluster || (cluster > 1 && architecture() < 90)) return cudaErrorInvalidClusterSize;
  return cudaSuccess;
}

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* matrix, const cuuint64_t* sizes,
                      const cuuint64_t* row_bytes, const cuuint32_t* box, const cuuint32_t* strides, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  const bool good = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 && rank == 2 && interleave == CU_TENSOR_MAP_INTERLEAVE_NONE &&
                    swizzle == CU_TENSOR_MAP_SWIZZLE_128B && reinterpret_cast<uintptr_t>(matrix) % 16 == 0 && row_bytes[0] % 16 == 0 &&
                    sizes[0] > 0 && sizes[1] > 0 && sizes[0] <= uint64_t(1) << 32 && sizes[1] <= uint64_t(1) << 32 && box[0] * 2 <= 128 &&
                    box[1] > 0 && box[1] <= 256 && strides[0] == 1 && strides[1] == 1;
  if (!good) return CUDA_ERROR_INVALID_VALUE;
  *map = {static_cast<const unsigned char*>(matrix), {sizes[0], sizes[1]}, row_bytes[0], {box[0], box[1]}};
  return CUDA_SUCCESS;
}

struct ErrorText {
  const char *name, *words;
};
ErrorText text_of(cudaError_t error) {
#define ERROR(name, words) case name: return {#name, words};
  switch (error) {
    ERROR(cudaSuccess, "no error")
    ERROR(cudaErrorInvalidValue, "invalid argument")
    ERROR(cudaErrorMemoryAllocation, "out of memory")
    ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument")
    ERROR(cudaErrorInvalidDevice, "MAE_EMULATE_SM must be 90, 89 or 80")
    ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered")
    ERROR(cudaErrorLaunchTimeout, "the launch timed out and was terminated")
    ERROR(cudaErrorIllegalInstruction, "an illegal instruction was encountered")
    ERROR(cudaErrorMisalignedAddress, "misaligned address")
    ERROR(cudaErrorLaunchFailure, "unspecified launch failure")
    ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")
    ERROR(cudaErrorInvalidClusterSize, "cluster misconfiguration")
    default: return {"cudaErrorUnknown", "unknown error"};
  }
#undef ERROR
}

}  // namespace

namespace emulator {

cudaError_t enqueue(cudaStream_t stream, Run work) {
  return entry([&] { return push(stream, {std::move(work), nullptr, 0}); });
}

cudaError_t enqueue_grid(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> body) {
  return entry([&] {
    const cudaError_t error = check_launch(config, kernel);
    if (error != cudaSuccess) return error;
    note_kernel(kernel);
    const unsigned cluster = cluster_of(config);
    return push(config.stream, {[=] { return run_grid(config, cluster, body); }, nullptr, 0});
  });
}

}  // namespace emulator

const char* cudaGetErrorName(cudaError_t error) { return text_of(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return text_of(error).words; }
cudaError_t cudaGetLastError() {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  const cudaError_t error = last_error;
  last_error = broken;
  return error;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return architecture() ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  return entry([&] { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {{}, architecture() / 10, architecture() % 10, 3, kTotalBytes};
  snprintf(properties->name, sizeof properties->name, "emulated sm_%d, not a GPU", architecture());
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  *value = attribute == cudaDevAttrComputeCapabilityMajor   ? properties.major
           : attribute == cudaDevAttrComputeCapabilityMinor ? properties.minor
                                                            : properties.multiProcessorCount;
  return error;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  return entry([&] { return allocate(memory, bytes, false); });
}
cudaError_t cudaFree(void* memory) {
  return entry([&] { return release(memory, false); });
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  return entry([&] { return allocate(memory, bytes, true); });
}
cudaError_t cudaFreeHost(void* memory) {
  return entry([&] { return release(memory, true); });
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  return entry([&] { return *free_bytes = kTotalBytes - device_bytes, *total_bytes = kTotalBytes, cudaSuccess; });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return entry([&] { return streams.insert(*stream = new emulated_stream), cudaSuccess; });
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return entry([&] {
    const cudaError_t error = run_everything();
    streams.erase(stream);
    delete stream;
    return error;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return entry([&] { return capturing() ? cudaErrorStreamCaptureUnsupported : run_until([&] { return stream->queue.empty(); }); });
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return entry([&] {
    *status = stream->captured ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  return entry([&] {
    if (stream->captured) return cudaErrorStreamCaptureUnsupported;
    stream->captured = std::make_unique<emulated_graph>();
    return cudaSuccess;
  });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return entry([&] { return (*graph = stream->captured.release()) ? cudaSuccess : cudaErrorStreamCaptureUnsupported; });
}

// What is not page-locked is read, or written, before the call returns.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return entry([&] {
    const bool up = kind == cudaMemcpyHostToDevice;
    const void* const host = up ? from : to;
    const Allocation* const device = allocation_of(up ? to : from, bytes);
    const Allocation* const locked = allocation_of(host, bytes);
    if (!device || device->host || (locked && !locked->host)) return cudaErrorInvalidValue;
    if (locked || stream->captured) return push(stream, {[=] { return memcpy(to, from, bytes), cudaSuccess; }, nullptr, 0});
    if (up) {
      const auto kept = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
      return push(stream, {[=] { return memcpy(to, kept->data(), bytes), cudaSuccess; }, nullptr, 0});
    }
    push(stream, {[=] { return memcpy(to, from, bytes), cudaSuccess; }, nullptr, 0});
    return run_until([&] { return stream->queue.empty(); });
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return entry([&] {
    const Allocation* const device = allocation_of(to, bytes);
    if (!device || device->host) return cudaErrorInvalidValue;
    return push(stream, {[=] { return memset(to, value, bytes), cudaSuccess; }, nullptr, 0});
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = new emulated_event, cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return entry([&] {
    if (stream->captured) return cudaErrorStreamCaptureUnsupported;  // CUDA can; nothing here does
    const auto state = event->state;
    const uint64_t record = ++state->recorded;
    return push(stream, {[=] { return state->done = record, state->time = Clock::now(), cudaSuccess; }, nullptr, 0});
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return entry([&] {
    if (stream->captured) return cudaErrorStreamCaptureUnsupported;
    return push(stream, {nullptr, event->state, event->state->recorded});
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return entry([&] {
    const uint64_t record = event->state->recorded;
    return run_until([&] { return event->state->done >= record; });
  });
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  return entry([&] {
    for (cudaEvent_t event : {begin, end})
      if (event->state->done < event->state->recorded) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(end->state->time - begin->state->time).count();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return *executable = new emulated_graph(*graph), cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return delete executable, cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return entry([&] {
    for (const Operation& operation : executable->operations) {
      const cudaError_t error = push(stream, operation);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  return entry([&] {
    if (value < 0 || size_t(value) > most_shared_bytes()) return cudaErrorInvalidValue;
    shared_allowed[kernel] = value;
    return cudaSuccess;
  });
}
// Kernels that are empty below sm_90a have few registers there.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->numRegs = architecture() == 90 ? 168 : 16;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, const void* kernel, const cudaLaunchConfig_t* config) {
  return entry([&] {
    *clusters = std::max(1, 3 / int(std::max(1u, cluster_of(*config))));
    return check_launch(*config, kernel);
  });
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  if (strcmp(name, "cuTensorMapEncodeTiled") != 0) return cudaErrorInvalidValue;
  *function = reinterpret_cast<void*>(encode_tiled);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
