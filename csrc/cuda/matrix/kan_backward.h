// dT/ds, dT/dcoef and dT/dbase_weight, as requested, by matrix products: two kinds of tiles in one launch; if rows
// are split, a second launch adds the partial sums in a fixed order. Uniform knots, degree 2 or 3.
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
  SharedAllocator allocator(fastkan_shared);
  using A = typename T::Sum;
  KnotRow<A>& knots = *allocator.take<KnotRow<A>>(1);
  uint4* memory = allocator.take<uint4>(0);
  if (threadIdx.x == 0 && !a.knots) knots = KnotRow<A>::of(a.c.shape, p.grid);
  __syncthreads();
  constexpr int kGroups = T::kColumns / Columns::kGroup;
  const int64_t blocks_of_groups = ceil_div(a.columns.groups, kGroups);
  if (blockIdx.x < a.coef_tiles) {  // the longer tiles start first
    const int64_t rest = blockIdx.x / blocks_of_groups, blocks_of_outputs = ceil_div(p.O, T::kColumns);
    MatrixGradCoef<S, T, K>(a, memory, knots, blockIdx.x % blocks_of_groups * kGroups,
                            rest % blocks_of_outputs * T::kColumns, static_cast<int>(rest / blocks_of_outputs))
        .run();
  } else {
    const int64_t tile = blockIdx.x - a.coef_tiles;
    MatrixGradX<S, T, K>(a, memory, knots, tile / blocks_of_groups * T::kRows, tile % blocks_of_groups * kGroups).run();
  }
}

template <class S, class T>
BackwardArgs<typename T::Sum> plan_matrix_backward(const Problem& p, int processors) {
  constexpr int64_t kMinRowsPerSplit = 128;  // with fewer, pipeline start and end dominate
  constexpr int64_t kMaxPartialSums = 1 << 24;
  BackwardArgs<typename T::Sum> a = {};
  a.c = Contraction<typename T::Sum>::of(p);
  a.columns = Columns::of(p);
  const int64_t groups = ceil_div(a.columns.groups, T::kColumns / Columns::kGroup);
  a.x_tiles = p.grad_x ? groups * ceil_div(p.N, T::kRows) : 0;
  const int64_t tiles = p.grad_coef ? groups * ceil_div(p.O, T::kColumns) : 0;
  int64_t splits = 1;
  if (tiles > 0) {
    splits =
        min((2 * processors - a.x_tiles) / tiles, min(p.N / kMinRowsPerSplit, kMaxPartialSums / (p.I * p.F * p.O)));
    splits = max(1, splits);
  }
  constexpr int kDepth = MatrixOperand<S>::kDepth;
  a.split_rows = max(1, ceil_div(ceil_div(p.N, splits), kDepth)) * kDepth;
  a.splits = static_cast<int>(max(1, ceil_div(p.N, a.split_rows)));
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
  constexpr int kPieces = MatrixGradX<S, T, 3>::kShared > MatrixGradCoef<S, T, 3>::kShared
                              ? MatrixGradX<S, T, 3>::kShared
                              : MatrixGradCoef<S, T, 3>::kShared;
  const size_t shared =
      static_cast<size_t>(SharedAllocator::bytes<KnotRow<A>>(1) + SharedAllocator::bytes<uint4>(kPieces));
  const auto run = [&](auto kernel) {
    launch("matrix_backward", kernel, a.coef_tiles + a.x_tiles, T::kThreads, shared, device, a);
  };
  p.K == 3 ? run(matrix_backward_kernel<S, T, 3>) : run(matrix_backward_kernel<S, T, 2>);
  if (!splits) return;
  PartialSums<A> of_base;
  if (p.with_base) of_base = {a.sum_edges, edges, a.splits, p.grad_base, p.grad_coef_dtype, {}, 1};
  reduce<A>({a.sum_coef, coefs, a.splits, p.grad_coef, p.grad_coef_dtype, {}, 1}, of_base, device);
}

template <class S>
void matrix_backward(const Problem& p, const Device& device) {
  using A = typename Mma<S>::Sum;
  if constexpr (sizeof(A) == 4) {  // float64 accumulators of a large tile would fill the registers
    using Large = Tile<128, 128>;
    const BackwardArgs<A> large = plan_matrix_backward<S, Large>(p, 0);
    if (large.coef_tiles + large.x_tiles >= device.processors) return matrix_backward_in_tiles<S, Large>(p, device);
  }
  matrix_backward_in_tiles<S, Tile<64, 64, false, A>>(p, device);
}

}  // namespace fastkan
