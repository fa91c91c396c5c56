// What sums over rows, or over outputs: a warp takes one input and visits its rows in the order of their windows. The
// coefficients of a window, and the gradients of them, stay in registers while its rows go by and move on with it;
// lanes are outputs. So coefficients are read and gradients written once for some hundreds of rows, by one owner, in
// one order.
//   gradients:       grad_x[n,i] = s sum_o u (sum_k w'_k coef_k + b' base),  grad_coef_k[i,o] = sum_n s w_k u
//   edge_moments:    sums of |phi|, d, d^2 with phi = sum_k w_k coef_k + b base, d = phi - phi in the first row
//   edge_gradients:  gradients with u[n,o] + t0[i,o] sign(phi[n,i,o]) + t1[i,o] + t2[i,o] phi[n,i,o] for u[n,o]
// Of families whose functions are not zero in several windows at once all functions go by in turns, a window each: in a
// turn rows have one window in common. They lie in the order of their first functions, so that those of which a turn's
// functions are all zero are passed over 32 at a time.
#pragma once

#include "../operand.h"
#include "../order.h"

namespace fastkan {

enum class Visit : int { gradients, edge_moments, edge_gradients };

constexpr int kWarps = 4;  // of a block: neighbouring inputs, which read the same rows of u at about the same time

template <class A>
struct WalkArgs {
  Contraction<A> c;
  bool with_x, with_coef;
  int capacity;        // rows that are sorted together
  int functions;       // that a warp owns, of F; what is one warp's is a range
  int turn;            // functions that it takes at a time: all of these, but of families with several windows one
  int ranges, splits;  // splits of the rows
  int64_t split_rows;
  A* sum_coef;      // [split, I, F, O]; where it is absent grad_coef is written at once
  A* sum_edges;     // [split, range, I, O]: of grad_base; likewise
  double* moments;  // [split, range, 4, I, O], see edge_moments.h
};

// What a warp keeps of 32 rows: the weights of their windows, base function last, and those of the order for grad_x.
template <class A, int MAX>
struct WalkShared {
  static constexpr int kPlanes = MAX + 2, kRow = 2 * kPlanes;
  Ordered<A> rows;
  A* weight;  // [kWarp][kRow]
  KnotRow<A>* knots;

  FASTKAN_HD WalkShared(Pieces pieces, int capacity)
      : rows(pieces, capacity), weight(pieces.take<A>(kWarp * kRow)), knots(pieces.take<KnotRow<A>>(1)) {}
  FASTKAN_HD static int64_t bytes(int capacity) {
    return Ordered<A>::bytes(capacity) + Pieces::bytes<A>(kWarp * kRow) + Pieces::bytes<KnotRow<A>>(1);
  }
};

template <class A>
__device__ __forceinline__ A sum_of_warp(A value) {
#pragma unroll
  for (int by = kWarp / 2; by > 0; by /= 2) value += __shfl_xor_sync(kAll, value, by);
  return value;
}

template <class Operand, int MAX, bool FIXED, Visit VISIT>
class Walk {
  using A = typename Operand::Accumulator;
  using Shared = WalkShared<A, MAX>;
  static constexpr int V = Operand::kWidth;
  static constexpr bool kKeepsTerms = FIXED || V < 8;  // in registers

 public:
  __device__ __forceinline__ Walk(const WalkArgs<A>& args, const Shared& memory, int64_t input, int range, int split)
      : a(args),
        p(args.c.p),
        shared(memory),
        i(input),
        split_(split),
        range_(range),
        lane(static_cast<int>(threadIdx.x % kWarp)),
        f_begin(range * args.functions),
        f_end(static_cast<int>(least(args.c.p.F, f_begin + args.functions))),
        turn_(f_begin),
        n_begin(split * args.split_rows),
        n_end(least(args.c.p.N, n_begin + args.split_rows)) {}

  __device__ __forceinline__ void run() {
    if (lane == 0) *shared.knots = KnotRow<A>::of(a.c.shape, row_of_knots());
    __syncwarp();
    int filled = 0;
    bool whole = true;  // no rows before these
    for (int64_t from = n_begin; from < n_end; from += kWarp) {
      const int64_t n = from + lane;
      const int place = n < n_end ? place_of(n) : -1;
      shared.rows.add(filled, place >= 0, static_cast<int32_t>(n - n_begin), place);
      if (filled + kWarp <= a.capacity && from + kWarp < n_end) continue;
      shared.rows.sort(filled);
      for (turn_ = f_begin; turn_ < f_end; turn_ = turn_end()) visit(filled, whole);
      if (a.with_x) store_x(filled);
      __syncwarp();
      filled = 0;
      whole = false;
    }
  }

