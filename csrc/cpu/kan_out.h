// dT/du: y[n,o] = sum_i s[n,i] (base_weight[i,o] b^(d)(x) + sum_k w_k coef[i, start + k, o]) + bias[o].
// A task is a block of rows by a block of outputs; a row's outputs stay in registers while a block of inputs goes by.
#pragma once

#include "block.h"
#include "order.h"

namespace fastkan {
namespace {

// y += the sum over a block of inputs, which is taken on its own: rounding errors grow with the length of a sum. P rows
// at a time, so that enough sums are under way to hide the latency of a multiply-add.
template <class T, int NV, int R, bool BASE, int P>
__attribute__((always_inline)) inline void out_row_group(int64_t n, int64_t inputs, const Features<T>& f,
                                                         const int32_t* start, const Weights<T>& w, int64_t o0, T* y,
                                                         int64_t y_stride) {
  constexpr int W = kLanes<T>;
  const int64_t padded_rows = f.rows_padded, input_planes = f.planes * padded_rows, coef_row = w.coef_row;
  T* to = y + n * y_stride + o0;
  Vec<T> sum[P][NV];
#pragma GCC unroll 8
  for (int q = 0; q < P; ++q)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) sum[q][v] = Vec<T>{};
  const T* weight = f.w + n;
  const int32_t* begin = start + n;
  const T* rows_of = w.coef + o0;
  const T* base = w.base + o0;
  for (int64_t i = 0; i < inputs; ++i) {
    const T* row[P];
#pragma GCC unroll 8
    for (int q = 0; q < P; ++q) row[q] = rows_of + begin[q] * coef_row;
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k) {
#pragma GCC unroll 8
      for (int q = 0; q < P; ++q) {
        const Vec<T> a = splat(weight[k * padded_rows + q]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sum[q][v] += a * load(row[q] + v * W);
        row[q] += coef_row;
      }
    }
    if constexpr (BASE) {
#pragma GCC unroll 8
      for (int q = 0; q < P; ++q) {
        const Vec<T> a = splat(weight[R * padded_rows + q]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sum[q][v] += a * load(base + v * W);
      }
      base += w.base_input;
    }
    weight += input_planes;
    begin += padded_rows;
    rows_of += w.coef_input;
  }
#pragma GCC unroll 8
  for (int q = 0; q < P; ++q)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) store(to + q * y_stride + v * W, load(to + q * y_stride + v * W) + sum[q][v]);
}

template <class T, int NV, int R, bool BASE>
__attribute__((noinline)) void out_rows(int64_t rows, int64_t inputs, const Features<T>& f, const int32_t* start,
                                        const Weights<T>& w, int64_t o0, T* y, int64_t y_stride) {
  constexpr int P = NV >= 8 ? 1 : NV >= 4 ? 2 : 4;
  int64_t n = 0;
  for (; n + P <= rows; n += P) out_row_group<T, NV, R, BASE, P>(n, inputs, f, start, w, o0, y, y_stride);
  for (; n < rows; ++n) out_row_group<T, NV, R, BASE, 1>(n, inputs, f, start, w, o0, y, y_stride);
}

// One input, its rows in sorted order: for grids whose coefficients do not stay in a cache between rows.
template <class T, int NV, int R, bool BASE>
__attribute__((noinline)) void out_sorted(int64_t rows, const int32_t* order, const int32_t* start, const T* weight,
                                          int64_t plane, const T* coef, int64_t row, const T* base, T* y,
                                          int64_t y_stride) {
  constexpr int W = kLanes<T>;
  for (int64_t at = 0; at < rows; ++at) {
    const int64_t n = order[at];
    const T* c = coef + start[n] * row;
    T* to = y + n * y_stride;
    Vec<T> sum[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) sum[v] = Vec<T>{};
#pragma GCC unroll 8
    for (int k = 0; k < R + BASE; ++k) {
      const Vec<T> a = splat(weight[k * plane + n]);
      const T* from = k < R ? c + k * row : base;
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) sum[v] += a * load(from + v * W);
    }
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) store(to + v * W, load(to + v * W) + sum[v]);
  }
}

// Bytes of an input's coefficients above which its rows are sorted.
constexpr int64_t kSortedFrom = 128 * 1024;

template <class T>
struct OutPlan {
  const Problem& p;
  int64_t inputs, rows, width, row_blocks, output_blocks;
  bool sorted;

