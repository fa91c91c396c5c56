// dT/ds at order x_order (the gradient of the input, times s) and dT/dcoef at order, in one launch:
//   grad_x[n,i]            = s[n,i] sum_k w'_k sum_o u[n,o] coef[i, start + k, o]
//   grad_coef[i,start+k,o] = sum_n w_k u[n,o]
// A task owns a block of inputs, so nothing is shared. Rows of an input are chained by the window they fall into: a window's
// gradients stay in registers while its rows go by.
#pragma once

#include "block.h"

namespace fastkan {
namespace {

template <class T, int NV, int R, bool BASE>
__attribute__((noinline)) void in_rows(int64_t rows, int64_t inputs, const Features<T>& f, const int32_t* start,
                                       const Weights<T>& w, int64_t o0, const T* u, int64_t u_stride, T* grad_x) {
  constexpr int W = kLanes<T>;
  const int64_t padded_rows = f.rows_padded, input_planes = f.planes * padded_rows;
  Vec<T> waiting[W];  // for their lanes to be summed
  int count = 0;
  T* to = grad_x;
  for (int64_t n = 0; n < rows; ++n) {
    Vec<T> un[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) un[v] = load(u + n * u_stride + o0 + v * W);
    const T* weight = f.w + n;
    const int32_t* begin = start + n;
    const T* rows_of = w.coef + o0;
    const T* base = w.base + o0;
    for (int64_t i = 0; i < inputs; ++i) {
      const T* row = rows_of + *begin * w.coef_row;
      Vec<T> dot[R + BASE];
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k) dot[k] = un[0] * load(row + k * w.coef_row);
      if constexpr (BASE) dot[R] = un[0] * load(base);
#pragma GCC unroll 16
      for (int v = 1; v < NV; ++v) {
#pragma GCC unroll 8
        for (int k = 0; k < R; ++k) dot[k] += un[v] * load(row + k * w.coef_row + v * W);
        if constexpr (BASE) dot[R] += un[v] * load(base + v * W);
      }
      Vec<T> sum = splat(weight[0]) * dot[0];
#pragma GCC unroll 8
      for (int k = 1; k < R + BASE; ++k) sum += splat(weight[k * padded_rows]) * dot[k];
      waiting[count] = sum;
      if (++count == W) {
        sum_step<T, W>(waiting);
        store(to, load(to) + waiting[0]);
        to += W;
        count = 0;
      }
      weight += input_planes;
      begin += padded_rows;
      rows_of += w.coef_input;
      base += w.base_input;
    }
  }
  if (count) {
    for (int l = count; l < W; ++l) waiting[l] = Vec<T>{};
    sum_step<T, W>(waiting);
    for (int l = 0; l < count; ++l) to[l] += waiting[0][l];
  }
}

// Rows of one input, chained by the start of their window: head[g] is the first row, next[n] the one after n, -1 the end.
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

template <class T, int NV, int R, bool BASE>
__attribute__((noinline)) void coef_windows(int64_t windows, const Chains& chains, const T* weight, int64_t plane,
                                            const T* u, int64_t u_stride, T* grad_coef, int64_t row, T* grad_base) {
  constexpr int W = kLanes<T>;
  Vec<T> base[NV];
  for (int v = 0; v < NV; ++v) base[v] = Vec<T>{};
  for (int64_t g = 0; g < windows; ++g, grad_coef += row) {
    int32_t n = chains.head[g];
    if (n < 0) continue;
    Vec<T> sum[R][NV];
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k)
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) sum[k][v] = Vec<T>{};
    do {
      Vec<T> un[NV];
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) un[v] = load(u + n * u_stride + v * W);
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k) {
        const Vec<T> a = splat(weight[k * plane + n]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sum[k][v] += a * un[v];
      }
      if constexpr (BASE) {
        const Vec<T> a = splat(weight[R * plane + n]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) base[v] += a * un[v];
      }
      n = chains.next[n];
    } while (n >= 0);
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k)
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) {
        T* to = grad_coef + k * row + v * W;
        store(to, load(to) + sum[k][v]);
      }
  }
  if constexpr (BASE)
    for (int v = 0; v < NV; ++v) store(grad_base + v * W, load(grad_base + v * W) + base[v]);
}

// The widest power of two of vectors for which all sums of a window stay in registers.
constexpr int window_vectors(int sums) {
  int nv = 1;
  while ((sums + 1) * nv * 2 <= kRegisters - 2) nv *= 2;
  return nv;
}

