// dT/ds, dT/dcoef and dT/dbase_weight, as requested: one launch, and a second one if rows are split.
#pragma once

#include "../reduce.h"
#include "row_walk.h"

namespace fastkan {

// Gradients by a row walk; REDUCTION tells which cotangent it uses.
template <class Operand, Reduction REDUCTION>
void gradients(const char* name, const Problem& p, const Device& device) {
  using A = typename Operand::Accumulator;
  const bool with_coef = p.grad_coef != nullptr, with_base = with_coef && p.with_base;
  RowWalkArgs<A> a = plan_row_walk<Operand>(p, p.grad_x != nullptr, with_coef, device.processors);
  const bool written_once = a.split_rows <= a.capacity;
  const int64_t coefs = p.I * p.F * p.O, edges = p.I * p.O, edge_parts = static_cast<int64_t>(a.splits) * a.ranges;
  if (with_coef) a.sum_coef = sum_target<Operand, A>(p.grad_coef, coefs, a.splits, written_once, device);
  if (with_base) a.sum_edges = sum_target<Operand, A>(p.grad_base, edges, edge_parts, written_once, device);
  if (a.with_x && a.chunks > 1) a.sum_x = device.take<A>(a.chunks * p.N * p.I);
  row_walk<Operand, REDUCTION>(name, a, device);
  if (a.sum_x) reduce<A>({a.sum_x, p.N * p.I, a.chunks, p.grad_x, p.grad_x_dtype, {}, 1}, {}, device);
  PartialSums<A> of_coef, of_base;
  if (a.sum_coef && a.sum_coef != p.grad_coef)
    of_coef = {a.sum_coef, coefs, a.splits, p.grad_coef, p.grad_coef_dtype, {}, 1};
  if (a.sum_edges && a.sum_edges != p.grad_base)
    of_base = {a.sum_edges, edges, edge_parts, p.grad_base, p.grad_coef_dtype, {}, 1};
  reduce(of_coef, of_base, device);
}

template <class Operand>
void kan_backward(const Problem& p, const Device& device) {
  gradients<Operand, Reduction::gradients>("kan_backward", p, device);
}

}  // namespace fastkan
