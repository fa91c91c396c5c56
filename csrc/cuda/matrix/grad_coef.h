// A tile of the gradients of coefficients and base weights as a matrix product Phi^T u. Phi [N, columns] is computed
// into shared memory in steps of some rows; a thread evaluates one (row, octet of columns) pair at a time.
#pragma once

#include "columns.h"
#include "operand.h"
#include "pipeline.h"

namespace fastkan {

// Arguments of the backward kernel; see kan_backward.h.
template <class A>
struct BackwardArgs {
  Contraction<A> c;
  Columns columns;
  const KnotRow<A>* knots;  // of each input; null if all share one row, which each block computes
  int64_t coef_tiles;
  int x_together;  // tiles of x below each other, that a block computes
  int splits;      // split-K over the rows
  int64_t split_rows;
  A *sum_coef, *sum_edges;  // [splits, I, F, O] and [splits, I, O] if splits > 1
};

// The knots of a tile in shared memory: those that all inputs share, and what the usual case needs of them.
template <class A>
struct TileKnots {
  KnotRow<A> row;
  UsualKnots usual;

  template <bool USUAL>
  __device__ __forceinline__ void set(const BackwardArgs<A>& a) {
    if (a.knots) return;
    row = KnotRow<A>::of(a.c.shape, a.c.p.grid);
    if constexpr (USUAL) usual = UsualKnots::of(a.c.shape, row);
  }
};

// T: a tile of columns by outputs. USUAL: uniform knots that all inputs share, zero outside, silu or no base function,
// no s, values of Phi and slopes of x; x in float32 or as coefficients are stored, in 16 bits or rounded to tf32.
template <class S, class T, int K, bool USUAL>
class MatrixGradCoef {
  using A = typename T::Sum;
  using Operand = MatrixOperand<S>;
  static constexpr int kDepth = Operand::kDepth;
  static constexpr int kGroups = T::kRows / Columns::kGroup;
  static constexpr int kRowsApart = T::kThreads / Columns::kOctets, kPasses = kDepth / kRowsApart;
  static constexpr int kEach = kPasses * kGroups;                // (row, octet) pairs of a thread
  static constexpr int kPieces = T::kColumns / Operand::kWidth;  // of 16 bytes, per row of u
  static constexpr int kRight = kDepth * kPieces, kLeft = kDepth * T::kRows / Operand::kWidth;  // pieces of a step
  static constexpr int kCopies = kRight / T::kThreads, kCopiesApart = T::kThreads / kPieces;

 public:
  static constexpr int kShared = kStages * kRight + 2 * kLeft;
  static_assert(kPasses > 0 && (sizeof(S) > 2 || kShared >= T::kRows * kPieces));

  __device__ __forceinline__ MatrixGradCoef(const BackwardArgs<A>& args, uint4* memory, TileKnots<A>& knots,
                                            int64_t first_group, int64_t o0, int split)
      : a(args),
        p(args.c.p),
        shared_(memory),
        knots_(knots),
        first_group_(first_group),
        o0_(o0),
        n_begin_(split * args.split_rows),
        rows_(static_cast<int>(min(args.split_rows, args.c.p.N - n_begin_))),
        split_(split),
        row_(Operand::row_of(T::thread())),
        octet_(Operand::octet_of(T::thread())),
        copied_row_(T::thread() / kPieces),
        copied_piece_(T::thread() % kPieces) {
    const Columns::Octet octet = a.columns.octet[octet_];
    function_ = octet.function;
    base_at_ = octet.input;
    for (int group = 0; group < kGroups; ++group) {
      const int64_t i = (first_group_ + group) * a.columns.inputs + octet.input;
      has_input_[group] = !octet.is_base() && octet.input >= 0 && i < p.I;
      const int64_t offset = has_input_[group] ? (n_begin_ + row_) * p.x.stride[0] + i * p.x.stride[1] : 0;
      x_[group] = static_cast<const char*>(p.x.data) + offset * bytes_of(p.x.dtype);
    }
    x_apart_ = kRowsApart * p.x.stride[0] * bytes_of(p.x.dtype);
    const int64_t o = o0_ + Operand::kWidth * copied_piece_;
    u_ = static_cast<const S*>(p.u.data) + (n_begin_ + copied_row_) * p.u.stride[0] + o;
    copied_rows_ = o < p.O ? rows_ - copied_row_ : 0;
  }

  __device__ __forceinline__ void run() {
    run_pipeline<T>(*this, static_cast<int>(ceil_div(rows_, kDepth)));
    if (a.splits > 1) {
      Operand::store_sums(sums_, p.O - o0_, [&](int row) {
        return destination(row, a.sum_coef + split_ * p.I * p.F * p.O, a.sum_edges + split_ * p.I * p.O);
      });
    } else {
      Operand::store(sums_, shared_, p.O - o0_, [&](int row) {
        return destination(row, static_cast<S*>(p.grad_coef), static_cast<S*>(p.grad_base));
      });
    }
  }

