// dT/ds, dT/dcoef and dT/dbase_weight, those that are wanted, as products of matrices: two kinds of tiles in one
// launch, and a second that adds the parts, in their order, where rows are split. Uniform knots, degree 2 or 3.
#pragma once

#include "../knots.h"
#include "../reduce.h"
#include "grad_x.h"

namespace fastkan {

template <class S, class T, int K>
__global__ void __launch_bounds__(T::kThreads, 2)
    matrix_backward_kernel(const __grid_constant__ BackwardArgs<typename T::Sum> a) {
  extern __shared__ __align__(1024) unsigned char fastkan_shared[];
  const Problem& p = a.c.p;
  Pieces pieces(fastkan_shared);
  using A = typename T::Sum;
  KnotRow<A>& knots = *pieces.take<KnotRow<A>>(1);
  uint4* memory = pieces.take<uint4>(0);
  if (threadIdx.x == 0 && !a.knots) knots = KnotRow<A>::of(a.c.shape, p.grid);
  __syncthreads();
  constexpr int kGroups = T::kColumns / Columns::kGroup;
  const int64_t blocks_of_groups = ceil_div(a.columns.groups, kGroups);
  if (blockIdx.x < a.coef_tiles) {  // the longer ones begin first
    const int64_t rest = blockIdx.x / blocks_of_groups, blocks_of_outputs = ceil_div(p.O, T::kColumns);
    MatrixCoef<S, T, K>(a, memory, knots, blockIdx.x % blocks_of_groups * kGroups,
                        rest % blocks_of_outputs * T::kColumns, static_cast<int>(rest / blocks_of_outputs))
        .run();
  } else {
    const int64_t tile = blockIdx.x - a.coef_tiles;
    MatrixIn<S, T, K>(a, memory, knots, tile / blocks_of_groups * T::kRows, tile % blocks_of_groups * kGroups).run();
  }
}

template <class S, class T>
BackwardArgs<typename T::Sum> plan_matrix_backward(const Problem& p, int processors) {
  constexpr int64_t kFewRows = 128, kMostSums = 1 << 24;  // of a split: less is mostly beginning and end; of all
  BackwardArgs<typename T::Sum> a = {};
  a.c = Contraction<typename T::Sum>::of(p);
  a.columns = Columns::of(p);
  const int64_t groups = ceil_div(a.columns.groups, T::kColumns / Columns::kGroup);
  a.x_tiles = p.grad_x ? groups * ceil_div(p.N, T::kRows) : 0;
  const int64_t tiles = p.grad_coef ? groups * ceil_div(p.O, T::kColumns) : 0;
  int64_t splits = 1;
  if (tiles > 0) {
    splits = least((2 * processors - a.x_tiles) / tiles, least(p.N / kFewRows, kMostSums / (p.I * p.F * p.O)));
    splits = most(1, splits);
  }
  constexpr int kDepth = MatrixOperand<S>::kDepth;
  a.split_rows = most(1, ceil_div(ceil_div(p.N, splits), kDepth)) * kDepth;
  a.splits = static_cast<int>(most(1, ceil_div(p.N, a.split_rows)));
  a.coef_tiles = tiles * a.splits;
  return a;
}

template <class S, class T>
void matrix_backward_in_tiles(const Problem& p, const Device& device) {
  using A = typename T::Sum;
  BackwardArgs<A> a = plan_matrix_backward<S, T>(p, device.processors);
  const int64_t coefs = p.I * p.F * p.O, edges = p.I * p.O;
  const bool splits = a.coef_tiles > 0 && a.splits > 1;
  a.knots = rows_of_knots(a.c, device);
  if (splits) a.sum_coef = device.take<A>(a.splits * coefs);
  if (splits && p.with_base) a.sum_edges = device.take<A>(a.splits * edges);
  constexpr int kPieces = MatrixIn<S, T, 3>::kShared > MatrixCoef<S, T, 3>::kShared ? MatrixIn<S, T, 3>::kShared
                                                                                    : MatrixCoef<S, T, 3>::kShared;
  const size_t shared = static_cast<size_t>(Pieces::bytes<KnotRow<A>>(1) + Pieces::bytes<uint4>(kPieces));
  const auto run = [&](auto kernel) {
    launch("matrix_backward", kernel, a.coef_tiles + a.x_tiles, T::kThreads, shared, device, a);
  };
  p.K == 3 ? run(matrix_backward_kernel<S, T, 3>) : run(matrix_backward_kernel<S, T, 2>);
  if (!splits) return;
  Parts<A> of_base;
  if (p.with_base) of_base = {a.sum_edges, edges, a.splits, p.grad_base, p.grad_coef_dtype, {}, 1};
  reduce<A>({a.sum_coef, coefs, a.splits, p.grad_coef, p.grad_coef_dtype, {}, 1}, of_base, device);
}

template <class S>
void matrix_backward(const Problem& p, const Device& device) {
  using A = typename Matrices<S>::Sum;
  if constexpr (sizeof(A) == 4) {  // a thread's sums of float64 would fill its registers
    using Large = Tile<128, 128>;
    const BackwardArgs<A> large = plan_matrix_backward<S, Large>(p, 0);
    if (large.coef_tiles + large.x_tiles >= device.processors) return matrix_backward_in_tiles<S, Large>(p, device);
  }
  matrix_backward_in_tiles<S, Tile<64, 64, false, A>>(p, device);
}

}  // namespace fastkan
