// dT/ds at order x_order (the gradient of the input, times s) and dT/dcoef at order, in one launch:
//   grad_x[n,i]            = s[n,i] sum_o u[n,o] sum_k w'_k coef[i, start + k, o]
//   grad_coef[i,start+k,o] = sum_n w_k u[n,o]
// or, with `terms`, with u[n,o] + t0[i,o] sign(phi) + t1[i,o] + t2[i,o] phi in place of u[n,o]. A task owns a block
// of inputs, so nothing is shared. The rows of an input are processed sorted by knot span: the coefficients of the
// current window and their gradients stay in registers, and shift when the window advances.
#pragma once

#include "edge_values.h"
#include "few_outputs.h"

namespace fastkan {
namespace {

// A block of sorted rows of one input.
template <class T>
struct Visit {
  int64_t rows;
  const int32_t *order, *start;
  const T* features;  // w' and w as needed, window by window: [planes, kVisitRows]
  const T* u;
  int64_t u_stride;
};

// The contribution of an edge's value phi to its cotangent.
template <class T>
inline Vec<T> value_cotangent(Vec<T> phi, Vec<T> t0, Vec<T> t1, Vec<T> t2) {
  return t2 * phi + t1 + (phi > 0 ? t0 : phi < 0 ? -t0 : Vec<T>{});  // NaN stays NaN
}

// For each row n = order[at]: if X, dots[at] (+)= u[n] * (sum_k w'_k coef[start + k]), lane by lane; if C,
// grad_coef[start + k] += w_k u[n]. If E, the edge-value terms [3, width] are added to u[n] first. The first `ready`
// rows of grad_coef already have values and are added to; the others are overwritten, which saves zeroing them in
// another pass over a large grid's gradients.
template <class T, int NV, int R, bool BASE, bool X, bool C, bool E>
__attribute__((noinline)) void visit(const Visit<T>& rows, const T* w, const T* u, int64_t u_stride, const T* coef,
                                     int64_t row, const T* base, const T* terms, int64_t width, bool first,
                                     Vec<T>* dots, T* grad_coef, int64_t grad_row, int64_t ready, T* grad_base) {
  constexpr int W = kLanes<T>, kPlanes = R + BASE;
  const int32_t *order = rows.order, *start = rows.start;
  Vec<T> sum[kPlanes][NV];
#pragma GCC unroll 8
  for (int k = 0; k < kPlanes; ++k)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) sum[k][v] = Vec<T>{};
  int64_t g = start[0];
  const auto flush = [&](int k) __attribute__((always_inline)) {
    T* to = grad_coef + (g + k) * grad_row;
    const bool add = g + k < ready;
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) {
      if (add) sum[k][v] += load(to + v * W);
      store(to + v * W, sum[k][v]);
      sum[k][v] = Vec<T>{};
    }
  };
  for (int64_t at = 0, end = rows.rows; at < end; ++at, ++w) {
    const int64_t to = start[at];
    if (to >= g + R) {
#pragma GCC unroll 8
      for (int k = 0; C && k < R; ++k) flush(k);
      for (int64_t f = max(ready, g + R); C && f < to; ++f)
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) store(grad_coef + f * grad_row + v * W, Vec<T>{});
      g = to;
    }
    for (; g < to; ++g) {
#pragma GCC unroll 16
      for (int v = 0; X && v < NV; ++v) __builtin_prefetch(coef + (g + R + kCoefAhead) * row + v * W);
      if constexpr (C) {
        flush(0);
#pragma GCC unroll 8
        for (int k = 0; k + 1 < R; ++k)
#pragma GCC unroll 16
          for (int v = 0; v < NV; ++v) sum[k][v] = sum[k + 1][v];
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sum[R - 1][v] = Vec<T>{};
      }
    }
    const T *from = u + order[at] * u_stride, *ahead = u + order[at + kAhead] * u_stride;
    const T* c = coef + to * row;
    Vec<T> un[NV], slope[NV], phi[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) {
      un[v] = load(from + v * W);
      __builtin_prefetch(ahead + v * W);
    }
    const auto add = [&](int k) __attribute__((always_inline)) {
      const Vec<T> a = splat(w[(X * kPlanes + k) * kVisitRows]);
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) sum[k][v] += a * un[v];
    };
