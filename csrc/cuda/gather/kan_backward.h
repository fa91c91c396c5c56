// dT/ds, dT/dcoef and dT/dbase_weight, those that are wanted: one launch, and one more where rows are split.
#pragma once

#include "../reduce.h"
#include "row_walk.h"

namespace fastkan {

// The coefficients' gradients by a visit, whatever it takes for u.
template <class Operand, Visit VISIT>
void gradients(const char* name, const Problem& p, const Device& device) {
  using A = typename Operand::Accumulator;
  const bool with_coef = p.grad_coef != nullptr, with_base = with_coef && p.with_base;
  WalkArgs<A> a = plan_walk<A>(p, p.grad_x != nullptr, with_coef, device.processors);
  const bool once = a.split_rows <= a.capacity;
  const int64_t coefs = p.I * p.F * p.O, edges = p.I * p.O, edge_parts = static_cast<int64_t>(a.splits) * a.ranges;
  if (with_coef) a.sum_coef = sums<Operand, A>(p.grad_coef, coefs, a.splits, once, device);
  if (with_base) a.sum_edges = sums<Operand, A>(p.grad_base, edges, edge_parts, once, device);
  walk<Operand, VISIT>(name, a, device);
  Parts<A> of_coef, of_base;
  if (a.sum_coef && a.sum_coef != p.grad_coef)
    of_coef = {a.sum_coef, coefs, a.splits, p.grad_coef, p.grad_coef_dtype, {}, 1};
  if (a.sum_edges && a.sum_edges != p.grad_base)
    of_base = {a.sum_edges, edges, edge_parts, p.grad_base, p.grad_coef_dtype, {}, 1};
  reduce(of_coef, of_base, device);
}

template <class Operand>
void kan_backward(const Problem& p, const Device& device) {
  gradients<Operand, Visit::gradients>("kan_backward", p, device);
}

}  // namespace fastkan
