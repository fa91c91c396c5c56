// Row walk: reductions over rows or outputs. A warp takes one input, sorts a batch of its rows by knot span and
// processes them in that order; lanes are outputs. The coefficients of the current window and their gradients stay in
// registers, and shift by one function when the window advances. So a batch of up to 512 rows reads each
// coefficient and writes each gradient once, by one owner and in a fixed order.
//   gradients:       grad_x[n,i] = s sum_o u (sum_k w'_k coef_k + b' base),  grad_coef_k[i,o] = sum_n s w_k u
//   edge_moments:    sums of |phi|, d, d^2 with phi = sum_k w_k coef_k + b base, d = phi - phi in the first row
//   edge_gradients:  gradients with u[n,o] + t0[i,o] sign(phi[n,i,o]) + t1[i,o] + t2[i,o] phi[n,i,o] for u[n,o]
// Families with wide support process all their functions in passes of one window, the same window for every row. Rows
// are sorted by their first non-zero function, so that rows whose functions are zero in a pass are skipped 32 at a
// time.
#pragma once

#include "../operand.h"
#include "../order.h"

namespace fastkan {

enum class Reduction : int { gradients, edge_moments, edge_gradients };

constexpr int kWarps =
    4;  // of a block; they take neighbouring inputs, which read the same rows of u at about the same time

template <class A>
struct RowWalkArgs {
  Contraction<A> c;
  bool with_x, with_coef;
  int capacity;        // rows sorted together
  int functions;       // functions owned by a warp: a range of the F functions
  int pass_functions;  // functions per pass: all of a range; one window for families with wide support
  int ranges, splits;  // ranges of functions; splits of the rows
  int64_t split_rows;
  int chunks;  // of the outputs
  int64_t chunk_outputs;
  A* sum_coef;      // [split, I, F, O]; null: grad_coef is written directly
  A* sum_edges;     // [split, range, I, O], for grad_base; likewise
  A* sum_x;         // [chunk, N, I]; null: grad_x is written directly
  double* moments;  // [split, range, 4, I, O], see edge_moments.h
};

// Shared memory of a warp, for 32 rows. `weight`: the values of their windows, base function last, at `order` and at
// `x_order`. `slope`, for gradients of x: what each lane's outputs add to the row; 16 bytes of 8 rows lie in different
// banks.
template <class A, int MAX>
struct RowWalkShared {
  static constexpr int kPlanes = MAX + 2, kRow = 2 * kPlanes;
  static constexpr int kTogether = 16 / sizeof(A), kSlopeRow = kWarp + kTogether;
  KnotRow<A>* knots;
  A* weight;  // [kWarp][kRow]
  SortedRows<A> rows;
  A* slope;  // [kWarp][kSlopeRow]

  FASTKAN_HD RowWalkShared(SharedAllocator& allocator, const RowWalkArgs<A>& a)
      : knots(allocator.take<KnotRow<A>>(1)),
        weight(allocator.take<A>(kWarp * kRow)),
        rows(allocator, a.capacity),
        slope(allocator.take<A>(a.with_x ? kWarp * kSlopeRow : 0)) {}

  // The sum of a row's slopes.
  __device__ __forceinline__ A slope_of(int r) const {
    struct alignas(16) Piece {
      A number[kTogether];
    } sum = {};
    const Piece* row = reinterpret_cast<const Piece*>(slope + r * kSlopeRow);
#pragma unroll
    for (int k = 0; k < kWarp / kTogether; ++k) {
      const Piece piece = row[k];
#pragma unroll
      for (int j = 0; j < kTogether; ++j) sum.number[j] += piece.number[j];
    }
    A total = A(0);
#pragma unroll
    for (int j = 0; j < kTogether; ++j) total += sum.number[j];
    return total;
  }
};

template <class Operand, int MAX, bool FIXED, Reduction REDUCTION>
class RowWalk {
  using A = typename Operand::Accumulator;
  using Shared = RowWalkShared<A, MAX>;
  static constexpr int V = Operand::kWidth;
  static constexpr bool kKeepsTerms = FIXED || V < 8;  // in registers

 public:
  __device__ __forceinline__ RowWalk(const RowWalkArgs<A>& args, const Shared& memory, int64_t input, int range,
                                     int chunk, int split)
      : a(args),
        p(args.c.p),
        shared(memory),
        i(input),
        split_(split),
        range_(range),
        chunk_(chunk),
        lane(static_cast<int>(threadIdx.x % kWarp)),
        f_begin(range * args.functions),
        f_end(static_cast<int>(min(args.c.p.F, f_begin + args.functions))),
        pass_(f_begin),
        n_begin(split * args.split_rows),
        n_end(min(args.c.p.N, n_begin + args.split_rows)),
        o_begin(chunk * args.chunk_outputs),
        o_end(min(args.c.p.O, o_begin + args.chunk_outputs)) {}

