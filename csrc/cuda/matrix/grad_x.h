// A tile of the gradient of the input: D = u C^T, [rows, columns], in steps of some outputs, followed by
//   grad_x[n,i] = s (sum_k w_k D[n, start + k of i] + b D[n, base of i])
// with the derivatives w and b of order x_order, in the accumulator's type. D is never written to global memory.
#pragma once

#include "grad_coef.h"

namespace fastkan {

template <class S, class T, int K>
class MatrixGradX {
  using A = typename T::Sum;
  using Operand = MatrixOperand<S>;
  static constexpr int kDepth = Operand::kDepth;
  static constexpr int kPieces = kDepth / Operand::kWidth;  // per row of an operand
  static constexpr int kEach = T::kRows * kPieces / T::kThreads, kRowsApart = T::kThreads / kPieces;
  static constexpr int kRow = Columns::kGroup + 2;  // row stride of D in shared memory

 public:
  static constexpr bool kWgmma = false;
  static constexpr int kShared = kStages * (T::kRows + T::kColumns) * kPieces;
  static_assert(T::kRows == T::kColumns && 16 * kShared >= T::kRows * kRow * static_cast<int>(sizeof(A)));

  __device__ __forceinline__ MatrixGradX(const BackwardArgs<A>& args, uint4* memory, const KnotRow<A>& knots,
                                         int64_t n0, int64_t first_group)
      : a(args),
        p(args.c.p),
        shared_(memory),
        knots_(knots),
        n0_(n0),
        first_group_(first_group),
        row_(static_cast<int>(threadIdx.x / kPieces)),
        piece_(static_cast<int>(threadIdx.x % kPieces)) {
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int row = row_ + k * kRowsApart;
      const TileColumn column = tile_column(a.columns, p, first_group_, row);
      const bool base = column.function == kBaseColumn;
      const View& v = base ? p.base_weight : p.coef;
      const int64_t offset = column.input * v.stride[0] + (base ? 0 : column.function * v.stride[1]);
      column_[k] = column.input < 0 ? nullptr : static_cast<const S*>(v.data) + offset + Operand::kWidth * piece_;
    }
  }

  __device__ __forceinline__ void run() {
    run_pipeline(*this, 0, ceil_div(p.O, kDepth));
    for (int group = 0; group < T::kColumns / Columns::kGroup; ++group) {
      if (WarpSums<T>::first_column() / Columns::kGroup == group) {
        A* to = reinterpret_cast<A*>(shared_) - group * Columns::kGroup;
        sums_.store((group + 1) * Columns::kGroup, [&](int row) { return to + row * kRow; });
      }
      __syncthreads();
      finish(group);
      __syncthreads();
    }
  }

  // The stages of run_pipeline; nothing is evaluated.
  __device__ __forceinline__ void start_copies(int64_t step, int stage) const {
    const int64_t o = step * kDepth + Operand::kWidth * piece_;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int row = row_ + k * kRowsApart, at = Operand::deep_at(row, piece_);
      const bool of_u = n0_ + row < p.N && o < p.O, of_column = column_[k] && o < p.O;
      const S* u = static_cast<const S*>(p.u.data);
      copy_async(left_of(stage) + at, of_u ? u + (n0_ + row) * p.u.stride[0] + o : u, of_u);
      copy_async(right_of(stage) + at, of_column ? column_[k] + step * kDepth : u, of_column);
    }
  }
  __device__ __forceinline__ void prefetch_x(int64_t) const {}
  __device__ __forceinline__ void build_left(int64_t, int) const {}

  __device__ __forceinline__ void multiply(int64_t, int, int stage) {
    Operand::add_deep(sums_, left_of(stage), right_of(stage));
  }

 private:
  __device__ __forceinline__ uint4* left_of(int stage) const {
    return shared_ + stage * (T::kRows + T::kColumns) * kPieces;
  }
  __device__ __forceinline__ uint4* right_of(int stage) const { return left_of(stage) + T::kRows * kPieces; }

  // grad_x of one group of inputs, whose D is in shared memory.
  __device__ __forceinline__ void finish(int group) const {
    const A* shared = reinterpret_cast<const A*>(shared_);
    const Shape shape = matrix_shape<K>(a.c.shape);
    for (int q = threadIdx.x; q < T::kRows * a.columns.inputs; q += T::kThreads) {
      const int row = q / a.columns.inputs, at = q % a.columns.inputs;
      const int64_t n = n0_ + row, i = (first_group_ + group) * a.columns.inputs + at;
      if (n >= p.N || i >= p.I) continue;
      const A x = element<A>(p.x, n * p.x.stride[0] + i * p.x.stride[1]);
      const KnotRow<A> knots = a.knots ? a.knots[i] : knots_;
      const auto window = p.x_order == 0 ? UniformWindow<A, K>::template of<0>(shape, knots, x)
                                         : UniformWindow<A, K>::template of<1>(shape, knots, x);
      const A* d = shared + row * kRow;
      A sum = A(0);
#pragma unroll
      for (int k = 0; k <= K; ++k) {
        const int function = window.begin + k;
        if (function >= 0 && function < p.F) sum += window.w[k] * d[8 * at * a.columns.octets + function];
      }
      if (p.with_base)
        sum += (p.x_order == 0 ? a.c.base_of_x.value(x) : a.c.base_of_x.slope(x)) * d[Columns::kGroup - 8 + at];
      if (p.s) sum *= element<A>(p.s, n * p.s.stride[0] + i * p.s.stride[1]);
      put_element(p.grad_x, p.grad_x_dtype, n * p.I + i, sum);
    }
  }

  const BackwardArgs<A>& a;
  const Problem& p;
  uint4* const shared_;
  const KnotRow<A>& knots_;
  const int64_t n0_, first_group_;
  const int row_, piece_;
  const S* column_[kEach];
  WarpSums<T> sums_;
};

}  // namespace fastkan
