// Branch-free evaluation of a window on uniform knots, for orders 0 and 1 below the degree. Same values as Window,
// for kernels that evaluate several windows at once to hide instruction latency.
#pragma once

#include "knots.h"

namespace fastkan {

template <class T, int K>
struct UniformWindow {
  int begin;  // w[k] belongs to function begin + k, which on the extended knots may lie outside 0..F-1
  T w[K + 1];

  template <int D>
  FASTKAN_HD static UniformWindow of(const Shape& s, const KnotRow<T>& r, T x) {
    static_assert(D <= 1 && D < K);
    UniformWindow v;
    T u;
    v.begin = uniform_interval(s, r, x, &u) - K;
    local_functions<K, D>(UniformKnots<T>{u}, v.w);
    const bool inside = x >= r.low.near && x <= r.high.near;
    if (D == 0 && s.outside == Outside::linear) {  // continues with the slope at the end
      T slope[K + 1];
      local_functions<K, 1>(UniformKnots<T>{u}, slope);
      const T near = x < r.low.near ? r.low.near : r.high.near, rest = x < r.low.near ? r.low.rest : r.high.rest;
      const T beyond = inside ? T(0) : ((x - near) - rest) * r.inv_step;
      FASTKAN_UNROLL
      for (int k = 0; k <= K; ++k) v.w[k] += slope[k] != T(0) ? beyond * slope[k] : T(0);  // x may be infinite
    }
    const bool there = s.outside == Outside::zero    ? x >= r.begin && x < r.end
                       : s.outside == Outside::clamp ? D == 0 || inside
                                                     : true;
    const bool number = x == x;
    if (!number) v.begin = 0;  // NaN in the functions of the first window
    const T factor = !number ? x : !there ? T(0) : D == 1 ? r.inv_step : T(1);
    FASTKAN_UNROLL
    for (int k = 0; k <= K; ++k) v.w[k] *= factor;
    return v;
  }
};

}  // namespace fastkan