#pragma GCC unroll 8
    for (int k = 0; k < kPlanes; ++k) {
      const T* weights = k < R ? c + k * row : base;
      if constexpr (X) {
        const Vec<T> a = splat(w[k * kVisitRows]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v)
          slope[v] = k == 0 ? a * load(weights + v * W) : slope[v] + a * load(weights + v * W);
      }
      if constexpr (E) {
        const Vec<T> a = splat(w[(X * kPlanes + k) * kVisitRows]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) phi[v] = k == 0 ? a * load(weights + v * W) : phi[v] + a * load(weights + v * W);
      }
      if constexpr (C && !E) {  // not add(k): the lambda's capture costs registers
        const Vec<T> a = splat(w[(X * kPlanes + k) * kVisitRows]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sum[k][v] += a * un[v];
      }
    }
    if constexpr (E) {
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) {
        const T* t = terms + v * W;
        un[v] += value_cotangent<T>(phi[v], load(t), load(t + width), load(t + 2 * width));
      }
#pragma GCC unroll 8
      for (int k = 0; C && k < kPlanes; ++k) add(k);
    }
    if constexpr (X) {
      Vec<T> dot = first ? Vec<T>{} : dots[at];
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) dot += slope[v] * un[v];
      dots[at] = dot;
    }
  }
  if constexpr (C) {
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k) flush(k);
    if constexpr (BASE)
      for (int v = 0; v < NV; ++v) store(grad_base + v * W, load(grad_base + v * W) + sum[R][v]);
  }
}

template <class T>
struct BackwardPlan {
  const Problem& p;
  int64_t inputs, rows, input_blocks, splits, split_rows, width;
  bool in_place, few_outputs;
  T* partial = nullptr;  // [splits, I, F + 1, width] if rows are split

  BackwardPlan(const Problem& problem, const Pool& pool) : p(problem) {
    width = padded<T>(p.O);
    // Few inputs: split the rows too; each split has its own gradients, which are added in a fixed order.
    const int64_t worth = p.grad_coef ? max(4 * p.F, kVisitRows) : kVisitRows;
    splits = max(1, min(16 / p.I, p.N / worth));
    // Many windows: many rows at a time, so that each row of coefficients is read few times.
    const int64_t cached = kLastLevelBytes / (width * static_cast<int64_t>(sizeof(T)));
    rows = p.F > 32 ? max(kVisitRows, min(cached, kSortedRows) / kVisitRows * kVisitRows) : kVisitRows;
    rows = min(rows, ceil_div(p.N, splits));
    split_rows = round_up(ceil_div(p.N, splits), rows);
    splits = ceil_div(p.N, split_rows);
    inputs = min(p.I, kMaxInputs);
    while (inputs > 1 && ceil_div(p.I, inputs) * splits < 2 * pool.threads) inputs = ceil_div(inputs, 2);
    const bool same = p.grad_coef_dtype == kDtype<T> && p.O == width;
    if (p.grad_coef && !same)  // gradients are accumulated in scratch
      inputs = max(1, min(inputs, kL2Bytes / (input_size() * static_cast<int64_t>(sizeof(T)))));
    input_blocks = ceil_div(p.I, inputs);
    few_outputs = has_few_outputs<T>(p) && rows <= kVisitRows;
    in_place = same && splits == 1 && !few_outputs;
  }
  int64_t tasks() const { return input_blocks * splits; }
  int64_t input_size() const { return (p.F + 1) * width; }
};

