// Precomputes the KnotRow of every input if inputs have knots of their own: about a hundred float64 operations each,
// in which some GPUs are slow.
#pragma once

#include "launch.h"

namespace fastkan {

constexpr int kKnotThreads = 128;

template <class A>
struct KnotArgs {
  Contraction<A> c;
  KnotRow<A>* rows;
};

template <class A>
__global__ void __launch_bounds__(kKnotThreads) knots_kernel(const __grid_constant__ KnotArgs<A> a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < a.c.p.I) a.rows[i] = KnotRow<A>::of(a.c.shape, a.c.p.grid + i * a.c.p.grid_stride);
}

// nullptr if all inputs share one row.
template <class A>
const KnotRow<A>* rows_of_knots(const Contraction<A>& c, const Device& device) {
  if (c.p.grid_stride == 0) return nullptr;
  KnotRow<A>* rows = device.take<KnotRow<A>>(c.p.I);
  launch("knots", knots_kernel<A>, ceil_div(c.p.I, kKnotThreads), kKnotThreads, 0, device, KnotArgs<A>{c, rows});
  return rows;
}

}  // namespace fastkan
