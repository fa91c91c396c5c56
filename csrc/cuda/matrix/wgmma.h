// The products that four warps make together on sm_90a, from a left operand in their registers and a right one in
// shared memory. They go on by themselves until they are waited for. csrc/testing/emulated/cuda/matrix/wgmma.h has the
// same functions. Warp w holds rows 16 w to 16 w + 15 of the left operand [64, .], its places and its sums as for mma
// (ptx.h); the sums are [64, 128], c[n] of columns 8 n and on. The right operand is named by a descriptor (tile.h).
// (PTX ISA, "Register fragments for wgmma.mma_async.m64nNk16" and, with sparse operands, "m64nNk32"; CUTLASS's
// ELayout_64x32).
#pragma once

#include <cuda/matrix/ptx.h>

namespace fastkan {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kHasGroups = true;  // of the architecture that is compiled for
#else
constexpr bool kHasGroups = false;
#endif

// What this thread has copied into shared memory is there for products too.
__device__ __forceinline__ void show_copies_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Before the first product, and after registers that it takes were written.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wait_for_products() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

template <class S>
struct GroupMatrices;

#define FASTKAN_C4(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define FASTKAN_C16(n) FASTKAN_C4(n), FASTKAN_C4(n + 1), FASTKAN_C4(n + 2), FASTKAN_C4(n + 3)
#define FASTKAN_SUMS                                                                 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, %68, "
#define FASTKAN_GROUP_MATRICES(type, name)                                                                             \
  template <>                                                                                                          \
  struct GroupMatrices<type> {                                                                                         \
    /* c += a b, of 16 columns of a */                                                                                 \
    static __device__ __forceinline__ void multiply(float (&c)[16][4], const uint32_t (&a)[4], uint64_t right) {       \
      asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." name "." name " " FASTKAN_SUMS "1, 1, 1, 1;"         \
                   : FASTKAN_C16(0), FASTKAN_C16(4), FASTKAN_C16(8), FASTKAN_C16(12)                                   \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(right));                                          \
    }                                                                                                                  \
    /* c += a b, of 32 columns of a, of each four of which there are two */                                            \
    static __device__ __forceinline__ void multiply_sparse(float (&c)[16][4], const uint32_t (&a)[4], uint32_t places, \
                                                           uint64_t right) {                                           \
      asm volatile("wgmma.mma_async.sp.sync.aligned.m64n128k32.f32." name "." name " " FASTKAN_SUMS                    \
                   "%69, 0, 1, 1, 1, 1;"                                                                               \
                   : FASTKAN_C16(0), FASTKAN_C16(4), FASTKAN_C16(8), FASTKAN_C16(12)                                   \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(right), "r"(places));                             \
    }                                                                                                                  \
  };

FASTKAN_GROUP_MATRICES(__nv_bfloat16, "bf16")
FASTKAN_GROUP_MATRICES(__half, "f16")
#undef FASTKAN_GROUP_MATRICES
#undef FASTKAN_SUMS
#undef FASTKAN_C16
#undef FASTKAN_C4

}  // namespace fastkan
