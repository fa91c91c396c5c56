// Features of a block of rows: the start of the window of K + 1 basis functions, and their values. Computed for one
// input at a time in vectorised passes; rows outside the grid range and NaNs are fixed up in a second pass.
#pragma once

#include "../basis/bspline.h"
#include "wide.h"

namespace fastkan {
namespace {

constexpr int kMaxInputs = 16;    // inputs of a block
constexpr int kLinearKnots = 32;  // knots compared with linearly; the rest by bisection
template <class T>
constexpr int kTableSpans = kLookUp ? 2 * kLanes<T> : 0;  // knot spans up to which tables in registers are used

// Values of the features, input-major: w[(i * planes + k) * rows_padded + n], window after window, the base function
// last.
template <class T>
struct Features {
  int planes;
  int64_t rows_padded;
  T* w;
  const T* of(int64_t input, int plane) const { return w + (input * planes + plane) * rows_padded; }
  Features from(int plane) const { return {planes, rows_padded, w + plane * rows_padded}; }
};

// Planes per input.
inline int feature_planes(const Problem& p) {
  const Windows windows = windows_of(p);
  return windows.count * windows.size + p.with_base;
}

// Knot j of a uniform row, rounded exactly like the reference's: no fused multiply-add.
__attribute__((noinline)) double uniform_knot(const double* grid, int M, int j) {
  volatile double offset = (grid[M - 1] - grid[0]) * (static_cast<double>(j) / (M - 1));
  return grid[0] + offset;
}

// x rounded up to a T.
template <class T>
inline T rounded_up(double x) {
  const T near = static_cast<T>(x);  // no <cmath>: its inline functions may be linked into other instruction sets
  return static_cast<double>(near) < x ? __builtin_nextafterf(near, __builtin_huge_valf()) : near;
}
template <>
inline double rounded_up(double x) {
  return x;
}

// Stride of columns with that many rows: an odd number of cache lines, so that the columns of a row fall into
// different cache sets.
template <class T>
inline int64_t column_stride(int64_t rows) {
  constexpr int64_t kLine = 64 / sizeof(T);
  return (ceil_div(rows, kLine) | 1) * kLine;
}

// Columns of a matrix [N, I] in the compute type; read row by row, since rows are contiguous.
template <class T>
class Tile {
 public:
  static size_t bytes(const View& v, int64_t inputs, int64_t rows) {
    return v ? Scratch::bytes<T>(inputs * column_stride<T>(rows)) : 0;
  }
  Tile(const View& v, Scratch& memory, int64_t inputs, int64_t rows)
      : v_(v), stride_(column_stride<T>(rows)), columns_(v ? memory.take<T>(inputs * stride_) : nullptr) {}
  void load(int64_t i0, int64_t inputs, int64_t n0, int64_t rows) {
    if (!v_) return;
    const int64_t row = v_.stride[0], column = v_.stride[1];
    load_block(columns_, 1, stride_, v_, n0 * row + i0 * column, row, column, rows, inputs);
  }
  const T* column(int64_t i) const { return columns_ ? columns_ + i * stride_ : nullptr; }

 private:
  const View& v_;
  int64_t stride_;
  T* columns_;
};

// The features of one input. find_windows() computes the windows of a column of x, which may lie outside 0..F-1;
// set_rows() takes rows in any order with their windows; weights() evaluates their features. B-splines have one
// window per x; other families delegate to a WideColumn.
template <class T>
class Column {
 public:
  static size_t bytes(const Problem& p, int64_t rows) {
    return Scratch::bytes<T>(rows) * static_cast<size_t>(2 + 2 * p.K) + Scratch::bytes<double>(p.M + 2 * p.K) +
           Scratch::bytes<T>(2 * p.M) + Scratch::bytes<int32_t>(rows) +
           Scratch::bytes<T>((2 * p.K + 2) * kTableSpans<T>) + WideColumn<T>::bytes(rows);
  }

