// dT/ds at order x_order (the gradient of the input, times s) and dT/dcoef at order, in one launch:
//   grad_x[n,i]            = s[n,i] sum_o u[n,o] sum_k w'_k coef[i, start + k, o]
//   grad_coef[i,start+k,o] = sum_n w_k u[n,o]
// A task owns a block of inputs, so nothing is shared. Rows of an input are chained by the window they fall into: a
// window's coefficients, and then its gradients, stay in registers while its rows go by.
#pragma once

#include "block.h"
#include "order.h"

namespace fastkan {
namespace {

// dots[n] += u[n] * (sum_k w'_k coef[start + k]), lane by lane.
template <class T, int NV, int R, bool BASE>
__attribute__((noinline)) void in_windows(int64_t windows, const Chains& chains, const T* weight, int64_t plane,
                                          const T* u, int64_t u_stride, const T* coef, int64_t row, const T* base,
                                          Vec<T>* dots) {
  constexpr int W = kLanes<T>;
  Vec<T> c[R + BASE][NV];
  if constexpr (BASE)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) c[R][v] = load(base + v * W);
  for (int64_t g = 0; g < windows; ++g, coef += row) {
    int32_t n = chains.head[g];
    if (n < 0) continue;
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k)
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) c[k][v] = load(coef + k * row + v * W);
    do {
      Vec<T> slope[NV];
      const Vec<T> first = splat(weight[n]);
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) slope[v] = first * c[0][v];
#pragma GCC unroll 8
      for (int k = 1; k < R + BASE; ++k) {
        const Vec<T> a = splat(weight[k * plane + n]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) slope[v] += a * c[k][v];
      }
      Vec<T> dot = dots[n];
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) dot += slope[v] * load(u + n * u_stride + v * W);
      dots[n] = dot;
      n = chains.next[n];
    } while (n >= 0);
  }
}

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

// in_windows and coef_windows, row by row in sorted order.
template <class T, int NV, int R, bool BASE>
__attribute__((noinline)) void in_sorted(int64_t rows, const int32_t* order, const int32_t* start, const T* weight,
                                         int64_t plane, const T* u, int64_t u_stride, const T* coef, int64_t row,
                                         const T* base, Vec<T>* dots) {
  constexpr int W = kLanes<T>;
  for (int64_t at = 0; at < rows; ++at) {
    const int64_t n = order[at];
    const T* c = coef + start[n] * row;
    Vec<T> slope[NV];
    const Vec<T> first = splat(weight[n]);
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) slope[v] = first * load(c + v * W);
#pragma GCC unroll 8
    for (int k = 1; k < R + BASE; ++k) {
      const Vec<T> a = splat(weight[k * plane + n]);
      const T* from = k < R ? c + k * row : base;
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) slope[v] += a * load(from + v * W);
    }
    Vec<T> dot = dots[n];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) dot += slope[v] * load(u + n * u_stride + v * W);
    dots[n] = dot;
  }
}

template <class T, int NV, int R, bool BASE>
__attribute__((noinline)) void coef_sorted(int64_t rows, const int32_t* order, const int32_t* start, const T* weight,
                                           int64_t plane, const T* u, int64_t u_stride, T* grad_coef, int64_t row,
                                           T* grad_base) {
  constexpr int W = kLanes<T>;
  Vec<T> base[NV];
  for (int v = 0; v < NV; ++v) base[v] = Vec<T>{};
  for (int64_t at = 0; at < rows; ++at) {
    const int64_t n = order[at];
    T* to = grad_coef + start[n] * row;
    Vec<T> un[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) un[v] = load(u + n * u_stride + v * W);
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k) {
      const Vec<T> a = splat(weight[k * plane + n]);
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) store(to + k * row + v * W, load(to + k * row + v * W) + a * un[v]);
    }
    if constexpr (BASE) {
      const Vec<T> a = splat(weight[R * plane + n]);
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) base[v] += a * un[v];
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
  bool in_place, sorted;
  T* partial = nullptr;  // [splits, I, F + 1, width] where a block of inputs is split over the rows

  explicit BackwardPlan(const Problem& problem) : p(problem) {
    width = padded<T>(p.O);
    inputs = least(p.I, kMaxInputs);
    while (inputs > 1 && ceil_div(p.I, inputs) < 16) inputs = ceil_div(inputs, 2);
    const bool same = p.grad_coef_dtype == kDtype<T> && p.O == width;
    if (p.grad_coef && !same)  // gradients add up in scratch
      inputs = most(1, least(inputs, kSecondLevel / (input_size() * static_cast<int64_t>(sizeof(T)))));
    input_blocks = ceil_div(p.I, inputs);
    // Many windows: many rows at a time, as far as their u stays in the second-level cache.
    const int64_t cached = kSecondLevel / (width * static_cast<int64_t>(sizeof(T))) / 256 * 256;
    rows = least(p.N, p.F > 32 ? most(256, least(1024, cached)) : 256);
    sorted = rows < kSparse * (p.F - p.K);
    // Few inputs: split the rows too, each part with gradients of its own that are added up in order.
    const int64_t worth = p.grad_coef ? most(4 * p.F, 256) : rows;
    splits = most(1, least(16 / input_blocks, p.N / worth));
    split_rows = round_up(ceil_div(p.N, splits), rows);
    splits = ceil_div(p.N, split_rows);
    in_place = same && splits == 1;
  }
  int64_t tasks() const { return input_blocks * splits; }
  int64_t input_size() const { return (p.F + 1) * width; }
};