template <class T>
struct BackwardPlan {
  const Problem& p;
  int64_t inputs, rows, input_blocks, splits, split_rows, width;
  bool in_place;
  T* partial = nullptr;  // [splits, I, F + 1, width] where a block of inputs is split over the rows

  explicit BackwardPlan(const Problem& problem) : p(problem) {
    width = padded<T>(p.O);
    inputs = block_inputs<T>(p, least(width, kDirectWidth));
    input_blocks = ceil_div(p.I, inputs);
    rows = least(p.N, most(32, least(p.F > 128 ? 1024 : 256, (1 << 20) / (width * static_cast<int64_t>(sizeof(T))))));
    // Few inputs: split the rows too, each part with gradients of its own that are added up in order.
    const int64_t worth = most(4 * p.F, 1024);
    splits = p.grad_coef ? most(1, least(16 / input_blocks, p.N / worth)) : most(1, least(16 / input_blocks, p.N / rows));
    split_rows = round_up(ceil_div(p.N, splits), rows);
    splits = ceil_div(p.N, split_rows);
    in_place = p.grad_coef_dtype == kDtype<T> && p.O == width && splits == 1;
  }
  int64_t tasks() const { return input_blocks * splits; }
  int64_t input_size() const { return (p.F + 1) * width; }
};

template <class T>
void backward_task(const BackwardPlan<T>& plan, int64_t task) {
  const Problem& p = plan.p;
  const int64_t i0 = task / plan.splits * plan.inputs, split = task % plan.splits;
  const int64_t inputs = least(plan.inputs, p.I - i0), rows_most = plan.rows;
  const int64_t begin = split * plan.split_rows, end = least(p.N, begin + plan.split_rows);
  const int planes = p.K + 1 + p.with_base;
  const int64_t windows = p.F - p.K, plane_size = inputs * planes * rows_most, chunk = least(p.O, kDirectWidth);
  const bool own = p.grad_coef && !plan.in_place && !plan.partial;

  WeightBlocks<T> blocks(p, chunk);
  RowBlocks<T> u_rows(p.u, p.O);
  Scratch& memory = scratch();
  memory.reserve((p.grad_x ? blocks.bytes(inputs) + Scratch::bytes<T>(rows_most * inputs + kLanes<T>) : 0) +
                 u_rows.bytes(rows_most) + Column<T>::bytes(p, rows_most) + 2 * Scratch::bytes<T>(plane_size) +
                 Scratch::bytes<int32_t>(inputs * rows_most) + Scratch::bytes<int32_t>(windows) +
                 Scratch::bytes<int32_t>(rows_most) + (own ? Scratch::bytes<T>(inputs * plan.input_size()) : 0));
  T* grad_x = nullptr;
  if (p.grad_x) {
    blocks.take(memory, inputs);
    grad_x = memory.take<T>(rows_most * inputs + kLanes<T>);
  }
  u_rows.take(memory, rows_most);
  Column<T> column(p, memory, rows_most);
  Features<T> slopes{planes, rows_most, memory.take<T>(plane_size)};
  Features<T> values{planes, rows_most, memory.take<T>(plane_size)};
  int32_t* start = memory.take<int32_t>(inputs * rows_most);
  Chains chains;
  chains.head = memory.take<int32_t>(windows);
  chains.next = memory.take<int32_t>(rows_most);

  // Where the coefficient gradients add up: in the result, in this split's part, or in scratch. [inputs, F, width]
  T *grad_coef = nullptr, *grad_base = nullptr;
  int64_t coef_input = p.F * plan.width, base_input = plan.width;
  if (plan.in_place && p.grad_coef) {
    grad_coef = static_cast<T*>(p.grad_coef) + i0 * coef_input;
    grad_base = static_cast<T*>(p.grad_base) + i0 * base_input;
  } else if (p.grad_coef) {
    coef_input = base_input = plan.input_size();
    grad_coef = own ? memory.take<T>(inputs * plan.input_size()) : plan.partial + (split * p.I + i0) * plan.input_size();
    grad_base = grad_coef + p.F * plan.width;
    memset(grad_coef, 0, static_cast<size_t>(inputs * plan.input_size()) * sizeof(T));
  }

  for (int64_t n0 = begin; n0 < end; n0 += rows_most) {
    const int64_t rows = least(rows_most, end - n0);
    const T* u = u_rows.get(n0, rows);
    for (int64_t i = 0; i < inputs; ++i) {
      const int top = p.grad_x && p.grad_coef ? static_cast<int>(most(p.order, p.x_order)) : p.grad_x ? p.x_order : p.order;
      column.locate(i0 + i, n0, rows, top, start + i * rows_most);
      if (p.grad_x) column.weights(p.x_order, p.grad_coef != nullptr, slopes.w + i * planes * rows_most, rows_most);
      if (p.grad_coef) column.weights(p.order, true, values.w + i * planes * rows_most, rows_most);
    }
    if (p.grad_x) {
      memset(grad_x, 0, static_cast<size_t>(rows * inputs + kLanes<T>) * sizeof(T));
      for (int64_t o0 = 0; o0 < p.O; o0 += chunk) {
        const int64_t outputs = least(chunk, p.O - o0);
        const Weights<T> w = blocks.get(i0, inputs, o0, outputs);
        by_window(p, [&](auto window, auto base) {
          chunks<kRegisters / 2>(padded<T>(outputs) / kLanes<T>, 0, [&](auto vectors, int64_t at) {
            in_rows<T, vectors.value, window.value, base.value>(rows, inputs, slopes, start, w, at * kLanes<T>, u + o0,
                                                                u_rows.stride(), grad_x);
          });
        });
      }
      for (int64_t n = 0; n < rows; ++n)
        store_row(p.grad_x, p.grad_x_dtype, (n0 + n) * p.I + i0, grad_x + n * inputs, inputs);
    }
    if (!p.grad_coef) continue;
    for (int64_t i = 0; i < inputs; ++i) {
      chains.build(start + i * rows_most, rows, windows);
      by_window(p, [&](auto window, auto base) {
        constexpr int NV = window_vectors(window.value + base.value);
        chunks<NV>(plan.width / kLanes<T>, 0, [&](auto vectors, int64_t at) {
          const int64_t o0 = at * kLanes<T>;
          coef_windows<T, vectors.value, window.value, base.value>(
              windows, chains, values.of(i, 0), rows_most, u + o0, u_rows.stride(), grad_coef + i * coef_input + o0,
              plan.width, grad_base + i * base_input + o0);
        });
      });
    }
  }
  if (!own) return;
  for (int64_t i = 0; i < inputs; ++i) {
    for (int64_t f = 0; f < p.F; ++f)
      store_row(p.grad_coef, p.grad_coef_dtype, ((i0 + i) * p.F + f) * p.O, grad_coef + i * coef_input + f * plan.width, p.O);
    if (p.with_base) store_row(p.grad_base, p.grad_coef_dtype, (i0 + i) * p.O, grad_base + i * base_input, p.O);
  }
}

