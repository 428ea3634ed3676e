// What the lab programs share. A lab program holds numbered variants of one family of kernels: each is first checked against a plain CPU
// reference on random inputs with poisoned outputs, then timed against ceilings measured in the same run. nvcc alone builds it:
//   nvcc -std=c++17 -O3 --expt-relaxed-constexpr -arch=sm_90a cuda/lab/memory_bound.cu -o memory_bound
#pragma once
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "../../native/shared/bf16.h"
#include "../../native/shared/philox.h"
#include "../common.cuh"

namespace mae { namespace lab {

// ---- arrays ----------------------------------------------------------------------------------------------------------------------------

static inline float value_of(float x) { return x; }
static inline float value_of(cuda::bf16 x) { return __bfloat162float(x); }
static inline float value_of(uint8_t x) { return float(x); }
static inline float value_of(int32_t x) { return float(x); }

// Value i of a stream of random numbers in [low, high), never exactly 0: zeros draw less power and time better than data.
static __host__ __device__ __forceinline__ float random_value(uint32_t seed, int64_t i, float low, float high) {
  const float x = low + (high - low) * uniform24(philox(uint32_t(i), uint32_t(i >> 32), 0, 0, seed, 0).v[0]);
  return x == 0.0f ? high * 0.5f : x;
}

template <class T>
__global__ void random_kernel(T* to, int64_t count, uint32_t seed, float low, float high) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x) {
    const float x = random_value(seed, i, low, high);
    if constexpr (sizeof(T) == 2) to[i] = cuda::from_float<cuda::bf16>(x);
    else to[i] = T(x);
  }
}

template <class T>
constexpr DType dtype_of() {
  return sizeof(T) == 1 ? U8 : sizeof(T) == 2 ? BF16 : std::is_same<T, int32_t>::value ? I32 : F32;
}

// Device memory; `get` copies it to the host.
template <class T>
class Array {
 public:
  explicit Array(int64_t count) : count_(count) {
    CUDA_CHECK(cudaMalloc(reinterpret_cast<void**>(&data_), size_t(count) * sizeof(T)));
    poison();
  }
  Array(const std::vector<T>& values) : Array(int64_t(values.size())) { set(values); }
  Array(const Array&) = delete;
  ~Array() { cudaFree(data_); }

  // NaN in f32 and bf16, −1 in i32, 255 in u8: what a kernel forgets to write cannot pass.
  Array& poison() {
    CUDA_CHECK(cudaMemset(data_, 0xff, size_t(count_) * sizeof(T)));
    return *this;
  }
  Array& random(uint32_t seed, float low = -1.0f, float high = 1.0f) {
    random_kernel<<<1024, 256>>>(data_, count_, seed, low, high);
    CUDA_CHECK(cudaGetLastError());
    return *this;
  }
  Array& set(const std::vector<T>& values) {
    CUDA_CHECK(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return *this;
  }
  std::vector<T> get() const {
    std::vector<T> values(static_cast<size_t>(count_));
    CUDA_CHECK(cudaMemcpy(values.data(), data_, values.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  std::vector<double> doubles() const {
    const std::vector<T> values = get();
    std::vector<double> result(values.size());
    for (size_t i = 0; i < values.size(); ++i) result[i] = double(value_of(values[i]));
    return result;
  }
  T* data() const { return data_; }
  int64_t count() const { return count_; }
  Operand operand(int32_t flags = 0) const { return {data_, dtype_of<T>(), flags}; }

 private:
  T* data_ = nullptr;
  int64_t count_;
};

static inline Operand absent(DType dtype = F32) { return {nullptr, dtype, 0}; }

// A context on the default stream with a poisoned workspace.
class Workspace {
 public:
  explicit Workspace(size_t bytes) : memory_(int64_t(bytes > 0 ? bytes : 1)) {}
  Context context() const { return {memory_.data(), size_t(memory_.count()), nullptr}; }

 private:
  Array<uint8_t> memory_;
};

// ---- checking --------------------------------------------------------------------------------------------------------------------------

struct Comparison {
  double error = 0;  // the largest |got − expected| / (|expected| + scale), scale = root mean square of what is expected
  int64_t at = -1;
};

static inline Comparison compare(const std::vector<double>& got, const std::vector<double>& expected) {
  Comparison result;
  double squares = 0;
  for (const double x : expected) squares += x * x;
  const double scale = sqrt(squares / double(expected.size())) + 1e-30;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = fabs(got[i] - expected[i]) / (fabs(expected[i]) + scale);
    if (error > result.error || !(error == error)) {
      result = {error == error ? error : INFINITY, int64_t(i)};
      if (!(error == error)) break;
    }
  }
  return result;
}

// Prints one line; false where the error is above the tolerance. bf16 results: 2⁻⁸, half a unit in the last place of a value next to others
// of the same size; f32: a few hundred roundings.
constexpr double kToleranceF32 = 2e-5, kToleranceBf16 = 1.0 / 256;

static inline bool check(const char* name, const std::vector<double>& got, const std::vector<double>& expected, double tolerance) {
  const Comparison c = compare(got, expected);
  const bool ok = c.error <= tolerance;
  printf("  %-44s %s  error %.2e (at most %.0e)", name, ok ? "ok  " : "FAIL", c.error, tolerance);
  if (!ok) printf("  element %lld: got %.8g, expected %.8g", (long long)c.at, got[size_t(c.at)], expected[size_t(c.at)]);
  printf("\n");
  return ok;
}

// ---- timing ----------------------------------------------------------------------------------------------------------------------------

// Median seconds of `run` over `repeats` runs after two warm-ups; the L2 cache is overwritten before each.
static inline double seconds_of(const std::function<void()>& run, int repeats = 20) {
  int device = 0, l2 = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, device));
  static Array<uint8_t> flush(2 * int64_t(l2) + 1);
  cudaEvent_t start, stop;
  CUDA_CHECK(cudaEventCreate(&start));
  CUDA_CHECK(cudaEventCreate(&stop));
  std::vector<double> seconds;
  for (int i = 0; i < repeats + 2; ++i) {
    CUDA_CHECK(cudaMemsetAsync(flush.data(), i, size_t(flush.count())));
    CUDA_CHECK(cudaEventRecord(start));
    run();
    CUDA_CHECK(cudaEventRecord(stop));
    CUDA_CHECK(cudaEventSynchronize(stop));
    float milliseconds = 0;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start, stop));
    if (i >= 2) seconds.push_back(milliseconds * 1e-3);
  }
  CUDA_CHECK(cudaEventDestroy(start));
  CUDA_CHECK(cudaEventDestroy(stop));
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

