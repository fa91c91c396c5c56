// The window of one x: the K + 1 B-spline basis functions that are non-zero there, and their values or derivatives.
#pragma once

#include "knots.h"
#include "silu.h"

namespace fastkan {

// MAX bounds the degree, so that arrays stay in registers; FIXED means that the degree is MAX.
template <class T, int MAX, bool FIXED>
class Window {
 public:
  FASTKAN_HD Window(const Shape& shape, const KnotRow<T>& knots, const double* row, T x)
      : x(x), s_(shape), r_(knots), row_(row) {
    if (s_.exact) {
      const double low = s_.knot(row_, s_.K), high = s_.knot(row_, s_.F);
      at_ = static_cast<double>(x);
      if (s_.outside != Outside::zero) at_ = at_ < low ? low : at_ > high ? high : at_;
      begin_ = exact_interval<T>(s_, r_, row_, at_) - degree();
    } else {
      begin_ = uniform_interval<T>(s_, r_, x, &u_) - degree();
    }
    const int top = s_.F - degree() - 1;
    start = begin_ > 0 ? begin_ : 0;
    start = start < top ? start : top;
  }

  // w[k] = derivative of that order of function start + k, k = 0..K.
  FASTKAN_HD void weights(int order, T* w) const {
    const int K = degree();
    const bool inside = x >= r_.low.near && x <= r_.high.near;
    const bool linear = s_.outside == Outside::linear;
    const bool rises = linear && !inside && order == 0 && K > 0;
    FASTKAN_ROLL
    for (int pass = 0; pass <= rises; ++pass) {  // value at the end of the grid range, then slope
      T v[MAX + 1] = {};
      functions(pass == 0 ? order : 1, v);
      const Split<T> end = x < r_.low.near ? r_.low : r_.high;
      const T beyond = (x - end.near) - end.rest;
      FASTKAN_UNROLL
      for (int k = 0; k <= MAX; ++k)
        if (k <= K) w[k] = pass == 0 ? v[k] : v[k] != T(0) ? w[k] + beyond * v[k] : w[k];  // x may be infinite
    }
    if (inside && begin_ == start) return;
    if (x != x) {
      fill(w, x);
    } else if (s_.outside == Outside::zero) {
      if (x >= r_.begin && x < r_.end)
        shift(start - begin_, w);
      else
        fill(w, T(0));
    } else if (!inside && order >= (linear ? 2 : 1)) {
      fill(w, T(0));
    }
  }

  int start;
  T x;

 private:
  FASTKAN_HD int degree() const { return FIXED ? MAX : s_.K; }

  FASTKAN_HD void functions(int order, T* w) const {
    const int K = degree();
    if (order > K) return fill(w, T(0));
    if (!s_.exact) {
      local_functions<MAX>(K, order, UniformKnots<T>{u_}, w);
      T factor = T(1);
      for (int d = 0; d < order; ++d) factor *= r_.inv_step;
      FASTKAN_UNROLL
      for (int k = 0; k <= MAX; ++k)
        if (k <= K) w[k] *= factor;
      return;
    }
    LocalKnots<T, MAX> near = {};
    const int m = begin_ + K;
    FASTKAN_UNROLL
    for (int j = 1; j <= MAX; ++j) {
      if (j <= K) {
        const int l = m + 1 - j, r = m + j;
        near.l[j - 1] = static_cast<T>(at_ - s_.knot(row_, l > 0 ? l : 0));
        near.r[j - 1] = static_cast<T>(s_.knot(row_, r < s_.M ? r : s_.M - 1) - at_);
      }
    }
    local_functions<MAX>(K, order, near, w);
  }

  FASTKAN_HD void fill(T* w, T value) const {
    FASTKAN_UNROLL
    for (int k = 0; k <= MAX; ++k) w[k] = value;
  }

  // On the extended knots a part of the window lies outside 0..F-1: w[k] <- w[k + by], zero where there is none. In
  // steps of one, since registers cannot be indexed.
  FASTKAN_HD void shift(int by, T* w) const {
    const int K = degree();
    for (int step = 0; step < (by > 0 ? by : -by); ++step) {
      if (by > 0) {
        FASTKAN_UNROLL
        for (int k = 0; k <= MAX; ++k) w[k] = k < K ? w[k < MAX ? k + 1 : k] : T(0);
      } else {
        FASTKAN_UNROLL
        for (int k = MAX; k >= 0; --k) w[k] = k > 0 ? w[k > 0 ? k - 1 : 0] : T(0);
      }
    }
  }

  const Shape& s_;
  const KnotRow<T>& r_;
  const double* row_;
  double at_ = 0;  // x clamped to the grid range, with exact knots
  T u_ = T(0);
  int begin_;  // start of the window before it is moved into 0..F-1
};

// The base function's constants: the polynomials in sigma of its derivative, silu^(d) = x sigma^(d) + d sigma^(d-1).
template <class T>
struct BaseFunction {
  Base kind;
  int order;
  T upper[kMaxOrder + 2], lower[kMaxOrder + 2];

  static BaseFunction of(Base kind, int order) {
    BaseFunction b{kind, order, {}, {}};
    double p[kMaxOrder + 2];
    sigmoid_derivative(order, p);
    for (int k = 0; k <= order + 1; ++k) b.upper[k] = static_cast<T>(p[k]);
    sigmoid_derivative(order > 0 ? order - 1 : 0, p);
    for (int k = 0; order > 0 && k <= order; ++k) b.lower[k] = static_cast<T>(p[k]);
    return b;
  }

  FASTKAN_HD T value(T x) const { return kind == Base::zero ? T(0) : kind == Base::identity ? x : x * sigmoid(x); }
  FASTKAN_HD T slope(T x) const {
    if (kind != Base::silu) return T(kind == Base::identity);
    const T sigma = sigmoid(x);
    return sigma * (T(1) + x * (T(1) - sigma));
  }
  FASTKAN_HD T operator()(T x) const {
    if (order == 0) return value(x);
    if (order == 1) return slope(x);
    if (kind != Base::silu) return T(0);
    const T sigma = sigmoid(x);
    T a = T(0), b = T(0);
    for (int k = order + 1; k > 0; --k) {
      a = a * sigma + upper[k];
      b = b * sigma + lower[k];
    }
    return sigma * (x * a + static_cast<T>(order) * b);
  }
};

}  // namespace fastkan
