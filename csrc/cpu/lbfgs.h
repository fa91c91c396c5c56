// The direction of L-BFGS, as fastkan/network/lbfgs.py defines it: two passes over the last changes. For the parameters
// of a small network what counts is the number of calls: this is one.
#pragma once

#include "problem.h"

namespace fastkan {
namespace {

// In a few sums at a time, which the compiler makes vectors of.
template <class T>
double dot(const T* a, const T* b, int64_t size) {
  constexpr int kSums = 16;
  double sums[kSums] = {};
  int64_t n = 0;
  for (; n + kSums <= size; n += kSums)
    for (int l = 0; l < kSums; ++l) sums[l] += static_cast<double>(a[n + l]) * static_cast<double>(b[n + l]);
  double sum = 0;
  for (; n < size; ++n) sum += static_cast<double>(a[n]) * static_cast<double>(b[n]);
  for (double part : sums) sum += part;
  return sum;
}

template <class T>
void add_scaled(double factor, const T* from, T* to, int64_t size) {
  for (int64_t n = 0; n < size; ++n) to[n] += static_cast<T>(factor) * from[n];
}

// q = -H g.
template <class T>
void two_loops(const Changes& c) {
  const T *g = static_cast<const T*>(c.g), *s = static_cast<const T*>(c.s), *y = static_cast<const T*>(c.y);
  T* q = static_cast<T*>(c.q);
  const auto row = [&](int64_t pair) { return (c.oldest + pair) % c.history * c.size; };
  for (int64_t n = 0; n < c.size; ++n) q[n] = -g[n];
  for (int64_t k = c.pairs; k-- > 0;) {
    c.share[k] = c.inverse[k] * dot(s + row(k), q, c.size);
    add_scaled(-c.share[k], y + row(k), q, c.size);
  }
  for (int64_t n = 0; n < c.size; ++n) q[n] *= static_cast<T>(c.scale);
  for (int64_t k = 0; k < c.pairs; ++k)
    add_scaled(c.share[k] - c.inverse[k] * dot(y + row(k), q, c.size), s + row(k), q, c.size);
}

}  // namespace
}  // namespace fastkan
