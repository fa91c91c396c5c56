// Kernels for few outputs and few functions: lanes are rows. The coefficients of one edge are one vector, in which
// every row looks up its own by a permutation.
#pragma once

#include "block.h"

namespace fastkan {
namespace {

constexpr int64_t kMaxFewOutputs = 8;

// A lane for each function of an input and for its base function.
template <class T>
inline bool has_few_outputs(const Problem& p) {
  return p.O <= kMaxFewOutputs && p.F < kLanes<T> && p.family == Family::bspline;
}

template <class T>
inline Vec<T> load_table(const T* coef, int64_t row, int functions) {
  Vec<T> table = Vec<T>{};
  for (int f = 0; f < functions; ++f) table[f] = coef[f * row];
  return table;
}

// sum_k w_k coef[start + k] + w_R base, for kLanes rows.
template <class T, int R, bool BASE>
inline Vec<T> few_outputs_value(const T* w, int64_t plane, Index<T> index, Vec<T> table, T base) {
  Vec<T> sum = BASE ? splat(base) * load(w + R * plane) : Vec<T>{};
#pragma GCC unroll 8
  for (int k = 0; k < R; ++k) sum += load(w + k * plane) * lookup<T>(table, index + k);
  return sum;
}

// y += sum over a block of inputs, for output o.
template <class T, int R, bool BASE>
__attribute__((noinline)) void few_outputs_sum(int64_t rows, int64_t inputs, const Features<T>& f, const int32_t* start,
                                               const Weights<T>& weights, int functions, int64_t o, T* y) {
  Vec<T> table[kMaxInputs];
  for (int64_t i = 0; i < inputs; ++i) table[i] = load_table(weights.rows(i) + o, weights.coef_row, functions);
  for (int64_t n = 0; n < rows; n += kLanes<T>) {
    Vec<T> sum = Vec<T>{};
    for (int64_t i = 0; i < inputs; ++i)
      sum += few_outputs_value<T, R, BASE>(f.of(i, 0) + n, f.rows_padded, load_index<T>(start + i * f.rows_padded + n),
                                           table[i], BASE ? weights.base[i * weights.base_input + o] : T(0));
    store(y + n, load(y + n) + sum);
  }
}

// grad_x[n] (+)= u[n] sum_k w'_k coef[start + k], for one output.
template <class T, int R, bool BASE>
__attribute__((noinline)) void few_outputs_grad_x(int64_t rows, const T* slope, int64_t plane, const int32_t* start,
                                                  Vec<T> table, T base, const T* u, bool first, T* grad_x) {
  for (int64_t n = 0; n < rows; n += kLanes<T>) {
    const Vec<T> before = first ? Vec<T>{} : load(grad_x + n);
    store(grad_x + n, before + load(u + n) * few_outputs_value<T, R, BASE>(slope + n, plane, load_index<T>(start + n),
                                                                           table, base));
  }
}

// The gradients of an edge's coefficients in the first lanes, followed by that of its base weight. Loops over windows
// and masks rows of other windows; `start` is negative for padding rows.
template <class T, int R, bool BASE>
__attribute__((noinline)) Vec<T> few_outputs_grad_coef(int64_t rows, const T* w, int64_t plane, const int32_t* start,
                                                       int functions, const T* u) {
  constexpr int W = kLanes<T>;
  Vec<T> sums[W];
  for (Vec<T>& sum : sums) sum = Vec<T>{};
  for (int g = 0; g + R <= functions; ++g) {
    Vec<T> sum[R];
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k) sum[k] = sums[g + k];
    for (int64_t n = 0; n < rows; n += W) {
      const Index<T> here = load_index<T>(start + n) == g;
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k) sum[k] = here ? sum[k] + load(w + k * plane + n) * load(u + n) : sum[k];
    }
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k) sums[g + k] = sum[k];
  }
  for (int64_t n = 0; BASE && n < rows; n += W) {
    const Vec<T> sum = sums[functions];
    sums[functions] = load_index<T>(start + n) >= 0 ? sum + load(w + R * plane + n) * load(u + n) : sum;
  }
  sum_step<T, W>(sums);
  return sums[0];
}

}  // namespace
}  // namespace fastkan