// Scratch and pointers of one task.
template <class T>
class BackwardTask {
 public:
  BackwardTask(const BackwardPlan<T>& plan, int64_t task)
      : plan_(plan),
        p_(plan.p),
        split_(task % plan.splits),
        i0_(task / plan.splits * plan.inputs),
        inputs_(least(plan.inputs, p_.I - i0_)),
        planes_(p_.K + 1 + p_.with_base),
        windows_(p_.F - p_.K),
        blocks_(p_, p_.O, p_.O),
        u_rows_(p_.u, p_.O),
        memory_(reserved()),
        column_(p_, memory_, plan.rows),
        x_(p_.x, memory_, inputs_, plan.rows),
        s_(p_.s, memory_, inputs_, plan.rows) {
    if (p_.grad_x) {
      blocks_.take(memory_, 1);
      dots_ = memory_.template take<Vec<T>>(plan_.rows + kLanes<T>);
      tile_ = memory_.template take<T>(tile_stride() * inputs_);
    }
    u_rows_.take(memory_, plan_.rows);
    weights_ = memory_.template take<T>(planes_ * plan_.rows);
    start_ = memory_.template take<int32_t>(plan_.rows);
    windows_memory_ = memory_.template take<int32_t>(windows_ + 1);
    rows_memory_ = memory_.template take<int32_t>(plan_.rows);
    if (own()) coef_ = memory_.template take<T>(inputs_ * plan_.input_size());
  }

  void run() {
    const int64_t begin = split_ * plan_.split_rows, end = least(p_.N, begin + plan_.split_rows);
    for (n0_ = begin; n0_ < end; n0_ += plan_.rows) {
      rows_ = least(plan_.rows, end - n0_);
      u_ = u_rows_.get(n0_, rows_);
      x_.load(i0_, inputs_, n0_, rows_);
      s_.load(i0_, inputs_, n0_, rows_);
      for (int64_t i = 0; i < inputs_; ++i) input(i);
      if (p_.grad_x)
        store_block(p_.grad_x, p_.grad_x_dtype, n0_ * p_.I + i0_, p_.I, tile_, 1, tile_stride(), rows_, inputs_);
    }
    for (int64_t i = 0; own() && i < inputs_; ++i) store_coef(p_, i0_ + i, coef_ + i * plan_.input_size(), plan_.width);
  }

 private:
  // Whether the coefficient gradients add up in scratch: their type or width is not the results'.
  bool own() const { return p_.grad_coef && !plan_.in_place && !plan_.partial; }
  int64_t tile_stride() const { return padded<T>(plan_.rows); }

  Scratch& reserved() {
    const int64_t rows = plan_.rows;
    Scratch& memory = scratch();
    memory.reserve(
        (p_.grad_x
             ? blocks_.bytes(1) + Scratch::bytes<Vec<T>>(rows + kLanes<T>) + Scratch::bytes<T>(tile_stride() * inputs_)
             : 0) +
        u_rows_.bytes(rows) + Column<T>::bytes(p_, rows) + Tile<T>::bytes(p_.x, inputs_, rows) +
        Tile<T>::bytes(p_.s, inputs_, rows) + Scratch::bytes<T>(planes_ * rows) + 2 * Scratch::bytes<int32_t>(rows) +
        Scratch::bytes<int32_t>(windows_ + 1) + (own() ? Scratch::bytes<T>(inputs_ * plan_.input_size()) : 0));
    return memory;
  }

  void input(int64_t i) {
    const bool both = p_.grad_x && p_.grad_coef;
    const int top = both ? static_cast<int>(most(p_.order, p_.x_order)) : p_.grad_x ? p_.x_order : p_.order;
    column_.locate(i0_ + i, x_.column(i), s_.column(i), rows_, top, start_);
    if (p_.grad_x) {
      column_.weights(p_.x_order, weights_, plan_.rows);
      arrange();
      grad_x(i);
    }
    if (p_.grad_coef) {
      column_.weights(p_.order, weights_, plan_.rows);
      if (!p_.grad_x) arrange();
      grad_coef(i);
    }
  }

  void arrange() {
    if (plan_.sorted)
      sorted().build(start_, rows_, windows_);
    else
      chains().build(start_, rows_, windows_);
  }
  Sorted sorted() const { return {rows_memory_, windows_memory_}; }
  Chains chains() const { return {windows_memory_, rows_memory_}; }

