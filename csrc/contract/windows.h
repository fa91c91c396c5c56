// How kernels group the basis functions that are not zero at an x into windows.
#pragma once

#include "problem.h"

namespace fastkan {

// `functions` neighbouring basis functions, split into `count` windows of `size`, for which kernels are compiled. A
// B-spline has one window, its K + 1 non-zero functions; other families may have several side by side.
struct Windows {
  int functions, size, count;
  // Start of a window, relative to the first window. The last window overlaps its predecessor: its first
  // zeros(window) functions have weight zero.
  constexpr int start(int window) const { return window + 1 < count ? window * size : functions - size; }
  constexpr int zeros(int window) const { return window * size - start(window); }
};

constexpr int kWidestWindow = 6;
// exp(-t^2) underflows to 0 in float32, float64 beyond this many widths plus one.
constexpr int kGaussianReach32 = 9, kGaussianReach64 = 26;

inline Windows windows_of(const Problem& p) {
  if (p.family == Family::bspline) return {p.K + 1, p.K + 1, 1};
  const int reach = p.compute == Dtype::f64 ? kGaussianReach64 : kGaussianReach32, most = 2 * reach + 2;
  const int functions = p.family == Family::rbf && p.F > most ? most : p.F;
  const int count = (functions + kWidestWindow - 1) / kWidestWindow;
  return {functions, (functions + count - 1) / count, count};
}

}  // namespace fastkan