 private:
  __device__ __forceinline__ bool wide() const { return !FIXED && p.family != Family::bspline; }
  __device__ __forceinline__ int K() const { return FIXED ? MAX : a.c.windows.size - 1; }  // one less than a window
  __device__ __forceinline__ const double* row_of_knots() const { return p.grid + i * p.grid_stride; }
  __device__ __forceinline__ A x_of(int64_t n) const { return element<A>(p.x, n * p.x.stride[0] + i * p.x.stride[1]); }
  __device__ __forceinline__ A s_of(int64_t n) const {
    return p.s ? element<A>(p.s, n * p.s.stride[0] + i * p.s.stride[1]) : A(1);
  }
  __device__ __forceinline__ Window<A, MAX, FIXED> window_of(int64_t n) const {
    return Window<A, MAX, FIXED>(a.c.shape, *shared.knots, row_of_knots(), x_of(n));
  }
  __device__ __forceinline__ Wide<A> wide_of(int64_t n) const {
    return Wide<A>(a.c.shape, p.family, *shared.knots, x_of(n));
  }
  // The functions whose turn it is.
  __device__ __forceinline__ int turn_begin() const { return FIXED ? f_begin : turn_; }
  __device__ __forceinline__ int turn_end() const {
    return FIXED ? f_end : static_cast<int>(least(f_end, turn_ + a.turn));
  }
  // Where a row stands in the order; -1: nowhere, since the range has nothing to do with it. Of splines that is the
  // window, the lowest that holds a function of the range being 0.
  __device__ __forceinline__ int place_of(int64_t n) const {
    if (wide()) return wide_of(n).first(a.c.windows.functions) / (p.F / kDigits + 1);
    const int window = window_of(n).start - (f_begin - K());
    return window >= (a.with_coef ? 0 : K()) && window < f_end - f_begin + K() ? window : -1;
  }
  // Of a row, counted in the same way from the lowest that holds a function of the turn.
  __device__ __forceinline__ int window_at(int slot) const { return wide() ? K() : shared.rows.window[slot]; }
  // The base function goes along with the first turn.
  __device__ __forceinline__ bool with_base() const { return p.with_base && (!wide() || turn_ == 0); }
  __device__ __forceinline__ bool reads_coef() const { return VISIT != Visit::gradients || a.with_x; }

  // The registers of one lane: outputs o .. o+V-1 of one window, counted g.
  struct Lane {
    int64_t o;
    bool here;
    int g;
    A coef[MAX + 1][V], base[V];  // read
    A sum[MAX + 1][V], edge[V];   // gradients of them; of edge_moments the sum of |phi| alone
    A terms[3][V];                // of edge_gradients
    A shift[V];                   // of edge_moments
    double first[V], second[V];   // sums of d and d^2
  };

  __device__ __forceinline__ void visit(int filled, bool whole) {
    for (int64_t o0 = 0; o0 < p.O; o0 += kWarp * V) {
      Lane l = begin(o0, filled);
      const bool first = o0 == 0 && turn_begin() == f_begin;
      for (int from = 0; from < filled; from += kWarp) visit_some(l, from, filled, whole, first);
      finish(l, whole);
    }
  }

  __device__ __forceinline__ Lane begin(int64_t o0, int filled) {
    Lane l = {};
    l.o = o0 + lane * V;
    l.here = l.o < p.O;
    if (reads_coef() && p.with_base && l.here)
      Operand::load(p.base_weight, i * p.base_weight.stride[0], l.o, p.base_weight.stride[1], l.base);
    // With gradients of coefficients every window of splines counts, since every function is written.
    const int window = a.with_coef && !wide() ? 0 : filled ? window_at(shared.rows.slot[0]) : K();
    l.g = window - K() - 1;
    while (l.g < window) move(l, false, true);
    if (VISIT == Visit::edge_gradients && kKeepsTerms && l.here)
#pragma unroll
      for (int k = 0; k < 3; ++k)
#pragma unroll
        for (int v = 0; v < V; ++v) l.terms[k][v] = read_term(k, l.o + v);
    if (VISIT == Visit::edge_moments) value_in_first_row(l);
    return l;
  }

