// The rows of one input that a warp works on, sorted by knot span.
#pragma once

#include "launch.h"

namespace fastkan {

constexpr int kWarp = 32, kBuckets = 256;
constexpr unsigned kFullWarp = 0xffffffffu;

// A warp's rows, up to `capacity` at a time. Sort keys are windows, counted from the lowest that the warp handles.
template <class A>
struct SortedRows {
  uint16_t* bucket_ends;  // [kBuckets]
  int32_t* row;           // [slot], from the warp's first row
  uint8_t* window;        // [slot]
  uint16_t* slot;         // [rank]
  A* scratch;             // [slot] while sorting, for ranks within a bucket; then [rank], for sums

  FASTKAN_HD SortedRows(SharedAllocator& allocator, int capacity)
      : bucket_ends(allocator.take<uint16_t>(kBuckets)),
        row(allocator.take<int32_t>(capacity)),
        window(allocator.take<uint8_t>(capacity)),
        slot(allocator.take<uint16_t>(capacity)),
        scratch(allocator.take<A>(capacity)) {}

  // Appends the rows of those lanes that have one, in lane order.
  __device__ __forceinline__ void add(int& filled, bool wanted, int32_t of_row, int of_window) const {
    const int lane = threadIdx.x % kWarp;
    const unsigned among = __ballot_sync(kFullWarp, wanted);
    if (wanted) {
      const int at = filled + __popc(among & ((1u << lane) - 1));
      row[at] = of_row;
      window[at] = static_cast<uint8_t>(of_window);
    }
    filled += __popc(among);
  }

  // A stable counting sort: sums over the rows of a window always have the same order.
  __device__ __forceinline__ void sort(int filled) const {
    const int lane = threadIdx.x % kWarp;
    constexpr int kEach = kBuckets / kWarp;
    int32_t* rank = reinterpret_cast<int32_t*>(scratch);
    for (int d = lane; d < kBuckets; d += kWarp) bucket_ends[d] = 0;
    __syncwarp();
    for (int from = 0; from < filled; from += kWarp) {
      const int at = from + lane;
      const int bucket = at < filled ? window[at] : kBuckets;
      const unsigned peers = __match_any_sync(kFullWarp, bucket);
      const int before = __popc(peers & ((1u << lane) - 1));
      if (at < filled) rank[at] = bucket_ends[bucket] + before;
      __syncwarp();
      if (at < filled && before == 0) bucket_ends[bucket] = static_cast<uint16_t>(bucket_ends[bucket] + __popc(peers));
      __syncwarp();
    }
    int count[kEach], total = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) total += count[j] = bucket_ends[lane * kEach + j];
    int end = total;
#pragma unroll
    for (int by = 1; by < kWarp; by *= 2) {
      const int other = __shfl_up_sync(kFullWarp, end, by);
      if (lane >= by) end += other;
    }
    int begin = end - total;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      bucket_ends[lane * kEach + j] = static_cast<uint16_t>(begin);
      begin += count[j];
    }
    __syncwarp();
    for (int at = lane; at < filled; at += kWarp) slot[bucket_ends[window[at]] + rank[at]] = static_cast<uint16_t>(at);
    __syncwarp();
  }
};

}  // namespace fastkan
