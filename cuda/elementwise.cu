// Element by element: dtype conversion and addition. Eight elements a thread.
#include "common.cuh"

namespace mae { namespace cuda {
namespace {

constexpr int kElementThreads = 256, kThreadElements = 8;

// Calls body(at, N) with the thread's elements: all eight at once, or one by one at the end of the array or where an address is unaligned.
template <class F>
__device__ __forceinline__ void for_elements(int64_t count, bool packed, F&& body) {
  const int64_t at = (int64_t(blockIdx.x) * kElementThreads + threadIdx.x) * kThreadElements;
  if (packed && at + kThreadElements <= count) {
    body(at, std::integral_constant<int, kThreadElements>());
  } else {
    for (int64_t i = at; i < min(at + kThreadElements, count); ++i) body(i, std::integral_constant<int, 1>());
  }
}

template <class X, class Y>
__global__ void __launch_bounds__(kElementThreads) cast_kernel(const X* __restrict__ x, Y* __restrict__ y, int64_t count, bool packed) {
  for_elements(count, packed, [&](int64_t at, auto n) {
    float v[decltype(n)::value];
    load(x + at, v);
    store(y + at, v);
  });
}

// y may be a.
template <class T>
__global__ void __launch_bounds__(kElementThreads) add_kernel(const T* a, const T* b, T* y, int64_t count, bool packed) {
  for_elements(count, packed, [&](int64_t at, auto n) {
    constexpr int N = decltype(n)::value;
    float u[N], v[N];
    load(a + at, u);
    load(b + at, v);
#pragma unroll
    for (int i = 0; i < N; ++i) u[i] += v[i];
    store(y + at, u);
  });
}

dim3 elements_grid(int64_t count) { return dim3(unsigned(ceil_div(count, kElementThreads * kThreadElements))); }

}  // namespace

size_t cast_workspace(const cast_args&) { return 0; }

void cast(const cast_args& a, Context& context) {
  const bool packed = aligned(16, a.x.f32(), a.y.f32());
  with_type(a.x.dtype, [&](auto x_tag) {
    with_type(a.y.dtype, [&](auto y_tag) {
      using X = typename decltype(x_tag)::type;
      using Y = typename decltype(y_tag)::type;
      launch("cast", cast_kernel<X, Y>, elements_grid(a.count), kElementThreads, 0, context, static_cast<const X*>(a.x.data),
             static_cast<Y*>(a.y.data), a.count, packed);
    });
  });
}

size_t add_workspace(const add_args&) { return 0; }

void add(const add_args& args, Context& context) {
  const bool packed = aligned(16, args.a.f32(), args.b.f32(), args.y.f32());
  with_type(args.y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch("add", add_kernel<T>, elements_grid(args.count), kElementThreads, 0, context, static_cast<const T*>(args.a.data),
           static_cast<const T*>(args.b.data), static_cast<T*>(args.y.data), args.count, packed);
  });
}

}}  // namespace mae::cuda
