// dT/ds, dT/dcoef and dT/dbase_weight, as requested, by matrix products: two kinds of tiles in one launch; if rows
// are split, a second launch adds the partial sums in a fixed order. Uniform knots, degree 2 or 3.
#pragma once

#include "../knots.h"
#include "../reduce.h"
#include "backward_plan.h"

namespace fastkan {

template <class S, class T, int K, bool USUAL>
struct BackwardShared {
  using Coef = MatrixGradCoef<S, typename T::Coef, K, USUAL>;
  using X = MatrixGradX<S, typename T::OfX, K, USUAL>;
  using Knots = TileKnots<typename T::Sum>;
  static constexpr int kX = T::kTogether * X::kShared, kPieces = kX > Coef::kShared ? kX : Coef::kShared;
  uint4* pieces;
  Knots* knots;  // [T::kTogether]

  FASTKAN_HD explicit BackwardShared(SharedAllocator& allocator)
      : pieces(allocator.take<uint4>(kPieces)), knots(allocator.take<Knots>(T::kTogether)) {}
};

template <class S, class T, int K, bool USUAL>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    matrix_backward_kernel(const __grid_constant__ BackwardArgs<typename T::Sum> a) {
  extern __shared__ __align__(1024) unsigned char fastkan_shared[];
  if constexpr (!T::Coef::kWgmma || kHasWgmma) {
    using Shared = BackwardShared<S, T, K, USUAL>;
    const auto shared = shared_at<Shared>(fastkan_shared);
    const unsigned block = blockIdx.x, coef_tiles = static_cast<unsigned>(a.coef_tiles);
    const unsigned groups = static_cast<unsigned>(a.columns.groups);  // fewer than blocks, as outputs' tiles are
    if (block < coef_tiles) {                                         // the longer tiles start first
      const unsigned across = (groups + T::kCoefGroups - 1) / T::kCoefGroups, rest = block / across;
      const unsigned outputs = static_cast<unsigned>(ceil_div(a.c.p.O, T::Coef::kColumns));
      typename Shared::Coef(a, shared.pieces, *shared.knots, int64_t{block % across} * T::kCoefGroups,
                            int64_t{rest % outputs} * T::Coef::kColumns, static_cast<int>(rest / outputs))
          .run();
    } else {
      const unsigned across = (groups + T::kXGroups - 1) / T::kXGroups, which = threadIdx.x / T::OfX::kThreads;
      const unsigned blocks_across = (across + T::kTogether - 1) / T::kTogether;
      const unsigned column = (block - coef_tiles) % blocks_across * T::kTogether + which;
      const int64_t row = int64_t{(block - coef_tiles) / blocks_across} * a.x_together * T::OfX::kRows;
      if (column >= across) return;  // the tiles of a block wait for nothing of each other
      typename Shared::X(a, shared.pieces + which * Shared::X::kShared, shared.knots[which], row,
                         int64_t{column} * T::kXGroups)
          .run(a.x_together);
    }
  } else {
    __trap();  // never launched on other architectures
  }
}

template <class S, class T, bool USUAL>
void matrix_backward_in_tiles(const Problem& p, const BackwardPlan<typename T::Sum>& plan, const Device& device) {
  using A = typename T::Sum;
  BackwardArgs<A> a = plan.args;
  const int64_t coefs = p.I * p.F * p.O, edges = p.I * p.O;
  const bool splits = a.coef_tiles > 0 && a.splits > 1;
  a.knots = rows_of_knots(a.c, device);
  if (splits) a.sum_coef = device.take<A>(a.splits * coefs);
  if (splits && p.with_base) a.sum_edges = device.take<A>(a.splits * edges);
  by_uniform_degree(p, [&]<int K>() {
    launch("matrix_backward", matrix_backward_kernel<S, T, K, USUAL>, a.coef_tiles + plan.blocks_of_x, T::kThreads,
           shared_bytes<BackwardShared<S, T, K, USUAL>>(), device, a);
  });
  if (!splits) return;
  PartialSums<A> of_base;
  if (p.with_base) of_base = {a.sum_edges, edges, a.splits, p.grad_base, p.grad_coef_dtype, {}, 1};
  reduce<A>({a.sum_coef, coefs, a.splits, p.grad_coef, p.grad_coef_dtype, {}, 1}, of_base, device);
}

// Whether the kernels for the usual case take it, see MatrixGradCoef.
template <class S>
bool is_usual_backward(const Problem& p) {
  return p.outside == Outside::zero && p.grid_stride == 0 && !p.s && (!p.with_base || p.base == Base::silu) &&
         (!p.grad_x || p.x_order == 1) && (p.x.dtype == Dtype::f32 || p.x.dtype == MatrixOperand<S>::kStored);
}

// The faster one of two kinds of tiles, by their plans.
template <class S, bool USUAL, class T, class OTHER>
void matrix_backward_in_either(const Problem& p, const Device& device) {
  const auto plan = plan_matrix_backward<S, T, USUAL>(p, device.processors);
  const auto other = plan_matrix_backward<S, OTHER, USUAL>(p, device.processors);
  if (plan.cycles <= other.cycles)
    matrix_backward_in_tiles<S, T, USUAL>(p, plan, device);
  else
    matrix_backward_in_tiles<S, OTHER, USUAL>(p, other, device);
}

template <class S>
void matrix_backward(const Problem& p, const Device& device) {
  using Small = SquareTiles<64, typename Mma<S>::Sum>;
  using Large = SquareTiles<128>;
  if constexpr (sizeof(S) < 8) {
    if (is_usual_backward<S>(p)) {
      if constexpr (sizeof(S) == 2)
        if (device.has_wgmma) return matrix_backward_in_either<S, true, WarpgroupTiles, Small>(p, device);
      return matrix_backward_in_either<S, true, Large, Small>(p, device);
    }
    if constexpr (sizeof(S) == 2) return matrix_backward_in_either<S, false, Large, Small>(p, device);
  }
  // The registers of a thread do not hold the sums of a large tile in float64, or with the other windows' numbers.
  const auto plan = plan_matrix_backward<S, Small, false>(p, device.processors);
  matrix_backward_in_tiles<S, Small, false>(p, plan, device);
}

}  // namespace fastkan
