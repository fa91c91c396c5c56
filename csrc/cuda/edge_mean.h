// E[i,o] = mean_n |phi[i,o](x[n,i])| and its gradients.
#pragma once

#include "kan_backward.h"

namespace fastkan {

template <class Operand>
void edge_mean(const Problem& p, const Device& device) {
  using A = typename Operand::Accumulator;
  WalkArgs<A> a = plan_walk<A>(p, false, false, device.processors);
  const int64_t edges = p.I * p.O, parts = static_cast<int64_t>(a.splits) * a.ranges;
  a.sum_edges = sums<Operand, A>(p.out, edges, parts, a.split_rows <= a.capacity, device);
  walk<Operand, Visit::edge_mean>("edge_mean", a, device);
  if (a.sum_edges && a.sum_edges != p.out)
    reduce<A>({a.sum_edges, edges, parts, p.out, p.out_dtype, {}, 1}, {}, device);
}

template <class Operand>
void edge_mean_backward(const Problem& p, const Device& device) {
  gradients<Operand, Visit::edge_gradients>("edge_mean_backward", p, device);
}

}  // namespace fastkan