// One task: a block of inputs and a split of the rows.
template <class T>
class BackwardTask {
 public:
  BackwardTask(const BackwardPlan<T>& plan, int64_t task)
      : plan_(plan),
        p_(plan.p),
        split_(task % plan.splits),
        i0_(task / plan.splits * plan.inputs),
        inputs_(min(plan.inputs, p_.I - i0_)),
        planes_(feature_planes(p_)),
        blocks_(p_, p_.O, p_.O),
        u_rows_(p_.u, p_.O),
        memory_(reserved()),
        column_(p_, memory_, kVisitRows),
        x_(p_.x, memory_, inputs_, plan.rows),
        s_(p_.s, memory_, inputs_, plan.rows),
        sorted_(p_, memory_, plan.rows) {
    if (plan_.few_outputs)
      u_columns_ = memory_.template take<T>(tile_stride() * p_.O);
    else
      u_rows_.take(memory_, plan_.rows);
    found_ = memory_.template take<int32_t>(plan_.rows);
    start_ = memory_.template take<int32_t>(kVisitRows);
    features_ = memory_.template take<T>(2 * planes_ * kVisitRows);
    if (reads_coef()) blocks_.take(memory_, 1);
    if (p_.terms) terms_ = memory_.template take<T>(3 * plan_.width);
    if (p_.terms && plan_.few_outputs) edges_ = memory_.template take<T>(kVisitRows);
    if (needs_edge_values()) {
      edges_ = memory_.template take<T>(kVisitRows * plan_.width);
      unsorted_ = memory_.template take<int32_t>(kVisitRows + kAhead);
      identity_order(unsorted_);
    }
    if (p_.grad_x) {
      dots_ = memory_.template take<Vec<T>>(kVisitRows);
      tile_ = memory_.template take<T>(tile_stride() * inputs_);
    }
    if (uses_scratch()) coef_ = memory_.template take<T>(inputs_ * plan_.input_size());
  }

  void run() {
    const int64_t begin = split_ * plan_.split_rows, end = min(p_.N, begin + plan_.split_rows);
    for (n0_ = begin; n0_ < end; n0_ += plan_.rows) {
      rows_ = min(plan_.rows, end - n0_);
      if (plan_.few_outputs && !p_.u)
        memset(u_columns_, 0, static_cast<size_t>(tile_stride() * p_.O) * sizeof(T));
      else if (plan_.few_outputs)
        load_block(u_columns_, 1, tile_stride(), p_.u, n0_ * p_.u.stride[0], p_.u.stride[0], p_.u.stride[1], rows_,
                   p_.O);
      else
        u_ = u_rows_.get(n0_, rows_);
      x_.load(i0_, inputs_, n0_, rows_);
      s_.load(i0_, inputs_, n0_, rows_);
      for (int64_t i = 0; i < inputs_; ++i) plan_.few_outputs ? few_outputs_input(i) : input(i);
      if (p_.grad_x)
        store_block(p_.grad_x, p_.grad_x_dtype, n0_ * p_.I + i0_, p_.I, tile_, 1, tile_stride(), rows_, inputs_);
    }
    for (int64_t i = 0; uses_scratch() && i < inputs_; ++i)
      store_coef(p_, i0_ + i, coef_ + i * plan_.input_size(), plan_.width);
  }

 private:
  // Whether coefficient gradients are accumulated in scratch, because their type or width differs from the result's.
  bool uses_scratch() const { return p_.grad_coef && !plan_.in_place && !plan_.partial; }

  bool reads_coef() const { return p_.grad_x || p_.terms; }

  bool has_several_windows() const { return windows_of(p_).count > 1; }
  // With several windows per x, edge cotangents are computed before the windows are processed.
  bool needs_edge_values() const { return p_.terms && has_several_windows(); }

  int64_t tile_stride() const { return column_stride<T>(plan_.rows); }

