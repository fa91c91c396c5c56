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

// tf32 is sparse by one in two columns. Function f of an input is again column f / chunks of chunk f mod chunks, but of
// twos, as many as hold all functions and at least K + 1: then the functions of a window are in different chunks.
FASTKAN_HD constexpr int chunks_of_two(int functions, int degree) {
  return (functions + 1) / 2 > degree + 1 ? (functions + 1) / 2 : degree + 1;
}

// A window as 32-bit numbers: of begin to begin + K, begin in -K .. 2 chunks - 1; all others are zeros.
template <int K>
struct Singles {
  int begin;
  uint32_t numbers[K + 1];
};

// What a chunk of two holds of a window: the number, and the bits of its place, which count halves of it.
struct ChunkOfSingles {
  uint32_t number, places;
};

template <int K>
FASTKAN_HD ChunkOfSingles chunk_of_singles(const Singles<K>& window, int chunk, int chunks) {
  const int lowest = window.begin < 0         ? window.begin + chunks
                     : window.begin >= chunks ? window.begin - chunks
                                              : window.begin;
  const int k = chunk >= lowest ? chunk - lowest : chunk - lowest + chunks, function = window.begin + k;
  uint32_t number = 0;
  FASTKAN_UNROLL
  for (int j = 0; j <= K; ++j) number = j == k ? window.numbers[j] : number;
  const bool there = function >= 0 && function < 2 * chunks;
  return {there ? number : 0, there && function >= chunks ? 0b1110u : 0b0100u};
}

// mma.sp with m16n8k32 of 16-bit numbers (PTX ISA, "Matrix fragments for sparse mma.m16n8k32"): lane l holds in its
// four registers two numbers each of rows l / 4 and l / 4 + 8, chunks l mod 4 and l mod 4 + 4 of the 8 in 32 columns.
// It is the layout of the 16 columns of a dense left operand in pairs, and serves as that too. With m16n8k16 of tf32 a
// lane holds one number each of the same chunks, of the 8 in 16 columns, or dense the 8 columns.
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
