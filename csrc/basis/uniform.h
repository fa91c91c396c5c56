// The window of a number on uniform knots without a branch, of order 0 or 1 below the degree: what Window gives, for
// kernels that evaluate several at once and let the instructions of one wait while another's run.
#pragma once

#include "knots.h"

namespace fastkan {

template <class T, int K>
struct UniformWindow {
  int begin;  // w[k] is of function begin + k; on the extended knots some of these are not among the F
  T w[K + 1];

  template <int D>
  FASTKAN_HD static UniformWindow of(const Shape& s, const KnotRow<T>& r, T x) {
    static_assert(D <= 1 && D < K);
    UniformWindow v;
    T u;
    v.begin = uniform_interval(s, r, x, &u) - K;
    local_functions<K, D>(UniformKnots<T>{u}, v.w);
    const bool inside = x >= r.low.near && x <= r.high.near;
    if (D == 0 && s.outside == Outside::linear) {  // goes on with the slope at the end, where x was moved
      T slope[K + 1];
      local_functions<K, 1>(UniformKnots<T>{u}, slope);
      const T near = x < r.low.near ? r.low.near : r.high.near, rest = x < r.low.near ? r.low.rest : r.high.rest;
      const T beyond = inside ? T(0) : ((x - near) - rest) * r.over_step;
      FASTKAN_UNROLL
      for (int k = 0; k <= K; ++k) v.w[k] += slope[k] != T(0) ? beyond * slope[k] : T(0);  // x may be infinite
    }
    const bool there = s.outside == Outside::zero    ? x >= r.begin && x < r.end
                       : s.outside == Outside::clamp ? D == 0 || inside
                                                     : true;
    const bool number = x == x;
    if (!number) v.begin = 0;  // shows in the functions of the first window
    const T factor = !number ? x : !there ? T(0) : D == 1 ? r.over_step : T(1);
    FASTKAN_UNROLL
    for (int k = 0; k <= K; ++k) v.w[k] *= factor;
    return v;
  }
};

}  // namespace fastkan