  // The stages of run_pipeline.
  __device__ __forceinline__ void start_copies(int step, int stage) {
    const S* from = u_;
#pragma unroll
    for (int k = 0; k < kCopies; ++k, from += kCopiesApart * p.u.stride[0])
      copy_async(right_of(stage) + Operand::template right_at<kDepth, T>(copied_row_ + k * kCopiesApart, copied_piece_),
                 from, step * kDepth + k * kCopiesApart < copied_rows_);
    u_ = from;
  }

  __device__ __forceinline__ void prepare() {
    if (T::thread() == 0) knots_.template set<USUAL>(a);
    // Columns that are not written in any step stay zero.
    for (int q = T::thread(); q < 2 * kLeft; q += T::kThreads) left_of(0)[q] = make_uint4(0, 0, 0, 0);
    T::sync();
    if constexpr (USUAL) usual_ = knots_.usual;
  }

  __device__ __forceinline__ void prefetch_x(int step) {
    const int rows = rows_ - row_ - step * kDepth;
    const char* from[kEach];
    bool there[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int pass = k / kGroups, group = k % kGroups;
      from[k] = x_[group];
      there[k] = has_input_[group] && pass * kRowsApart < rows;
      x_[group] += x_apart_;
    }
    if constexpr (USUAL)
      Operand::load_x(from, there, p.x.dtype == Dtype::f32, prefetched_);
    else
#pragma unroll
      for (int k = 0; k < kEach; ++k) load_bits<1>(View{from[k], {}, p.x.dtype}, 0, 0, there[k], prefetched_ + k);
  }

  // Rows beyond the end have x = 0: their u is zero.
  __device__ __forceinline__ void build_left(int step, int parity) const {
    uint4* left = left_of(parity);
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int pass = k / kGroups, group = k % kGroups;
      const int row = row_ + pass * kRowsApart, octet = group * Columns::kOctets + octet_;
      const int base_column = (group + 1) * Columns::kGroup - 8 + base_at_;
      const bool with_base = p.with_base && function_ == 0;
      if constexpr (USUAL) {
        const A x = Operand::number_of(prefetched_[k], p.x.dtype == Dtype::f32);
        const auto window = UsualWindow<K>::of(usual_, x);
        const A base = silu_of_few_bits(x);
        if (!has_input_[group]) continue;  // nothing, or base functions, which are evaluated with their inputs
        Operand::template put_window<T, K>(left, row, octet, window.begin(), window.w, function_);
        if (with_base) Operand::template put_number<T>(left, row, base_column, base);
      } else {
        if (!has_input_[group]) continue;
        const A x = number_of_bits(prefetched_[k], p.x.dtype);
        const int64_t i = (first_group_ + group) * a.columns.inputs + base_at_;
        A s = A(1);
        if (const int of = step * kDepth + row; p.s && of < rows_)
          s = element<A>(p.s, (n_begin_ + of) * p.s.stride[0] + i * p.s.stride[1]);
        auto window =
            UniformWindow<A, K>::template of<0>(matrix_shape<K>(a.c.shape), a.knots ? a.knots[i] : knots_.row, x);
#pragma unroll
        for (int j = 0; j <= K; ++j) window.w[j] *= s;
        Operand::template put_window<T, K>(left, row, octet, window.begin, window.w, function_);
        if (with_base) Operand::template put_number<T>(left, row, base_column, a.c.base.value(x) * s);
      }
    }
  }

  __device__ __forceinline__ void multiply(int parity, int stage) {
    Operand::add_features(sums_, left_of(parity), right_of(stage));
    if constexpr (T::kWgmma) wgmma_commit();
  }

 private:
  __device__ __forceinline__ uint4* right_of(int stage) const { return shared_ + stage * kRight; }
  __device__ __forceinline__ uint4* left_of(int parity) const { return shared_ + kStages * kRight + parity * kLeft; }

  // Destination of the sums of a row of the tile.
  template <class V>
  __device__ __forceinline__ V* destination(int row, V* grad_coef, V* grad_base) const {
    const TileColumn column = tile_column(a.columns, p, first_group_, row);
    if (column.input < 0) return nullptr;
    if (column.function == kBaseColumn) return grad_base + column.input * p.O + o0_;
    return grad_coef + (column.input * p.F + column.function) * p.O + o0_;
  }

  const BackwardArgs<A>& a;
  const Problem& p;
  uint4* const shared_;
  TileKnots<A>& knots_;
  UsualKnots usual_;
  const int64_t first_group_, o0_, n_begin_;
  const int rows_, split_, row_, octet_, copied_row_, copied_piece_;
  int function_, base_at_;  // the octet's first function, and its input, counted in the group
  int copied_rows_;         // from the thread's first one on
  bool has_input_[kGroups];
  const char* x_[kGroups];  // what is loaded, and copied, next
  const S* u_;
  int64_t x_apart_;
  Bits<A> prefetched_[kEach];
  WarpSums<T> sums_;
};

}  // namespace fastkan
