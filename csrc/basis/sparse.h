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

FASTKAN_HD int chunks_of(int functions) { return (functions + 3) / 4; }
FASTKAN_HD bool is_sparse(int functions, int degree) { return degree + 1 <= 2 * chunks_of(functions); }

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

// mma.sp with m16n8k32 of 16-bit numbers (PTX ISA, "Matrix fragments for sparse mma.m16n8k32"): lane l holds in its
// four registers two numbers each of rows l / 4 and l / 4 + 8, chunks l mod 4 and l mod 4 + 4 of the 8 in 32 columns.
struct Sparse16832 {
  static constexpr int kRows = 16, kChunks = 8, kRegisters = 4;
  FASTKAN_HD static int row(int lane, int r) { return lane / 4 + 8 * (r % 2); }
  FASTKAN_HD static int chunk(int lane, int r) { return lane % 4 + 4 * (r / 2); }

  // With selector 0 the first two lanes of four hold the places, of rows l / 4 and l / 4 + 8 in 16 bits each, chunks
  // 4 (l mod 4) to 4 (l mod 4) + 3 in four bits each.
  FASTKAN_HD static bool has_places(int lane) { return lane % 4 < 2; }
  FASTKAN_HD static int shift(int row, int chunk) { return 16 * (row / 8) + 4 * (chunk % 4); }
  FASTKAN_HD static int lane_of_places(int row, int chunk) { return 4 * (row % 8) + chunk / 4; }
};

}  // namespace fastkan
