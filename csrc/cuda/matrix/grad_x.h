// A tile of the gradient of the input: D = u C^T, [rows, columns], in steps of some outputs, followed by
//   grad_x[n,i] = s (sum_k w_k D[n, start + k of i] + b D[n, base of i])
// with the derivatives w and b of order x_order, in the accumulator's type. D is never written to global memory.
#pragma once

#include "grad_coef.h"

namespace fastkan {

constexpr int kKeptSteps = 8;  // of coefficients in shared memory, of 16 bits

// T: a tile of rows by columns. USUAL: see MatrixGradCoef. Several tiles with the same columns follow each other; with
// wgmma, whose blocks have more shared memory, their coefficients stay there if outputs are few.
template <class S, class T, int K, bool USUAL>
class MatrixGradX {
  using A = typename T::Sum;
  using Operand = MatrixOperand<S>;
  static constexpr int kDepth = Operand::kDepth;
  static constexpr int kPieces = kDepth / Operand::kWidth;  // per row of an operand
  static constexpr int kEach = T::kRows * kPieces / T::kThreads, kRowsApart = T::kThreads / kPieces;
  // Row stride of D in shared memory: four rows of four pairs lie in different banks.
  static constexpr int kRow = Columns::kGroup + 8;

  static constexpr int kLeft = T::kRows * kPieces, kRight = T::kColumns * kPieces;  // pieces of a step
  static constexpr int kKept = T::kWgmma ? kKeptSteps : kStages;
  static constexpr int kD = T::kRows * kRow * static_cast<int>(sizeof(A)) / 16;
  static constexpr int kRightAt = T::kWgmma && kD > kStages* kLeft ? kD : kStages * kLeft;

 public:
  static constexpr int kShared = kRightAt + kKept * kRight;
  static_assert(T::kRows == T::kColumns && kShared >= kD && (!T::kWgmma || kRightAt % 64 == 0));

  __device__ __forceinline__ MatrixGradX(const BackwardArgs<A>& args, uint4* memory, TileKnots<A>& knots, int64_t n0,
                                         int64_t first_group)
      : a(args),
        p(args.c.p),
        shared_(memory),
        knots_(knots),
        n0_(n0),
        first_group_(first_group),
        steps_(static_cast<int>(ceil_div(args.c.p.O, kDepth))),
        keeps_(T::kWgmma && steps_ <= kKept),
        row_(T::thread() / kPieces),
        piece_(T::thread() % kPieces) {
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int row = row_ + k * kRowsApart;
      const TileColumn column = tile_column(a.columns, p, first_group_, row);
      const bool base = column.function == kBaseColumn;
      const View& v = base ? p.base_weight : p.coef;
      const int64_t offset = column.input * v.stride[0] + (base ? 0 : column.function * v.stride[1]);
      column_[k] = static_cast<const S*>(v.data) + offset + Operand::kWidth * piece_;
      there_ |= static_cast<unsigned>(column.input >= 0) << k;
    }
  }

  // Computes some tiles, of rows below each other.
  __device__ __forceinline__ void run(int tiles) {
    for (int tile = 0; tile < tiles && n0_ < p.N; ++tile, n0_ += T::kRows) {
      is_first_ = tile == 0;
      rows_ = static_cast<int>(min(T::kRows, p.N - n0_));
      u_ = static_cast<const S*>(p.u.data) + (n0_ + row_) * p.u.stride[0] + Operand::kWidth * piece_;
      multiplied_ = 0;
      sums_ = WarpSums<T>{};
      run_pipeline<T>(*this, steps_);
#pragma unroll
      for (int k = 0; k < kEach; ++k) column_[k] -= steps_ * kDepth;
#pragma unroll
      for (int group = 0; group < T::kColumns / Columns::kGroup; ++group) {
        put_sums(group);
        T::sync();
        finish(group);
        T::sync();
      }
    }
  }

  // The stages of run_pipeline; nothing is evaluated.
  __device__ __forceinline__ void start_copies(int step, int stage) {
    const bool here = step * kDepth + Operand::kWidth * piece_ < static_cast<int>(p.O);
    const S* from = u_;
#pragma unroll
    for (int k = 0; k < kEach; ++k, from += kRowsApart * p.u.stride[0]) {
      const int row = row_ + k * kRowsApart, at = Operand::deep_at(row, piece_);
      copy_async_by_l1(left_of(stage) + at, from, here && row < rows_);  // tiles side by side have the same rows
      if (is_first_ || !keeps_) copy_async(right_of(keeps_ ? step : stage) + at, column_[k], here && there_ >> k & 1);
      column_[k] += kDepth;
    }
    u_ += kDepth;
  }
  // The knots are read after the steps, which wait for all threads.
  __device__ __forceinline__ void prepare() {
    if (T::thread() == 0 && is_first_) knots_.template set<USUAL>(a);
  }
  __device__ __forceinline__ void prefetch_x(int) const {}
  __device__ __forceinline__ void build_left(int, int) const {}

  __device__ __forceinline__ void multiply(int, int stage) {
    Operand::add_deep(sums_, left_of(stage), right_of(keeps_ ? multiplied_++ : stage));
    if constexpr (T::kWgmma) wgmma_commit();
  }

