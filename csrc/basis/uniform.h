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

// The usual case, in a fraction of the instructions: outside is "zero", and results are rounded to at most 11 bits, so
// that coordinates need not be exact for any number of intervals: their error is a few units of float32's rounding
// times the number of intervals. Below the degree nothing jumps at the ends of the knots, so x is clamped to them.
struct alignas(16) UsualKnots {
  float origin, inv_step, shift;  // z = (x - origin) inv_step + shift, in intervals; shift is the origin's rest
  float end;                      // intervals
  FASTKAN_HD static UsualKnots of(const Shape& s, const KnotRow<float>& r) {
    return {r.origin.near, r.inv_step, -r.origin.rest * r.inv_step, static_cast<float>(s.M - 1)};
  }
};
// The span of a NaN; intervals are fewer.
constexpr int kSpanOfNan = 63;

// z in 0 .. end; a NaN stays.
FASTKAN_HD float clamped(float z, float end) {
#if defined(__CUDA_ARCH__)
  asm("max.NaN.f32 %0, %0, 0f00000000;\n\tmin.NaN.f32 %0, %0, %1;" : "+f"(z) : "f"(end));
  return z;
#else
  return z < 0 ? 0 : z > end ? end : z;
#endif
}

// The whole part of 0 <= z < 63; kSpanOfNan and a NaN in *whole for a NaN.
FASTKAN_HD int whole_part(float z, float* whole) {
#if defined(__CUDA_ARCH__)  // the lowest bits of 2^23 + z, rounded down; a NaN has all bits set
  const float sum = __fadd_rd(z, 8388608.0f);
  *whole = sum - 8388608.0f;
  return __float_as_int(sum) & kSpanOfNan;
#else
  *whole = std::floor(z);
  return z == z ? static_cast<int>(*whole) : kSpanOfNan;
#endif
}

template <int K>
struct UsualWindow {
  int span;  // knot span of x, 0 .. intervals, or kSpanOfNan
  float w[K + 1];

  // w[k] belongs to function begin() + k, which may lie outside of 0..F-1.
  FASTKAN_HD int begin() const { return begin_of(span); }
  FASTKAN_HD static int begin_of(int span) { return span == kSpanOfNan ? 0 : span - K; }

  // D: order of the derivative, 0 or 1.
  template <int D = 0>
  FASTKAN_HD static UsualWindow of(const UsualKnots& knots, float x) {
    static_assert((K == 2 || K == 3) && (D == 0 || D == 1));
    const float z = clamped(fmaf(x - knots.origin, knots.inv_step, knots.shift), knots.end);
    UsualWindow r;
    float whole;
    r.span = whole_part(z, &whole);
    const float u = z - whole, v = 1 - u, h = D == 1 ? knots.inv_step : 1;
    if constexpr (K == 2 && D == 0) {
      r.w[0] = 0.5f * v * v, r.w[1] = fmaf(u, v, 0.5f), r.w[2] = 0.5f * u * u;
    } else if constexpr (K == 2) {
      r.w[0] = -v * h, r.w[1] = (v - u) * h, r.w[2] = u * h;
    } else if constexpr (D == 0) {
      const float u2 = u * u, v2 = v * v;
      r.w[0] = v * (1.0f / 6) * v2, r.w[3] = u * (1.0f / 6) * u2;
      r.w[1] = fmaf(u2, fmaf(u, 0.5f, -1.0f), 2.0f / 3), r.w[2] = fmaf(v2, fmaf(v, 0.5f, -1.0f), 2.0f / 3);
    } else {
      const float hu = h * u, hv = h * v;
      r.w[0] = -0.5f * v * hv, r.w[1] = hu * fmaf(u, 1.5f, -2.0f);
      r.w[2] = -hv * fmaf(v, 1.5f, -2.0f), r.w[3] = 0.5f * u * hu;
    }
    return r;
  }
};

}  // namespace fastkan
