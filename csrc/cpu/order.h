// The rows of one input in the order of the windows that they fall into.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace fastkan {
namespace {

// Rows that are sorted together, at most, and rows of the order that are visited at a time: what is known of them stays
// in the first-level cache.
constexpr int64_t kSortedRows = 4096, kVisit = 256;
// How far ahead of a visit what it needs next is fetched: rows of the order, and rows of coefficients, which take many
// since a processor's own fetching ahead ends with a page.
constexpr int64_t kAhead = 8, kCoefAhead = 32;

// Rows in this order share most of their coefficients with their neighbours: what a window needs stays in registers
// while its rows go by, and an input's coefficients are read in sequence, once.
template <class T>
class Sorted {
 public:
  static size_t bytes(const Problem& p, int64_t rows) {
    return (2 + (p.s ? 1 : 0)) * Scratch::bytes<T>(rows) + 2 * Scratch::bytes<int32_t>(rows + kAhead) +
           Scratch::bytes<int32_t>(p.M);
  }
  Sorted(const Problem& p, Scratch& memory, int64_t rows)
      : p_(p),
        order(memory.take<int32_t>(rows + kAhead)),
        window(memory.take<int32_t>(rows)),
        x(memory.take<T>(rows)),
        s(p.s ? memory.take<T>(rows) : nullptr),
        place_(memory.take<int32_t>(p.M)) {}

  // Rows of one window stay in their order.
  void build(const int32_t* found, const T* column, const T* scale, int64_t rows) {
    const int windows = p_.M - 1, first = -p_.K;
    memset(place_, 0, static_cast<size_t>(windows + 1) * sizeof(int32_t));
    int32_t* count = place_ + 1 - first;
    for (int64_t n = 0; n < rows; ++n) ++count[found[n]];
    for (int64_t g = 1; g < windows; ++g) place_[g] += place_[g - 1];
    int32_t* next = place_ - first;
    for (int64_t n = 0; n < rows; ++n) {
      const int32_t at = next[found[n]]++;
      order[at] = static_cast<int32_t>(n);
      window[at] = found[n];
      x[at] = column[n];
    }
    for (int64_t at = rows; at < rows + kAhead; ++at) order[at] = 0;
    for (int64_t at = 0; s && at < rows; ++at) s[at] = scale[order[at]];
  }

  int32_t *order, *window;
  T *x, *s;

 private:
  const Problem& p_;
  int32_t* place_;
};

}  // namespace
}  // namespace fastkan
