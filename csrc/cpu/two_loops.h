// The direction of L-BFGS, as fastkan/network/lbfgs.py defines it: two passes over the last changes. For the parameters
// of a small network what counts is the number of calls: this is one.
#pragma once

#include <cstdint>
#include <vector>

namespace fastkan {

template <class T>
struct TwoLoops {
  int64_t size;
  std::vector<const T*> s, y;   // from the oldest on
  std::vector<double> inverse;  // 1 / y s
  double scale;

  // q = -H g.
  void run(const T* g, T* q) const {
    std::vector<double> share(s.size());
    for (int64_t n = 0; n < size; ++n) q[n] = -g[n];
    for (size_t k = s.size(); k-- > 0;) {
      share[k] = inverse[k] * dot(s[k], q);
      add(-share[k], y[k], q);
    }
    for (int64_t n = 0; n < size; ++n) q[n] *= static_cast<T>(scale);
    for (size_t k = 0; k < s.size(); ++k) add(share[k] - inverse[k] * dot(y[k], q), s[k], q);
  }

 private:
  // In a few sums at a time, which the compiler makes a vector of.
  double dot(const T* a, const T* b) const {
    constexpr int kSums = 8;
    double sums[kSums] = {};
    int64_t n = 0;
    for (; n + kSums <= size; n += kSums)
      for (int l = 0; l < kSums; ++l) sums[l] += static_cast<double>(a[n + l]) * static_cast<double>(b[n + l]);
    double sum = 0;
    for (; n < size; ++n) sum += static_cast<double>(a[n]) * static_cast<double>(b[n]);
    for (double part : sums) sum += part;
    return sum;
  }
  void add(double factor, const T* from, T* to) const {
    for (int64_t n = 0; n < size; ++n) to[n] += static_cast<T>(factor) * from[n];
  }
};

}  // namespace fastkan