  __device__ __forceinline__ void run() {
    if (lane == 0) *shared.knots = KnotRow<A>::of(a.c.shape, row_of_knots());
    __syncwarp();
    int filled = 0;
    bool overwrite = true;  // no earlier rows have been added to the results
    for (int64_t from = n_begin; from < n_end; from += kWarp) {
      const int64_t n = from + lane;
      const int key = n < n_end ? sort_key(n) : -1;
      shared.rows.add(filled, key >= 0, static_cast<int32_t>(n - n_begin), key);
      if (filled + kWarp <= a.capacity && from + kWarp < n_end) continue;
      shared.rows.sort(filled);
      for (pass_ = f_begin; pass_ < f_end; pass_ = pass_end()) process_rows(filled, overwrite);
      if (with_x()) store_x(filled);
      __syncwarp();
      filled = 0;
      overwrite = false;
    }
  }

 private:
  __device__ __forceinline__ bool wide() const { return !FIXED && p.family != Family::bspline; }
  __device__ __forceinline__ int K() const { return FIXED ? MAX : a.c.windows.size - 1; }  // size of a window, minus 1
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
  // The functions of the current pass.
  __device__ __forceinline__ int pass_begin() const { return FIXED ? f_begin : pass_; }
  __device__ __forceinline__ int pass_end() const {
    return FIXED ? f_end : static_cast<int>(min(f_end, pass_ + a.pass_functions));
  }
  // Sort key of row n; -1 if no function of the range is non-zero there. For splines the knot span, counted from the
  // lowest whose window meets the range.
  __device__ __forceinline__ int sort_key(int64_t n) const {
    if (wide()) return wide_of(n).first(a.c.windows.functions) / (p.F / kBuckets + 1);
    const int window = window_of(n).start - (f_begin - K());
    return window >= (with_coef() ? 0 : K()) && window < f_end - f_begin + K() ? window : -1;
  }
  // Window of a row, counted likewise from the lowest that meets the functions of the pass.
  __device__ __forceinline__ int window_of_slot(int slot) const { return wide() ? K() : shared.rows.window[slot]; }
  // The base function is added in the first pass.
  __device__ __forceinline__ bool with_base() const { return p.with_base && (!wide() || pass_ == 0); }
  __device__ __forceinline__ bool with_x() const { return REDUCTION != Reduction::edge_moments && a.with_x; }
  __device__ __forceinline__ bool with_coef() const { return REDUCTION != Reduction::edge_moments && a.with_coef; }
  __device__ __forceinline__ bool needs_coef() const { return REDUCTION != Reduction::gradients || with_x(); }

  // Registers of one lane: outputs o .. o+V-1 of window g.
  struct LaneState {
    int64_t o;
    bool here;
    int g;
    A coef[MAX + 1][V], base[V];  // loaded
    A sum[MAX + 1][V], edge[V];   // their gradients; for edge_moments `edge` is the sum of |phi|
    A terms[3][V];                // for edge_gradients
    A shift[V];                   // for edge_moments
    double first[V], second[V];   // sums of d and d^2
  };

  __device__ __forceinline__ void process_rows(int filled, bool overwrite) {
    for (int64_t o0 = o_begin; o0 < o_end; o0 += kWarp * V) {
      LaneState l = begin(o0, filled);
      const bool first = o0 == o_begin && pass_begin() == f_begin;
      for (int from = 0; from < filled; from += kWarp) process_batch(l, from, filled, overwrite, first);
      finish(l, overwrite);
    }
  }

  __device__ __forceinline__ LaneState begin(int64_t o0, int filled) {
    LaneState l = {};
    l.o = o0 + lane * V;
    l.here = l.o < o_end;
    if (needs_coef() && p.with_base && l.here)
      Operand::load(p.base_weight, i * p.base_weight.stride[0], l.o, p.base_weight.stride[1], l.base);
    // Gradients of spline coefficients start at the first window, since every function is written.
    const int window = with_coef() && !wide() ? 0 : filled ? window_of_slot(shared.rows.slot[0]) : K();
    l.g = window - K() - 1;
    while (l.g < window) advance_window(l, false, true);
    if (REDUCTION == Reduction::edge_gradients && kKeepsTerms && l.here)
#pragma unroll
      for (int k = 0; k < 3; ++k)
#pragma unroll
        for (int v = 0; v < V; ++v) l.terms[k][v] = read_term(k, l.o + v);
    if (REDUCTION == Reduction::edge_moments) set_shift(l);
    return l;
  }

