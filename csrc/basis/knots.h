// A row of knots, as kernels keep it, and the interval that a number falls into.
#pragma once

#include <cmath>
#include <cstdint>

#include "../contract/problem.h"
#include "bspline.h"

namespace fastkan {

// Rounded as they stand: never contracted into a fused multiply-add.
FASTKAN_HD double sum_of(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dadd_rn(a, b);
#else
  const volatile double sum = a + b;
  return sum;
#endif
}
FASTKAN_HD double product_of(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  const volatile double product = a * b;
  return product;
#endif
}
FASTKAN_HD float sum_of(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  const volatile float sum = a + b;
  return sum;
#endif
}
FASTKAN_HD float product_of(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  const volatile float product = a * b;
  return product;
#endif
}

// The least T that is not below x, the greatest that is not above it.
template <class T>
FASTKAN_HD T not_below(double x) {
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
FASTKAN_HD T not_above(double x) {
  return -not_below<T>(-x);
}

// x = near + rest to twice the precision of T.
template <class T>
struct Split {
  T near, rest;
  FASTKAN_HD static Split of(double x) { return around(static_cast<T>(x), x); }
  FASTKAN_HD static Split around(T near, double x) { return {near, static_cast<T>(x - static_cast<double>(near))}; }
};

// What all rows of a grid share.
struct Shape {
  int F, K, M;
  Outside outside;
  bool uniform;
  bool exact;  // knots are compared with one by one: where they are uneven, and at orders at which a spline jumps there
  double over_intervals;  // 1 / (M - 1)

  // Knot j of a row; of a uniform one rounded exactly as the reference rounds it, with the quotient j / (M - 1) mended
  // by its remainder (Markstein, IBM J. Res. Dev. 34, 1990), since a device has no fast division.
  FASTKAN_HD double knot(const double* row, int j) const {
    if (!uniform) return row[j];
    const double place = j, about = product_of(place, over_intervals);
    const double share = fma(fma(-about, static_cast<double>(M - 1), place), over_intervals, about);
    return sum_of(row[0], product_of(row[M - 1] - row[0], share));
  }
};

template <class T>
struct KnotRow {
  Split<T> origin, step;  // of uniform knots
  T over_step;
  Split<T> low, high;  // the ends of the grid range: x >= low.near where x >= t_K, x <= high.near where x <= t_F
  T begin, end;        // of the knots: x >= begin where x >= t_0, x < end where x < t_{M-1}

  FASTKAN_HD static KnotRow of(const Shape& s, const double* row) {
    const double first = row[0], last = row[s.M - 1];
    const double low = s.knot(row, s.K), high = s.knot(row, s.F), end = s.knot(row, s.M - 1);
    KnotRow r;
    r.origin = Split<T>::of(first);
    r.step = Split<T>::of((last - first) * s.over_intervals);
    r.over_step = static_cast<T>(s.M - 1) / static_cast<T>(last - first);
    r.low = Split<T>::around(not_below<T>(low), low);
    r.high = Split<T>::around(not_above<T>(high), high);
    r.begin = not_below<T>(first);
    r.end = not_below<T>(s.exact ? end : last);
    return r;
  }
};

// (x - origin) / step - place, right to the rounding of T however far the place is: origin + place step is made in
// twice the precision.
template <class T>
FASTKAN_HD T steps_beyond(const KnotRow<T>& r, T x, T place) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return ((x - r.origin.near) - r.origin.rest) * r.over_step - place;
  } else {
    // The product and the sum with their rounding errors (Dekker, Numer. Math. 18, 1971).
    const T offset = product_of(place, r.step.near);
    const T offset_rest = fmaf(place, r.step.near, -offset) + place * r.step.rest;
    const T t = sum_of(r.origin.near, offset);
    const T back = sum_of(t, -r.origin.near);
    const T t_rest = sum_of(sum_of(r.origin.near, -sum_of(t, -back)), sum_of(offset, -back));
    return (sum_of(x, -t) - (t_rest + offset_rest + r.origin.rest)) * r.over_step;
  }
}

// The interval m of x among uniform knots, t_m <= x < t_{m+1} to rounding, and u = (x - t_m) / h. Without "zero"
// outside x is first moved into the grid range; of a NaN the lowest interval.
template <class T>
FASTKAN_HD int uniform_interval(const Shape& s, const KnotRow<T>& r, T x, T* u) {
  const bool whole = s.outside == Outside::zero;
  const T lowest = whole ? r.begin : r.low.near, highest = whole ? r.end : r.high.near;
  T at = x > lowest ? x : lowest;
  at = at < highest ? at : highest;
  const T z = ((at - r.origin.near) - r.origin.rest) * r.over_step;
  const int bottom = whole ? 0 : s.K, top = (whole ? s.M - 1 : s.F) - 1;
  int m = static_cast<int>(z);
  m = m > bottom ? m : bottom;
  m = m < top ? m : top;
  *u = steps_beyond(r, at, static_cast<T>(m));
  if constexpr (sizeof(T) != sizeof(double)) {  // where z may have rounded to the wrong side of a knot
    const int beside = *u < T(0) && m > bottom ? -1 : *u >= T(1) && m < top ? 1 : 0;
    m += beside;
    *u -= static_cast<T>(beside);
  }
  return m;
}

// The same by comparison with the knots: the last at or below x, but the last of all; of a NaN the first. The right end
// of the grid range closes the interval before it. x has been moved into the grid range, but with "zero" outside.
template <class T>
FASTKAN_HD int exact_interval(const Shape& s, const KnotRow<T>& r, const double* row, double x) {
  int m = 0;
  if (s.uniform) {
    const T z = (static_cast<T>(x) - r.origin.near) * r.over_step;
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