  Column(const Problem& p, Scratch& memory, int64_t rows) : p_(p), windows_(windows_of(p)), wide_(p, memory, rows) {
    u_ = memory.take<T>(rows);
    sigma_ = memory.take<T>(rows);
    for (int j = 0; j < 2 * p.K; ++j) neighbours_[j] = memory.take<T>(rows);
    knots_ = memory.take<double>(p.M + 2 * p.K) + p.K;
    steps_ = memory.take<T>(2 * p.M);
    special_ = memory.take<int32_t>(rows);
    tables_ = memory.take<T>((2 * p.K + 2) * kTableSpans<T>);
  }

  // Windows of input i: M - 1 knot spans, numbered from -K. At orders below the degree the spline is continuous at
  // the knots, so uniform knots need no exact comparison; at higher orders x is compared with the knots.
  void find_windows(int64_t i, const T* x, int64_t rows, int top_order, int32_t* window) {
    if (is_wide()) return wide_.find_windows(i, x, rows, window);
    set_knots(i, top_order);
    if (fast_)
      find_uniform(x, rows, window);
    else
      find_by_search(x, rows, window);
  }

  // Sets the rows for weights(); their features are multiplied by s unless it is null. Writes to `start` the first
  // function of each row's window, clamped to 0..F-K-1.
  void set_rows(const T* x, const T* s, const int32_t* window, int64_t rows, int32_t* start) {
    set_column(x, s, window, rows);
    if (fast_ && !is_wide()) return set_uniform<false>(window, start);
    const int32_t top = p_.F - windows_.functions;
    for (int64_t n = 0; n < rows; ++n) {
      const int32_t above = window[n] > 0 ? window[n] : 0;
      start[n] = above < top ? above : top;
    }
    if (is_wide()) return wide_.set_rows(x, window, rows);
    list_special_rows();
    if (few_knots())
      distances_by_lookup();
    else
      distances_to_knots();
  }

  // Both, for rows in their own order.
  void find_and_set_rows(int64_t i, const T* x, const T* s, int64_t rows, int top_order, int32_t* window,
                         int32_t* start) {
    if (!is_wide()) {
      set_knots(i, top_order);
      if (fast_) {
        set_column(x, s, window, rows);
        return set_uniform<true>(window, start);
      }
    }
    find_windows(i, x, rows, top_order, window);
    set_rows(x, s, window, rows, start);
  }

  // Writes the derivatives of that order to planes w + k * stride. With `sides` sets of features, their windows are
  // interleaved; this is set number `side`.
  void weights(int order, T* w, int64_t stride, int side = 0, int sides = 1) {
    const int planes = windows_.size + base_inside(p_), all = sides * windows_.count;
    for (int g = 0, at = side; g < windows_.count; ++g, at += sides) {
      T* to = w + at * planes * stride;
      is_wide() ? wide_.weights(order, g, to, stride) : splines(order, to, stride);
      scale(windows_.size, to, stride);
    }
    if (!p_.with_base) return;
    T* to = w + stride * (base_inside(p_) ? side * planes + windows_.size : all * planes + side);
    base(order, to);
    scale(1, to, stride);
  }

  // Whether there is a NaN that affects more functions than the windows contain.
  bool spreads_nan() const { return is_wide() && windows_.functions < p_.F && wide_.with_nan(); }

 private:
  bool is_wide() const { return p_.family != Family::bspline; }

  void scale(int planes, T* w, int64_t stride) const {
    if (!s_) return;
    for (int k = 0; k < planes; ++k)
      for (int64_t n = 0; n < rows_; ++n) w[k * stride + n] *= s_[n];
  }

  void splines(int order, T* w, int64_t stride) {
    switch (p_.K) {
      case 0:
        spline_weights<0>(order, w, stride);
        break;
      case 1:
        spline_weights<1>(order, w, stride);
        break;
      case 2:
        spline_weights<2>(order, w, stride);
        break;
      case 3:
        spline_weights<3>(order, w, stride);
        break;
      case 4:
        spline_weights<4>(order, w, stride);
        break;
      default:
        spline_weights<5>(order, w, stride);
        break;
    }
  }

  // Bounds of the coordinate (x - first knot) / h when windows are searched; a NaN gets the lower one.
  double lowest() const { return whole_ ? 0 : p_.K; }
  double highest() const { return whole_ ? p_.M - 1 : p_.F; }

