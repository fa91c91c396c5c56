// A window in the form that sparse tensor cores take: of every 4 columns of the left operand two, and which.
#pragma once

#include <cstdint>

#include "bspline.h"

namespace fastkan {

// The F functions of an input are columns, their number rounded up to 4 `chunks`; function f is column f / chunks of
// chunk f mod chunks. So neighbours lie in different chunks, and the K + 1 functions of a window leave at most two in
// each as long as K + 1 <= 2 chunks: two that lie side by side, `place` and `place` + 1 there.
struct ChunkOfWindow {
  int place;   // 0 to 2
  int first;   // the function of the window at `place`; none there where it is not in 0..K
  int second;  // at `place` + 1
};

FASTKAN_HD constexpr int chunks_of(int functions) { return (functions + 3) / 4; }
FASTKAN_HD constexpr bool is_sparse(int functions, int degree) { return degree + 1 <= 2 * chunks_of(functions); }

// Of the window of the functions from `start`.
FASTKAN_HD ChunkOfWindow chunk_of_window(int start, int chunk, int chunks) {
  const int before = start > chunk ? (start - chunk + chunks - 1) / chunks : 0;
  const int place = before < 2 ? before : 2;
  const int first = place * chunks + chunk - start;
  return {place, first, first + chunks};
}

// The four bits that tell the places of a chunk: both in two bits, the lower place first.
FASTKAN_HD uint32_t places_of(const ChunkOfWindow& chunk) {
  const uint32_t place = static_cast<uint32_t>(chunk.place);
  return place | (place + 1) << 2;
}

// Four 16-bit numbers, the first lowest, moved up by so many, down where it is negative; zeros come in.
FASTKAN_HD uint64_t moved(uint64_t four, int by) {
  return by >= 0 ? by < 4 ? four << 16 * by : 0 : by > -4 ? four >> -16 * by : 0;
}

// A window of up to four functions as 16-bit numbers: of start to start + 3, start in 0 .. 4 chunks - 4.
struct Quad {
  int start;
  uint64_t numbers;

  // Of numbers of the functions from begin on, which may lie partly, or all, outside of 0 .. 4 chunks - 1.
  FASTKAN_HD static Quad of(int begin, uint64_t numbers, int chunks) {
    const int top = 4 * chunks - 4;
    const int low = begin > 0 ? begin : 0, start = low < top ? low : top;
    return {start, moved(numbers, begin - start)};
  }
};

// What a chunk holds of a window: the number at its lower place in the lower half, and the bits of its places.
struct ChunkOfQuad {
  uint32_t numbers, places;
};

FASTKAN_HD ChunkOfQuad chunk_of_quad(const Quad& quad, int chunk, int chunks) {
  const ChunkOfWindow c = chunk_of_window(quad.start, chunk, chunks);
  // Of two chunks one holds the functions 0 and 2 of the four, the other 1 and 3.
  const uint64_t low = chunks == 2 ? quad.numbers >> 16 * c.first : moved(quad.numbers, -c.first);
  const uint64_t high = chunks == 2 ? low >> 32 : moved(quad.numbers, -c.second);
  return {static_cast<uint32_t>(low & 0xffff) | static_cast<uint32_t>(high & 0xffff) << 16, places_of(c)};
}

// mma.sp with m16n8k32 of 16-bit numbers (PTX ISA, "Matrix fragments for sparse mma.m16n8k32"): lane l holds in its
// four registers two numbers each of rows l / 4 and l / 4 + 8, chunks l mod 4 and l mod 4 + 4 of the 8 in 32 columns.
// It is the layout of the 16 columns of a dense left operand in pairs, and serves as that too.
struct Sparse16832 {
  static constexpr int kRows = 16, kChunks = 8, kRegisters = 4;
  FASTKAN_HD static int row(int lane, int r) { return lane / 4 + 8 * (r % 2); }
  FASTKAN_HD static int chunk(int lane, int r) { return lane % 4 + 4 * (r / 2); }
  FASTKAN_HD static int lane(int row, int chunk) { return 4 * (row % 8) + chunk % 4; }
  FASTKAN_HD static int register_of(int row, int chunk) { return row / 8 + 2 * (chunk / 4); }

  // With selector 0 the first two lanes of four hold the places, of rows l / 4 and l / 4 + 8 in 16 bits each, chunks
  // 4 (l mod 4) to 4 (l mod 4) + 3 in four bits each.
  FASTKAN_HD static bool has_places(int lane) { return lane % 4 < 2; }
  FASTKAN_HD static int shift(int row, int chunk) { return 16 * (row / 8) + 4 * (chunk % 4); }
  FASTKAN_HD static int lane_of_places(int row, int chunk) { return 4 * (row % 8) + chunk / 4; }
};

}  // namespace fastkan
