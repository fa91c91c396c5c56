// The knots of one input in the form that kernels keep, and the search for the knot span of x.
#pragma once

#include <cmath>
#include <cstdint>

#include "../contract/problem.h"
#include "bspline.h"

namespace fastkan {

// Sum and product rounded to nearest, never contracted into a fused multiply-add.
FASTKAN_HD double add_rn(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dadd_rn(a, b);
#else
  const volatile double sum = a + b;
  return sum;
#endif
}
FASTKAN_HD double mul_rn(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  const volatile double product = a * b;
  return product;
#endif
}
FASTKAN_HD float add_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  const volatile float sum = a + b;
  return sum;
#endif
}
FASTKAN_HD float mul_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  const volatile float product = a * b;
  return product;
#endif
}

// x rounded up, or down, to a T.
template <class T>
FASTKAN_HD T rounded_up(double x) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return x;
  } else {
#if defined(__CUDA_ARCH__)
    return __double2float_ru(x);
#else
    const float t = static_cast<float>(x);
    return static_cast<double>(t) < x ? nextafterf(t, HUGE_VALF) : t;
#endif
  }
}
template <class T>
FASTKAN_HD T rounded_down(double x) {
  return -rounded_up<T>(-x);
}

// x = near + rest, twice the precision of T (double-double arithmetic).
template <class T>
struct Split {
  T near, rest;
  FASTKAN_HD static Split of(double x) { return around(static_cast<T>(x), x); }
  FASTKAN_HD static Split around(T near, double x) { return {near, static_cast<T>(x - static_cast<double>(near))}; }
};

// Properties shared by all rows of a grid.
struct Shape {
  int F, K, M;
  Outside outside;
  bool uniform;
  bool exact;            // compare x with the knots: non-uniform knots, and orders at which the spline has jumps
  double inv_intervals;  // 1 / (M - 1)

  // Knot j of a row. Uniform knots are rounded exactly like the reference's: the quotient j / (M - 1) is corrected by
  // its remainder (Markstein, IBM J. Res. Dev. 34, 1990), since GPUs have no fast division.
  FASTKAN_HD double knot(const double* row, int j) const {
    if (!uniform) return row[j];
    const double place = j, about = mul_rn(place, inv_intervals);
    const double share = fma(fma(-about, static_cast<double>(M - 1), place), inv_intervals, about);
    return add_rn(row[0], mul_rn(row[M - 1] - row[0], share));
  }
};

template <class T>
struct KnotRow {
  Split<T> origin, step;  // of uniform knots
  T inv_step;
  Split<T> low, high;  // the ends of the grid range: x >= low.near where x >= t_K, x <= high.near where x <= t_F
  T begin, end;        // of the knots: x >= begin where x >= t_0, x < end where x < t_{M-1}

  FASTKAN_HD static KnotRow of(const Shape& s, const double* row) {
    const double first = row[0], last = row[s.M - 1];
    const double low = s.knot(row, s.K), high = s.knot(row, s.F), end = s.knot(row, s.M - 1);
    KnotRow r;
    r.origin = Split<T>::of(first);
    r.step = Split<T>::of((last - first) * s.inv_intervals);
    r.inv_step = static_cast<T>(s.M - 1) / static_cast<T>(last - first);
    r.low = Split<T>::around(rounded_up<T>(low), low);
    r.high = Split<T>::around(rounded_down<T>(high), high);
    r.begin = rounded_up<T>(first);
    r.end = rounded_up<T>(s.exact ? end : last);
    return r;
  }
};

// (x - origin) / step - place, accurate to the rounding of T for any place: origin + place * step is computed in
// twice the precision.
template <class T>
FASTKAN_HD T steps_beyond(const KnotRow<T>& r, T x, T place) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return ((x - r.origin.near) - r.origin.rest) * r.inv_step - place;
  } else {
    // Error-free product and sum (Dekker, Numer. Math. 18, 1971).
    const T offset = mul_rn(place, r.step.near);
    const T offset_rest = fmaf(place, r.step.near, -offset) + place * r.step.rest;
    const T t = add_rn(r.origin.near, offset);
    const T back = add_rn(t, -r.origin.near);
    const T t_rest = add_rn(add_rn(r.origin.near, -add_rn(t, -back)), add_rn(offset, -back));
    return (add_rn(x, -t) - (t_rest + offset_rest + r.origin.rest)) * r.inv_step;
  }
}

// Knot span m of x on uniform knots, t_m <= x < t_{m+1} up to rounding, and u = (x - t_m) / h. Unless outside is
// "zero", x is first clamped to the grid range. A NaN gets the first span.
template <class T>
FASTKAN_HD int uniform_interval(const Shape& s, const KnotRow<T>& r, T x, T* u) {
  const bool whole = s.outside == Outside::zero;
  const T lowest = whole ? r.begin : r.low.near, highest = whole ? r.end : r.high.near;
  T at = x > lowest ? x : lowest;
  at = at < highest ? at : highest;
  const T z = ((at - r.origin.near) - r.origin.rest) * r.inv_step;
  const int bottom = whole ? 0 : s.K, top = (whole ? s.M - 1 : s.F) - 1;
  int m = static_cast<int>(z);
  m = m > bottom ? m : bottom;
  m = m < top ? m : top;
  *u = steps_beyond(r, at, static_cast<T>(m));
  if constexpr (sizeof(T) != sizeof(double)) {  // z may have been rounded to the wrong side of a knot
    const int beside = *u < T(0) && m > bottom ? -1 : *u >= T(1) && m < top ? 1 : 0;
    m += beside;
    *u -= static_cast<T>(beside);
  }
  return m;
}

// The same by comparison with the knots: the last knot at or below x, excluding the very last; a NaN gets the first
// span. The right end of the grid range belongs to the span before it. x has been clamped to the grid range unless
// outside is "zero".
template <class T>
FASTKAN_HD int exact_interval(const Shape& s, const KnotRow<T>& r, const double* row, double x) {
  int m = 0;
  if (s.uniform) {
    const T z = (static_cast<T>(x) - r.origin.near) * r.inv_step;
    m = z > T(0) ? z < static_cast<T>(s.M - 2) ? static_cast<int>(z) : s.M - 2 : 0;
    while (m > 0 && !(x >= s.knot(row, m))) --m;
    while (m < s.M - 2 && x >= s.knot(row, m + 1)) ++m;
  } else {
    for (int step = s.M - 2; step > 0;) {
      const int half = step / 2, probe = m + half + 1;
      const bool above = x >= row[probe];
      m = above ? probe : m;
      step = above ? step - half - 1 : half;
    }
  }
  const double high = s.knot(row, s.F);
  if (x == high) {
    m = s.F - 1;
    while (m > 0 && !(s.knot(row, m) < high)) --m;
  }
  return m;
}

}  // namespace fastkan