  void grad_x(int64_t i) {
    const Weights<T> w = blocks_.get(i0_ + i, 1, 0, p_.O);
    memset(static_cast<void*>(dots_), 0, static_cast<size_t>(rows_ + kLanes<T>) * sizeof(Vec<T>));
    by_window(p_, [&](auto window, auto base) {
      chunks<window_vectors(window.value + base.value)>(plan_.width / kLanes<T>, 0, [&](auto vectors, int64_t at) {
        const int64_t o0 = at * kLanes<T>;
        if (plan_.sorted)
          in_sorted<T, vectors.value, window.value, base.value>(rows_, rows_memory_, start_, weights_, plan_.rows,
                                                                u_ + o0, u_rows_.stride(), w.coef + o0, w.coef_row,
                                                                w.base + o0, dots_);
        else
          in_windows<T, vectors.value, window.value, base.value>(windows_, chains(), weights_, plan_.rows, u_ + o0,
                                                                 u_rows_.stride(), w.coef + o0, w.coef_row, w.base + o0,
                                                                 dots_);
      });
    });
    for (int64_t n = 0; n < rows_; n += kLanes<T>) {
      sum_step<T, kLanes<T>>(dots_ + n);
      store(tile_ + i * tile_stride() + n, dots_[n]);
    }
  }

  void grad_coef(int64_t i) {
    const int64_t width = plan_.width;
    T *coef, *base;
    if (plan_.in_place) {
      coef = static_cast<T*>(p_.grad_coef) + (i0_ + i) * p_.F * width;
      base = static_cast<T*>(p_.grad_base) + (i0_ + i) * width;
    } else {
      coef =
          (plan_.partial ? plan_.partial + (split_ * p_.I + i0_) * plan_.input_size() : coef_) + i * plan_.input_size();
      base = coef + p_.F * width;
    }
    if (n0_ == split_ * plan_.split_rows) {
      memset(coef, 0, static_cast<size_t>(p_.F * width) * sizeof(T));
      if (p_.with_base) memset(base, 0, static_cast<size_t>(width) * sizeof(T));
    }
    by_window(p_, [&](auto window, auto with_base) {
      chunks<window_vectors(window.value + with_base.value)>(width / kLanes<T>, 0, [&](auto vectors, int64_t at) {
        const int64_t o0 = at * kLanes<T>;
        if (plan_.sorted)
          coef_sorted<T, vectors.value, window.value, with_base.value>(rows_, rows_memory_, start_, weights_,
                                                                       plan_.rows, u_ + o0, u_rows_.stride(), coef + o0,
                                                                       width, base + o0);
        else
          coef_windows<T, vectors.value, window.value, with_base.value>(
              windows_, chains(), weights_, plan_.rows, u_ + o0, u_rows_.stride(), coef + o0, width, base + o0);
      });
    });
  }

  const BackwardPlan<T>& plan_;
  const Problem& p_;
  const int64_t split_, i0_, inputs_;
  const int planes_;
  const int64_t windows_;
  WeightBlocks<T> blocks_;
  RowBlocks<T> u_rows_;
  Scratch& memory_;
  Column<T> column_;
  Tile<T> x_, s_;
  int32_t *windows_memory_, *rows_memory_;
  Vec<T>* dots_ = nullptr;
  T *tile_ = nullptr, *weights_, *coef_ = nullptr;
  int32_t* start_;
  const T* u_ = nullptr;
  int64_t n0_ = 0, rows_ = 0;
};

// Adds up the parts of one input, in the order of the rows.
template <class T>
void add_splits(const BackwardPlan<T>& plan, int64_t i) {
  const Problem& p = plan.p;
  T* first = plan.partial + i * plan.input_size();
  for (int64_t split = 1; split < plan.splits; ++split) {
    const T* part = plan.partial + (split * p.I + i) * plan.input_size();
    for (int64_t k = 0; k < plan.input_size(); ++k) first[k] += part[k];
  }
  store_coef(p, i, first, plan.width);
}

template <class T>
void kan_backward(const Problem& p, const Pool& pool) {
  BackwardPlan<T> plan(p);
  const bool split = p.grad_coef && plan.splits > 1;
  const int64_t size = plan.splits * p.I * plan.input_size() * static_cast<int64_t>(sizeof(T));
  if (split) {
    plan.partial = static_cast<T*>(aligned_alloc(64, static_cast<size_t>(round_up(size, 64))));
    if (!plan.partial) throw std::bad_alloc();
  }
  pool.run(
      plan.tasks(), [](int64_t t, const void* c) { BackwardTask<T>(*static_cast<const BackwardPlan<T>*>(c), t).run(); },
      &plan);
  if (split) {
    const auto add = [](int64_t i, const void* c) { add_splits(*static_cast<const BackwardPlan<T>*>(c), i); };
    if (size < kSecondLevel)  // sooner done than shared
      for (int64_t i = 0; i < p.I; ++i) add(i, &plan);
    else
      pool.run(p.I, add, &plan);
    free(plan.partial);
  }
}

}  // namespace
}  // namespace fastkan
