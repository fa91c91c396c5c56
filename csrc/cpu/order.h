// The rows of one input sorted by knot span.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace fastkan {
namespace {

// Maximum number of rows sorted together, and sorted rows processed at a time: their features fit the L1 cache.
constexpr int64_t kSortedRows = 4096, kVisitRows = 256;
// Prefetch distances: sorted rows, and rows of coefficients. The latter is long, since hardware prefetching stops at
// page boundaries.
constexpr int64_t kAhead = 8, kCoefAhead = 32;

// Neighbouring rows in sorted order share most of their coefficients: those of a window stay in registers while its
// rows are processed, and an input's coefficients are read once, in sequence.
template <class T>
class SortedRows {
 public:
  static size_t bytes(const Problem& p, int64_t rows) {
    return (2 + (p.s ? 1 : 0)) * Scratch::bytes<T>(rows) + 2 * Scratch::bytes<int32_t>(rows + kAhead) +
           Scratch::bytes<int32_t>(p.M);
  }
  SortedRows(const Problem& p, Scratch& memory, int64_t rows)
      : order(memory.take<int32_t>(rows + kAhead)),
        window(memory.take<int32_t>(rows)),
        x(memory.take<T>(rows)),
        s(p.s ? memory.take<T>(rows) : nullptr),
        p_(p),
        bucket_(memory.take<int32_t>(p.M)) {}

  // A stable counting sort by window.
  void build(const int32_t* windows_of_rows, const T* column, const T* scale, int64_t rows) {
    const int windows = p_.M - 1, first = -p_.K;
    memset(bucket_, 0, static_cast<size_t>(windows + 1) * sizeof(int32_t));
    int32_t* count = bucket_ + 1 - first;
    for (int64_t n = 0; n < rows; ++n) ++count[windows_of_rows[n]];
    for (int64_t g = 1; g < windows; ++g) bucket_[g] += bucket_[g - 1];
    int32_t* next = bucket_ - first;
    for (int64_t n = 0; n < rows; ++n) {
      const int32_t at = next[windows_of_rows[n]]++;
      order[at] = static_cast<int32_t>(n);
      window[at] = windows_of_rows[n];
      x[at] = column[n];
    }
    for (int64_t at = rows; at < rows + kAhead; ++at) order[at] = 0;
    for (int64_t at = 0; s && at < rows; ++at) s[at] = scale[order[at]];
  }

  int32_t *order, *window;
  T *x, *s;

 private:
  const Problem& p_;
  int32_t* bucket_;
};

}  // namespace
}  // namespace fastkan