// Adds up the parts of one input, in the order of the rows.
template <class T>
void add_splits(const BackwardPlan<T>& plan, int64_t i) {
  const Problem& p = plan.p;
  T* first = plan.partial + i * plan.input_size();
  for (int64_t split = 1; split < plan.splits; ++split) {
    const T* part = plan.partial + (split * p.I + i) * plan.input_size();
    for (int64_t k = 0; k < plan.input_size(); ++k) first[k] += part[k];
  }
  for (int64_t f = 0; f < p.F; ++f)
    store_row(p.grad_coef, p.grad_coef_dtype, (i * p.F + f) * p.O, first + f * plan.width, p.O);
  if (p.with_base) store_row(p.grad_base, p.grad_coef_dtype, i * p.O, first + p.F * plan.width, p.O);
}

template <class T>
void kan_backward(const Problem& p, const Pool& pool) {
  BackwardPlan<T> plan(p);
  const bool split = p.grad_coef && plan.splits > 1;
  if (split) {
    const size_t size = static_cast<size_t>(plan.splits * p.I * plan.input_size()) * sizeof(T);
    plan.partial = static_cast<T*>(aligned_alloc(64, static_cast<size_t>(round_up(static_cast<int64_t>(size), 64))));
    if (!plan.partial) throw std::bad_alloc();
  }
  pool.run(plan.tasks(), [](int64_t t, const void* c) { backward_task(*static_cast<const BackwardPlan<T>*>(c), t); }, &plan);
  if (split) {
    pool.run(p.I, [](int64_t i, const void* c) { add_splits(*static_cast<const BackwardPlan<T>*>(c), i); }, &plan);
    free(plan.partial);
  }
}

}  // namespace
}  // namespace fastkan
