// The rows of one input in the order of the windows they fall into: chained where a window has many rows, sorted where
// few.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastkan {
namespace {

// head[g] is the first row of the window that starts at g, next[n] the one after n, -1 the end. Windows are visited one
// by one and keep their coefficients in registers.
struct Chains {
  int32_t *head, *next;
  void build(const int32_t* start, int64_t rows, int64_t windows) {
    for (int64_t g = 0; g < windows; ++g) head[g] = -1;
    for (int64_t n = rows - 1; n >= 0; --n) {
      next[n] = head[start[n]];
      head[start[n]] = static_cast<int32_t>(n);
    }
  }
};

// order[0..rows-1]: rows by the start of their window. Visited one by one, with no branch to be mispredicted at every
// window's end; neighbours in this order share most of their coefficients, which so come from the first-level cache.
struct Sorted {
  int32_t *order, *place;  // [rows], [windows + 1]
  void build(const int32_t* start, int64_t rows, int64_t windows) {
    memset(place, 0, static_cast<size_t>(windows + 1) * sizeof(int32_t));
    for (int64_t n = 0; n < rows; ++n) ++place[start[n] + 1];
    for (int64_t g = 1; g < windows; ++g) place[g] += place[g - 1];
    for (int64_t n = 0; n < rows; ++n) order[place[start[n]]++] = static_cast<int32_t>(n);
  }
};

// Rows per window below which they are sorted.
constexpr int64_t kSparse = 2;

}  // namespace
}  // namespace fastkan