  void set_knots(int64_t i, int top_order) {
    const double* grid = p_.grid + i * p_.grid_stride;
    fast_ = p_.equidistant && top_order < p_.K;
    whole_ = p_.outside == Outside::zero;
    first_ = grid[0];
    last_ = grid[p_.M - 1];
    if (p_.uniform) {
      low_ = uniform_knot(grid, p_.M, p_.K);
      high_ = uniform_knot(grid, p_.M, p_.F);
    } else {
      low_ = grid[p_.K];
      high_ = grid[p_.F];
    }
    if (fast_)
      inv_h_ = (p_.M - 1) / (last_ - first_);
    else
      load_knots(grid);
  }

  void set_column(const T* x, const T* s, const int32_t* window, int64_t rows) {
    x_ = x;
    s_ = s;
    window_ = window;
    rows_ = rows;
    with_sigma_ = false;
  }

  // The coordinate of an x among uniform knots, and its span: the right end of the grid range is in the last one.
  struct Coordinates {
    double origin, inv_h, low, high, end;
    int below_end, top;
    double of(T x) const {
      const double z = (static_cast<double>(x) - origin) * inv_h, c = z > low ? z : low;
      return c < high ? c : high;
    }
    int span(double c) const {
      const int m = static_cast<int>(c), most = c > end ? top : below_end;
      return m < most ? m : most;
    }
  };
  Coordinates coordinates() const {
    return {first_, inv_h_, lowest(), highest(), double(p_.F), p_.F - 1, static_cast<int>(highest()) - 1};
  }

  void find_uniform(const T* x, int64_t rows, int32_t* window) const {
    const Coordinates at = coordinates();
    const int K = p_.K;
    for (int64_t n = 0; n < rows; ++n) window[n] = at.span(at.of(x[n])) - K;
  }

  // The start of each row's window and the coordinate within its span; with FIND, the window too.
  template <bool FIND, class Window>
  void set_uniform(Window* window, int32_t* start) {
    const Coordinates at = coordinates();
    const double low = low_, high = high_;
    const int K = p_.K, top = p_.F - K - 1;
    const T* x = x_;
    T* u = u_;
    int32_t any = 0;
#pragma GCC ivdep
    for (int64_t n = 0; n < rows_; ++n) {
      const double c = at.of(x[n]);
      const int m = FIND ? at.span(c) : window[n] + K, first = m - K, above = first > 0 ? first : 0;
      if constexpr (FIND) window[n] = first;
      start[n] = above < top ? above : top;
      u[n] = static_cast<T>(c - m);
      any |= !(x[n] >= low) | !(x[n] <= high) | (first != start[n]);
    }
    specials_ = 0;
    if (any) list_special_rows();
  }

  // Lists the rows that are NaN or outside the grid range; most blocks of rows have none.
  void list_special_rows() {
    constexpr int64_t kTogether = 64;
    const double low = low_, high = high_;
    const T* x = x_;
    const int32_t* window = window_;
    const int top = p_.F - p_.K - 1;
    int32_t *list = special_, found = 0;
    for (int64_t n0 = 0; n0 < rows_; n0 += kTogether) {
      const int64_t end = min(rows_, n0 + kTogether);
      int32_t is_special[kTogether], any = 0;
      for (int64_t n = n0; n < end; ++n) {
        is_special[n - n0] = !(x[n] >= low) | !(x[n] <= high) | (window[n] < 0) | (window[n] > top);
        any |= is_special[n - n0];
      }
      for (int64_t n = n0; any && n < end; ++n) {
        list[found] = static_cast<int32_t>(n);
        found += is_special[n - n0];
      }
    }
    specials_ = found;
  }

  // Loads the knots: padded by repeating the outer ones, and rounded up to the compute type for comparisons.
  void load_knots(const double* grid) {
    const int M = p_.M;
    for (int j = 0; j < M; ++j) knots_[j] = p_.uniform ? uniform_knot(grid, M, j) : grid[j];
    for (int j = 1; j <= p_.K; ++j) {
      knots_[-j] = knots_[0];
      knots_[M - 1 + j] = knots_[M - 1];
    }
    last_ = knots_[M - 1];
    for (stride_ = 1; M > kLinearKnots * stride_;) stride_ *= 2;
    for (int j = 0; j < M - 1; ++j) steps_[j] = rounded_up<T>(knots_[j]);
    for (int j = M - 1; j < M + stride_; ++j) steps_[j] = T(__builtin_nan(""));
    if (few_knots()) build_tables();
  }

