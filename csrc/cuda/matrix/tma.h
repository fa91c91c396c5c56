// TMA, the tensor memory accelerator of sm_90: one thread starts the copy of a tile of a tensor to shared memory, and
// an mbarrier there counts the bytes that have arrived. csrc/testing/emulated/cuda/matrix/tma.h has the same
// functions. (PTX ISA, "Parallel Synchronization: mbarrier", "cp.async.bulk.tensor".) Tiles are written in the layout
// of wgmma operands, see tile.h.
#pragma once

#include <cuda.h>
#include <cuda/matrix/wgmma.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace fastkan {

// The driver's encoding of a TensorLayout (CUtensorMap).
struct alignas(128) TensorMap {
  uint64_t words[16];
};

// A tensor of 16-bit numbers, strides in elements, the first one 1, and the size of the tiles copied from it. Tiles
// have 64 numbers in the first dimension, with 128-byte swizzle; parts outside of the tensor are zeros.
struct TensorLayout {
  static constexpr int kDimensions = 4;
  const void* data;
  int64_t size[kDimensions], stride[kDimensions];
  int tile[kDimensions];
};

inline TensorMap tensor_map(const TensorLayout& layout) {
  using Encode = decltype(&cuTensorMapEncodeTiled);  // from the driver, which is not linked
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
  cuuint64_t size[TensorLayout::kDimensions], bytes[TensorLayout::kDimensions - 1];
  cuuint32_t box[TensorLayout::kDimensions], steps[TensorLayout::kDimensions];
  for (int d = 0; d < TensorLayout::kDimensions; ++d) {
    size[d] = static_cast<cuuint64_t>(layout.size[d]);
    if (d > 0) bytes[d - 1] = static_cast<cuuint64_t>(2 * layout.stride[d]);
    box[d] = static_cast<cuuint32_t>(layout.tile[d]);
    steps[d] = 1;
  }
  TensorMap map;
  static_assert(sizeof map == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));
  const CUresult status =
      encode(reinterpret_cast<CUtensorMap*>(&map), CU_TENSOR_MAP_DATA_TYPE_UINT16, TensorLayout::kDimensions,
             const_cast<void*>(layout.data), size, bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) throw std::runtime_error("cuTensorMapEncodeTiled: error " + std::to_string(status));
  return map;
}

using Barrier = uint64_t;

// A phase of a barrier ends after `arrivals` arrivals, once all expected bytes have been written.
__device__ __forceinline__ void init_barrier(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// Makes barriers initialised by this thread visible to TMA.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void arrive_expect_bytes(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Whether the phase of that parity has ended, after waiting for some time; the phase before the first counts as ended.
__device__ __forceinline__ bool has_ended(Barrier* barrier, int parity) {
  int ended;
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
      "selp.s32 %0, 1, 0, ended;\n"
      "}"
      : "=r"(ended)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return ended;
}
// Waits until it has ended. A debug build gives up in the end: a mistake is then an error of the kernel, not a hang.
__device__ __forceinline__ void wait_for(Barrier* barrier, int parity) {
#if defined(NDEBUG)
  while (!has_ended(barrier, parity)) continue;
#else
  for (int tries = 0; !has_ended(barrier, parity); ++tries)
    if (tries == 1 << 22) __trap();
#endif
}

// Starts the copy of the tile that begins at `at`, to the same place in each of the `blocks` of a cluster, and counted
// by the barrier at the same place there. A block that was launched alone is a cluster of one.
__device__ __forceinline__ void copy_tma_tile(void* shared, const TensorMap& map,
                                              const int (&at)[TensorLayout::kDimensions], Barrier* barrier,
                                              int blocks) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, "
      "%3, %4, %5}], [%6], %7;" ::"r"(shared_address(shared)),
      "l"(&map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(shared_address(barrier)),
      "h"(static_cast<uint16_t>((1 << blocks) - 1))
      : "memory");
}

// This block in its cluster.
__device__ __forceinline__ int cluster_rank() {
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}
// Waits for all threads of the cluster, whose writes to shared memory are then visible.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// Arrives at the barrier at the same place in a block of the cluster.
__device__ __forceinline__ void arrive_at(Barrier* barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}

// Waits for COUNT threads, in whole warps, at one of the 15 named barriers.
template <int COUNT>
__device__ __forceinline__ void named_barrier_sync(int which) {
  asm volatile("bar.sync %0, %1;" ::"r"(which), "n"(COUNT) : "memory");
}

// Decreases or increases the registers per thread of this warpgroup (setmaxnreg).
template <int REGISTERS>
__device__ __forceinline__ void warpgroup_reg_dealloc() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
__device__ __forceinline__ void warpgroup_reg_alloc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

}  // namespace fastkan
