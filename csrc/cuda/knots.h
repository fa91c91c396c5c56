// The rows of knots of all inputs as kernels keep them, made once where each input has its own: that takes a hundred
// operations in float64, which some GPUs are slow at.
#pragma once

#include "launch.h"

namespace fastkan {

constexpr int kKnotThreads = 128;

struct KnotArgs {
  Contraction<float> c;
  KnotRow<float>* rows;
};

// Static, since it has no template argument that would tell the copies of several files apart.
static __global__ void __launch_bounds__(kKnotThreads) knots_kernel(const __grid_constant__ KnotArgs a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < a.c.p.I) a.rows[i] = KnotRow<float>::of(a.c.shape, a.c.p.grid + i * a.c.p.grid_stride);
}

// nullptr where all inputs share one row.
inline const KnotRow<float>* rows_of_knots(const Contraction<float>& c, const Device& device) {
  if (c.p.grid_stride == 0) return nullptr;
  KnotRow<float>* rows = device.take<KnotRow<float>>(c.p.I);
  launch("knots", knots_kernel, ceil_div(c.p.I, kKnotThreads), kKnotThreads, 0, device, KnotArgs{c, rows});
  return rows;
}

}  // namespace fastkan
