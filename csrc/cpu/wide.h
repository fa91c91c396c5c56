// Features of the families with wide support: Gaussians and Chebyshev polynomials.
#pragma once

#include "../basis/chebyshev.h"
#include "../basis/gaussian.h"
#include "simd.h"

namespace fastkan {
namespace {

// The counterpart of Column (features.h) for these families; weights() evaluates one window at a time.
template <class T>
class WideColumn {
 public:
  static size_t bytes(int64_t rows) { return 2 * Scratch::bytes<T>(rows); }

  WideColumn(const Problem& p, Scratch& memory, int64_t rows)
      : p_(p), windows_(windows_of(p)), near_(memory.take<T>(rows)), rest_(memory.take<T>(rows)) {}

  // The first function of each row's windows.
  void find_windows(int64_t i, const T* x, int64_t rows, int32_t* first) {
    const double* grid = p_.grid + i * p_.grid_stride;
    const double width = (grid[p_.M - 1] - grid[0]) / p_.F;
    origin_ = p_.family == Family::rbf ? grid[0] + width / 2 : (grid[0] + grid[p_.M - 1]) / 2;
    over_ = p_.family == Family::rbf ? 1 / width : 2 / (grid[p_.M - 1] - grid[0]);
    if (windows_.functions == p_.F) {
      memset(first, 0, static_cast<size_t>(rows) * sizeof(int32_t));
      return;
    }
    const int32_t before = windows_.functions / 2 - 1, last = p_.F - windows_.functions;
    for (int64_t n = 0; n < rows; ++n) {
      const int32_t at = static_cast<int32_t>(coordinate(x[n], 0, p_.F)) - before;
      first[n] = at > 0 ? at < last ? at : last : 0;
    }
  }

  // Sets the rows' coordinates. Gaussians: relative to the middle of the windows and as a sum of two numbers, so that
  // subtracting a centre loses no digits. Polynomials: `rest_` is 1 if x is in the grid range, else 0.
  void set_rows(const T* x, const int32_t* first, int64_t rows) {
    rows_ = rows;
    x_ = x;
    const bool gaussians = p_.family == Family::rbf;
    const double low = gaussians ? -kFar : -1, high = gaussians ? p_.F + kFar : 1;
    const int32_t middle = gaussians ? this->middle() : 0;
    int nans = 0;
    for (int64_t n = 0; n < rows; ++n) {
      const double z = coordinate(x[n], low, high) - (first[n] + middle);
      nans |= x[n] != x[n];
      near_[n] = static_cast<T>(z);
      rest_[n] = static_cast<T>(z - static_cast<double>(near_[n]));
    }
    with_nan_ = nans != 0;
    if (gaussians) return;
    for (int64_t n = 0; n < rows; ++n) rest_[n] = T(coordinate(x[n], -2, 2) == coordinate(x[n], -1, 1));
  }

  // Writes the derivatives of one window's functions to planes w + k * stride, which hold whole vectors.
  void weights(int order, int window, T* w, int64_t stride) const {
    const int start = windows_.start(window), zeros = windows_.zeros(window);
    double factor = 1;
    for (int d = 0; d < order; ++d) factor *= p_.family == Family::rbf ? -over_ : over_;
    for (int k = 0; k < windows_.size; ++k, w += stride) {
      if (k < zeros)
        memset(w, 0, static_cast<size_t>(rows_) * sizeof(T));
      else if (p_.family == Family::rbf)
        gaussians<0>(order, static_cast<T>(start + k - middle()), static_cast<T>(factor), w);
      else
        polynomials(order, start + k, static_cast<T>(factor), w);
      for (int64_t n = 0; with_nan_ && n < rows_; ++n) w[n] = x_[n] == x_[n] ? w[n] : x_[n];
    }
  }

  // Whether a row is NaN.
  bool with_nan() const { return with_nan_; }

 private:
  static constexpr double kFar = 32;  // distance beyond which Gaussians are 0

  int32_t middle() const { return windows_.functions / 2; }

  // Coordinate in units of the Gaussians' width from the first centre, or from -1 to 1 on the grid range; clamped to
  // the bounds; a NaN gets the lower one.
  double coordinate(T x, double low, double high) const {
    const double z = (static_cast<double>(x) - origin_) * over_, above = z > low ? z : low;
    return above < high ? above : high;
  }

  template <int D>
  void gaussians(int order, T centre, T factor, T* w) const {
    if constexpr (D < kMaxOrder) {
      if (order > D) return gaussians<D + 1>(order, centre, factor, w);
    }
    const T *near = near_, *rest = rest_;
    for (int64_t n = 0; n < rows_; ++n) w[n] = factor * gaussian(D, (near[n] - centre) + rest[n]);
  }

  void polynomials(int order, int f, T factor, T* w) const {
    for (int64_t n = 0; n < rows_; n += kLanes<T>) {
      const Vec<T> value = factor * chebyshev<T>(f, order, load(near_ + n));
      store(w + n, order == 0 ? value : value * load(rest_ + n));
    }
  }

  const Problem& p_;
  const Windows windows_;
  const T* x_ = nullptr;
  T *near_, *rest_;
  double origin_ = 0, over_ = 0;
  int64_t rows_ = 0;
  bool with_nan_ = false;
};

}  // namespace
}  // namespace fastkan
