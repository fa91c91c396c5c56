// Statistics of every edge's values phi[i,o](x[n,i]) over the rows: mean of |phi|, mean and population variance. The
// row walk sums phi - shift in float64, with the value in the first row as the shift: exact enough for float32; in
// float64 it loses as many digits as N has if the first row is far from all others. A second launch adds the partial
// sums in a fixed order. The backward is in kan_backward.h.
#pragma once

#include "kan_backward.h"

namespace fastkan {

template <class A>
struct Moments {
  const double* parts;  // [count, 4, edges]: sums of |phi|, d, d^2 with d = phi - shift; the shift
  int64_t edges, count;
  double rows;
  A* out;  // [3, edges]
};

template <class A>
__global__ void __launch_bounds__(kReduceThreads) moments_kernel(const __grid_constant__ Moments<A> m) {
  const int64_t edge = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (edge >= m.edges) return;
  double sum[3] = {};
  for (int64_t q = 0; q < m.count; ++q)
    for (int k = 0; k < 3; ++k) sum[k] += m.parts[(q * 4 + k) * m.edges + edge];
  const double mean = sum[1] / m.rows, variance = sum[2] / m.rows - mean * mean;
  m.out[edge] = static_cast<A>(sum[0] / m.rows);
  m.out[m.edges + edge] = static_cast<A>(m.parts[3 * m.edges + edge] + mean);
  m.out[2 * m.edges + edge] = static_cast<A>(variance < 0 ? 0 : variance);
}

template <class Operand>
void edge_moments(const Problem& p, const Device& device) {
  using A = typename Operand::Accumulator;
  RowWalkArgs<A> a = plan_row_walk<Operand>(p, false, false, device.processors);
  const int64_t edges = p.I * p.O, parts = static_cast<int64_t>(a.splits) * a.ranges;
  a.moments = device.take<double>(4 * parts * edges);
  row_walk<Operand, Reduction::edge_moments>("edge_moments", a, device);
  launch("moments", moments_kernel<A>, ceil_div(edges, kReduceThreads), kReduceThreads, 0, device,
         Moments<A>{a.moments, edges, parts, static_cast<double>(p.N), static_cast<A*>(p.out)});
}

template <class Operand>
void edge_backward(const Problem& p, const Device& device) {
  gradients<Operand, Reduction::edge_gradients>("edge_backward", p, device);
}

}  // namespace fastkan
