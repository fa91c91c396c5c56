// The rows of one input sorted by knot span.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace fastkan {
namespace {

// Maximum number of rows sorted together, and sorted rows processed at a time: their features fit the L1 cache.
constexpr int64_t kSortedRows = 4096, kVisitRows = 256;
// Prefetch distances: sorted rows, and rows of coefficients. The latter is long, since hardware prefetching stops at
// page boundaries.
constexpr int64_t kAhead = 8, kCoefAhead = 32;
constexpr int kPasses = FASTKAN_VECTOR_BYTES == 64 ? 16 : 0;

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

  // A stable sort by window.
  void build(const int32_t* windows_of_rows, const T* column, const T* scale, int64_t rows) {
    if (p_.M - 1 <= kPasses)
      select(windows_of_rows, column, rows);
    else
      count(windows_of_rows, column, rows);
    for (int64_t at = rows; at < rows + kAhead; ++at) order[at] = 0;
    for (int64_t at = 0; s && at < rows; ++at) s[at] = scale[order[at]];
  }

  int32_t *order, *window;
  T *x, *s;

 private:
  // For few windows: a pass over the rows for each of them, which stores those that it selects.
  void select([[maybe_unused]] const int32_t* windows_of_rows, [[maybe_unused]] const T* column,
              [[maybe_unused]] int64_t rows) {
#ifdef __AVX512F__
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int64_t at = 0;
    for (int32_t g = -p_.K; g < p_.M - 1 - p_.K; ++g) {
      const __m512i wanted = _mm512_set1_epi32(g);
      for (int64_t n = 0; n < rows; n += 16) {
        const auto exists = static_cast<__mmask16>(rows - n < 16 ? (1 << (rows - n)) - 1 : 0xffff);
        const __m512i found = _mm512_maskz_loadu_epi32(exists, windows_of_rows + n);
        const __mmask16 here = _mm512_mask_cmpeq_epi32_mask(exists, found, wanted);
        const int count = __builtin_popcount(here);
        const auto stored = static_cast<__mmask16>((1 << count) - 1);
        const __m512i row = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(n)), lanes);
        _mm512_mask_storeu_epi32(order + at, stored, _mm512_maskz_compress_epi32(here, row));
        _mm512_mask_storeu_epi32(window + at, stored, wanted);
        if constexpr (sizeof(T) == 4)
          _mm512_mask_storeu_ps(x + at, stored,
                                _mm512_maskz_compress_ps(here, _mm512_maskz_loadu_ps(exists, column + n)));
        at += count;
      }
    }
    for (int64_t k = 0; sizeof(T) == 8 && k < rows; ++k) x[k] = column[order[k]];
#endif
  }

  void count(const int32_t* windows_of_rows, const T* column, int64_t rows) {
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
  }

  const Problem& p_;
  int32_t* bucket_;
};

}  // namespace
}  // namespace fastkan