  Scratch& reserved() {
    const int64_t rows = plan_.rows;
    Scratch& memory = scratch();
    memory.reserve((reads_coef() ? blocks_.bytes(1) : 0) +
                   (p_.terms ? Scratch::bytes<T>(3 * plan_.width) + Scratch::bytes<T>(kVisitRows) : 0) +
                   (needs_edge_values()
                        ? Scratch::bytes<T>(kVisitRows * plan_.width) + Scratch::bytes<int32_t>(kVisitRows + kAhead)
                        : 0) +
                   (p_.grad_x ? Scratch::bytes<Vec<T>>(kVisitRows) + Scratch::bytes<T>(tile_stride() * inputs_) : 0) +
                   (uses_scratch() ? Scratch::bytes<T>(inputs_ * plan_.input_size()) : 0) +
                   (plan_.few_outputs ? Scratch::bytes<T>(tile_stride() * p_.O) : u_rows_.bytes(rows)) +
                   Column<T>::bytes(p_, kVisitRows) + Tile<T>::bytes(p_.x, inputs_, rows) +
                   Tile<T>::bytes(p_.s, inputs_, rows) + SortedRows<T>::bytes(p_, rows) +
                   Scratch::bytes<int32_t>(rows) + Scratch::bytes<int32_t>(kVisitRows) +
                   Scratch::bytes<T>(2 * planes_ * kVisitRows));
    return memory;
  }

  int top_order() const {
    return !p_.grad_coef ? p_.x_order : !p_.grad_x ? p_.order : p_.order > p_.x_order ? p_.order : p_.x_order;
  }

  void input(int64_t i) {
    column_.find_windows(i0_ + i, x_.column(i), rows_, top_order(), found_);
    sorted_.build(found_, x_.column(i), s_.column(i), rows_);
    set_input(i);
    const bool first = n0_ == split_ * plan_.split_rows;
    int64_t ready = first ? 0 : p_.F;  // rows of the gradient that have been written
    if (first && p_.grad_coef && p_.with_base) zero(grad_base_, 1);
    if (first && p_.grad_coef && has_several_windows()) {  // windows are not processed in the order of their functions
      zero(grad_coef_, p_.F);
      ready = p_.F;
    }
    for (int64_t at = 0; at < rows_; at += kVisitRows) {
      const Visit<T> rows = evaluate(at);
      if (p_.grad_coef && ready < rows.start[0]) {
        zero(grad_coef_ + ready * plan_.width, rows.start[0] - ready);
        ready = rows.start[0];
      }
      visit_rows(rows, ready);
      ready = max(ready, rows.start[rows.rows - 1] + windows_of(p_).functions);
      if (p_.grad_x) store_dots(rows, tile_ + i * tile_stride());
      for (int64_t k = 0; p_.grad_coef && column_.spreads_nan() && k < p_.F * plan_.width; ++k)
        grad_coef_[k] = T(__builtin_nan(""));
    }
    if (p_.grad_coef && ready < p_.F) zero(grad_coef_ + ready * plan_.width, p_.F - ready);
  }