  __device__ __forceinline__ A term(const LaneState& l, int k, int v) const {
    return kKeepsTerms ? l.terms[k][v] : l.here ? read_term(k, l.o + v) : A(0);
  }

  __device__ __forceinline__ A read_term(int k, int64_t o) const {
    const View& t = p.terms;
    return static_cast<const A*>(t.data)[k * t.stride[0] + i * t.stride[1] + o * t.stride[2]];
  }

  // The shift of edge_moments: phi in the first row, summed in the same order as in edge_values(), so that constant
  // edges have d = 0.
  __device__ __forceinline__ void set_shift(LaneState& l) const {
    if (wide()) return wide_edge_value(l, 0, l.shift);
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

  // phi of row n over all non-zero functions, for families with wide support; each lane evaluates one function.
  __device__ __forceinline__ void wide_edge_value(const LaneState& l, int64_t n, A* phi) const {
    const Wide<A> wide = wide_of(n);
    const A of_base = p.with_base ? a.c.base(wide.x) : A(0);
#pragma unroll
    for (int v = 0; v < V; ++v) phi[v] = of_base * l.base[v];
    const int first = wide.first(a.c.windows.functions), end = first + a.c.windows.functions;
    for (int from = first; from < end; from += kWarp) {
      const A mine = from + lane < end ? wide(p.order, from + lane) : A(0);
      for (int f = from; f < min(end, from + kWarp); ++f) {
        const A w = __shfl_sync(kFullWarp, mine, f - from);
        A c[V] = {};
        if (l.here) Operand::load(p.coef, i * p.coef.stride[0] + f * p.coef.stride[1], l.o, p.coef.stride[2], c);
#pragma unroll
        for (int v = 0; v < V; ++v) phi[v] += w * c[v];
      }
    }
  }

  __device__ __forceinline__ void load_u(const LaneState& l, int32_t row, A* to) const {
    if (l.here && p.u) Operand::load(p.u, (n_begin + row) * p.u.stride[0], l.o, p.u.stride[1], to);
  }

  // Advances the window by one function: the lowest leaves, the next one is loaded.
  __device__ __forceinline__ void advance_window(LaneState& l, bool overwrite, bool reads) {
    const int outgoing = pass_begin() - K() + l.g, incoming = outgoing + K() + 1;
    if (with_coef() && outgoing >= pass_begin() && l.here) store_grad_coef(l, outgoing, overwrite);
    A coef[V] = {};
    if (reads && needs_coef() && l.here && incoming >= 0 && incoming < p.F)
      Operand::load(p.coef, i * p.coef.stride[0] + incoming * p.coef.stride[1], l.o, p.coef.stride[2], coef);
    ++l.g;
#pragma unroll
    for (int k = 0; k <= MAX; ++k)
#pragma unroll
      for (int v = 0; v < V; ++v) {
        l.sum[k][v] = k < K() ? l.sum[k < MAX ? k + 1 : k][v] : A(0);
        l.coef[k][v] = k < K() ? l.coef[k < MAX ? k + 1 : k][v] : coef[v];
      }
  }

  __device__ __forceinline__ void store_grad_coef(const LaneState& l, int f, bool overwrite) const {
    const int64_t at = (i * p.F + f) * p.O + l.o;
    if (!a.sum_coef)
      Operand::store(p.grad_coef, p.grad_coef_dtype, at, l.sum[0]);
    else if (A* to = a.sum_coef + split_ * p.I * p.F * p.O + at; overwrite)
      store_partial<V>(to, l.sum[0]);
    else
      add_partial<V>(to, l.sum[0]);
  }

  __device__ __forceinline__ void finish(LaneState& l, bool overwrite) {
    if (with_coef())
      while (l.g < pass_end() - pass_begin() + K()) advance_window(l, overwrite, false);
    if (!l.here) return;
    const int64_t at = i * p.O + l.o, part = static_cast<int64_t>(split_) * a.ranges + range_;
    if (REDUCTION == Reduction::edge_moments)
      store_moments(l, a.moments + part * 4 * p.I * p.O + at, overwrite);
    else if (!with_coef() || !with_base())
      return;
    else if (!a.sum_edges)
      Operand::store(p.grad_base, p.grad_coef_dtype, at, l.edge);
    else if (A* to = a.sum_edges + part * p.I * p.O + at; overwrite)
      store_partial<V>(to, l.edge);
    else
      add_partial<V>(to, l.edge);
  }

  __device__ __forceinline__ void store_moments(const LaneState& l, double* to, bool overwrite) const {
    const int64_t plane = p.I * p.O;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      to[v] = l.edge[v] + (overwrite ? 0 : to[v]);
      to[plane + v] = l.first[v] + (overwrite ? 0 : to[plane + v]);
      to[2 * plane + v] = l.second[v] + (overwrite ? 0 : to[2 * plane + v]);
      to[3 * plane + v] = l.shift[v];
    }
  }