static __global__ void copy_kernel(const uint4* __restrict__ from, uint4* __restrict__ to, int64_t count) {
  const int64_t i = blockIdx.x * int64_t(blockDim.x) * 4 + threadIdx.x;
  uint4 v[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (i + k * blockDim.x < count) v[k] = __ldcs(from + i + k * blockDim.x);
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (i + k * blockDim.x < count) __stcs(to + i + k * blockDim.x, v[k]);
  }
}

// Bytes per second, read and written together, of a plain copy of 512 MiB of random data: the ceiling of everything bound by memory.
static inline double copy_bandwidth() {
  const int64_t bytes = int64_t(512) << 20, count = bytes / 16;
  Array<float> from(bytes / 4), to(bytes / 4);
  from.random(1);
  const double seconds = seconds_of([&] {
    const auto* source = reinterpret_cast<const uint4*>(from.data());
    copy_kernel<<<unsigned(cuda::ceil_div(count, 1024)), 256>>>(source, reinterpret_cast<uint4*>(to.data()), count);
    CUDA_CHECK(cudaGetLastError());
  });
  return 2.0 * double(bytes) / seconds;
}

static inline void print_device() {
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  cudaDeviceProp p;
  CUDA_CHECK(cudaGetDeviceProperties(&p, device));
  printf("%s, compute capability %d.%d, %d multiprocessors, %zu MiB, L2 %d MiB\n", p.name, p.major, p.minor, p.multiProcessorCount,
         p.totalGlobalMem >> 20, p.l2CacheSize >> 20);
}

// One line: microseconds, GB/s and the share of `ceiling` (bytes per second).
static inline void print_bandwidth(const char* name, double seconds, double bytes, double ceiling) {
  printf("  %-44s %9.1f us %8.0f GB/s %5.1f%% of copy\n", name, seconds * 1e6, bytes / seconds * 1e-9, 100.0 * bytes / seconds / ceiling);
}

// Runs `body`, which returns whether all checks passed; a CUDA failure is printed. The exit status of a lab program.
static inline int run_lab(const std::function<bool()>& body) {
  try {
    const bool ok = body();
    CUDA_CHECK(cudaDeviceSynchronize());
    printf(ok ? "no check failed\n" : "SOME CHECKS FAILED\n");
    return ok ? 0 : 1;
  } catch (const Failure& failure) {
    fprintf(stderr, "%s: %s\n", failure.code.c_str(), failure.what());
    return 1;
  }
}

}}  // namespace mae::lab
