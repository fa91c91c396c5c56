// A tile of the gradients of coefficients and base weights as a matrix product Phi^T u. Phi [N, columns] is computed
// into shared memory in steps of some rows; a thread evaluates one (row, octet of columns) pair at a time.
#pragma once

#include "columns.h"
#include "operand.h"

namespace fastkan {

// Arguments of the backward kernel; see kan_backward.h.
template <class A>
struct BackwardArgs {
  Contraction<A> c;
  Columns columns;
  const KnotRow<A>* knots;  // of each input; null if all share one row, which each block computes
  int64_t coef_tiles, x_tiles;
  int splits;  // split-K over the rows
  int64_t split_rows;
  A *sum_coef, *sum_edges;  // [splits, I, F, O] and [splits, I, O] if splits > 1
};

// Content of an octet of a tile: functions from `function` on of an input; input -1: base functions or nothing.
struct TileOctet {
  int64_t input, function;
};

template <class S, class T, int K>
class MatrixGradCoef {
  using A = typename T::Sum;
  using Operand = MatrixOperand<S>;
  static constexpr int kDepth = Operand::kDepth;
  static constexpr int kEach = T::kColumns / 8 / (T::kThreads / kDepth);  // octets per thread and step
  static constexpr int kPieces = T::kColumns / Operand::kWidth;           // of 16 bytes, per row
  static constexpr int kStep = kDepth * kPieces;                          // pieces per operand and step

 public:
  static constexpr bool kWgmma = false;
  static constexpr int kShared = (kStages + 2) * kStep + T::kColumns / 8;
  static_assert(T::kRows == T::kColumns && (sizeof(S) > 2 || kShared >= T::kRows * kPieces));
  static_assert(sizeof(TileOctet) == sizeof(uint4));

  __device__ __forceinline__ MatrixGradCoef(const BackwardArgs<A>& args, uint4* memory, const KnotRow<A>& knots,
                                            int64_t first_group, int64_t o0, int split)
      : a(args),
        p(args.c.p),
        shared_(memory),
        knots_(knots),
        first_group_(first_group),
        o0_(o0),
        n_begin_(split * args.split_rows),
        n_end_(min(args.c.p.N, n_begin_ + args.split_rows)),
        split_(split),
        row_(static_cast<int>(threadIdx.x % kDepth)),
        octet0_(static_cast<int>(threadIdx.x / kDepth)) {
    if (threadIdx.x < T::kColumns / 8) {
      const TileColumn column = tile_column(a.columns, p, first_group_, 8 * static_cast<int>(threadIdx.x));
      octets()[threadIdx.x] = {column.function == kBaseColumn ? -1 : column.input, column.function};
    }
  }

  __device__ __forceinline__ void run() {
    run_pipeline(*this, 0, ceil_div(n_end_ - n_begin_, kDepth));
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
  __device__ __forceinline__ void start_copies(int64_t step, int stage) const {
    const int64_t n0 = n_begin_ + step * kDepth;
#pragma unroll
    for (int k = 0; k < kStep / T::kThreads; ++k) {
      const int q = threadIdx.x + k * T::kThreads, row = q / kPieces, piece = q % kPieces;
      const int64_t o = o0_ + Operand::kWidth * piece;
      const bool valid = n0 + row < n_end_ && o < p.O;
      const int64_t offset = valid ? (n0 + row) * p.u.stride[0] + o : 0;
      copy_async(right_of(stage) + Operand::template right_at<kDepth, T>(row, piece),
                 static_cast<const S*>(p.u.data) + offset, valid);
    }
  }

  __device__ __forceinline__ void prefetch_x(int64_t step) {
    const int64_t n = n_begin_ + step * kDepth + row_;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t i = octets()[octet_of(k)].input;
      load_bits<1>(p.x, n * p.x.stride[0] + i * p.x.stride[1], 0, n < n_end_ && i >= 0, prefetched_ + k);
    }
  }

  __device__ __forceinline__ void build_left(int64_t step, int iteration) const {
    const int64_t n = n_begin_ + step * kDepth + row_;
    const Shape shape = matrix_shape<K>(a.c.shape);
    KnotRow<A> row = knots_;
    uint4* left = left_of(iteration);
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t i = octets()[octet_of(k)].input;
      const int function = static_cast<int>(octets()[octet_of(k)].function);
      if (i < 0) continue;  // empty, or base functions, which are evaluated with their inputs
      if (a.knots) row = a.knots[i];
      const A x = number_of_bits(prefetched_[k], p.x.dtype);
      A s = n < n_end_ ? A(1) : A(0);
      if (p.s && n < n_end_) {
        Bits<A> bits;
        load_bits<1>(p.s, n * p.s.stride[0] + i * p.s.stride[1], 0, 1, &bits);
        s = number_of_bits(bits, p.s.dtype);
      }
      auto window = UniformWindow<A, K>::template of<0>(shape, row, x);
#pragma unroll
      for (int j = 0; j <= K; ++j) window.w[j] *= s;
      Operand::template put_window<T>(left, row_, octet_of(k), window, function);
      if (!p.with_base || function != 0) continue;
      const int group = octet_of(k) / Columns::kOctets, octet = (group + 1) * Columns::kOctets - 1;
      const int at = static_cast<int>(i - (first_group_ + group) * a.columns.inputs);
      Operand::template put_number<T>(left, row_, 8 * octet + at, a.c.base.value(x) * s);
    }
  }

  __device__ __forceinline__ void multiply(int64_t, int iteration, int stage) {
    Operand::add_features(sums_, left_of(iteration), right_of(stage));
  }

 private:
  __device__ __forceinline__ uint4* right_of(int stage) const { return shared_ + stage * kStep; }
  __device__ __forceinline__ uint4* left_of(int iteration) const { return shared_ + (kStages + iteration % 2) * kStep; }
  __device__ __forceinline__ TileOctet* octets() const {
    return reinterpret_cast<TileOctet*>(shared_ + (kStages + 2) * kStep);
  }
  __device__ __forceinline__ int octet_of(int k) const { return octet0_ + k * (T::kThreads / kDepth); }

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
  const KnotRow<A>& knots_;
  const int64_t first_group_, o0_, n_begin_, n_end_;
  const int split_, row_, octet0_;
  Bits<A> prefetched_[kEach];
  WarpSums<T> sums_;
};

}  // namespace fastkan