  // Counts the knots at or below x with a stride, then bisects within the stride: no branch depends on x. Reads whole
  // vectors of the column, for which a Tile has padding.
  void find_by_search(const T* column, int64_t rows, int32_t* window) const {
    constexpr int W = kLanes<T>;
    const int last = last_below_high(), low = whole_ ? 0 : span_of(low_), high = whole_ ? p_.M - 2 : last;
    const T end = static_cast<double>(static_cast<T>(high_)) == high_ ? static_cast<T>(high_) : T(__builtin_nan(""));
    for (int64_t n = 0; n < rows; n += W) {
      const Vec<T> x = load(column + n);
      Index<T> m{};
      for (int at = stride_; at < p_.M - 1; at += stride_) m -= x >= splat(steps_[at]);
      store_index<T>(window + n, m * stride_);
    }
    for (int half = stride_ / 2; half > 0; half /= 2)
      for (int64_t n = 0; n < rows; ++n) window[n] += column[n] >= steps_[window[n] + half] ? half : 0;
    for (int64_t n = 0; n < rows; ++n) {
      int32_t m = window[n] > low ? window[n] : low;
      m = m < high ? m : high;
      window[n] = (column[n] == end ? last : m) - p_.K;
    }
  }

  // The knot span that contains the right end of the grid range.
  int last_below_high() const {
    int last = p_.F - 1;
    while (last > 0 && !(knots_[last] < high_)) --last;
    return last;
  }

  int span_of(double x) const {
    int m = 0;
    while (m + 1 < p_.M - 1 && x >= knots_[m + 1]) ++m;
    return m;
  }

  void distances_to_knots() {
    const double* t = knots_ + p_.K;
    const bool whole = whole_;
    const double low = low_, high = high_;
    const T* column = x_;
    const int32_t* window = window_;
    for (int j = 1; j <= p_.K; ++j) {
      T *left = neighbours_[j - 1], *right = neighbours_[p_.K + j - 1];
#pragma GCC ivdep
      for (int64_t n = 0; n < rows_; ++n) {
        double x = static_cast<double>(column[n]);
        x = whole || !(x < low) ? x : low;
        x = whole || !(x > high) ? x : high;
        left[n] = static_cast<T>(x - t[window[n] + 1 - j]);
        right[n] = static_cast<T>(t[window[n] + j] - x);
      }
    }
  }

  bool few_knots() const { return p_.K > 0 && p_.M - 1 <= kTableSpans<T>; }

  // The same for few knots, by lookup in tables held in registers, since gather instructions load one element at a
  // time. t_m is a sum of two T, so x - t_m and the distances between knots are correct to the last place.
  void distances_by_lookup() {
    constexpr int W = kLanes<T>;
    const int K = p_.K;
    for (int64_t n = 0; n < rows_; n += W) {
      const Index<T> m = load_index<T>(window_ + n) + K;
      Vec<T> u = load(x_ + n) - lookup_table(0, m) - lookup_table(1, m);
      if (!whole_) {
        const Vec<T> width = lookup_table(2 + K, m);
        u = u > 0 ? u : Vec<T>{};
        u = u < width ? u : width;
      }
      for (int j = 1; j <= K; ++j) {
        store(neighbours_[j - 1] + n, j == 1 ? u : u + lookup_table(1 + j, m));
        store(neighbours_[K + j - 1] + n, lookup_table(1 + K + j, m) - u);
      }
    }
  }

  Vec<T> lookup_table(int table, Index<T> m) const {
    const T* t = tables_ + table * kTableSpans<T>;
    return lookup<T>(load(t), load(t + kLanes<T>), m);
  }