  // A block of unsorted rows of one input, for layers with few outputs.
  void few_outputs_input(int64_t i) {
    constexpr int W = kLanes<T>;
    column_.find_and_set_rows(i0_ + i, x_.column(i), s_.column(i), rows_, top_order(), found_, start_);
    features();
    for (int64_t n = rows_; n < round_up(rows_, W); ++n) start_[n] = -1;
    set_input(i);
    if (p_.grad_coef && n0_ == split_ * plan_.split_rows) zero(grad_coef_, p_.F + 1);
    by_window(p_, [&](auto window, auto base, const WindowPart&) {
      for (int64_t o = 0; o < p_.O; ++o) {
        const T *u = u_columns_ + o * tile_stride(), *values = features_ + (p_.grad_x ? planes_ * kVisitRows : 0);
        const Vec<T> table = reads_coef() ? load_table(w_.coef + o, w_.coef_row, p_.F) : Vec<T>{};
        const T of_base = reads_coef() && base.value ? w_.base[o] : T(0);
        if (p_.terms) {
          const T* t = terms_ + o;
          for (int64_t n = 0; n < rows_; n += W) {
            const Index<T> index = load_index<T>(start_ + n);
            const Vec<T> phi =
                few_outputs_value<T, window.value, base.value>(values + n, kVisitRows, index, table, of_base);
            store(edges_ + n,
                  load(u + n) + value_cotangent<T>(phi, splat(t[0]), splat(t[plan_.width]), splat(t[2 * plan_.width])));
          }
          u = edges_;
        }
        if (p_.grad_x)
          few_outputs_grad_x<T, window.value, base.value>(rows_, features_, kVisitRows, start_, table, of_base, u,
                                                          o == 0, tile_ + i * tile_stride());
        if (!p_.grad_coef) continue;
        const Vec<T> sums =
            few_outputs_grad_coef<T, window.value, base.value>(rows_, values, kVisitRows, start_, p_.F, u);
        for (int f = 0; f < p_.F + base.value; ++f) grad_coef_[f * plan_.width + o] += sums[f];
      }
    });
  }

  // Sets the pointers to the coefficients of input i and to its coefficient gradients.
  void set_input(int64_t i) {
    if (reads_coef()) w_ = blocks_.get(i0_ + i, 1, 0, p_.O);
    if (p_.terms) {
      const int64_t* stride = p_.terms.stride;
      memset(terms_, 0, static_cast<size_t>(3 * plan_.width) * sizeof(T));
      load_block(terms_, plan_.width, 1, p_.terms, (i0_ + i) * stride[1], stride[0], stride[2], 3, p_.O);
    }
    if (!p_.grad_coef) return;
    if (plan_.in_place) {
      grad_coef_ = static_cast<T*>(p_.grad_coef) + (i0_ + i) * p_.F * plan_.width;
      grad_base_ = static_cast<T*>(p_.grad_base) + (i0_ + i) * plan_.width;
    } else {
      T* of_task = plan_.partial ? plan_.partial + (split_ * p_.I + i0_) * plan_.input_size() : coef_;
      grad_coef_ = of_task + i * plan_.input_size();
      grad_base_ = grad_coef_ + p_.F * plan_.width;
    }
  }

  void zero(T* rows, int64_t count) const { memset(rows, 0, static_cast<size_t>(count * plan_.width) * sizeof(T)); }

  // Evaluates the features of the sorted rows from `at` on.
  Visit<T> evaluate(int64_t at) {
    const int64_t rows = min(kVisitRows, rows_ - at);
    column_.set_rows(sorted_.x + at, p_.s ? sorted_.s + at : nullptr, sorted_.window + at, rows, start_);
    features();
    return {rows, sorted_.order + at, start_, features_, u_, u_rows_.stride()};
  }

  void features() {
    if (p_.grad_x) column_.weights(p_.x_order, features_, kVisitRows, 0, sides());
    if (p_.grad_coef) column_.weights(p_.order, features_, kVisitRows, sides() - 1, sides());
  }

  // Sets of features: those for the gradient of x, followed by those for the gradient of coef.
  int sides() const { return (p_.grad_x != nullptr) + (p_.grad_coef != nullptr); }

  void visit_rows(Visit<T> rows, int64_t ready) {
    if (needs_edge_values()) edge_cotangents(rows);
    by_window(p_, [&](auto window, auto base, const WindowPart& part) {
      constexpr int R = window.value;
      constexpr bool kBase = base.value;
      if (p_.terms && !has_several_windows())
        p_.grad_x ? visit_chunks<R, kBase, true, true, true>(rows, part, ready)
                  : visit_chunks<R, kBase, false, true, true>(rows, part, ready);
      else if (p_.grad_x && p_.grad_coef)
        visit_chunks<R, kBase, true, true, false>(rows, part, ready);
      else if (p_.grad_x)
        visit_chunks<R, kBase, true, false, false>(rows, part, ready);
      else
        visit_chunks<R, kBase, false, true, false>(rows, part, ready);
    });
  }

