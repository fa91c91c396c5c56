// csrc/cuda/matrix/tma.h for the emulated GPU. A copy completes at a random time after its start, at the latest when
// no thread can continue.
#pragma once

#include <cuda/matrix/wgmma.h>

namespace fastkan {

using Barrier = uint64_t;
struct TensorLayout {
  static constexpr int kDimensions = 4;
  const void* data;
  int64_t size[kDimensions], stride[kDimensions];
  int tile[kDimensions];
};
struct TensorMap {
  TensorLayout layout;
};
inline TensorMap tensor_map(const TensorLayout& layout) { return {layout}; }

}  // namespace fastkan

namespace emulated {

void init_barrier(const void* barrier, int arrivals);
unsigned cluster_rank();
void wait_for_cluster();
void arrive(const void* barrier, int announced, unsigned rank);
void wait_for_barrier(const void* barrier, int parity);
void start_tma_copy(void* shared, const fastkan::TensorLayout& layout, const int* at, const void* barrier,
                    unsigned ranks);
void named_barrier_sync(int which, unsigned count);

}  // namespace emulated

namespace fastkan {

inline void init_barrier(Barrier* barrier, int arrivals) { emulated::init_barrier(barrier, arrivals); }
inline void fence_barrier_init() {}
inline int cluster_rank() { return static_cast<int>(emulated::cluster_rank()); }
inline void cluster_sync() { emulated::wait_for_cluster(); }
inline void arrive(Barrier* barrier) { emulated::arrive(barrier, 0, emulated::cluster_rank()); }
inline void arrive_at(Barrier* barrier, int rank) { emulated::arrive(barrier, 0, static_cast<unsigned>(rank)); }
inline void arrive_expect_bytes(Barrier* barrier, int bytes) {
  emulated::arrive(barrier, bytes, emulated::cluster_rank());
}
inline void wait_for(Barrier* barrier, int parity) { emulated::wait_for_barrier(barrier, parity); }
inline void copy_tma_tile(void* shared, const TensorMap& map, const int (&at)[TensorLayout::kDimensions],
                          Barrier* barrier, int blocks) {
  emulated::start_tma_copy(shared, map.layout, at, barrier, (1u << blocks) - 1);
}
template <int COUNT>
void named_barrier_sync(int which) {
  emulated::named_barrier_sync(which, COUNT);
}
template <int>
void warpgroup_reg_dealloc() {}
template <int>
void warpgroup_reg_alloc() {}

}  // namespace fastkan