  // Tables over knot spans m: t_m as a sum of two; t_m - t_{m+1-j}, j = 2..K; t_{m+j} - t_m, j = 1..K.
  void build_tables() {
    const int K = p_.K, intervals = p_.M - 1;
    const auto table = [&](int at, auto&& of) {
      for (int m = 0; m < intervals; ++m) tables_[at * kTableSpans<T> + m] = of(knots_ + m);
    };
    table(0, [](const double* t) { return static_cast<T>(*t); });
    table(1, [](const double* t) { return static_cast<T>(*t - static_cast<double>(static_cast<T>(*t))); });
    for (int j = 2; j <= K; ++j) table(j + 1, [j](const double* t) { return static_cast<T>(t[0] - t[1 - j]); });
    for (int j = 1; j <= K; ++j) table(K + j + 1, [j](const double* t) { return static_cast<T>(t[j] - t[0]); });
  }

  template <int K>
  void spline_weights(int order, T* w, int64_t stride) {
    if (order > K) {
      for (int k = 0; k <= K; ++k)
        for (int64_t n = 0; n < rows_; ++n) w[k * stride + n] = T(0);
    } else {
      by_order<K, 0>(order, w, stride);
    }
    if (specials_) fix_special_rows<K>(order, w, stride);
  }

  template <int K, int D>
  void by_order(int order, T* w, int64_t stride) {
    if constexpr (D < K) {
      if (order > D) return by_order<K, D + 1>(order, w, stride);
    }
    if (fast_)
      uniform_functions<K, D>(w, stride);
    else
      local<K, D>(w, stride);
  }

  template <int K, int D>
  void uniform_functions(T* w, int64_t stride) {
    T factor = T(1);
    for (int d = 0; d < D; ++d) factor *= static_cast<T>(inv_h_);
    const T* u = u_;
#pragma GCC ivdep
    for (int64_t n = 0; n < rows_; ++n) {
      T v[K + 1];
      local_functions<K, D>(UniformKnots<T>{u[n]}, v);
#pragma GCC unroll 8
      for (int k = 0; k <= K; ++k) w[k * stride + n] = D > 0 ? v[k] * factor : v[k];
    }
  }

  template <int K, int D>
  void local(T* w, int64_t stride) {
#pragma GCC ivdep
    for (int64_t n = 0; n < rows_; ++n) {
      LocalKnots<T, K> knots;
#pragma GCC unroll 8
      for (int j = 0; j < K; ++j) {
        knots.l[j] = neighbours_[j][n];
        knots.r[j] = neighbours_[K + j][n];
      }
      T v[K + 1];
      local_functions<K, D>(knots, v);
#pragma GCC unroll 8
      for (int k = 0; k <= K; ++k) w[k * stride + n] = v[k];
    }
  }

  template <int K>
  void fix_special_rows(int order, T* w, int64_t stride) {
    T slope_low[K + 1], slope_high[K + 1];
    if (p_.outside == Outside::linear && order == 0) end_slopes<K>(slope_low, slope_high);
    for (int64_t at = 0; at < specials_; ++at) {
      const int64_t n = special_[at];
      const T x = x_[n];
      if (x != x) {
        for (int k = 0; k <= K; ++k) w[k * stride + n] = x;
      } else if (p_.outside == Outside::zero) {
        shift_into_range<K>(n, w, stride);
      } else if (x >= low_ && x <= high_) {
        continue;
      } else if (order >= (p_.outside == Outside::linear ? 2 : 1)) {
        for (int k = 0; k <= K; ++k) w[k * stride + n] = T(0);
      } else if (p_.outside == Outside::linear && order == 0) {
        const T* slope = x < low_ ? slope_low : slope_high;
        const T beyond = static_cast<T>(static_cast<double>(x) - (x < low_ ? low_ : high_));
        for (int k = 0; k <= K; ++k) w[k * stride + n] += slope[k] == T(0) ? T(0) : beyond * slope[k];  // x may be inf
      }
    }
  }

  // On the extended knots a part of the window lies outside 0..F-1: shifts it into the range.
  template <int K>
  void shift_into_range(int64_t n, T* w, int64_t stride) {
    T v[3 * K + 3] = {};
    for (int k = 0; k <= K; ++k) v[K + 1 + k] = w[k * stride + n];
    const int begin = window_[n], start = static_cast<int>(max(0, min(begin, p_.F - K - 1)));
    const bool within = x_[n] >= first_ && x_[n] < last_;
    const T* from = v + K + 1 + (within ? start - begin : K + 1);
    for (int k = 0; k <= K; ++k) w[k * stride + n] = from[k];
  }

