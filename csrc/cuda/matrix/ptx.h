// PTX instructions without a CUDA C++ intrinsic: asynchronous copies to shared memory (cp.async), ldmatrix, and
// warp-wide matrix products (mma, mma.sp). csrc/testing/emulated/cuda/matrix/ptx.h has the same functions for the
// tests. How a warp's registers hold matrices is in the PTX ISA, "Matrix fragments for mma.m16n8k16" and "for sparse
// mma.m16n8k32". With lane = 4 g + t, two 16-bit numbers in a register, the lower first:
//   left [16, 16]    a[r]: row g + 8 (r % 2), columns 2 t + 8 (r / 2) and the next
//   right [16, 8]    b[r]: rows 2 t + 8 r and the next, column g; [32, 8] in four registers
//   result [16, 8]   c[r]: row g + 8 (r / 2), column 2 t + r % 2
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
#include <string.h>

namespace fastkan {

__device__ __forceinline__ unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// Shifts by more than 63 give 0, and so do negative ones, which count as more.
__device__ __forceinline__ uint64_t shifted_left(uint64_t bits, int by) {
  asm("shl.b64 %0, %0, %1;" : "+l"(bits) : "r"(by));
  return bits;
}
__device__ __forceinline__ uint64_t shifted_right(uint64_t bits, int by) {
  asm("shr.u64 %0, %0, %1;" : "+l"(bits) : "r"(by));
  return bits;
}

// The value; what is computed from it stays where it is, instead of being kept in registers around a loop.
template <class N>
__device__ __forceinline__ N here(N value) {
  if constexpr (sizeof(N) == 8)
    asm volatile("" : "+l"(value));
  else
    asm volatile("" : "+r"(value));
  return value;
}

// Starts a copy of 16 bytes from global to shared memory; writes zeros if `there` is 0.
__device__ __forceinline__ void copy_async(void* shared, const void* global, unsigned there) {
  asm volatile(
      "{\n"
      ".reg .pred absent;\n"
      "setp.eq.u32 absent, %2, 0;\n"
      "cp.async.cg.shared.global [%0], [%1], 16, absent;\n"
      "}" ::"r"(shared_address(shared)),
      "l"(global), "r"(there)
      : "memory");
}
// The same for what another tile on the multiprocessor reads at about the same time: by way of L1.
__device__ __forceinline__ void copy_async_by_l1(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
// Closes a group of the copies that this thread has started since the last one.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most GROUPS of this thread's groups are pending.
template <int GROUPS>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

// Loads four matrices [8, 8] of 16-bit numbers: lane l gives the address of row l % 8 of matrix l / 8, 16 bytes. Lane
// 4 g + t gets row g, columns 2 t and 2 t + 1 of every matrix.
__device__ __forceinline__ void ldmatrix(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same, transposed: lane 4 g + t gets column g, rows 2 t and 2 t + 1.
__device__ __forceinline__ void ldmatrix_transposed(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

// Number is the type of an operand's register, Sum that of the accumulators.
template <class S>
struct Mma;

#define FASTKAN_MMA(type, name, pair, round)                                                                           \
  template <>                                                                                                          \
  struct Mma<type> {                                                                                                   \
    using Number = uint32_t;                                                                                           \
    using Sum = float;                                                                                                 \
    /* c += a b, depth 16 */                                                                                           \
    static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { \
      asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                                              \
                   ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                              \
                   : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                    \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                    \
    }                                                                                                                  \
    /* c += a b, depth 32, a with 2:4 sparsity; selects which lanes have the metadata, see basis/sparse.h */           \
    template <int SELECTOR>                                                                                            \
    static __device__ __forceinline__ void multiply_sparse(float (&c)[4], const uint32_t (&a)[4],                      \
                                                           const uint32_t (&b)[4], uint32_t metadata) {                \
      asm volatile("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32." name "." name                         \
                   ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"          \
                   : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                    \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]),           \
                     "r"(metadata), "n"(SELECTOR));                                                                    \
    }                                                                                                                  \
    static __device__ __forceinline__ float widened(uint32_t word, int which) {                                        \
      pair both;                                                                                                       \
      memcpy(&both, &word, sizeof both);                                                                               \
      return which ? __high2float(both) : __low2float(both);                                                           \
    }                                                                                                                  \
    static __device__ __forceinline__ uint32_t rounded(float low, float high) {                                        \
      const pair both = round(low, high);                                                                              \
      uint32_t bits;                                                                                                   \
      memcpy(&bits, &both, sizeof bits);                                                                               \
      return bits;                                                                                                     \
    }                                                                                                                  \
  };

FASTKAN_MMA(__nv_bfloat16, "bf16", __nv_bfloat162, __floats2bfloat162_rn)
FASTKAN_MMA(__half, "f16", __half2, __floats2half2_rn)
#undef FASTKAN_MMA

// tf32 ("for mma.m16n8k8" and "for sparse mma.m16n8k16"), a number in a register:
//   left [16, 8]    a[r]: row g + 8 (r % 2), column t + 4 (r / 2)
//   right [8, 8]    b[r]: row t + 4 r, column g; [16, 8] in four registers
template <>
struct Mma<float> {
  using Number = uint32_t;
  using Sum = float;
  // c += a b, depth 8
  static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
  // c += a b, depth 16, a with 1:2 sparsity
  template <int SELECTOR>
  static __device__ __forceinline__ void multiply_sparse(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[4],
                                                         uint32_t metadata) {
    asm volatile(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k16.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(metadata),
          "n"(SELECTOR));
  }
  static __device__ __forceinline__ uint32_t rounded(float number) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(number));
    return bits;
  }
};

// float64 ("for mma.m16n8k8"), laid out like tf32; before sm_90 as four products of [8, 4] and [4, 8].
template <>
struct Mma<double> {
  using Number = double;
  using Sum = double;
  static __device__ __forceinline__ void multiply(double (&c)[4], const double (&a)[4], double b0, double b1) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+d"(c[0]), "+d"(c[1]), "+d"(c[2]), "+d"(c[3])
        : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(b0), "d"(b1));
#else
#pragma unroll
    for (int r = 0; r < 4; ++r)
      asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
                   : "+d"(c[r % 2 * 2]), "+d"(c[r % 2 * 2 + 1])
                   : "d"(a[r]), "d"(r < 2 ? b0 : b1));
#endif
  }
  static __device__ __forceinline__ double rounded(double number) { return number; }
};

}  // namespace fastkan