  // Up to 32 rows in sorted order: lane r evaluates the window of row r, then all lanes process the rows one after
  // the other.
  __device__ __forceinline__ void process_batch(LaneState& l, int from, int filled, bool overwrite, bool first) {
    const int count = static_cast<int>(min(kWarp, filled - from));
    int32_t my_row = 0;
    int my_window = 0;
    if (lane < count) {
      const int slot = shared.rows.slot[from + lane];
      my_row = shared.rows.row[slot];
      my_window = window_of_slot(slot);
      if (!wide()) evaluate(my_row);
    }
    const bool any = !wide() || evaluate_wide(my_row, lane < count);
    __syncwarp();
    A next[V] = {};
    if (REDUCTION == Reduction::gradients && any) load_u(l, __shfl_sync(kFullWarp, my_row, 0), next);
    for (int r = 0; any && r < count; ++r) {
      const int window = __shfl_sync(kFullWarp, my_window, r);
      A u[V];
#pragma unroll
      for (int v = 0; v < V; ++v) u[v] = next[v];
      if (REDUCTION == Reduction::edge_gradients)
        load_u(l, __shfl_sync(kFullWarp, my_row, r), u);  // no registers to prefetch
      if (REDUCTION == Reduction::gradients) {
        const int32_t row = __shfl_sync(kFullWarp, my_row, r + 1 < count ? r + 1 : r);
        load_u(l, row, next);
      }
      while (l.g < window) advance_window(l, overwrite, true);
      const A* w = shared.weight + r * Shared::kRow;
      const bool is_owned = window >= K();  // otherwise the row belongs to a neighbouring range, too
      if (REDUCTION != Reduction::gradients) edge_values(l, w, wide() ? __shfl_sync(kFullWarp, my_row, r) : 0, u);
      if (REDUCTION == Reduction::edge_moments) continue;
      if (with_coef()) add_row(l, w, u, is_owned);
      if (with_x()) shared.slope[r * Shared::kSlopeRow + lane] = slope(l, w + Shared::kPlanes, u);
    }
    if (with_x()) {
      __syncwarp();
      const A my_x = any && lane < count ? shared.slope_of(lane) : A(0);
      A* sum = shared.rows.scratch + from + lane;
      if (lane < count) *sum = first ? my_x : *sum + my_x;
    }
    __syncwarp();
  }

  __device__ __forceinline__ void evaluate(int32_t row) const {
    const int64_t n = n_begin + row;
    const Window<A, MAX, FIXED> window = window_of(n);
    FASTKAN_ROLL
    for (int of_x = 0; of_x < 2; ++of_x) {
      if (!is_needed(of_x)) continue;
      const A s = of_x ? A(1) : s_of(n);
      A w[MAX + 1];
      window.weights(of_x ? p.x_order : p.order, w);
      A* to = shared.weight + lane * Shared::kRow + of_x * Shared::kPlanes;
#pragma unroll
      for (int k = 0; k <= MAX; ++k) to[k] = w[k] * s;
      if (p.with_base) to[MAX + 1] = (of_x ? a.c.base_of_x : a.c.base)(window.x) * s;
    }
  }
  __device__ __forceinline__ bool is_needed(int of_x) const {
    return of_x ? with_x() : with_coef() || REDUCTION != Reduction::gradients;
  }

  // Whether a function of the pass, or the base function, may be non-zero in that row.
  __device__ __forceinline__ bool may_be_nonzero(int32_t row) const {
    const Wide<A> wide = wide_of(n_begin + row);
    const int begin = wide.first(a.c.windows.functions);
    return with_base() || wide.x != wide.x || (begin < pass_end() && begin + a.c.windows.functions > pass_begin());
  }