  __device__ __forceinline__ A term(const Lane& l, int k, int v) const {
    return kKeepsTerms ? l.terms[k][v] : l.here ? read_term(k, l.o + v) : A(0);
  }

  __device__ __forceinline__ A read_term(int k, int64_t o) const {
    const View& t = p.terms;
    return static_cast<const A*>(t.data)[k * t.stride[0] + i * t.stride[1] + o * t.stride[2]];
  }

  // What edge_moments takes off every value. In the order of values(), so that an edge that is constant has d = 0.
  __device__ __forceinline__ void value_in_first_row(Lane& l) const {
    if (wide()) return wide_value(l, 0, l.shift);
    if (!l.here) return;
    const Window<A, MAX, FIXED> window = window_of(0);
    A w[MAX + 1], c[V] = {};
    window.weights(p.order, w);
    const A of_base = p.with_base ? a.c.base(window.x) : A(0);
#pragma unroll
    for (int v = 0; v < V; ++v) l.shift[v] = p.with_base ? of_base * l.base[v] : A(0);
#pragma unroll
    for (int k = 0; k <= MAX; ++k) {
      if (k > K()) continue;
      Operand::load(p.coef, i * p.coef.stride[0] + (window.start + k) * p.coef.stride[1], l.o, p.coef.stride[2], c);
#pragma unroll
      for (int v = 0; v < V; ++v) l.shift[v] += w[k] * c[v];
    }
  }

  // phi of all functions that are not zero in a row, a lane evaluating each.
  __device__ __forceinline__ void wide_value(const Lane& l, int64_t n, A* phi) const {
    const Wide<A> wide = wide_of(n);
    const A of_base = p.with_base ? a.c.base(wide.x) : A(0);
#pragma unroll
    for (int v = 0; v < V; ++v) phi[v] = of_base * l.base[v];
    const int first = wide.first(a.c.windows.functions), end = first + a.c.windows.functions;
    for (int from = first; from < end; from += kWarp) {
      const A mine = from + lane < end ? wide(p.order, from + lane) : A(0);
      for (int f = from; f < least(end, from + kWarp); ++f) {
        const A w = __shfl_sync(kAll, mine, f - from);
        A c[V] = {};
        if (l.here) Operand::load(p.coef, i * p.coef.stride[0] + f * p.coef.stride[1], l.o, p.coef.stride[2], c);
#pragma unroll
        for (int v = 0; v < V; ++v) phi[v] += w * c[v];
      }
    }
  }

  __device__ __forceinline__ void load_u(const Lane& l, int32_t row, A* to) const {
    if (l.here && p.u) Operand::load(p.u, (n_begin + row) * p.u.stride[0], l.o, p.u.stride[1], to);
  }

  // The window moves on by one function: the lowest leaves, the next is read.
  __device__ __forceinline__ void move(Lane& l, bool whole, bool reads) {
    const int leaves = turn_begin() - K() + l.g, enters = leaves + K() + 1;
    if (a.with_coef && leaves >= turn_begin() && l.here) put_coef(l, leaves, whole);
    A coef[V] = {};
    if (reads && reads_coef() && l.here && enters >= 0 && enters < p.F)
      Operand::load(p.coef, i * p.coef.stride[0] + enters * p.coef.stride[1], l.o, p.coef.stride[2], coef);
    ++l.g;
#pragma unroll
    for (int k = 0; k <= MAX; ++k)
#pragma unroll
      for (int v = 0; v < V; ++v) {
        l.sum[k][v] = k < K() ? l.sum[k < MAX ? k + 1 : k][v] : A(0);
        l.coef[k][v] = k < K() ? l.coef[k < MAX ? k + 1 : k][v] : coef[v];
      }
  }

  __device__ __forceinline__ void put_coef(const Lane& l, int f, bool whole) const {
    const int64_t at = (i * p.F + f) * p.O + l.o;
    if (!a.sum_coef)
      Operand::store(p.grad_coef, p.grad_coef_dtype, at, l.sum[0]);
    else if (A* to = a.sum_coef + split_ * p.I * p.F * p.O + at; whole)
      put_sums<V>(to, l.sum[0]);
    else
      add_sums<V>(to, l.sum[0]);
  }

