// Checks the knots of a problem. Done in every call, since anything may have changed them.
#pragma once

#include "problem.h"

namespace fastkan {
namespace FASTKAN_ISA {

// Comparisons are written such that a NaN fails them.
inline bool is_equidistant(const double* t, int M, double share) {
  const double first = t[0], width = t[M - 1] - first, step = width * share;
  const double ends[] = {__builtin_fabs(first), __builtin_fabs(t[M - 1])};
  const double rounding = 8 * 0x1p-52 * (ends[0] > ends[1] ? ends[0] : ends[1]);
  int off = !(width > 0);
  for (int j = 0; j < M; ++j) off |= !(__builtin_fabs(t[j] - (first + step * j)) <= rounding);
  return !off;
}

inline bool is_ascending(const double* t, int M) {
  int off = !(t[M - 1] - t[0] < __builtin_huge_val());
  for (int j = 1; j < M; ++j) off |= !(t[j - 1] <= t[j]);
  return !off;
}

inline KnotCheck check_knots(const Problem& p) {
  KnotCheck check{true, -1};
  const int64_t rows = p.grid_stride == 0 && p.I > 0 ? 1 : p.I;
  const double share = 1.0 / (p.M - 1);
  const size_t bytes = p.M * sizeof(double);
  for (int64_t i = 0; i < rows; ++i) {
    const double* t = p.grid + i * p.grid_stride;
    if (i > 0 && __builtin_memcmp(t, t - p.grid_stride, bytes) == 0) continue;  // the usual case
    if (check.equidistant && is_equidistant(t, p.M, share)) continue;
    check.equidistant = false;
    if (!is_ascending(t, p.M)) return {false, i};
  }
  return check;
}

}  // namespace FASTKAN_ISA
}  // namespace fastkan
