// basis/sparse.h for the tests: the registers and metadata of each lane for 16 rows of windows.
#pragma once

#include <stdexcept>
#include <utility>
#include <vector>

#include "basis/sparse.h"

namespace fastkan {

// Numbers [lane][register] and metadata [lane].
using Fragment = std::pair<std::vector<std::vector<uint32_t>>, std::vector<uint32_t>>;

// The fragment of the chunks of consecutive inputs; held(row, input, chunk) returns a chunk's numbers and metadata
// bits.
template <class F>
Fragment fragment(size_t rows, int chunks, const F& held) {
  using Layout = Sparse16832;
  if (rows != Layout::kRows || chunks > Layout::kChunks) throw std::invalid_argument("expected 16 rows");
  std::vector<std::vector<uint32_t>> numbers(32, std::vector<uint32_t>(Layout::kRegisters));
  std::vector<uint32_t> metadata(32, 0);
  for (int row = 0; row < Layout::kRows; ++row) {
    for (int at = 0; at < Layout::kChunks; ++at) {
      const auto [number, place] = held(row, static_cast<size_t>(at / chunks), at % chunks);
      numbers[Layout::lane(row, at)][Layout::register_of(row, at)] = number;
      metadata[Layout::lane_of_metadata(row, at)] |= place << Layout::shift(row, at);
    }
  }
  return {numbers, metadata};
}

// 32 columns of 16-bit numbers, two per register. begins [16][inputs]: first function of each window; numbers
// [16][inputs][4]: its values, which may belong to functions outside of the range.
inline Fragment sparse_fragment(const std::vector<std::vector<int>>& begins,
                                const std::vector<std::vector<std::vector<int>>>& numbers, int functions) {
  const int chunks = chunks_of(functions);
  return fragment(begins.size(), chunks, [&](int row, size_t input, int chunk) {
    Quad quad = {0, 0};  // no such input: zeros with valid metadata
    if (input < begins[row].size()) {
      uint64_t four = 0;
      for (int k = 0; k < 4; ++k) four |= static_cast<uint64_t>(numbers[row][input].at(k)) << 16 * k;
      quad = Quad::of(begins[row][input], four, chunks);
    }
    return chunk_of_quad(quad, chunk, chunks);
  });
}

// The same for tf32: 16 columns of 32-bit numbers.
inline Fragment tf32_fragment(const std::vector<std::vector<int>>& begins,
                              const std::vector<std::vector<std::vector<uint32_t>>>& numbers, int functions,
                              int degree) {
  const int chunks = chunks_of_two(functions, degree);
  return fragment(begins.size(), chunks, [&](int row, size_t input, int chunk) {
    Singles<3> window = {};
    if (input < begins[row].size()) {
      window.begin = begins[row][input];
      for (int k = 0; k < 4; ++k) window.numbers[k] = numbers[row][input].at(k);
    }
    return chunk_of_singles(window, chunk, chunks);
  });
}

}  // namespace fastkan
