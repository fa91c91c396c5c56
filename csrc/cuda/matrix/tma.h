// The copy engine of sm_90: a thread asks for a box of a tensor, which goes to shared memory by itself and is counted
// by a barrier there. csrc/testing/emulated/cuda/matrix/tma.h has the same functions. (PTX ISA, "Parallel
// Synchronization: mbarrier", "cp.async.bulk.tensor"; the boxes lie as wgmma takes them, tile.h.)
#pragma once

#include <cuda.h>
#include <cuda/matrix/wgmma.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace fastkan {

// What the engine is told of a tensor and of the boxes that it will be asked for.
struct alignas(128) TensorMap {
  uint64_t words[16];
};

// 16-bit numbers, strides counted in them, the first of 1. Boxes have 64 numbers, 128 bytes swizzled, in the first
// dimension; what of them is not in the tensor is zeros.
struct Boxes {
  static constexpr int kDimensions = 4;
  const void* data;
  int64_t size[kDimensions], stride[kDimensions];
  int box[kDimensions];
};

inline TensorMap tensor_map(const Boxes& boxes) {
  using Encode = decltype(&cuTensorMapEncodeTiled);  // of the driver, which nothing here is linked to
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
#else
    cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
    return reinterpret_cast<Encode>(found);
  }();
  if (!encode) throw std::runtime_error("the driver has no cuTensorMapEncodeTiled: expected one of CUDA 12 or later");
  cuuint64_t size[Boxes::kDimensions], bytes[Boxes::kDimensions - 1];
  cuuint32_t box[Boxes::kDimensions], steps[Boxes::kDimensions];
  for (int d = 0; d < Boxes::kDimensions; ++d) {
    size[d] = static_cast<cuuint64_t>(boxes.size[d]);
    if (d > 0) bytes[d - 1] = static_cast<cuuint64_t>(2 * boxes.stride[d]);
    box[d] = static_cast<cuuint32_t>(boxes.box[d]);
    steps[d] = 1;
  }
  TensorMap map;
  static_assert(sizeof map == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));
  const CUresult status =
      encode(reinterpret_cast<CUtensorMap*>(&map), CU_TENSOR_MAP_DATA_TYPE_UINT16, Boxes::kDimensions,
             const_cast<void*>(boxes.data), size, bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) throw std::runtime_error("cuTensorMapEncodeTiled: error " + std::to_string(status));
  return map;
}

using Barrier = uint64_t;

// A phase of a barrier ends when so many have arrived and all bytes that were announced are there.
__device__ __forceinline__ void make_barrier(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// Barriers that this thread has made are there for the copy engine, too.
__device__ __forceinline__ void show_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void arrive_announcing(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Until the phase of that parity has ended; the one before the first has.
__device__ __forceinline__ void wait_for(Barrier* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@!ended bra again;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Starts a copy of the box from `at` on.
__device__ __forceinline__ void copy_box(void* shared, const TensorMap& map, const int (&at)[Boxes::kDimensions],
                                         Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], "
      "[%6];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(shared_address(barrier))
      : "memory");
}

// Waits for COUNT threads of whole warps, that come to the same of 15 barriers.
template <int COUNT>
__device__ __forceinline__ void sync_some(int which) {
  asm volatile("bar.sync %0, %1;" ::"r"(which), "n"(COUNT) : "memory");
}

// Gives registers of this group of four warps away, or takes such, up to so many for a thread.
template <int REGISTERS>
__device__ __forceinline__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
__device__ __forceinline__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

}  // namespace fastkan
