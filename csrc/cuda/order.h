// The rows of one input that a warp works on, in the order of the windows they fall into.
#pragma once

#include "launch.h"

namespace fastkan {

constexpr int kWarp = 32, kDigits = 256;
constexpr unsigned kAll = 0xffffffffu;

// A warp's rows, up to `capacity` at a time. A window is counted from the lowest that the warp has to do with.
template <class A>
struct Ordered {
  int32_t* row;          // [slot], from the warp's first row
  uint8_t* window;       // [slot]
  uint16_t* slot;        // [place in the order]
  A* scratch;            // [slot] or [place]: ranks while sorting, then sums
  uint16_t* digit_ends;  // [kDigits]

  FASTKAN_HD Ordered(Pieces& pieces, int capacity)
      : row(pieces.take<int32_t>(capacity)),
        window(pieces.take<uint8_t>(capacity)),
        slot(pieces.take<uint16_t>(capacity)),
        scratch(pieces.take<A>(capacity)),
        digit_ends(pieces.take<uint16_t>(kDigits)) {}
  FASTKAN_HD static int64_t bytes(int capacity) {
    return Pieces::bytes<int32_t>(capacity) + Pieces::bytes<uint8_t>(capacity) + Pieces::bytes<uint16_t>(capacity) +
           Pieces::bytes<A>(capacity) + Pieces::bytes<uint16_t>(kDigits);
  }

  // Adds the rows of those lanes that have one, in their order.
  __device__ __forceinline__ void add(int& filled, bool wanted, int32_t of_row, int of_window) const {
    const int lane = threadIdx.x % kWarp;
    const unsigned among = __ballot_sync(kAll, wanted);
    if (wanted) {
      const int at = filled + __popc(among & ((1u << lane) - 1));
      row[at] = of_row;
      window[at] = static_cast<uint8_t>(of_window);
    }
    filled += __popc(among);
  }

  // A counting sort: rows of one window stay in their order, so that sums over them are always taken in the same one.
  __device__ __forceinline__ void sort(int filled) const {
    const int lane = threadIdx.x % kWarp;
    constexpr int kEach = kDigits / kWarp;
    int32_t* rank = reinterpret_cast<int32_t*>(scratch);
    for (int d = lane; d < kDigits; d += kWarp) digit_ends[d] = 0;
    __syncwarp();
    for (int from = 0; from < filled; from += kWarp) {
      const int at = from + lane;
      const int digit = at < filled ? window[at] : kDigits;
      const unsigned peers = __match_any_sync(kAll, digit);
      const int before = __popc(peers & ((1u << lane) - 1));
      if (at < filled) rank[at] = digit_ends[digit] + before;
      __syncwarp();
      if (at < filled && before == 0) digit_ends[digit] = static_cast<uint16_t>(digit_ends[digit] + __popc(peers));
      __syncwarp();
    }
    int count[kEach], total = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) total += count[j] = digit_ends[lane * kEach + j];
    int end = total;
#pragma unroll
    for (int by = 1; by < kWarp; by *= 2) {
      const int other = __shfl_up_sync(kAll, end, by);
      if (lane >= by) end += other;
    }
    int begin = end - total;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      digit_ends[lane * kEach + j] = static_cast<uint16_t>(begin);
      begin += count[j];
    }
    __syncwarp();
    for (int at = lane; at < filled; at += kWarp) slot[digit_ends[window[at]] + rank[at]] = static_cast<uint16_t>(at);
    __syncwarp();
  }
};

}  // namespace fastkan
