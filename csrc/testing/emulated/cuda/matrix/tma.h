// csrc/cuda/matrix/tma.h on the emulated GPU. A box arrives some time after it was asked for, at the latest when
// nothing else can go on.
#pragma once

#include <cuda/matrix/wgmma.h>

namespace fastkan {

using Barrier = uint64_t;
struct Boxes {
  static constexpr int kDimensions = 4;
  const void* data;
  int64_t size[kDimensions], stride[kDimensions];
  int box[kDimensions];
};
struct TensorMap {
  Boxes boxes;
};
inline TensorMap tensor_map(const Boxes& boxes) { return {boxes}; }

}  // namespace fastkan

namespace emulated {

void make_barrier(const void* barrier, int arrivals);
void arrive(const void* barrier, int announced);
void wait_for_barrier(const void* barrier, int parity);
void start_box(void* shared, const fastkan::Boxes& boxes, const int* at, const void* barrier);
void wait_for_some(int which, unsigned count);

}  // namespace emulated

namespace fastkan {

inline void make_barrier(Barrier* barrier, int arrivals) { emulated::make_barrier(barrier, arrivals); }
inline void show_barriers() {}
inline void arrive(Barrier* barrier) { emulated::arrive(barrier, 0); }
inline void arrive_announcing(Barrier* barrier, int bytes) { emulated::arrive(barrier, bytes); }
inline void wait_for(Barrier* barrier, int parity) { emulated::wait_for_barrier(barrier, parity); }
inline void copy_box(void* shared, const TensorMap& map, const int (&at)[Boxes::kDimensions], Barrier* barrier) {
  emulated::start_box(shared, map.boxes, at, barrier);
}
template <int COUNT>
void sync_some(int which) {
  emulated::wait_for_some(which, COUNT);
}
template <int>
void shrink_registers() {}
template <int>
void grow_registers() {}

}  // namespace fastkan