  OutPlan(const Problem& problem, const Pool& pool) : p(problem) {
    width = least(p.O, kDirectWidth);
    inputs = block_inputs<T>(p, padded<T>(width));
    sorted = p.F * padded<T>(width) * static_cast<int64_t>(sizeof(T)) > kSortedFrom;
    rows = least(p.N, sorted ? 1024 : 128);
    row_blocks = ceil_div(p.N, rows);
    // Few rows: let threads share the outputs.
    while (row_blocks * ceil_div(p.O, width) < pool.threads && width > 4 * kLanes<T>)
      width = round_up(width / 2, kLanes<T>);
    output_blocks = ceil_div(p.O, width);
  }
  int64_t tasks() const { return row_blocks * output_blocks; }
};

template <class T>
void out_task(const OutPlan<T>& plan, int64_t task) {
  const Problem& p = plan.p;
  const int64_t n0 = task / plan.output_blocks * plan.rows, o0 = task % plan.output_blocks * plan.width;
  const int64_t rows = least(plan.rows, p.N - n0), outputs = least(plan.width, p.O - o0), width = padded<T>(outputs);
  const int planes = p.K + 1 + p.with_base;
  const bool in_place = p.out_dtype == kDtype<T> && outputs == width;

  WeightBlocks<T> blocks(p, outputs, kDirectWidth);
  Scratch& memory = scratch();
  memory.reserve(blocks.bytes(plan.inputs) + Column<T>::bytes(p, rows) + Tile<T>::bytes(p.x, plan.inputs, rows) +
                 Tile<T>::bytes(p.s, plan.inputs, rows) + Scratch::bytes<T>(plan.inputs * planes * rows) +
                 Scratch::bytes<int32_t>(plan.inputs * rows) + Scratch::bytes<T>(in_place ? 0 : rows * width) +
                 (plan.sorted ? Scratch::bytes<int32_t>(rows) + Scratch::bytes<int32_t>(p.F - p.K + 1) : 0));
  blocks.take(memory, plan.inputs);
  Column<T> column(p, memory, rows);
  Tile<T> x(p.x, memory, plan.inputs, rows), s(p.s, memory, plan.inputs, rows);
  Features<T> f{planes, rows, memory.take<T>(plan.inputs * planes * rows)};
  int32_t* start = memory.take<int32_t>(plan.inputs * rows);
  T* y = in_place ? static_cast<T*>(p.out) + n0 * p.O + o0 : memory.take<T>(rows * width);
  const int64_t y_stride = in_place ? p.O : width;

  for (int64_t n = 0; n < rows; ++n) memset(y + n * y_stride, 0, static_cast<size_t>(width) * sizeof(T));
  if (p.bias) load_block(y, y_stride, 1, p.bias, o0 * p.bias.stride[0], 0, p.bias.stride[0], rows, outputs);
  Sorted sorted{};
  if (plan.sorted) sorted = {memory.take<int32_t>(rows), memory.take<int32_t>(p.F - p.K + 1)};
  for (int64_t i0 = 0; i0 < p.I; i0 += plan.inputs) {
    const int64_t inputs = least(plan.inputs, p.I - i0);
    x.load(i0, inputs, n0, rows);
    s.load(i0, inputs, n0, rows);
    for (int64_t i = 0; i < inputs; ++i) {
      column.locate(i0 + i, x.column(i), s.column(i), rows, p.order, start + i * rows);
      column.weights(p.order, f.w + i * planes * rows, rows);
    }
    const Weights<T> w = blocks.get(i0, inputs, o0, outputs);
    for (int64_t i = 0; plan.sorted && i < inputs; ++i) {
      sorted.build(start + i * rows, rows, p.F - p.K);
      by_window(p, [&](auto window, auto base) {
        chunks<kRegisters / 8>(width / kLanes<T>, 0, [&](auto vectors, int64_t at) {
          const int64_t o = at * kLanes<T>;
          out_sorted<T, vectors.value, window.value, base.value>(rows, sorted.order, start + i * rows, f.of(i, 0), rows,
                                                                 w.rows(i) + o, w.coef_row,
                                                                 w.base + i * w.base_input + o, y + o, y_stride);
        });
      });
    }
    if (plan.sorted) continue;
    by_window(p, [&](auto window, auto base) {
      chunks<kRegisters / 2>(width / kLanes<T>, 0, [&](auto vectors, int64_t at) {
        out_rows<T, vectors.value, window.value, base.value>(rows, inputs, f, start, w, at * kLanes<T>, y, y_stride);
      });
    });
  }
  if (!in_place) store_block(p.out, p.out_dtype, n0 * p.O + o0, p.O, y, width, 1, rows, outputs);
}

template <class T>
void kan_out(const Problem& p, const Pool& pool) {
  const OutPlan<T> plan(p, pool);
  pool.run(
      plan.tasks(), [](int64_t task, const void* c) { out_task(*static_cast<const OutPlan<T>*>(c), task); }, &plan);
}

}  // namespace
}  // namespace fastkan
