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
// [16][inputs][4]: its values, which may belong to functions outside of the range. `selected`: by selectors.
inline Fragment sparse_fragment(const std::vector<std::vector<int>>& begins,
                                const std::vector<std::vector<std::vector<int>>>& numbers, int functions,
                                bool selected) {
  const int chunks = chunks_of(functions);
  return fragment(begins.size(), chunks, [&](int row, size_t input, int chunk) -> ChunkOfQuad {
    const bool there = input < begins[row].size();  // else zeros with valid metadata
    uint64_t four = 0;
    for (int k = 0; k < 4 && there; ++k) four |= static_cast<uint64_t>(numbers[row][input].at(k)) << 16 * k;
    const int begin = there ? begins[row][input] : 0;
    if (!selected) return chunk_of_quad(Quad::of(begin, four, chunks), chunk, chunks);
    const uint32_t selector = selector_of(begin, chunk, chunks);
    const uint32_t after = chunk + 1 < chunks ? selector_of(begin, chunk + 1, chunks) >> 16 & 15 : 0;
    if (selector >> 20 != after) throw std::logic_error("metadata of the next chunk");
    return {pick_bytes(static_cast<uint32_t>(four), static_cast<uint32_t>(four >> 32), selector), selector >> 16 & 15};
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
