// How kernels take the functions that are not zero at an x.
#pragma once

#include "problem.h"

namespace fastkan {

// So many neighbouring functions, in windows of a size that kernels are compiled for: one window of a spline, several
// side by side of families whose functions are not zero in several at once.
struct Windows {
  int functions, size, count;
  // Where a window starts, counted from the first; the last one takes some of the functions before it along, as zeros.
  constexpr int start(int window) const { return window + 1 < count ? window * size : functions - size; }
  constexpr int zeros(int window) const { return window * size - start(window); }
};

constexpr int kWidestWindow = 6;
// From one more than so many widths on exp(-t^2) is 0 in that type.
constexpr int kGaussianReach32 = 9, kGaussianReach64 = 26;

inline Windows windows_of(const Problem& p) {
  if (p.family == Family::bspline) return {p.K + 1, p.K + 1, 1};
  const int reach = p.compute == Dtype::f64 ? kGaussianReach64 : kGaussianReach32, most = 2 * reach + 2;
  const int functions = p.family == Family::rbf && p.F > most ? most : p.F;
  const int count = (functions + kWidestWindow - 1) / kWidestWindow;
  return {functions, (functions + count - 1) / count, count};
}

}  // namespace fastkan