  // Evaluates the functions of the pass for the lanes that have a row. Returns false, evaluating nothing, if they are
  // zero in all of them.
  __device__ __forceinline__ bool evaluate_wide(int32_t row, bool has) const {
    if (__ballot_sync(kFullWarp, has && may_be_nonzero(row)) == 0) return false;
    if (!has) return true;
    const int64_t n = n_begin + row;
    const Wide<A> wide = wide_of(n);
    const int size = a.c.windows.size;
    FASTKAN_ROLL
    for (int of_x = 0; of_x < 2; ++of_x) {
      if (!is_needed(of_x)) continue;
      const A s = of_x ? A(1) : s_of(n);
      A* to = shared.weight + lane * Shared::kRow + of_x * Shared::kPlanes;
      const int order = of_x ? p.x_order : p.order;
      FASTKAN_ROLL
      for (int k = 0; k < size; ++k) to[k] = pass_ + k < p.F ? wide(order, pass_ + k) * s : A(0);
      if (with_base()) to[MAX + 1] = (of_x ? a.c.base_of_x : a.c.base)(wide.x) * s;
    }
    return true;
  }

  // phi of the edges: summed up for edge_moments; for edge_gradients its contribution is added to u.
  __device__ __forceinline__ void edge_values(LaneState& l, const A* w, int32_t row, A* u) const {
    A phi[V];
    if (wide())
      wide_edge_value(l, n_begin + row, phi);
    else
      spline_edge_value(l, w, phi);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const A value = phi[v];
      if (REDUCTION == Reduction::edge_moments) {
        const double d = static_cast<double>(value - l.shift[v]);
        l.edge[v] += value < A(0) ? -value : value;
        l.first[v] += d;
        l.second[v] += d * d;
      } else {
        const A t0 = term(l, 0, v);
        // NaN stays NaN
        u[v] += (value > A(0) ? t0 : value < A(0) ? -t0 : A(0)) + (term(l, 1, v) + term(l, 2, v) * value);
      }
    }
  }

  __device__ __forceinline__ void spline_edge_value(const LaneState& l, const A* w, A* phi) const {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      phi[v] = p.with_base ? w[MAX + 1] * l.base[v] : A(0);
#pragma unroll
      for (int k = 0; k <= MAX; ++k)
        if (k <= K()) phi[v] += w[k] * l.coef[k][v];
    }
  }

  __device__ __forceinline__ void add_row(LaneState& l, const A* w, const A* u, bool is_owned) const {
#pragma unroll
    for (int k = 0; k <= MAX; ++k)
      if (k <= K())
#pragma unroll
        for (int v = 0; v < V; ++v) l.sum[k][v] += w[k] * u[v];
    if (with_base() && is_owned)
#pragma unroll
      for (int v = 0; v < V; ++v) l.edge[v] += w[MAX + 1] * u[v];
  }

  __device__ __forceinline__ A slope(const LaneState& l, const A* w, const A* u) const {
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
      if (window_of_slot(slot) < K()) continue;
      const int64_t n = n_begin + shared.rows.row[slot];
      const A sum = shared.rows.scratch[at] * s_of(n);
      if (a.sum_x)
        a.sum_x[(chunk_ * p.N + n) * p.I + i] = sum;
      else
        put_element(p.grad_x, p.grad_x_dtype, n * p.I + i, sum);
    }
  }

  const RowWalkArgs<A>& a;
  const Problem& p;
  const Shared shared;
  const int64_t i;
  const int split_, range_, chunk_, lane, f_begin, f_end;
  int pass_;
  const int64_t n_begin, n_end, o_begin, o_end;
};

// Blocks per multiprocessor for __launch_bounds__: as many as leave registers enough that nothing spills.
template <class Operand, bool FIXED, Reduction REDUCTION>
constexpr int row_walk_blocks() {
  constexpr int kMaxWidth = REDUCTION == Reduction::edge_gradients ? 1 : 4;
  return FIXED && sizeof(typename Operand::Accumulator) == 4 && Operand::kWidth <= kMaxWidth ? 3 : 2;
}

