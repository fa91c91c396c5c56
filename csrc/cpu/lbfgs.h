// The L-BFGS direction by the two-loop recursion, as in fastkan/network/train/lbfgs.py. For small networks the number
// of calls dominates the time: this is a single one.
#pragma once

#include "problem.h"

namespace fastkan {
namespace {

// Several partial sums, which the compiler vectorises.
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
void lbfgs_direction(const LbfgsHistory& c) {
  const T *g = static_cast<const T*>(c.g), *s = static_cast<const T*>(c.s), *y = static_cast<const T*>(c.y);
  T* q = static_cast<T*>(c.q);
  const auto row = [&](int64_t pair) { return (c.oldest + pair) % c.history * c.size; };
  for (int64_t n = 0; n < c.size; ++n) q[n] = -g[n];
  for (int64_t k = c.pairs; k-- > 0;) {
    c.alpha[k] = c.rho[k] * dot(s + row(k), q, c.size);
    add_scaled(-c.alpha[k], y + row(k), q, c.size);
  }
  for (int64_t n = 0; n < c.size; ++n) q[n] *= static_cast<T>(c.scale);
  for (int64_t k = 0; k < c.pairs; ++k)
    add_scaled(c.alpha[k] - c.rho[k] * dot(y + row(k), q, c.size), s + row(k), q, c.size);
}

}  // namespace
}  // namespace fastkan
