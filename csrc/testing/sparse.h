// basis/sparse.h for the tests: what each lane of a warp holds of 16 rows of windows.
#pragma once

#include <stdexcept>
#include <utility>
#include <vector>

#include "basis/sparse.h"

namespace fastkan {

// Numbers [lane][register] and places [lane].
using Fragment = std::pair<std::vector<std::vector<uint32_t>>, std::vector<uint32_t>>;

// Of the chunks of input after input; held(row, input, chunk) gives the bits of the numbers of one, and of its places.
template <class F>
Fragment fragment(size_t rows, int chunks, const F& held) {
  using Layout = Sparse16832;
  if (rows != Layout::kRows || chunks > Layout::kChunks) throw std::invalid_argument("expected 16 rows");
  std::vector<std::vector<uint32_t>> numbers(32, std::vector<uint32_t>(Layout::kRegisters));
  std::vector<uint32_t> places(32, 0);
  for (int row = 0; row < Layout::kRows; ++row) {
    for (int at = 0; at < Layout::kChunks; ++at) {
      const auto [number, place] = held(row, static_cast<size_t>(at / chunks), at % chunks);
      numbers[Layout::lane(row, at)][Layout::register_of(row, at)] = number;
      places[Layout::lane_of_places(row, at)] |= place << Layout::shift(row, at);
    }
  }
  return {numbers, places};
}

// 32 columns of 16-bit numbers, two in a register. begins [16][inputs] are the first functions of windows of four
// numbers [16][inputs][4], which may reach beyond all functions.
inline Fragment sparse_fragment(const std::vector<std::vector<int>>& begins,
                                const std::vector<std::vector<std::vector<int>>>& numbers, int functions) {
  const int chunks = chunks_of(functions);
  return fragment(begins.size(), chunks, [&](int row, size_t input, int chunk) {
    Quad quad = {0, 0};  // beyond the inputs: zeros at places that are allowed
    if (input < begins[row].size()) {
      uint64_t four = 0;
      for (int k = 0; k < 4; ++k) four |= static_cast<uint64_t>(numbers[row][input].at(k)) << 16 * k;
      quad = Quad::of(begins[row][input], four, chunks);
    }
    return chunk_of_quad(quad, chunk, chunks);
  });
}

// The same of tf32: 16 columns, numbers of 32 bits.
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