  __device__ __forceinline__ void finish(Lane& l, bool whole) {
    if (a.with_coef)
      while (l.g < turn_end() - turn_begin() + K()) move(l, whole, false);
    if (!l.here) return;
    const int64_t at = i * p.O + l.o, part = static_cast<int64_t>(split_) * a.ranges + range_;
    if (VISIT == Visit::edge_moments)
      put_moments(l, a.moments + part * 4 * p.I * p.O + at, whole);
    else if (!a.with_coef || !with_base())
      return;
    else if (!a.sum_edges)
      Operand::store(p.grad_base, p.grad_coef_dtype, at, l.edge);
    else if (A* to = a.sum_edges + part * p.I * p.O + at; whole)
      put_sums<V>(to, l.edge);
    else
      add_sums<V>(to, l.edge);
  }

  __device__ __forceinline__ void put_moments(const Lane& l, double* to, bool whole) const {
    const int64_t plane = p.I * p.O;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      to[v] = l.edge[v] + (whole ? 0 : to[v]);
      to[plane + v] = l.first[v] + (whole ? 0 : to[plane + v]);
      to[2 * plane + v] = l.second[v] + (whole ? 0 : to[2 * plane + v]);
      to[3 * plane + v] = l.shift[v];
    }
  }

  // 32 rows of the order, or what is left of them: lane r evaluates row r, then all lanes visit one after the other.
  __device__ __forceinline__ void visit_some(Lane& l, int from, int filled, bool whole, bool first) {
    const int count = static_cast<int>(least(kWarp, filled - from));
    int32_t my_row = 0;
    int my_window = 0;
    if (lane < count) {
      const int slot = shared.rows.slot[from + lane];
      my_row = shared.rows.row[slot];
      my_window = window_at(slot);
      if (!wide()) evaluate(my_row);
    }
    const bool any = !wide() || evaluate_wide(my_row, lane < count);
    __syncwarp();
    A next[V] = {}, my_x = A(0);
    if (VISIT == Visit::gradients && any) load_u(l, __shfl_sync(kAll, my_row, 0), next);
    for (int r = 0; any && r < count; ++r) {
      const int window = __shfl_sync(kAll, my_window, r);
      A u[V];
#pragma unroll
      for (int v = 0; v < V; ++v) u[v] = next[v];
      if (VISIT == Visit::edge_gradients) load_u(l, __shfl_sync(kAll, my_row, r), u);  // no registers to read ahead
      if (VISIT == Visit::gradients) {
        const int32_t row = __shfl_sync(kAll, my_row, r + 1 < count ? r + 1 : r);
        load_u(l, row, next);
      }
      while (l.g < window) move(l, whole, true);
      const A* w = shared.weight + r * Shared::kRow;
      const bool owned = window >= K();  // else another range's, which shares functions with it
      if (VISIT != Visit::gradients) values(l, w, __shfl_sync(kAll, my_row, r), u);
      if (VISIT == Visit::edge_moments) continue;
      if (a.with_coef) add_row(l, w, u, owned);
      if (a.with_x) {
        const A total = sum_of_warp(slope(l, w + Shared::kPlanes, u));
        if (lane == r) my_x = total;
      }
    }
    if (a.with_x && lane < count) {
      A* sum = shared.rows.scratch + from + lane;
      *sum = first ? my_x : *sum + my_x;
    }
    __syncwarp();
  }

  __device__ __forceinline__ void evaluate(int32_t row) const {
    const int64_t n = n_begin + row;
    const Window<A, MAX, FIXED> window = window_of(n);
    FASTKAN_ROLL
    for (int of_x = 0; of_x < 2; ++of_x) {
      if (!wants(of_x)) continue;
      const A s = of_x ? A(1) : s_of(n);
      A w[MAX + 1];
      window.weights(of_x ? p.x_order : p.order, w);
      A* to = shared.weight + lane * Shared::kRow + of_x * Shared::kPlanes;
#pragma unroll
      for (int k = 0; k <= MAX; ++k) to[k] = w[k] * s;
      if (p.with_base) to[MAX + 1] = (of_x ? a.c.base_of_x : a.c.base)(window.x) * s;
    }
  }
  __device__ __forceinline__ bool wants(int of_x) const {
    return of_x ? a.with_x : a.with_coef || VISIT != Visit::gradients;
  }

