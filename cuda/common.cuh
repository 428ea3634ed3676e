// What every kernel file shares: the launch helper, dispatch on dtype, loads and stores of several elements at once as floats, and
// warp and block reductions. Reductions run in a fixed order: the same inputs give the same bits.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include <string>
#include <utility>

#include "../native/kernel.h"
#include "check.h"

namespace mae { namespace cuda {

using bf16 = __nv_bfloat16;

constexpr int kWarp = 32;

template <class A, class B>
constexpr __host__ __device__ A ceil_div(A a, B b) {
  return (a + A(b) - 1) / A(b);
}
template <class A, class B>
constexpr __host__ __device__ A round_up(A a, B multiple) {
  return ceil_div(a, multiple) * A(multiple);
}

// ---- Host: launching ---------------------------------------------------------------------------------------------------------------

// kernel<<<grid, block, shared_bytes, context.stream>>>(args...), checked. `name` is what a failure calls the kernel. Safe while a stream
// is being captured. More than 48 KiB of dynamic shared memory is asked for here; kernels need no set-up of their own.
template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, const Context& context,
            Args&&... args) {
  cudaError_t error = cudaSuccess;
  if (shared_bytes > 48 * 1024) {
    error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
  }
  if (error == cudaSuccess) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(context.stream);
    error = cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
  }
  if (error != cudaSuccess) {
    const auto shape = [](dim3 d) { return std::to_string(d.x) + "x" + std::to_string(d.y) + "x" + std::to_string(d.z); };
    const std::string call = std::string("launching kernel ") + name + " (grid " + shape(grid) + ", block " + shape(block) + ", " +
                             std::to_string(shared_bytes) + " bytes of shared memory)";
    fail(error, call.c_str(), __FILE__, __LINE__);
  }
}

template <class T>
struct TypeTag {
  using type = T;
};

// Calls body(TypeTag<float>()) or body(TypeTag<bf16>()): with_type(a.x.dtype, [&](auto tag) { using T = typename decltype(tag)::type; … }).
template <class F>
void with_type(DType dtype, F&& body) {
  if (dtype == F32) return body(TypeTag<float>());
  if (dtype == BF16) return body(TypeTag<bf16>());
  throw Failure("MAE_INTERNAL", "a CUDA kernel got an operand of dtype " + std::to_string(int(dtype)) + " where f32 or bf16 belongs");
}

// Whether all these addresses are multiples of `bytes` (null, an absent operand, is).
template <class... Pointers>
bool aligned(uintptr_t bytes, const Pointers*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % bytes == 0) && ...);
}

// The block's dynamic shared memory.
template <class T>
static __device__ __forceinline__ T* dynamic_shared() {
#ifdef MAE_EMULATED_CUDA
  return reinterpret_cast<T*>(emulator::dynamic_shared());
#else
  extern __shared__ __align__(1024) char dynamic_shared_bytes[];
  return reinterpret_cast<T*>(dynamic_shared_bytes);
#endif
}

// ---- Device: elements ----------------------------------------------------------------------------------------------------------------

static __device__ __forceinline__ float to_float(float x) { return x; }
static __device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
static __device__ __forceinline__ float to_float(uint8_t x) { return float(x); }

template <class T>
static __device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) { return x; }
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

namespace detail {
// The vector type of one access.
template <int Bytes> struct Access;
template <> struct Access<1> { using type = unsigned char; };
template <> struct Access<2> { using type = unsigned short; };
template <> struct Access<4> { using type = unsigned int; };
template <> struct Access<8> { using type = uint2; };
template <> struct Access<16> { using type = uint4; };

// N elements of T, moved in accesses of 16 bytes (or of their whole size where that is less).
template <class T, int N>
struct Pack {
  static constexpr int kBytes = N * int(sizeof(T));
  static constexpr int kAccessBytes = kBytes < 16 ? kBytes : 16;
  static constexpr int kAccesses = kBytes / kAccessBytes;
  static_assert(kBytes % kAccessBytes == 0, "a pack is 1, 2, 4, 8 or a multiple of 16 bytes");
  using Vector = typename Access<kAccessBytes>::type;
  union {
    Vector raw[kAccesses];
    T v[N];
  };
  __device__ __forceinline__ Pack() {}
};
}  // namespace detail

// v[i] = p[i], i < N. p is aligned to min(16, N · sizeof(T)) bytes.
template <int N, class T>
static __device__ __forceinline__ void load(const T* p, float (&v)[N]) {
  detail::Pack<T, N> pack;
  const auto* from = reinterpret_cast<const typename detail::Pack<T, N>::Vector*>(p);
#pragma unroll
  for (int i = 0; i < pack.kAccesses; ++i) pack.raw[i] = from[i];
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = to_float(pack.v[i]);
}
// The same for memory that nothing reads again soon (evict first).
template <int N, class T>
static __device__ __forceinline__ void load_streaming(const T* p, float (&v)[N]) {
  detail::Pack<T, N> pack;
  const auto* from = reinterpret_cast<const typename detail::Pack<T, N>::Vector*>(p);
#pragma unroll
  for (int i = 0; i < pack.kAccesses; ++i) pack.raw[i] = __ldcs(from + i);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = to_float(pack.v[i]);
}

// p[i] = v[i] rounded to T, i < N. Alignment as for load.
template <int N, class T>
static __device__ __forceinline__ void store(T* p, const float (&v)[N]) {
  detail::Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.v[i] = from_float<T>(v[i]);
  auto* to = reinterpret_cast<typename detail::Pack<T, N>::Vector*>(p);
#pragma unroll
  for (int i = 0; i < pack.kAccesses; ++i) to[i] = pack.raw[i];
}
template <int N, class T>
static __device__ __forceinline__ void store_streaming(T* p, const float (&v)[N]) {
  detail::Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.v[i] = from_float<T>(v[i]);
  auto* to = reinterpret_cast<typename detail::Pack<T, N>::Vector*>(p);
#pragma unroll
  for (int i = 0; i < pack.kAccesses; ++i) __stcs(to + i, pack.raw[i]);
}

// ---- Device: reductions --------------------------------------------------------------------------------------------------------------

// The sum (maximum) over the warp, in every lane. Butterfly: all lanes get the same bits.
static __device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
static __device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

// The sum over a block of Threads threads (a multiple of 32, at most 1024), in every thread. Every thread must call it; `shared` (32
// floats) may be used again at once.
template <int Threads>
static __device__ __forceinline__ float block_sum(float x, float* shared) {
  static_assert(Threads % kWarp == 0 && Threads <= 1024, "whole warps");
  x = warp_sum(x);
  if (Threads == kWarp) return x;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  __syncthreads();  // whoever still reads the previous result
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  return warp_sum(lane < Threads / kWarp ? shared[lane] : 0.0f);
}

}}  // namespace mae::cuda
