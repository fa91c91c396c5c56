// dT/du: y[n,o] = sum_i s[n,i] (base_weight[i,o] b^(d)(x) + sum_k w_k coef[i, start + k, o]) + bias[o]. A task is a
// block of rows by a block of outputs; the outputs of a row stay in registers during the loop over a block of inputs.
#pragma once

#include "edge_values.h"
#include "few_outputs.h"

namespace fastkan {
namespace {

// y += the sum over a block of inputs, accumulated separately, since rounding errors grow with the length of a sum. P
// rows at a time: enough independent sums to hide the latency of a multiply-add.
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

// Bytes of an input's coefficients above which rows are sorted: with few rows per window, and with many.
constexpr int64_t kSortBytes = 48 * 1024, kHoldBytes = 4 * 1024;
constexpr int64_t kManyRowsPerWindow = 6, kMinSortedRows = 512;  // rows per window; rows worth sorting
constexpr int64_t kSummedInputs = 64;
constexpr int64_t kRows = 128, kMinRows = 32;  // rows of a task without sorting

template <class T>
struct OutPlan {
  const Problem& p;
  int64_t inputs, rows, width, row_blocks, output_blocks;
  bool few_outputs, sorted, held;

  OutPlan(const Problem& problem, const Pool& pool) : p(problem) {
    width = min(p.O, kDirectWidth);
    inputs = block_inputs<T>(p, padded<T>(width));
    const int64_t size = p.F * padded<T>(width) * static_cast<int64_t>(sizeof(T)),
                  windows = p.F - windows_of(p).functions + 1;
    few_outputs = has_few_outputs<T>(p);
    sorted = (windows > 1 || p.family == Family::bspline) &&
             ((size > kSortBytes && p.N >= kMinSortedRows) ||
              (size > kHoldBytes && min(p.N, kSortedRows / 2) > kManyRowsPerWindow * windows));
    if (sorted) inputs = min(p.I, kMaxInputs);
    // Sorted: many rows per window, as long as y fits the L2 cache and all threads have work.
    const int64_t many = min(kSortedRows / 2, round_up(ceil_div(p.N, pool.threads), kVisitRows / 4));
    const int64_t few = max(kMinRows, min(kRows, round_up(ceil_div(p.N, pool.threads), kMinRows / 2)));
    rows = min(p.N, sorted ? many : few);
    held = rows > kManyRowsPerWindow * windows;
    row_blocks = ceil_div(p.N, rows);
    // Few rows: split the outputs over threads.
    while (row_blocks * ceil_div(p.O, width) < pool.threads && width > 4 * kLanes<T>)
      width = round_up(width / 2, kLanes<T>);
    output_blocks = ceil_div(p.O, width);
  }
  int64_t tasks() const { return row_blocks * output_blocks; }
};

// The block of rows and outputs of one task, and the memory in which it is accumulated.
template <class T>
struct OutBlock {
  const Problem& p;
  int64_t n0, o0, rows, outputs, width, stride, column;  // strides of rows and columns
  bool in_place;
  T* y = nullptr;

