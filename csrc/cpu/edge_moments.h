// Statistics of every edge's values phi[i,o](x[n,i]) over the rows: mean of |phi|, mean and population variance; one
// input at a time, without a tensor [N, I, O]. Rows are processed in blocks. With d = phi - shift, the shift being
// the mean of the previous blocks or the first value, a block has the mean of d and M = sum d^2 - (sum d)^2 / rows
// without cancellation of large numbers: no block has more than 16 times the rows before it. So constant edges have
// variance 0. Blocks are merged as in Chan, Golub and LeVeque, COMPSTAT 1982:
//   M = M_a + M_b + (mean_b - mean_a)^2 n_a n_b / (n_a + n_b)
#pragma once

#include "edge_values.h"
#include "few_outputs.h"

namespace fastkan {
namespace {

template <class T>
inline Vec<T> absolute(Vec<T> a) {
  return a < 0 ? -a : a;
}

// For every output: sum |phi|, sum d and sum d^2, in rows of `width`, with d = phi - shift.
template <class T, int NV, int R, bool BASE>
__attribute__((noinline)) void edge_sums(int64_t rows, const T* weight, const int32_t* start, const T* coef,
                                         int64_t stride, const T* base, const T* shift, T* sums, int64_t width) {
  constexpr int W = kLanes<T>;
  Vec<T> sizes[NV], first[NV], second[NV];
  for (int v = 0; v < NV; ++v) sizes[v] = first[v] = second[v] = Vec<T>{};
  for (int64_t n = 0; n < rows; ++n) {
    const T* row = coef + start[n] * stride;
    Vec<T> phi[NV];
#pragma GCC unroll 8
    for (int k = 0; k < R + BASE; ++k) {
      const Vec<T> w = splat(weight[k * kVisitRows + n]);
      const T* c = k < R ? row + k * stride : base;
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) phi[v] = k == 0 ? w * load(c + v * W) : phi[v] + w * load(c + v * W);
    }
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) {
      const Vec<T> d = phi[v] - load(shift + v * W);
      sizes[v] += absolute<T>(phi[v]);
      first[v] += d;
      second[v] += d * d;
    }
  }
  for (int v = 0; v < NV; ++v) {
    store(sums + v * W, sizes[v]);
    store(sums + width + v * W, first[v]);
    store(sums + 2 * width + v * W, second[v]);
  }
}

// The same for one output; lanes are rows.
template <class T, int R, bool BASE>
__attribute__((noinline)) void few_outputs_moments(int64_t rows, const T* weight, const int32_t* start, Vec<T> table,
                                                   T base, T shift, T* sums, int64_t width) {
  constexpr int W = kLanes<T>;
  Index<T> row;
  for (int l = 0; l < W; ++l) row[l] = l;
  Vec<T> sizes = Vec<T>{}, first = Vec<T>{}, second = Vec<T>{};
  for (int64_t n = 0; n < rows; n += W, row += W) {
    const Vec<T> phi = few_outputs_value<T, R, BASE>(weight + n, kVisitRows, load_index<T>(start + n), table, base);
    const Index<T> here = row < static_cast<int32_t>(rows);
    const Vec<T> d = here ? phi - splat(shift) : Vec<T>{};
    sizes += here ? absolute<T>(phi) : Vec<T>{};
    first += d;
    second += d * d;
  }
  T totals[3] = {};
  for (int l = 0; l < W; ++l) {
    totals[0] += sizes[l];
    totals[1] += first[l];
    totals[2] += second[l];
  }
  for (int k = 0; k < 3; ++k) sums[k * width] = totals[k];
}

struct MomentsPlan {
  const Problem& p;
  int64_t width, splits, split_rows;
  double* partial = nullptr;  // [splits, I, 3, width] if rows are split

  MomentsPlan(const Problem& problem, int64_t padded_outputs) : p(problem), width(padded_outputs) {
    splits = max(1, min(16 / p.I, p.N / (2 * kVisitRows)));
    split_rows = ceil_div(p.N, splits);
  }
  int64_t rows(int64_t split) const { return min(split_rows, p.N - split * split_rows); }
};

