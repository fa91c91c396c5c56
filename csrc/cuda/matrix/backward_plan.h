// How the backward by matrix products is cut into blocks, such that they take about the same time: kinds of tiles, and
// splits of the rows that gradients of coefficients sum over.
#pragma once

#include "grad_x.h"

namespace fastkan {

// The tiles of a launch: of coefficients, [columns, outputs], one per block, and of x, [rows, columns], kTogether per
// block.
template <class COEF, class X>
struct BackwardTiles {
  using Coef = COEF;
  using OfX = X;
  using Sum = typename Coef::Sum;
  static constexpr int kThreads = Coef::kThreads, kTogether = kThreads / X::kThreads;
  static constexpr int kCoefGroups = Coef::kRows / Columns::kGroup, kXGroups = X::kColumns / Columns::kGroup;
  static constexpr int kBlocks = 256 / kThreads;  // per multiprocessor: two warps for each of its four schedulers
};
template <int SIZE, class SUM = float>
using SquareTiles = BackwardTiles<Tile<SIZE, SIZE, SUM>, Tile<SIZE, SIZE, SUM>>;
// On sm_90 two warpgroups share the Phi of a tile of coefficients, or compute a tile of x each.
using WarpgroupTiles = BackwardTiles<WarpgroupTile<2>, WarpgroupTile<1>>;

// Cycles that a multiprocessor's tensor cores or schedulers, whichever is longer, are busy with a step of a tile; with
// a row of an input's derivatives, per warp; and with all that surrounds the steps of a block. Instructions are counted
// in the machine code of cubics for sm_80, of warpgroups for sm_90a (tests/test_cuda_backward_compile.py); tensor cores
// are those of an A100 and an H100.
struct BackwardCosts {
  int coef_step, x_step, x_row;
  static constexpr int kBlock = 600;  // for four warps
};
template <class S, class T, bool USUAL>
constexpr BackwardCosts backward_costs() {
  constexpr bool kIsLarge = T::Coef::kRows == 128;
  if constexpr (T::Coef::kWgmma) return {516, 256, 81};
  constexpr int kRow = !USUAL ? 200 : kIsLarge ? 76 : sizeof(S) == 4 ? 79 : 89;
  if constexpr (sizeof(S) == 8) return {1024, 1024, kRow};
  if constexpr (sizeof(S) == 4) {
    if constexpr (kIsLarge) return {773, 569, kRow};
    return USUAL ? BackwardCosts{330, 251, kRow} : BackwardCosts{451, 240, kRow};
  }
  if constexpr (kIsLarge) return {USUAL ? 512 : 907, 512, kRow};
  return {USUAL ? 231 : 451, 128, kRow};
}

template <class A>
struct BackwardPlan {
  BackwardArgs<A> args;
  int64_t coef_block, x_block;  // cycles of a block
  int64_t blocks_of_x;
  int64_t cycles;  // of the whole launch, and of adding up the splits
};

template <class S, class T, bool USUAL>
BackwardPlan<typename T::Sum> plan_matrix_backward(const Problem& p, int processors) {
  constexpr int64_t kMinRowsPerSplit = 128;  // with fewer, pipeline start and end dominate
  constexpr int64_t kMaxPartialSums = 1 << 25, kMaxSplitRows = 1 << 30;
  constexpr int64_t kBytesPerCycle = 24;  // between a multiprocessor and L2
  constexpr int kDepth = MatrixOperand<S>::kDepth;
  constexpr BackwardCosts kCosts = backward_costs<S, T, USUAL>();
  constexpr int64_t kBlock = BackwardCosts::kBlock * T::kThreads / (4 * kWarp);
  BackwardPlan<typename T::Sum> plan = {};
  BackwardArgs<typename T::Sum>& a = plan.args;
  a.c = Contraction<typename T::Sum>::of(p);
  a.columns = Columns::of(p);
  const int64_t tiles = p.grad_coef ? ceil_div(a.columns.groups, T::kCoefGroups) * ceil_div(p.O, T::Coef::kColumns) : 0;
  const int64_t slots = static_cast<int64_t>(processors) * T::kBlocks, sums = p.I * (p.F + p.with_base) * p.O;
  const int64_t rows = T::kXGroups * T::OfX::kRows << a.columns.lanes_log2, x_steps = ceil_div(p.O, kDepth);
  const int64_t x_tile = T::kTogether * (x_steps * kCosts.x_step + rows / T::OfX::kThreads * kCosts.x_row) + kBlock;
  const int64_t across = ceil_div(ceil_div(a.columns.groups, T::kXGroups), T::kTogether);
  const int64_t down = p.grad_x ? ceil_div(p.N, T::OfX::kRows) : 0;
  const int64_t coef_work = tiles * ceil_div(p.N, kDepth) * kCosts.coef_step;
  const bool keeps = T::Coef::kWgmma && x_steps <= kKeptSteps;
  a.x_together =
      static_cast<int>(keeps ? max(1, min(4, (across * down * x_tile + coef_work) / slots / (3 * x_tile))) : 1);
  plan.x_block = a.x_together * x_tile;
  plan.blocks_of_x = across * ceil_div(down, a.x_together);
  const int64_t least = ceil_div(p.N, kMaxSplitRows);
  const int64_t wanted =
      tiles == 0 ? 1 : min(min(p.N / kMinRowsPerSplit, kMaxPartialSums / sums), ceil_div(2 * slots, tiles));
  plan.cycles = INT64_MAX;
  for (int64_t splits = least; splits <= max(least, wanted); ++splits) {
    const int64_t split_rows = ceil_div(ceil_div(p.N, splits), kDepth) * kDepth;
    if (ceil_div(p.N, split_rows) < splits && splits > 1) continue;  // steps are whole
    const int64_t block = split_rows / kDepth * kCosts.coef_step + kBlock, blocks = tiles * splits;
    // Blocks of coefficients come first, those of x fill the gaps.
    const int64_t balanced = ceil_div(blocks * block + plan.blocks_of_x * plan.x_block, slots);
    const int64_t longest = max(ceil_div(blocks, slots) * block, balanced + (p.grad_x ? plan.x_block / 2 : 0));
    const int64_t adding = splits > 1 ? 2 * splits * sums * static_cast<int64_t>(sizeof(typename T::Sum)) : 0;
    const int64_t cycles = T::kBlocks * longest + adding / (kBytesPerCycle * processors);
    if (cycles >= plan.cycles) continue;
    plan.cycles = cycles;
    plan.coef_block = block;
    a.split_rows = split_rows;
    a.splits = static_cast<int>(splits);
  }
  a.coef_tiles = tiles * a.splits;
  return plan;
}

}  // namespace fastkan
