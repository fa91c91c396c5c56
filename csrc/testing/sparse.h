// basis/sparse.h for the tests: what each lane of a warp holds of 16 rows of windows.
#pragma once

#include <stdexcept>
#include <utility>
#include <vector>

#include "basis/sparse.h"

namespace fastkan {

// Numbers [lane][register][2] and places [lane] of 32 columns: the chunks of input after input. starts [16][inputs],
// weights [16][inputs][K + 1].
inline std::pair<std::vector<std::vector<std::vector<double>>>, std::vector<uint32_t>> sparse_fragment(
    const std::vector<std::vector<int>>& starts, const std::vector<std::vector<std::vector<double>>>& weights,
    int functions) {
  using Layout = Sparse16832;
  const int chunks = chunks_of(functions);
  if (starts.size() != Layout::kRows || chunks > Layout::kChunks) throw std::invalid_argument("expected 16 rows");
  std::vector<std::vector<std::vector<double>>> numbers(32);
  std::vector<uint32_t> places(32, 0);
  for (int lane = 0; lane < 32; ++lane) {
    for (int r = 0; r < Layout::kRegisters; ++r) {
      const int row = Layout::row(lane, r), chunk = Layout::chunk(lane, r);
      const size_t input = static_cast<size_t>(chunk / chunks);
      std::vector<double> held(2, 0.0);
      ChunkOfWindow c = {0, 0, 0};  // beyond the inputs: zeros at places that are allowed
      if (input < starts[row].size()) {
        const std::vector<double>& w = weights[row][input];
        const auto weight = [&](int k) { return k >= 0 && k < static_cast<int>(w.size()) ? w[k] : 0.0; };
        c = chunk_of_window(starts[row][input], chunk % chunks, chunks);
        held = {weight(c.first), weight(c.second)};
      }
      numbers[lane].push_back(held);
      places[Layout::lane_of_places(row, chunk)] |= places_of(c) << Layout::shift(row, chunk);
    }
  }
  return {numbers, places};
}

}  // namespace fastkan
