// wgmma on sm_90a: asynchronous matrix products of a warpgroup (four warps), left operand in registers, right operand
// in shared memory. csrc/testing/emulated/cuda/matrix/wgmma.h has the same functions. Warp w holds rows 16 w to 16 w
// + 15 of the left operand [64, .], with metadata and accumulators as for mma (ptx.h). The accumulators are [64,
// 128]; c[n] holds columns 8 n to 8 n + 7. A descriptor gives the right operand (tile.h). (PTX ISA, "Register
// fragments for wgmma.mma_async.m64nNk16" and, with sparse operands, "m64nNk32"; CUTLASS's ELayout_64x32).
#pragma once

#include <cuda/matrix/ptx.h>

namespace fastkan {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kHasWgmma = true;  // of the architecture being compiled for
#else
constexpr bool kHasWgmma = false;
#endif

// Makes this thread's copies to shared memory visible to wgmma.
__device__ __forceinline__ void fence_for_wgmma() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Required before the first product, and after its operand registers were written.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most GROUPS of the groups of products are pending.
template <int GROUPS = 0>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
}

template <class S>
struct Wgmma;

#define FASTKAN_C4(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define FASTKAN_C16(n) FASTKAN_C4(n), FASTKAN_C4(n + 1), FASTKAN_C4(n + 2), FASTKAN_C4(n + 3)
#define FASTKAN_SUMS                                                                 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, %68, "
#define FASTKAN_WGMMA(type, name)                                                                                \
  template <>                                                                                                    \
  struct Wgmma<type> {                                                                                           \
    /* c += a b, depth 16; DEEP: b is stored along the depth */                                                  \
    template <bool DEEP>                                                                                         \
    static __device__ __forceinline__ void multiply(float (&c)[16][4], const uint32_t (&a)[4], uint64_t right) { \
      asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." name "." name " " FASTKAN_SUMS "1, 1, 1, %69;" \
                   : FASTKAN_C16(0), FASTKAN_C16(4), FASTKAN_C16(8), FASTKAN_C16(12)                             \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(right), "n"(!DEEP));                        \
    }                                                                                                            \
    /* c += a b, depth 32, a with 2:4 sparsity; SELECTOR as in ptx.h */                                          \
    template <int SELECTOR>                                                                                      \
    static __device__ __forceinline__ void multiply_sparse(float (&c)[16][4], const uint32_t (&a)[4],            \
                                                           uint32_t metadata, uint64_t right) {                  \
      asm volatile("wgmma.mma_async.sp.sync.aligned.m64n128k32.f32." name "." name " " FASTKAN_SUMS              \
                   "%69, %70, 1, 1, 1, 1;"                                                                       \
                   : FASTKAN_C16(0), FASTKAN_C16(4), FASTKAN_C16(8), FASTKAN_C16(12)                             \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(right), "r"(metadata), "n"(SELECTOR));      \
    }                                                                                                            \
  };

FASTKAN_WGMMA(__nv_bfloat16, "bf16")
FASTKAN_WGMMA(__half, "f16")
#undef FASTKAN_WGMMA
#undef FASTKAN_SUMS
#undef FASTKAN_C16
#undef FASTKAN_C4

}  // namespace fastkan
