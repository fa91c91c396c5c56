// The values sum_k w_k coef[start + k, o] of the edges of one input, for rows in any order.
#pragma once

#include "block.h"
#include "order.h"

namespace fastkan {
namespace {

// Adds the contribution of one window to the values of some rows of one input; rows are sorted if coefficients would
// not stay in a cache between rows. HELD keeps the coefficients of a window in registers, which pays if windows
// rarely change.
template <class T, int NV, int R, bool BASE, bool HELD>
__attribute__((noinline)) void add_window_values(int64_t rows, const int32_t* order, const int32_t* start, const T* w,
                                                 const T* coef, int64_t row, const T* base, T* y, int64_t y_stride) {
  constexpr int W = kLanes<T>;
  Vec<T> b[NV], held[R][NV];
#pragma GCC unroll 16
  for (int v = 0; v < NV; ++v) b[v] = BASE ? load(base + v * W) : Vec<T>{};
  for (int64_t at = 0, g = -1; at < rows; ++at, ++w) {
    const T* c = coef + start[at] * row;
    if (!HELD || start[at] != g) {
      g = start[at];
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) {
        __builtin_prefetch(c + (R + kCoefAhead) * row + v * W);
#pragma GCC unroll 8
        for (int k = 0; HELD && k < R; ++k) held[k][v] = load(c + k * row + v * W);
      }
    }
    T *to = y + order[at] * y_stride, *ahead = y + order[at + kAhead] * y_stride;
    Vec<T> sum[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) {
      sum[v] = BASE ? splat(w[R * kVisitRows]) * b[v] : Vec<T>{};
      __builtin_prefetch(ahead + v * W, 1);
    }
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k) {
      const Vec<T> a = splat(w[k * kVisitRows]);
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) sum[v] += a * (HELD ? held[k][v] : load(c + k * row + v * W));
    }
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) store(to + v * W, load(to + v * W) + sum[v]);
  }
}

// The identity order, for unsorted rows.
inline void identity_order(int32_t* order) {
  for (int32_t n = 0; n < kVisitRows + kAhead; ++n) order[n] = n < kVisitRows ? n : 0;
}

// The values of all windows, [rows, width], for rows in the given order; features as written by Column::weights for
// that side.
template <class T>
void edge_values(const Problem& p, int64_t rows, const int32_t* order, const int32_t* start, const T* features,
                 int side, int sides, const Weights<T>& w, int64_t width, T* values) {
  memset(values, 0, static_cast<size_t>(rows * width) * sizeof(T));
  by_window(p, [&](auto window, auto base, const WindowPart& part) {
    const Weights<T> of = w.part(part);
    const T* from = features + (part.plane * sides + side * (window.value + base.value)) * kVisitRows;
    chunks<window_vectors(window.value)>(width / kLanes<T>, 0, [&](auto vectors, int64_t chunk) {
      const int64_t o = chunk * kLanes<T>;
      add_window_values<T, vectors.value, window.value, base.value, true>(rows, order, start, from, of.coef + o,
                                                                          of.coef_row, of.base + o, values + o, width);
    });
  });
}

}  // namespace
}  // namespace fastkan