  // Replaces u by u plus the contributions of the edge values.
  void edge_cotangents(Visit<T>& rows) {
    const int64_t width = plan_.width;
    edge_values(p_, rows.rows, unsorted_, rows.start, features_, sides() - 1, sides(), w_, width, edges_);
    for (int64_t at = 0; at < rows.rows; ++at)
      for (int64_t o = 0; o < width; o += kLanes<T>) {
        const T* t = terms_ + o;
        const Vec<T> phi = load(edges_ + at * width + o), u = load(rows.u + rows.order[at] * rows.u_stride + o);
        store(edges_ + at * width + o, u + value_cotangent<T>(phi, load(t), load(t + width), load(t + 2 * width)));
      }
    rows.order = unsorted_;
    rows.u = edges_;
    rows.u_stride = width;
  }

  void store_dots(const Visit<T>& rows, T* to) {
    for (int64_t n = 0; n < rows.rows; n += kLanes<T>) {
      sum_step<T, kLanes<T>>(dots_ + n);
      const T* sums = reinterpret_cast<const T*>(dots_ + n);
      for (int64_t l = 0; l < min(kLanes<T>, rows.rows - n); ++l) to[rows.order[n + l]] = sums[l];
    }
  }

  template <int R, bool BASE, bool X, bool C, bool E>
  void visit_chunks(const Visit<T>& rows, const WindowPart& part, int64_t ready) {
    const Weights<T> w = w_.part(part);
    T* grad_coef = part.of_base ? grad_base_ : grad_coef_ + part.start * plan_.width;
    const int64_t grad_row = part.of_base ? 0 : plan_.width;
    chunks<window_vectors(R + BASE)>(plan_.width / kLanes<T>, 0, [&](auto vectors, int64_t chunk) {
      const int64_t o0 = chunk * kLanes<T>;
      visit<T, vectors.value, R, BASE, X, C, E>(rows, rows.features + part.plane * sides() * kVisitRows, rows.u + o0,
                                                rows.u_stride, w.coef + o0, w.coef_row, w.base + o0, terms_ + o0,
                                                plan_.width, chunk == 0 && part.plane == 0, dots_, grad_coef + o0,
                                                grad_row, ready, grad_base_ + o0);
    });
  }

  const BackwardPlan<T>& plan_;
  const Problem& p_;
  const int64_t split_, i0_, inputs_;
  const int planes_;
  WeightBlocks<T> blocks_;
  RowBlocks<T> u_rows_;
  Scratch& memory_;
  Column<T> column_;
  Tile<T> x_, s_;
  SortedRows<T> sorted_;
  Weights<T> w_{};
  int32_t *found_, *start_;
  T *features_, *u_columns_ = nullptr, *tile_ = nullptr, *coef_ = nullptr;
  T *terms_ = nullptr, *edges_ = nullptr;
  int32_t* unsorted_ = nullptr;
  T *grad_coef_ = nullptr, *grad_base_ = nullptr;
  Vec<T>* dots_ = nullptr;
  const T* u_ = nullptr;
  int64_t n0_ = 0, rows_ = 0;
};

// Adds the partial gradients of one input, in the order of the rows.
template <class T>
void add_partial_gradients(const BackwardPlan<T>& plan, int64_t i) {
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
  BackwardPlan<T> plan(p, pool);
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
    const auto add = [](int64_t i, const void* c) {
      add_partial_gradients(*static_cast<const BackwardPlan<T>*>(c), i);
    };
    if (size < kL2Bytes)  // faster on one thread
      for (int64_t i = 0; i < p.I; ++i) add(i, &plan);
    else
      pool.run(p.I, add, &plan);
    free(plan.partial);
  }
}

}  // namespace
}  // namespace fastkan