// Merges the moments [3, width] of a block of rows: sum |phi|, mean, M.
inline void merge_moments(double* to, int64_t rows_before, const double* part, int64_t rows, int64_t width) {
  const double before = static_cast<double>(rows_before), more = static_cast<double>(rows), all = before + more;
  for (int64_t o = 0; o < width; ++o) {
    const double apart = part[width + o] - to[width + o];
    to[o] += part[o];
    to[width + o] += apart * (more / all);
    to[2 * width + o] += part[2 * width + o] + apart * apart * (before * (more / all));
  }
}

template <class T>
void store_moments(const MomentsPlan& plan, int64_t i, double* moments) {
  const Problem& p = plan.p;
  const double rows = static_cast<double>(p.N);
  for (int64_t o = 0; o < plan.width; ++o) {
    moments[o] /= rows;
    if (p.N == 0) moments[plan.width + o] = moments[o];
    moments[2 * plan.width + o] /= rows;
  }
  T* out = static_cast<T*>(p.out) + i * p.O;
  for (int64_t k = 0; k < 3; ++k)
    for (int64_t o = 0; o < p.O; ++o) out[k * p.I * p.O + o] = static_cast<T>(moments[k * plan.width + o]);
}

// One input and a split of its rows.
template <class T>
class MomentsTask {
 public:
  MomentsTask(const MomentsPlan& plan, int64_t task)
      : plan_(plan),
        p_(plan.p),
        split_(task % plan.splits),
        i_(task / plan.splits),
        blocks_(p_, p_.O, p_.O),
        memory_(reserved()),
        column_(p_, memory_, kVisitRows),
        x_(p_.x, memory_, 1, kVisitRows) {
    blocks_.take(memory_, 1);
    weight_ = memory_.template take<T>(planes() * kVisitRows);
    found_ = memory_.template take<int32_t>(kVisitRows);
    start_ = memory_.template take<int32_t>(kVisitRows);
    shift_ = memory_.template take<T>(plan.width);
    sums_ = memory_.template take<T>(3 * plan.width);
    if (has_several_windows()) {
      values_ = memory_.template take<T>(kVisitRows * plan.width);
      ones_ = memory_.template take<T>(kVisitRows);
      order_ = memory_.template take<int32_t>(kVisitRows + kAhead);
      for (int32_t n = 0; n < kVisitRows; ++n) ones_[n] = T(1);
      identity_order(order_);
    }
    part_ = memory_.template take<double>(3 * plan.width);
    total_ = plan.partial ? plan.partial + (split_ * p_.I + i_) * 3 * plan.width
                          : memory_.template take<double>(3 * plan.width);
  }

  void run() {
    constexpr int64_t kFirstRows = 16;
    const int64_t width = plan_.width, begin = split_ * plan_.split_rows, end = begin + plan_.rows(split_);
    w_ = blocks_.get(i_, 1, 0, p_.O);
    memset(total_, 0, static_cast<size_t>(3 * width) * sizeof(double));
    for (int64_t n0 = begin, rows = kFirstRows; n0 < end; n0 += rows, rows = kVisitRows) {
      rows = min(rows, end - n0);
      x_.load(i_, 1, n0, rows);
      column_.find_and_set_rows(i_, x_.column(0), nullptr, rows, 0, found_, start_);
      column_.weights(0, weight_, kVisitRows);
      if (n0 == begin) {
        memset(shift_, 0, static_cast<size_t>(width) * sizeof(T));
        sum(1);
        memcpy(shift_, sums_ + width, static_cast<size_t>(width) * sizeof(T));
      } else {
        for (int64_t o = 0; o < width; ++o) shift_[o] = static_cast<T>(total_[width + o]);
      }
      sum(rows);
      for (int64_t o = 0; o < width; ++o) {
        const double first = sums_[width + o], m = sums_[2 * width + o] - first * (first / static_cast<double>(rows));
        part_[o] = sums_[o];
        part_[width + o] = shift_[o] + first / static_cast<double>(rows);
        part_[2 * width + o] = m < 0 ? 0 : m;
      }
      merge_moments(total_, n0 - begin, part_, rows, width);
    }
    if (!plan_.partial) store_moments<T>(plan_, i_, total_);
  }