  OutBlock(const OutPlan<T>& plan, int64_t task)
      : p(plan.p),
        n0(task / plan.output_blocks * plan.rows),
        o0(task % plan.output_blocks * plan.width),
        rows(min(plan.rows, p.N - n0)),
        outputs(min(plan.width, p.O - o0)),
        width(padded<T>(outputs)),
        in_place(p.out_dtype == kDtype<T> && outputs == width && !plan.few_outputs) {
    stride = plan.few_outputs ? 1 : in_place ? p.O : width;
    column = plan.few_outputs ? round_up(rows, kLanes<T>) : 1;
  }
  int64_t size() const { return stride == 1 ? outputs * column : rows * width; }
  size_t bytes() const { return in_place ? 0 : Scratch::bytes<T>(size()); }
  void begin(Scratch& memory) {
    y = in_place ? static_cast<T*>(p.out) + n0 * p.O + o0 : memory.take<T>(size());
    if (!in_place) memset(y, 0, static_cast<size_t>(size()) * sizeof(T));
    for (int64_t n = 0; in_place && n < rows; ++n) memset(y + n * stride, 0, static_cast<size_t>(width) * sizeof(T));
    if (p.bias) load_block(y, stride, column, p.bias, o0 * p.bias.stride[0], 0, p.bias.stride[0], rows, outputs);
  }
  // Adds the sums [rows, width] of some inputs, and clears them.
  void add(T* part) const {
    for (int64_t n = 0; n < rows; ++n)
      for (int64_t o = 0; o < width; ++o) {
        y[n * stride + o] += part[n * width + o];
        part[n * width + o] = T(0);
      }
  }
  void end() const {
    if (!in_place) store_block(p.out, p.out_dtype, n0 * p.O + o0, p.O, y, stride, column, rows, outputs);
  }
};

template <class T>
void out_task(const OutPlan<T>& plan, int64_t task) {
  const Problem& p = plan.p;
  OutBlock<T> out(plan, task);
  const int64_t rows = out.rows, stride = round_up(rows, kLanes<T>);  // row stride of the features
  const int planes = feature_planes(p);
  WeightBlocks<T> blocks(p, out.outputs, kDirectWidth);
  Scratch& memory = scratch();
  memory.reserve(blocks.bytes(plan.inputs) + Column<T>::bytes(p, rows) + Tile<T>::bytes(p.x, plan.inputs, rows) +
                 Tile<T>::bytes(p.s, plan.inputs, rows) + Scratch::bytes<T>(plan.inputs * planes * stride) +
                 Scratch::bytes<int32_t>(plan.inputs * stride) + Scratch::bytes<int32_t>(rows) + out.bytes());
  blocks.take(memory, plan.inputs);
  Column<T> column(p, memory, rows);
  Tile<T> x(p.x, memory, plan.inputs, rows), s(p.s, memory, plan.inputs, rows);
  Features<T> f{planes, stride, memory.take<T>(plan.inputs * planes * stride)};
  int32_t *start = memory.take<int32_t>(plan.inputs * stride), *window = memory.take<int32_t>(rows);
  out.begin(memory);
  for (int64_t i0 = 0; i0 < p.I; i0 += plan.inputs) {
    const int64_t inputs = min(plan.inputs, p.I - i0);
    x.load(i0, inputs, out.n0, rows);
    s.load(i0, inputs, out.n0, rows);
    for (int64_t i = 0; i < inputs; ++i) {
      column.find_and_set_rows(i0 + i, x.column(i), s.column(i), rows, p.order, window, start + i * stride);
      column.weights(p.order, f.w + i * planes * stride, stride);
    }
    const Weights<T> w = blocks.get(i0, inputs, out.o0, out.outputs);
    by_window(p, [&](auto window, auto base, const WindowPart& part) {
      for (int64_t o = 0; plan.few_outputs && o < p.O; ++o)
        few_outputs_sum<T, window.value, base.value>(rows, inputs, f, start, w, p.F, o, out.y + o * out.column);
      if (plan.few_outputs) return;
      const Features<T> weights = f.from(part.plane);
      const Weights<T> of = w.part(part);
      chunks<kRegisters / 2>(out.width / kLanes<T>, 0, [&](auto vectors, int64_t at) {
        out_rows<T, vectors.value, window.value, base.value>(rows, inputs, weights, start, of, at * kLanes<T>, out.y,
                                                             out.stride);
      });
    });
  }
  out.end();
}

template <class T>
void out_sorted_task(const OutPlan<T>& plan, int64_t task) {
  const Problem& p = plan.p;
  OutBlock<T> out(plan, task);
  const int64_t rows = out.rows;
  const bool apart = p.I > kSummedInputs;  // rounding errors grow with the length of a sum
  const int planes = feature_planes(p);
  WeightBlocks<T> blocks(p, out.outputs, kDirectWidth);
  Scratch& memory = scratch();
  memory.reserve(blocks.bytes(1) + Column<T>::bytes(p, kVisitRows) + Tile<T>::bytes(p.x, plan.inputs, rows) +
                 Tile<T>::bytes(p.s, plan.inputs, rows) + SortedRows<T>::bytes(p, rows) +
                 Scratch::bytes<T>(planes * kVisitRows) + Scratch::bytes<int32_t>(rows) +
                 Scratch::bytes<int32_t>(kVisitRows) + out.bytes() + (apart ? Scratch::bytes<T>(rows * out.width) : 0));
  blocks.take(memory, 1);
  Column<T> column(p, memory, kVisitRows);
  Tile<T> x(p.x, memory, plan.inputs, rows), s(p.s, memory, plan.inputs, rows);
  SortedRows<T> sorted(p, memory, rows);
  T* features = memory.take<T>(planes * kVisitRows);
  int32_t *window = memory.take<int32_t>(rows), *start = memory.take<int32_t>(kVisitRows);
  out.begin(memory);
  T* y = apart ? memory.take<T>(rows * out.width) : out.y;
  const int64_t y_stride = apart ? out.width : out.stride;
  if (apart) memset(y, 0, static_cast<size_t>(rows * out.width) * sizeof(T));
  for (int64_t i = 0; i < p.I; ++i) {
    const int64_t of_tile = i % plan.inputs;
    if (of_tile == 0) {
      x.load(i, min(plan.inputs, p.I - i), out.n0, rows);
      s.load(i, min(plan.inputs, p.I - i), out.n0, rows);
    }
    column.find_windows(i, x.column(of_tile), rows, p.order, window);
    sorted.build(window, x.column(of_tile), s.column(of_tile), rows);
    const Weights<T> w = blocks.get(i, 1, out.o0, out.outputs);
    for (int64_t at = 0; at < rows; at += kVisitRows) {
      const int64_t visited = min(kVisitRows, rows - at);
      column.set_rows(sorted.x + at, p.s ? sorted.s + at : nullptr, sorted.window + at, visited, start);
      column.weights(p.order, features, kVisitRows);
      const auto visit = [&](auto window, auto base, const WindowPart& part, auto held) {
        const T* weights = features + part.plane * kVisitRows;
        const Weights<T> of = w.part(part);
        chunks<window_vectors(window.value)>(out.width / kLanes<T>, 0, [&](auto vectors, int64_t chunk) {
          const int64_t o = chunk * kLanes<T>;
          add_window_values<T, vectors.value, window.value, base.value, held.value>(
              visited, sorted.order + at, start, weights, of.coef + o, of.coef_row, of.base + o, y + o, y_stride);
        });
      };
      by_window(p, [&](auto window, auto base, const WindowPart& part) {
        plan.held ? visit(window, base, part, Constant<1>{}) : visit(window, base, part, Constant<0>{});
      });
    }
    if (apart && ((i + 1) % kSummedInputs == 0 || i + 1 == p.I)) out.add(y);
  }
  out.end();
}

template <class T>
void kan_out(const Problem& p, const Pool& pool) {
  const OutPlan<T> plan(p, pool);
  pool.run(
      plan.tasks(),
      [](int64_t task, const void* c) {
        const OutPlan<T>& plan = *static_cast<const OutPlan<T>*>(c);
        plan.sorted ? out_sorted_task(plan, task) : out_task(plan, task);
      },
      &plan);
}

}  // namespace
}  // namespace fastkan
