// One number on one row of knots of a family whose functions are not zero in several windows at once: Gaussians,
// Chebyshev polynomials. See contract/windows.h for how kernels take them.
#pragma once

#include "chebyshev.h"
#include "gaussian.h"
#include "knots.h"

namespace fastkan {

template <class T>
class Wide {
 public:
  FASTKAN_HD Wide(const Shape& shape, Family family, const KnotRow<T>& knots, T x)
      : x(x), s_(shape), family_(family), r_(knots) {}

  // The first of so many neighbours that are not zero at x.
  FASTKAN_HD int first(int functions) const {
    const T centre = (x - r_.origin.near) * r_.over_step - T(0.5);  // 0 on the first one
    const int last = s_.F - functions;
    const int below = centre > T(0) ? centre < static_cast<T>(s_.F) ? static_cast<int>(centre) : s_.F : 0;
    const int at = below - (functions / 2 - 1);
    return at > 0 ? at < last ? at : last : 0;
  }

  // The derivative of that order of function f.
  FASTKAN_HD T operator()(int order, int f) const {
    if (x != x) return x;
    const bool of_gaussian = family_ == Family::rbf;
    T over = of_gaussian ? -r_.over_step : r_.over_step * half();
    T value = of_gaussian ? gaussian(order, gaussian_argument(f)) : polynomial(order, f);
    for (int d = 0; d < order; ++d) value *= over;
    return value;
  }

  T x;

 private:
  static constexpr int kFar = 32;  // in widths; Gaussians are 0 there

  FASTKAN_HD T gaussian_argument(int f) const {
    return within(steps_beyond(r_, x, static_cast<T>(f) + T(0.5)), static_cast<T>(kFar));
  }

  // Clamped to the ends of the grid range.
  FASTKAN_HD T polynomial(int order, int f) const {
    if (order > 0 && !(x >= r_.low.near && x <= r_.high.near)) return T(0);
    return chebyshev<T>(f, order, within(steps_beyond(r_, x, static_cast<T>(s_.F) / T(2)) * half(), T(1)));
  }
  // Of a grid range's F steps to the halves that polynomials go by.
  FASTKAN_HD T half() const { return static_cast<T>(2 * s_.over_intervals); }

  FASTKAN_HD static T within(T z, T most) { return z > -most ? z < most ? z : most : -most; }

  const Shape& s_;
  const Family family_;
  const KnotRow<T>& r_;
};

}  // namespace fastkan
