// Basis functions at one x of the families with wide support, Gaussians and Chebyshev polynomials: more of them are
// non-zero at an x than one window holds. contract/windows.h tells how kernels split them.
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

  // The first of `functions` neighbouring functions that are non-zero at x.
  FASTKAN_HD int first(int functions) const {
    const T centre = (x - r_.origin.near) * r_.inv_step - T(0.5);  // 0 at the centre of the first function
    const int last = s_.F - functions;
    const int below = centre > T(0) ? centre < static_cast<T>(s_.F) ? static_cast<int>(centre) : s_.F : 0;
    const int at = below - (functions / 2 - 1);
    return at > 0 ? at < last ? at : last : 0;
  }

  // Derivative of function f.
  FASTKAN_HD T operator()(int order, int f) const {
    if (x != x) return x;
    const bool of_gaussian = family_ == Family::rbf;
    T over = of_gaussian ? -r_.inv_step : r_.inv_step * half();
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

  // T_f, with x clamped to the grid range.
  FASTKAN_HD T polynomial(int order, int f) const {
    if (order > 0 && !(x >= r_.low.near && x <= r_.high.near)) return T(0);
    return chebyshev<T>(f, order, within(steps_beyond(r_, x, static_cast<T>(s_.F) / T(2)) * half(), T(1)));
  }
  // Scale from knot steps, F on the grid range, to the interval [-1, 1] of the polynomials.
  FASTKAN_HD T half() const { return static_cast<T>(2 * s_.inv_intervals); }

  FASTKAN_HD static T within(T z, T most) { return z > -most ? z < most ? z : most : -most; }

  const Shape& s_;
  const Family family_;
  const KnotRow<T>& r_;
};

}  // namespace fastkan