template <class Operand, int MAX, bool FIXED, Reduction REDUCTION>
__global__ void __launch_bounds__(kWarp* kWarps, row_walk_blocks<Operand, FIXED, REDUCTION>())
    row_walk_kernel(const __grid_constant__ RowWalkArgs<typename Operand::Accumulator> a) {
  using A = typename Operand::Accumulator;
  extern __shared__ __align__(16) unsigned char fastkan_shared[];
  using Shared = RowWalkShared<A, MAX>;
  const int warp = threadIdx.x / kWarp;
  const unsigned groups = static_cast<unsigned>(ceil_div(a.c.p.I, kWarps));
  const int64_t input = blockIdx.x % groups * kWarps + warp;
  if (input >= a.c.p.I) return;  // there is no barrier of the whole block
  const Shared shared = shared_at<Shared>(fastkan_shared + warp * static_cast<int>(shared_bytes<Shared>(a)), a);
  const unsigned rest = blockIdx.x / groups, of_chunk = rest / static_cast<unsigned>(a.ranges);
  RowWalk<Operand, MAX, FIXED, REDUCTION>(a, shared, input, static_cast<int>(rest % a.ranges),
                                          static_cast<int>(of_chunk % a.chunks), static_cast<int>(of_chunk / a.chunks))
      .run();
}

// The tiling for a GPU with that many multiprocessors. Where inputs are too few for it, outputs are divided first: rows
// are sorted again for each chunk, a tenth of the work, but less is added up afterwards than if rows are split.
template <class Operand, class A = typename Operand::Accumulator>
RowWalkArgs<A> plan_row_walk(const Problem& p, bool with_x, bool with_coef, int processors) {
  constexpr int kMaxFunctions = kBuckets - kMaxDegree;              // sort keys have 8 bits
  constexpr int kMinFunctionsPerRange = 32, kMinRowsPerSplit = 64;  // else overlap and sorting dominate
  constexpr int64_t kMaxPartialSums = 1 << 22;                      // partial sums in workspace, beyond one split
  const int64_t wanted_warps = 16 * static_cast<int64_t>(processors);
  const int64_t F = p.F, I = max(1, p.I);
  const bool wide = p.family != Family::bspline;  // rows meet all functions, so a warp takes all of them
  int64_t ranges =
      wide ? 1 : max(ceil_div(F, kMaxFunctions), min(ceil_div(F, kMinFunctionsPerRange), ceil_div(wanted_warps, I)));
  const int64_t functions = ceil_div(F, ranges);
  ranges = ceil_div(F, functions);
  constexpr int64_t kChunk = kWarp * Operand::kWidth;  // outputs of a warp side by side
  const int64_t chunk_outputs = max(1, ceil_div(ceil_div(p.O, kChunk), ceil_div(wanted_warps, I * ranges))) * kChunk;
  const int64_t chunks = max(1, ceil_div(p.O, chunk_outputs));
  int64_t splits = min(ceil_div(wanted_warps, I * ranges * chunks), min(64, ceil_div(p.N, kMinRowsPerSplit)));
  if (with_coef) splits = min(splits, kMaxPartialSums / (I * F * max(1, p.O)));
  splits = max(max(1, splits), ceil_div(p.N, 1 << 30));
  const int64_t split_rows = max(1, ceil_div(ceil_div(p.N, splits), kWarp)) * kWarp;
  splits = max(1, ceil_div(p.N, split_rows));
  const int64_t capacity = min(functions <= 64 ? 256 : 512, split_rows);
  return {Contraction<A>::of(p),
          with_x,
          with_coef,
          static_cast<int>(capacity),
          static_cast<int>(functions),
          wide && (with_x || with_coef) ? windows_of(p).size : static_cast<int>(functions),
          static_cast<int>(ranges),
          static_cast<int>(splits),
          split_rows,
          static_cast<int>(chunks),
          chunk_outputs,
          nullptr,
          nullptr,
          nullptr,
          nullptr};
}

template <class Operand, Reduction REDUCTION>
void row_walk(const char* name, const RowWalkArgs<typename Operand::Accumulator>& a, const Device& device) {
  const int64_t blocks = ceil_div(a.c.p.I, kWarps) * a.ranges * a.chunks * a.splits;
  by_degree(a.c.p, [&]<int MAX, bool FIXED>() {
    using Shared = RowWalkShared<typename Operand::Accumulator, MAX>;
    launch(name, row_walk_kernel<Operand, MAX, FIXED, REDUCTION>, blocks, kWarp * kWarps,
           kWarps * shared_bytes<Shared>(a), device, a);
  });
}

// Where a warp writes its sums: directly to a result that has their type or is written only once (null), else to
// workspace.
template <class Operand, class A>
A* sum_target(void* result, int64_t size, int64_t parts, bool written_once, const Device& device) {
  if (parts == 1 && (Operand::kSame || written_once)) return Operand::kSame ? static_cast<A*>(result) : nullptr;
  return device.take<A>(parts * size);
}

}  // namespace fastkan