 private:
  int planes() const { return feature_planes(p_); }
  // With several windows per x, values are computed before they are summed.
  bool has_several_windows() const { return windows_of(p_).count > 1; }

  Scratch& reserved() {
    Scratch& memory = scratch();
    memory.reserve(blocks_.bytes(1) + Column<T>::bytes(p_, kVisitRows) + Tile<T>::bytes(p_.x, 1, kVisitRows) +
                   Scratch::bytes<T>(planes() * kVisitRows) + 2 * Scratch::bytes<int32_t>(kVisitRows) +
                   Scratch::bytes<T>(plan_.width) + Scratch::bytes<T>(3 * plan_.width) +
                   2 * Scratch::bytes<double>(3 * plan_.width) +
                   (has_several_windows()
                        ? Scratch::bytes<T>(kVisitRows * plan_.width) + Scratch::bytes<T>(kVisitRows) +
                              Scratch::bytes<int32_t>(kVisitRows + kAhead)
                        : 0));
    return memory;
  }

  void sum(int64_t rows) {
    if (has_several_windows()) return sum_values(rows);
    by_window(p_, [&](auto window, auto base, const WindowPart&) {
      if (has_few_outputs<T>(p_)) {
        for (int64_t o = 0; o < p_.O; ++o)
          few_outputs_moments<T, window.value, base.value>(
              rows, weight_, start_, load_table(w_.coef + o, w_.coef_row, p_.F), base.value ? w_.base[o] : T(0),
              shift_[o], sums_ + o, plan_.width);
      } else {
        chunks<kRegisters / 8>(plan_.width / kLanes<T>, 0, [&](auto vectors, int64_t at) {
          const int64_t o0 = at * kLanes<T>;
          edge_sums<T, vectors.value, window.value, base.value>(rows, weight_, start_, w_.coef + o0, w_.coef_row,
                                                                w_.base + o0, shift_ + o0, sums_ + o0, plan_.width);
        });
      }
    });
  }

  // edge_sums on precomputed values: a window of one function with weight 1 per row.
  void sum_values(int64_t rows) {
    edge_values(p_, rows, order_, start_, weight_, 0, 1, w_, plan_.width, values_);
    chunks<kRegisters / 8>(plan_.width / kLanes<T>, 0, [&](auto vectors, int64_t at) {
      const int64_t o0 = at * kLanes<T>;
      edge_sums<T, vectors.value, 1, false>(rows, ones_, order_, values_ + o0, plan_.width, nullptr, shift_ + o0,
                                            sums_ + o0, plan_.width);
    });
  }

  const MomentsPlan& plan_;
  const Problem& p_;
  const int64_t split_, i_;
  WeightBlocks<T> blocks_;
  Scratch& memory_;
  Column<T> column_;
  Tile<T> x_;
  Weights<T> w_{};
  T *weight_, *shift_, *sums_;
  T *values_ = nullptr, *ones_ = nullptr;
  int32_t *found_, *start_, *order_ = nullptr;
  double *part_, *total_;
};

template <class T>
void edge_moments(const Problem& p, const Pool& pool) {
  MomentsPlan plan(p, padded<T>(p.O));
  const int64_t each = 3 * plan.width;
  if (plan.splits > 1) {
    const int64_t size = plan.splits * p.I * each * static_cast<int64_t>(sizeof(double));
    plan.partial = static_cast<double*>(aligned_alloc(64, static_cast<size_t>(round_up(size, 64))));
    if (!plan.partial) throw std::bad_alloc();
  }
  pool.run(
      p.I * plan.splits, [](int64_t t, const void* c) { MomentsTask<T>(*static_cast<const MomentsPlan*>(c), t).run(); },
      &plan);
  if (!plan.partial) return;
  for (int64_t i = 0; i < p.I; ++i) {
    double* total = plan.partial + i * each;
    for (int64_t split = 1; split < plan.splits; ++split)
      merge_moments(total, split * plan.split_rows, plan.partial + (split * p.I + i) * each, plan.rows(split),
                    plan.width);
    store_moments<T>(plan, i, total);
  }
  free(plan.partial);
}

}  // namespace
}  // namespace fastkan