  template <int K>
  void end_slopes(T* low, T* high) const {
    if constexpr (K == 0) {
      low[0] = high[0] = T(0);
    } else if (fast_) {
      local_functions<K, 1>(UniformKnots<T>{T(0)}, low);
      local_functions<K, 1>(UniformKnots<T>{T(1)}, high);
      for (int k = 0; k <= K; ++k) {
        low[k] *= static_cast<T>(inv_h_);
        high[k] *= static_cast<T>(inv_h_);
      }
    } else {
      int m = K;
      while (m < p_.F - 1 && low_ >= knots_[m + 1]) ++m;
      slope_at<K>(low_, m, low);
      m = p_.F - 1;
      while (m > 0 && !(knots_[m] < high_)) --m;
      slope_at<K>(high_, m, high);
    }
  }

  template <int K>
  void slope_at(double x, int m, T* w) const {
    LocalKnots<T, K> knots;
    for (int j = 1; j <= K; ++j) {
      knots.l[j - 1] = static_cast<T>(x - knots_[m + 1 - j]);
      knots.r[j - 1] = static_cast<T>(knots_[m + j] - x);
    }
    local_functions<K, 1>(knots, w);
  }

  void base(int order, T* w) {
    if (p_.base != Base::silu) {
      const bool identity = p_.base == Base::identity;
      for (int64_t n = 0; n < rows_; ++n) w[n] = !identity ? T(0) : order == 0 ? x_[n] : T(order == 1);
      return;
    }
    if (order == 0) {
      with_sigmoid([=](T x, T sigma) { return x * sigma; }, w);
    } else if (order == 1) {
      with_sigmoid([=](T x, T sigma) { return sigma * (T(1) + x * (T(1) - sigma)); }, w);
    } else {
      with_sigmoid([=](T, T sigma) { return sigma; }, w);
      silu_derivative(order, w);
    }
  }

  // w = f(x, sigma(x)); the first call keeps sigma for those of other orders.
  template <class F>
  void with_sigmoid(const F& f, T* w) {
    const T* x = x_;
    T* sigma = sigma_;
    if (with_sigma_) {
      for (int64_t n = 0; n < rows_; ++n) w[n] = f(x[n], sigma[n]);
      return;
    }
#pragma GCC ivdep
    for (int64_t n = 0; n < rows_; ++n) {
      const T of_x = sigmoid(x[n]);
      sigma[n] = of_x;
      w[n] = f(x[n], of_x);
    }
    with_sigma_ = true;
  }

  // silu^(d) = x sigma^(d) + d sigma^(d-1)
  void silu_derivative(int order, T* w) const {
    double upper[kMaxOrder + 2], lower[kMaxOrder + 2];
    sigmoid_derivative(order, upper);
    sigmoid_derivative(order - 1, lower);
    for (int64_t n = 0; n < rows_; ++n) {
      const T sigma = sigma_[n];
      T a = T(0), b = T(0);
      for (int k = order + 1; k > 0; --k) {
        a = a * sigma + static_cast<T>(upper[k]);
        b = b * sigma + static_cast<T>(k <= order ? lower[k] : 0.0);
      }
      w[n] = sigma * (x_[n] * a + static_cast<T>(order) * b);
    }
  }

  const Problem& p_;
  const Windows windows_;
  WideColumn<T> wide_;
  const T *x_ = nullptr, *s_ = nullptr;
  const int32_t* window_ = nullptr;
  T *u_, *sigma_;
  T* neighbours_[10] = {};
  double* knots_;
  T *steps_, *tables_;
  int32_t* special_;  // rows for fix_special_rows()
  int stride_ = 1;
  int64_t rows_ = 0, specials_ = 0;
  double first_ = 0, last_ = 0, low_ = 0, high_ = 0, inv_h_ = 0;
  bool fast_ = false, whole_ = false, with_sigma_ = false;
};

}  // namespace
}  // namespace fastkan
