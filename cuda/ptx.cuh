// The PTX instructions of the GEMM and attention kernels, one function each (PTX ISA 9.0). Shared memory is named by its 32-bit address.
#pragma once
#ifdef MAE_EMULATED_CUDA
#include "emulator/ptx.h"
#else
#include <cuda.h>
#include <stdint.h>

namespace mae { namespace cuda {

static __device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// 2^x, to 2 units in the last place; 0 for −∞.
static __device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two floats, rounded to nearest even, as a fragment's register.
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

static __device__ __forceinline__ void store_shared(uint32_t to, unsigned short value) {
  asm volatile("st.shared.u16 [%0], %1;\n" ::"r"(to), "h"(value) : "memory");
}
static __device__ __forceinline__ void store_shared(uint32_t to, uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;\n" ::"r"(to), "r"(value) : "memory");
}

// ---- sm_80: asynchronous copies, ldmatrix, mma.sync ------------------------------------------------------------------------------------

// kBytes (16 or 8) from global to shared memory; zeros, and no read, where `valid` is false.
template <int kBytes>
static __device__ __forceinline__ void copy_async(uint32_t to, const void* from, bool valid) {
  static_assert(kBytes == 16 || kBytes == 8, "what copies move");
  const int bytes = valid ? kBytes : 0;
  if (kBytes == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(bytes) : "memory");
  else asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;\n" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
static __device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int kPending>
static __device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

template <bool kTranspose>
static __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  if (kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
}

// d[16, 8] += a[16, 16] · b[16, 8], bf16 operands.
static __device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// ---- sm_90a: barriers ------------------------------------------------------------------------------------------------------------------

static __device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialised barriers visible to the cluster and to the copy engine.
static __device__ __forceinline__ void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }
// Arrives, and makes the phase wait for `bytes` more of copies.
static __device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}
// Arrives at the barrier of this name in block `rank` of the cluster.
static __device__ __forceinline__ void barrier_arrive(uint32_t barrier, uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
// Waits for the end of the phase of this parity.
static __device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "TRY_AGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra PHASE_DONE;\nbra TRY_AGAIN;\n"
      "PHASE_DONE:\n}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// Named barrier `id` of the block (0 is __syncthreads): waits until `threads` threads have come to it, or comes without waiting.
static __device__ __forceinline__ void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}
static __device__ __forceinline__ void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

static __device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return rank;
}
static __device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;\n" ::: "memory");
}

// ---- sm_90a: the copy engine -----------------------------------------------------------------------------------------------------------

// The map's box at element (x, y), x along rows, to shared memory, here or (multicast) in every block of the cluster whose bit is set in
// `blocks`; counted by `barrier`, in each of them.
static __device__ __forceinline__ void load_box(uint32_t to, const CUtensorMap& map, int x, int y, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];\n" ::"r"(to),
               "l"(&map), "r"(x), "r"(y), "r"(barrier)
               : "memory");
}
static __device__ __forceinline__ void load_box_multicast(uint32_t to, const CUtensorMap& map, int x, int y, uint32_t barrier,
                                                          unsigned short blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%2, %3}], [%4], %5;\n" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(barrier), "h"(blocks)
      : "memory");
}
static __device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(&map) : "memory");
}
// Orders this thread's ordinary writes to shared memory before reads by the copy engine and the tensor cores.
static __device__ __forceinline__ void async_proxy_fence() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// ---- sm_90a: wgmma ---------------------------------------------------------------------------------------------------------------------

template <int kRegisters>
static __device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
static __device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
static __device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
static __device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int kPending>
static __device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving reads of an accumulator in front of the wait.
static __device__ __forceinline__ void keep(float& x) { asm volatile("" : "+f"(x)::"memory"); }

// d[64, n] = a[64, 16] · b[16, n] (+ d), bf16 operands in shared memory named by descriptors; n is twice the number of registers. The
// instruction takes its accumulators one by one: REGISTERS names them in the text, the last arguments are their operands, and the five
// that follow them are the descriptors, the predicate and the two orders.
#define MAE_D4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define MAE_D16(i) MAE_D4(i), MAE_D4((i) + 4), MAE_D4((i) + 8), MAE_D4((i) + 12)
#define MAE_D64(i) MAE_D16(i), MAE_D16((i) + 16), MAE_D16((i) + 32), MAE_D16((i) + 48)
#define MAE_REGISTERS_0                                                                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                            \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                                  \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                                  \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define MAE_REGISTERS_64                                                                                              \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                                  \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "                                  \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "                      \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define MAE_WGMMA(N, REGISTERS, A, B, ADD, A_ORDER, B_ORDER, ...)                                                     \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADD ", 0;\n"                                                       \
               "wgmma.mma_async.sync.aligned.m64n" N "k16.f32.bf16.bf16 {" REGISTERS "}, "                            \
               A ", " B ", p, 1, 1, " A_ORDER ", " B_ORDER ";\n}\n"                                                   \
               : __VA_ARGS__                                                                                          \
               : "l"(a), "l"(b), "r"(int(accumulate)), "n"(kAKMajor ? 0 : 1), "n"(kBKMajor ? 0 : 1))
template <bool kAKMajor, bool kBKMajor>
static __device__ __forceinline__ void wgmma(float (&d)[4], uint64_t a, uint64_t b, bool accumulate) {
  MAE_WGMMA("8", "%0, %1, %2, %3", "%4", "%5", "%6", "%7", "%8", MAE_D4(0));
}
template <bool kAKMajor, bool kBKMajor>
static __device__ __forceinline__ void wgmma(float (&d)[64], uint64_t a, uint64_t b, bool accumulate) {
  MAE_WGMMA("128", MAE_REGISTERS_0, "%64", "%65", "%66", "%67", "%68", MAE_D64(0));
}
template <bool kAKMajor, bool kBKMajor>
static __device__ __forceinline__ void wgmma(float (&d)[128], uint64_t a, uint64_t b, bool accumulate) {
  MAE_WGMMA("256", MAE_REGISTERS_0 ", " MAE_REGISTERS_64, "%128", "%129", "%130", "%131", "%132", MAE_D64(0), MAE_D64(64));
}
#undef MAE_D4
#undef MAE_D16
#undef MAE_D64
#undef MAE_REGISTERS_0
#undef MAE_REGISTERS_64
#undef MAE_WGMMA
#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}}  // namespace mae::cuda
#endif  // MAE_EMULATED_CUDA