 private:
  __device__ __forceinline__ uint4* left_of(int stage) const { return shared_ + stage * kLeft; }
  __device__ __forceinline__ uint4* right_of(int slot) const { return shared_ + kRightAt + slot * kRight; }

  // Writes the D of a group to shared memory.
  __device__ __forceinline__ void put_sums(int group) const {
    const int lane = sums_.lane(), column0 = sums_.first_column() - group * Columns::kGroup;
    A* to = reinterpret_cast<A*>(shared_) + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
      for (int n = 0; n < T::kColumnBlocks; ++n) {
        const int column = column0 + 8 * n;
        if (column < 0 || column >= Columns::kGroup) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half)
          *reinterpret_cast<Pair<A>*>(to + (sums_.first_row(m) + 8 * half + lane / 4) * kRow + column) = {
              sums_.sum[m][n][2 * half], sums_.sum[m][n][2 * half + 1]};
      }
  }

  // grad_x of one group of inputs, whose D is in shared memory; the inputs of a row side by side, as x lies in memory.
  __device__ __forceinline__ void finish(int group) const {
    const int at = T::thread() & ((1 << a.columns.lanes_log2) - 1);
    const int64_t i = (first_group_ + group) * a.columns.inputs + at;
    if (at >= a.columns.inputs || i >= p.I) return;
    const A* d = reinterpret_cast<const A*>(shared_) + 8 * at * a.columns.octets;
    const A* d_of_base = reinterpret_cast<const A*>(shared_) + Columns::kGroup - 8 + at;
    const UsualKnots usual = knots_.usual;
    const auto of_row = [&](int row, Bits<A> bits, int64_t to) {
      A sum = A(0);
      if constexpr (USUAL) {
        const A x = Operand::number_of(bits, p.x.dtype == Dtype::f32);
        const auto window = UsualWindow<K>::template of<1>(usual, x);
        sum = sum_of(window.begin(), window.w, d + row * kRow);
        if (p.with_base) sum += silu_slope_of_few_bits(x) * d_of_base[row * kRow];
      } else {
        const A x = number_of_bits(bits, p.x.dtype);
        const Shape shape = matrix_shape<K>(a.c.shape);
        const KnotRow<A> knots = a.knots ? a.knots[i] : knots_.row;
        const auto window = p.x_order == 0 ? UniformWindow<A, K>::template of<0>(shape, knots, x)
                                           : UniformWindow<A, K>::template of<1>(shape, knots, x);
        sum = sum_of(window.begin, window.w, d + row * kRow);
        if (p.with_base)
          sum += (p.x_order == 0 ? a.c.base_of_x.value(x) : a.c.base_of_x.slope(x)) * d_of_base[row * kRow];
        if (p.s) sum *= element<A>(p.s, (n0_ + row) * p.s.stride[0] + i * p.s.stride[1]);
      }
      put_element(p.grad_x, p.grad_x_dtype, to, sum);
    };
    constexpr int kTogether = 4;  // loads in flight
    const int row0 = T::thread() >> a.columns.lanes_log2, apart = T::kThreads >> a.columns.lanes_log2;
    const int64_t x_apart = apart * p.x.stride[0] * bytes_of(p.x.dtype), to_apart = apart * p.I;
    const char* x =
        static_cast<const char*>(p.x.data) + ((n0_ + row0) * p.x.stride[0] + i * p.x.stride[1]) * bytes_of(p.x.dtype);
    int64_t to = (n0_ + row0) * p.I + i;
    for (int row = row0; row < rows_;) {
      const char* from[kTogether];
      bool there[kTogether];
      Bits<A> bits[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k, x += x_apart) from[k] = x, there[k] = row + k * apart < rows_;
      if constexpr (USUAL)
        Operand::load_x(from, there, p.x.dtype == Dtype::f32, bits);
      else
#pragma unroll
        for (int k = 0; k < kTogether; ++k) load_bits<1>(View{from[k], {}, p.x.dtype}, 0, 0, there[k], bits + k);
#pragma unroll
      for (int k = 0; k < kTogether; ++k, row += apart, to += to_apart)
        if (row < rows_) of_row(row, bits[k], to);
    }
  }
  __device__ __forceinline__ A sum_of(int begin, const A (&w)[K + 1], const A* d) const {
    A sum = A(0);
#pragma unroll
    for (int k = 0; k <= K; ++k)
      if (static_cast<unsigned>(begin + k) < static_cast<unsigned>(p.F)) sum += w[k] * d[begin + k];
    return sum;
  }

  const BackwardArgs<A>& a;
  const Problem& p;
  uint4* const shared_;
  TileKnots<A>& knots_;
  int64_t n0_;
  const int64_t first_group_;
  const int steps_;
  const bool keeps_;  // the coefficients of all steps
  const int row_, piece_;
  int rows_ = 0, multiplied_ = 0;
  bool is_first_ = true;
  const S *column_[kEach], *u_;  // what is copied next
  unsigned there_ = 0;           // whether there is a column, in bits
  WarpSums<T> sums_;
};

}  // namespace fastkan