  // Whether the turn's functions, or the base function, may not be zero in that row.
  __device__ __forceinline__ bool reaches(int32_t row) const {
    const Wide<A> wide = wide_of(n_begin + row);
    const int begin = wide.first(a.c.windows.functions);
    return with_base() || wide.x != wide.x || (begin < turn_end() && begin + a.c.windows.functions > turn_begin());
  }

  // The functions of the turn in those lanes that have a row, unless they are zero in all of them: whether they are
  // not.
  __device__ __forceinline__ bool evaluate_wide(int32_t row, bool has) const {
    if (__ballot_sync(kAll, has && reaches(row)) == 0) return false;
    if (!has) return true;
    const int64_t n = n_begin + row;
    const Wide<A> wide = wide_of(n);
    const int size = a.c.windows.size;
    FASTKAN_ROLL
    for (int of_x = 0; of_x < 2; ++of_x) {
      if (!wants(of_x)) continue;
      const A s = of_x ? A(1) : s_of(n);
      A* to = shared.weight + lane * Shared::kRow + of_x * Shared::kPlanes;
      const int order = of_x ? p.x_order : p.order;
      FASTKAN_ROLL
      for (int k = 0; k < size; ++k) to[k] = turn_ + k < p.F ? wide(order, turn_ + k) * s : A(0);
      if (with_base()) to[MAX + 1] = (of_x ? a.c.base_of_x : a.c.base)(wide.x) * s;
    }
    return true;
  }

  // phi of the edges, which edge_moments sums; for their gradients what adds to u.
  __device__ __forceinline__ void values(Lane& l, const A* w, int32_t row, A* u) const {
    A phi[V];
    if (wide())
      wide_value(l, n_begin + row, phi);
    else
      spline_value(l, w, phi);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const A value = phi[v];
      if (VISIT == Visit::edge_moments) {
        const double d = static_cast<double>(value - l.shift[v]);
        l.edge[v] += value < A(0) ? -value : value;
        l.first[v] += d;
        l.second[v] += d * d;
      } else {
        const A t0 = term(l, 0, v);
        // of a NaN: NaN
        u[v] += (value > A(0) ? t0 : value < A(0) ? -t0 : A(0)) + (term(l, 1, v) + term(l, 2, v) * value);
      }
    }
  }

  __device__ __forceinline__ void spline_value(const Lane& l, const A* w, A* phi) const {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      phi[v] = p.with_base ? w[MAX + 1] * l.base[v] : A(0);
#pragma unroll
      for (int k = 0; k <= MAX; ++k)
        if (k <= K()) phi[v] += w[k] * l.coef[k][v];
    }
  }

  __device__ __forceinline__ void add_row(Lane& l, const A* w, const A* u, bool owned) const {
#pragma unroll
    for (int k = 0; k <= MAX; ++k)
      if (k <= K())
#pragma unroll
        for (int v = 0; v < V; ++v) l.sum[k][v] += w[k] * u[v];
    if (with_base() && owned)
#pragma unroll
      for (int v = 0; v < V; ++v) l.edge[v] += w[MAX + 1] * u[v];
  }

  __device__ __forceinline__ A slope(const Lane& l, const A* w, const A* u) const {
    A total = A(0);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      A rate = with_base() ? w[MAX + 1] * l.base[v] : A(0);
#pragma unroll
      for (int k = 0; k <= MAX; ++k)
        if (k <= K()) rate += w[k] * l.coef[k][v];
      total += rate * u[v];
    }
    return l.here ? total : A(0);
  }

  __device__ __forceinline__ void store_x(int filled) const {
    for (int at = lane; at < filled; at += kWarp) {
      const int slot = shared.rows.slot[at];
      if (window_at(slot) < K()) continue;
      const int64_t n = n_begin + shared.rows.row[slot];
      put_element(p.grad_x, p.grad_x_dtype, n * p.I + i, shared.rows.scratch[at] * s_of(n));
    }
  }

  const WalkArgs<A>& a;
  const Problem& p;
  const Shared shared;
  const int64_t i;
  const int split_, range_, lane, f_begin, f_end;
  int turn_;
  const int64_t n_begin, n_end;
};

