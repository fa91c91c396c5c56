// A window of basis functions as the left operand of sparse tensor cores (2:4 structured sparsity): two non-zeros in
// every 4 columns, and metadata that tells which.
#pragma once

#include <cstdint>

#include "bspline.h"

namespace fastkan {

// The F functions of an input are columns, padded to 4 * chunks; function f is column f / chunks of chunk f mod
// chunks. So neighbouring functions lie in different chunks, and the K + 1 functions of a window put at most two into
// each chunk if K + 1 <= 2 * chunks. These two are neighbours in the chunk, at `place` and `place` + 1.
struct ChunkOfWindow {
  int place;   // 0 to 2
  int first;   // index in the window of the function at `place`; none if it is not in 0..K
  int second;  // at `place` + 1
};

FASTKAN_HD constexpr int chunks_of(int functions) { return (functions + 3) / 4; }
FASTKAN_HD constexpr bool is_sparse(int functions, int degree) { return degree + 1 <= 2 * chunks_of(functions); }

// The chunk of a window that begins with function `start`.
FASTKAN_HD ChunkOfWindow chunk_of_window(int start, int chunk, int chunks) {
  const int before = start > chunk ? (start - chunk + chunks - 1) / chunks : 0;
  const int place = before < 2 ? before : 2;
  const int first = place * chunks + chunk - start;
  return {place, first, first + chunks};
}

// The four bits of metadata of a chunk: both places in two bits each, the lower place first.
FASTKAN_HD uint32_t metadata_of(const ChunkOfWindow& chunk) {
  const uint32_t place = static_cast<uint32_t>(chunk.place);
  return place | (place + 1) << 2;
}

// Four packed 16-bit numbers, the first lowest, shifted up by `by` numbers (down if negative); zeros are shifted in.
FASTKAN_HD uint64_t shifted(uint64_t four, int by) {
  return by >= 0 ? by < 4 ? four << 16 * by : 0 : by > -4 ? four >> -16 * by : 0;
}

// A window of up to four functions as packed 16-bit numbers: functions start to start + 3, start in 0 .. 4 chunks -
// 4.
struct Quad {
  int start;
  uint64_t numbers;

  // From the numbers of functions begin to begin + 3, which may lie partly or wholly outside of 0 .. 4 chunks - 1.
  FASTKAN_HD static Quad of(int begin, uint64_t numbers, int chunks) {
    const int top = 4 * chunks - 4;
    const int low = begin > 0 ? begin : 0, start = low < top ? low : top;
    return {start, shifted(numbers, begin - start)};
  }
};

// The numbers of a window in one chunk, the lower place in the lower half, and its metadata bits.
struct ChunkOfQuad {
  uint32_t numbers, metadata;
};

FASTKAN_HD ChunkOfQuad chunk_of_quad(const Quad& quad, int chunk, int chunks) {
  const ChunkOfWindow c = chunk_of_window(quad.start, chunk, chunks);
  // With two chunks, one holds functions 0 and 2 of the four, the other 1 and 3.
  const uint64_t low = chunks == 2 ? quad.numbers >> 16 * c.first : shifted(quad.numbers, -c.first);
  const uint64_t high = chunks == 2 ? low >> 32 : shifted(quad.numbers, -c.second);
  return {static_cast<uint32_t>(low & 0xffff) | static_cast<uint32_t>(high & 0xffff) << 16, metadata_of(c)};
}

// How the two numbers of a chunk are picked out of four non-negative ones: bits 0 to 15 select bytes for pick_bytes,
// bits 16 to 19 are the metadata, bits 20 to 23 those of the next chunk. `begin` is the function of the first of the
// four.
FASTKAN_HD uint32_t selector_of(int begin, int chunk, int chunks) {
  const Quad marks = Quad::of(begin, 0x0004000300020001, chunks);
  const ChunkOfQuad c = chunk_of_quad(marks, chunk, chunks);
  const auto bytes = [](uint32_t mark) { return mark == 0 ? 0x99u : (2 * mark - 1) << 4 | (2 * mark - 2); };
  const uint32_t next = chunk + 1 < chunks ? chunk_of_quad(marks, chunk + 1, chunks).metadata : 0;
  return bytes(c.numbers & 0xffff) | bytes(c.numbers >> 16) << 8 | c.metadata << 16 | next << 20;
}

// Four bytes out of eight, `low` first; a nibble with its high bit set gives the sign of its byte, of a non-negative
// number that is zero (PTX ISA, "prmt").
FASTKAN_HD uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t nibbles) {
  uint32_t picked = 0;
#if defined(__CUDA_ARCH__)
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(picked) : "r"(low), "r"(high), "r"(nibbles));
#else
  for (int byte = 0; byte < 4; ++byte) {
    const uint32_t which = nibbles >> 4 * byte & 15;
    const uint32_t found = ((which & 4 ? high : low) >> 8 * (which & 3)) & 0xff;
    picked |= (which & 8 ? (found & 0x80 ? 0xff : 0) : found) << 8 * byte;
  }
#endif
  return picked;
}

// tf32 has 1:2 sparsity. Function f of an input is again column f / chunks of chunk f mod chunks, with chunks of two
// columns: enough to hold all functions, and at least K + 1, so that the functions of a window are in different
// chunks.
FASTKAN_HD constexpr int chunks_of_two(int functions, int degree) {
  return (functions + 1) / 2 > degree + 1 ? (functions + 1) / 2 : degree + 1;
}

// A window as 32-bit numbers: functions begin to begin + K, begin in -K .. 2 chunks - 1; all others are zero.
template <int K>
struct Singles {
  int begin;
  uint32_t numbers[K + 1];
};

// The number of a window in one chunk of two columns, and its metadata bits, which count 16-bit halves.
struct ChunkOfSingles {
  uint32_t number, metadata;
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

// mma.sp.m16n8k32 of 16-bit numbers (PTX ISA, "Matrix fragments for sparse mma.m16n8k32"): lane l holds in its four
// registers two numbers each of rows l / 4 and l / 4 + 8, chunks l mod 4 and l mod 4 + 4 of the 8 in 32 columns. A
// dense left operand with 16 columns has the same layout in pairs of columns, so the struct serves both. With tf32
// (m16n8k16) a lane holds one number of each of the same chunks, or of 8 dense columns.
struct Sparse16832 {
  static constexpr int kRows = 16, kChunks = 8, kRegisters = 4;
  FASTKAN_HD static int row(int lane, int r) { return lane / 4 + 8 * (r % 2); }
  FASTKAN_HD static int chunk(int lane, int r) { return lane % 4 + 4 * (r / 2); }
  FASTKAN_HD static int lane(int row, int chunk) { return 4 * (row % 8) + chunk % 4; }
  FASTKAN_HD static int register_of(int row, int chunk) { return row / 8 + 2 * (chunk / 4); }

  // With selector 0 the first two of four lanes hold the metadata of rows l / 4 and l / 4 + 8 in 16 bits each, chunks
  // 4 (l mod 4) to 4 (l mod 4) + 3 in four bits each; with selector 1 the last two.
  FASTKAN_HD static int shift(int row, int chunk) { return 16 * (row / 8) + 4 * (chunk % 4); }
  FASTKAN_HD static int lane_of_metadata(int row, int chunk) { return 4 * (row % 8) + chunk / 4; }
};

}  // namespace fastkan
