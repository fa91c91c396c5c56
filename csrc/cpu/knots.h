// Looks at the knots of a problem, in each call, since anything may have written them.
#pragma once

#include "problem.h"

namespace fastkan {
namespace FASTKAN_ISA {

// Comparisons are such that a NaN fails them.
inline bool row_is_even(const double* t, int M, double share) {
  const double first = t[0], width = t[M - 1] - first, step = width * share;
  const double ends[] = {__builtin_fabs(first), __builtin_fabs(t[M - 1])};
  const double rounding = 8 * 0x1p-52 * (ends[0] > ends[1] ? ends[0] : ends[1]);
  int off = !(width > 0);
  for (int j = 0; j < M; ++j) off |= !(__builtin_fabs(t[j] - (first + step * j)) <= rounding);
  return !off;
}

inline bool row_ascends(const double* t, int M) {
  int off = !(t[M - 1] - t[0] < __builtin_huge_val());
  for (int j = 1; j < M; ++j) off |= !(t[j - 1] <= t[j]);
  return !off;
}

inline Evenness evenness(const Problem& p) {
  Evenness found{true, -1};
  const int64_t rows = p.grid_stride == 0 && p.I > 0 ? 1 : p.I;
  const double share = 1.0 / (p.M - 1);
  const size_t bytes = p.M * sizeof(double);
  for (int64_t i = 0; i < rows; ++i) {
    const double* t = p.grid + i * p.grid_stride;
    if (i > 0 && __builtin_memcmp(t, t - p.grid_stride, bytes) == 0) continue;  // as most are
    if (found.even && row_is_even(t, p.M, share)) continue;
    found.even = false;
    if (!row_ascends(t, p.M)) return {false, i};
  }
  return found;
}

}  // namespace FASTKAN_ISA
}  // namespace fastkan