// Blocks that a processor shall hold: as many as leave each thread registers enough to spill none.
template <class Operand, bool FIXED, Visit VISIT>
constexpr int walk_blocks() {
  constexpr int kWidest = VISIT == Visit::gradients ? 8 : VISIT == Visit::edge_moments ? 4 : 1;
  return FIXED && sizeof(typename Operand::Accumulator) == 4 && Operand::kWidth <= kWidest ? 3 : 2;
}

template <class Operand, int MAX, bool FIXED, Visit VISIT>
__global__ void __launch_bounds__(kWarp* kWarps, walk_blocks<Operand, FIXED, VISIT>())
    walk_kernel(const __grid_constant__ WalkArgs<typename Operand::Accumulator> a) {
  using A = typename Operand::Accumulator;
  extern __shared__ __align__(16) unsigned char fastkan_shared[];
  const int warp = threadIdx.x / kWarp;
  const int64_t groups = ceil_div(a.c.p.I, kWarps);
  const int64_t input = blockIdx.x % groups * kWarps + warp, rest = blockIdx.x / groups;
  if (input >= a.c.p.I) return;  // nothing waits for the whole block
  const WalkShared<A, MAX> shared(Pieces(fastkan_shared + warp * WalkShared<A, MAX>::bytes(a.capacity)), a.capacity);
  Walk<Operand, MAX, FIXED, VISIT>(a, shared, input, static_cast<int>(rest % a.ranges),
                                   static_cast<int>(rest / a.ranges))
      .run();
}

// Cuts a problem for that many processors.
template <class A>
WalkArgs<A> plan_walk(const Problem& p, bool with_x, bool with_coef, int processors) {
  constexpr int kMostFunctions = kDigits - kMaxDegree;  // windows of a range are counted in 8 bits
  constexpr int kFewFunctions = 32, kFewRows = 64;      // of a range, of a split: less is mostly overlap and order
  constexpr int64_t kMostParts = 1 << 22;               // sums in workspace, beyond one split's
  const int64_t wanted = 16 * static_cast<int64_t>(processors);
  const int64_t F = p.F, I = most(1, p.I);
  const bool wide = p.family != Family::bspline;  // a row has to do with all functions, so that a warp takes all
  int64_t ranges = wide ? 1 : most(ceil_div(F, kMostFunctions), least(ceil_div(F, kFewFunctions), ceil_div(wanted, I)));
  const int64_t functions = ceil_div(F, ranges);
  ranges = ceil_div(F, functions);
  int64_t splits = least(ceil_div(wanted, I * ranges), least(64, ceil_div(p.N, kFewRows)));
  if (with_coef) splits = least(splits, kMostParts / (I * F * most(1, p.O)));
  splits = most(most(1, splits), ceil_div(p.N, 1 << 30));
  const int64_t split_rows = most(1, ceil_div(ceil_div(p.N, splits), kWarp)) * kWarp;
  splits = most(1, ceil_div(p.N, split_rows));
  const int64_t capacity = least(functions <= 64 ? 256 : 512, split_rows);
  return {Contraction<A>::of(p),
          with_x,
          with_coef,
          static_cast<int>(capacity),
          static_cast<int>(functions),
          wide && (with_x || with_coef) ? windows_of(p).size : static_cast<int>(functions),
          static_cast<int>(ranges),
          static_cast<int>(splits),
          split_rows,
          nullptr,
          nullptr,
          nullptr};
}

template <class Operand, Visit VISIT>
void walk(const char* name, const WalkArgs<typename Operand::Accumulator>& a, const Device& device) {
  const int64_t blocks = ceil_div(a.c.p.I, kWarps) * a.ranges * a.splits;
  by_degree(a.c.p, [&]<int MAX, bool FIXED>() {
    using Shared = WalkShared<typename Operand::Accumulator, MAX>;
    launch(name, walk_kernel<Operand, MAX, FIXED, VISIT>, blocks, kWarp * kWarps,
           static_cast<size_t>(kWarps * Shared::bytes(a.capacity)), device, a);
  });
}

// Where sums of one owner go: straight into a result that has their type, or that is written once; else to workspace.
template <class Operand, class A>
A* sums(void* result, int64_t size, int64_t parts, bool once, const Device& device) {
  if (parts == 1 && (Operand::kSame || once)) return Operand::kSame ? static_cast<A*>(result) : nullptr;
  return device.take<A>(parts * size);
}

}  // namespace fastkan
