// basis/window.h for the tests, with degree, order and outside chosen at run time.
#pragma once

#include <stdexcept>
#include <utility>
#include <vector>

#include "basis/uniform.h"
#include "basis/window.h"

namespace fastkan {

inline Shape shape_of(const std::vector<double>& row, int degree, int outside, bool uniform, int order) {
  const int M = static_cast<int>(row.size());
  if (degree < 0 || degree > 5 || M < 2 * degree + 2 || outside < 0 || outside > 2 || order < 0)
    throw std::invalid_argument("expected 0 <= degree <= 5, 2 * degree + 2 knots, 0 <= outside <= 2, 0 <= order");
  return {M - degree - 1, degree, M, static_cast<Outside>(outside), uniform, !uniform || order >= degree,
          1.0 / (M - 1)};
}

// Start of the window of x and the derivatives of its functions; `fixed`: with the degree as a compile-time constant.
template <class T>
std::pair<int, std::vector<T>> window_at(T x, const std::vector<double>& row, int degree, int outside, bool uniform,
                                         int order, bool fixed) {
  const Shape shape = shape_of(row, degree, outside, uniform, order);
  const KnotRow<T> knots = KnotRow<T>::of(shape, row.data());
  std::vector<T> w(6);
  const auto evaluate = [&](const auto& window) {
    window.weights(order, w.data());
    return window.start;
  };
  const int start = fixed && degree == 3 ? evaluate(Window<T, 3, true>(shape, knots, row.data(), x))
                                         : evaluate(Window<T, 5, false>(shape, knots, row.data(), x));
  w.resize(degree + 1);
  return {start, w};
}

// The same by UniformWindow, or by UsualWindow: function of the first weight, which may lie outside of 0..F-1, and the
// weights.
template <class T>
std::pair<int, std::vector<T>> uniform_window_at(T x, const std::vector<double>& row, int degree, int outside,
                                                 int order, bool usual) {
  const Shape shape = shape_of(row, degree, outside, true, order);
  const KnotRow<T> knots = KnotRow<T>::of(shape, row.data());
  if (usual && (shape.M > kSpanOfNan || shape.outside != Outside::zero))
    throw std::invalid_argument("expected fewer knots, and zero outside");
  const auto evaluate = [&]<int K, int D>() -> std::pair<int, std::vector<T>> {
    if (usual) {
      const auto window = UsualWindow<K>::template of<D>(UsualKnots::of(shape, knots), x);
      return {window.begin(), {window.w, window.w + K + 1}};
    }
    const auto window = UniformWindow<T, K>::template of<D>(shape, knots, x);
    return {window.begin, {window.w, window.w + K + 1}};
  };
  if (degree == 2 && order == 0) return evaluate.template operator()<2, 0>();
  if (degree == 2 && order == 1) return evaluate.template operator()<2, 1>();
  if (degree == 3 && order == 0) return evaluate.template operator()<3, 0>();
  if (degree == 3 && order == 1) return evaluate.template operator()<3, 1>();
  throw std::invalid_argument("expected degree 2 or 3, order 0 or 1");
}

inline std::vector<double> knots_of(const std::vector<double>& row) {
  const Shape shape = shape_of(row, 0, 0, true, 0);
  std::vector<double> knots(row.size());
  for (int j = 0; j < shape.M; ++j) knots[j] = shape.knot(row.data(), j);
  return knots;
}

}  // namespace fastkan
