// basis/sparse.h for the tests: what each lane of a warp holds of 16 rows of windows.
#pragma once

#include <stdexcept>
#include <utility>
#include <vector>

#include "basis/sparse.h"

namespace fastkan {

// Numbers [lane][register], two of 16 bits each, and places [lane] of 32 columns: the chunks of input after input.
// begins [16][inputs] are the first functions of windows of four numbers [16][inputs][4], which may reach beyond all
// functions.
inline std::pair<std::vector<std::vector<uint32_t>>, std::vector<uint32_t>> sparse_fragment(
    const std::vector<std::vector<int>>& begins, const std::vector<std::vector<std::vector<int>>>& numbers,
    int functions) {
  using Layout = Sparse16832;
  const int chunks = chunks_of(functions);
  if (begins.size() != Layout::kRows || chunks > Layout::kChunks) throw std::invalid_argument("expected 16 rows");
  std::vector<std::vector<uint32_t>> held(32, std::vector<uint32_t>(Layout::kRegisters));
  std::vector<uint32_t> places(32, 0);
  for (int row = 0; row < Layout::kRows; ++row) {
    for (int at = 0; at < Layout::kChunks; ++at) {
      const size_t input = static_cast<size_t>(at / chunks);
      Quad quad = {0, 0};  // beyond the inputs: zeros at places that are allowed
      if (input < begins[row].size()) {
        uint64_t four = 0;
        for (int k = 0; k < 4; ++k) four |= static_cast<uint64_t>(numbers[row][input].at(k)) << 16 * k;
        quad = Quad::of(begins[row][input], four, chunks);
      }
      const ChunkOfQuad chunk = chunk_of_quad(quad, at % chunks, chunks);
      held[Layout::lane(row, at)][Layout::register_of(row, at)] = chunk.numbers;
      places[Layout::lane_of_places(row, at)] |= chunk.places << Layout::shift(row, at);
    }
  }
  return {held, places};
}

// The same of tf32, windows of four numbers of 32 bits: numbers [lane][register] and places [lane] of 16 columns.
inline std::pair<std::vector<std::vector<uint32_t>>, std::vector<uint32_t>> tf32_fragment(
    const std::vector<std::vector<int>>& begins, const std::vector<std::vector<std::vector<uint32_t>>>& numbers,
    int functions, int degree) {
  using Layout = Sparse16832;
  const int chunks = chunks_of_two(functions, degree);
  if (begins.size() != Layout::kRows || chunks > Layout::kChunks) throw std::invalid_argument("expected 16 rows");
  std::vector<std::vector<uint32_t>> held(32, std::vector<uint32_t>(Layout::kRegisters));
  std::vector<uint32_t> places(32, 0);
  for (int row = 0; row < Layout::kRows; ++row) {
    for (int at = 0; at < Layout::kChunks; ++at) {
      const size_t input = static_cast<size_t>(at / chunks);
      Singles<3> window = {};  // beyond the inputs: zeros at places that are allowed
      if (input < begins[row].size()) {
        window.begin = begins[row][input];
        for (int k = 0; k < 4; ++k) window.numbers[k] = numbers[row][input].at(k);
      }
      const ChunkOfSingles chunk = chunk_of_singles(window, at % chunks, chunks);
      held[Layout::lane(row, at)][Layout::register_of(row, at)] = chunk.number;
      places[Layout::lane_of_places(row, at)] |= chunk.places << Layout::shift(row, at);
    }
  }
  return {held, places};
}

}  // namespace fastkan
