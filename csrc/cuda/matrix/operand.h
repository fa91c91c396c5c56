// Operands of dense matrix products by storage type S (float: tf32): layout in shared memory, the numbers each lane
// loads, and the tile columns of its accumulators. A right operand is stored by rows, each with all columns of the
// tile. Operands of the backward may instead be stored along the depth (K-major): each row, or column of features, is
// the kDepth numbers of a step.
#pragma once

#include "../../basis/sparse.h"
#include "../../basis/uniform.h"
#include "tile.h"

namespace fastkan {

// Loads the bits of some numbers of a type, zeros where there is none.
template <class B, int COUNT>
__device__ __forceinline__ void load_as(const char* const (&from)[COUNT], const bool (&there)[COUNT],
                                        uint32_t (&to)[COUNT]) {
#pragma unroll
  for (int k = 0; k < COUNT; ++k) to[k] = there[k] ? __ldg(reinterpret_cast<const B*>(from[k])) : 0;
}

// bf16 and fp16.
template <class S>
struct MatrixOperand {
  using Number = uint32_t;
  static constexpr int kWidth = 8, kDepth = 32;  // numbers in 16 bytes; depth of a step of the backward

  template <int ROWS, class T>
  FASTKAN_HD static int right_at(int row, int piece) {
    return fastkan::right_at<ROWS>(row, piece);
  }
  // Adds a product with rows row0 .. row0 + 15 of the right operand.
  template <int ROWS, class T>
  __device__ __forceinline__ static void add_dense(WarpSums<T>& sums, const uint32_t (&numbers)[T::kRowBlocks][4],
                                                   const uint4* right, int row0) {
    if constexpr (T::kWgmma) {
      wgmma_fence();
      const uint64_t descriptor = right_descriptor<ROWS>(right + row0 * 8 + sums.first_column() / 64 * 8 * ROWS);
#pragma unroll
      for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
        for (int n = 0; n < T::kColumnBlocks; n += 16)
          Wgmma<S>::template multiply<false>(sums.wgmma_sums(m, n), numbers[m], descriptor + beside<ROWS>(n / 8));
    } else {
      const int lane = sums.lane(), piece0 = sums.first_column() / 8;
      const int at = here(fastkan::right_at<ROWS>(row0 + lane % 16, piece0 + lane / 16));
      sums.template add_product<S>(numbers,
                                   [&](int n, uint32_t (&to)[4]) { ldmatrix_transposed(to, right + (at ^ n)); });
    }
  }

  // x of the usual case, from its bits: in float32 or as stored.
  static constexpr Dtype kStored = std::is_same_v<S, __half> ? Dtype::f16 : Dtype::bf16;
  template <int COUNT>
  __device__ __forceinline__ static void load_x(const char* const (&from)[COUNT], const bool (&there)[COUNT],
                                                bool is_float32, uint32_t (&to)[COUNT]) {
    if (is_float32)
      load_as<uint32_t>(from, there, to);
    else
      load_as<uint16_t>(from, there, to);
  }
  __device__ __forceinline__ static float number_of(uint32_t bits, bool is_float32) {
    float number;
    memcpy(&number, &bits, sizeof number);
    return is_float32 ? number : Mma<S>::widened(bits, 0);
  }

  // The row and octet of a group that a thread evaluates: the inputs of a row side by side, as x lies in memory.
  __device__ __forceinline__ static int row_of(int thread) { return thread / 8; }
  __device__ __forceinline__ static int octet_of(int thread) { return thread % 8; }

  // Writes the numbers w of functions begin to begin + K into the features of a step, [kDepth, T::kRows] in octets of
  // columns, which ldmatrix transposes. `function` is the first function of the octet.
  template <class T, int K>
  __device__ __forceinline__ static void put_window(uint4* features, int row, int octet, int begin,
                                                    const float (&w)[K + 1], int function) {
    const uint64_t four = rounded_numbers<S>(w);
    const int bits = 16 * begin - 16 * function;
    const uint64_t low = shifted_left(four, bits) | shifted_right(four, -bits);
    const uint64_t high = shifted_left(four, bits - 64) | shifted_right(four, 64 - bits);
    features[piece_at<T::kRows / 8>(row, octet)] =
        make_uint4(static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32), static_cast<uint32_t>(high),
                   static_cast<uint32_t>(high >> 32));
  }
  template <class T>
  __device__ __forceinline__ static void put_number(uint4* features, int row, int column, float value) {
    uint16_t* numbers = reinterpret_cast<uint16_t*>(features + piece_at<T::kRows / 8>(row, column / 8));
    numbers[column % 8] = static_cast<uint16_t>(Mma<S>::rounded(value, 0.0f));
  }
  // Adds features^T right.
  template <class T>
  __device__ __forceinline__ static void add_features(WarpSums<T>& sums, const uint4* features, const uint4* right) {
    const int lane = sums.lane();
    const int at = piece_at<T::kRows / 8>(lane / 16 * 8 + lane % 8, sums.first_row() / 8 + lane / 8 % 2);
#pragma unroll
    for (int row0 = 0; row0 < kDepth; row0 += 16) {
      uint32_t numbers[T::kRowBlocks][4];
#pragma unroll
      for (int m = 0; m < T::kRowBlocks; ++m)  // rows of a warp differ in bits of the octet that its lanes do not
        ldmatrix_transposed(numbers[m], features + row0 * (T::kRows / 8) + (at ^ (T::kWgmma ? 64 * m : 16 * m) / 8));
      add_dense<kDepth>(sums, numbers, right, row0);
    }
  }

  // Adds left right^T, both operands K-major; accumulators then have WarpSums's column order.
  FASTKAN_HD static int deep_at(int row, int piece) { return piece_at<kDepth / kWidth>(row, piece); }
  template <class T>
  __device__ __forceinline__ static void add_deep(WarpSums<T>& sums, const uint4* left, const uint4* right) {
    const int lane = sums.lane(), right0 = sums.first_column();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t numbers[T::kRowBlocks][4];
#pragma unroll
      for (int m = 0; m < T::kRowBlocks; ++m)
        ldmatrix(numbers[m], left + deep_at(sums.first_row(m) + lane % 16, 2 * half + lane / 16));
      if constexpr (T::kWgmma) {
        wgmma_fence();
        const uint64_t descriptor = deep_descriptor(right) + 2 * half;
#pragma unroll
        for (int m = 0; m < T::kRowBlocks; ++m) Wgmma<S>::template multiply<true>(sums.sum[m], numbers[m], descriptor);
        continue;
      }
      sums.template add_product<S>(numbers, [&](int n, uint32_t (&to)[4]) {
        const int column = right0 + 8 * (n + lane / 16) + lane % 8;
        ldmatrix(to, right + deep_at(column, 2 * half + lane / 8 % 2));
      });
    }
  }

  // Tile column of this lane's sum[m][n][r], for a right operand stored by rows.
  template <class T>
  __device__ __forceinline__ static int column(int n, int r) {
    return WarpSums<T>::first_column() + 8 * n + WarpSums<T>::lane() % 4 * 2 + r % 2;
  }
  // f(row) is the destination of a row's sums, unrounded or rounded to S; the first `columns` columns are stored.
  template <class T, class F>
  __device__ __forceinline__ static void store_sums(const WarpSums<T>& sums, int64_t columns, const F& f) {
    sums.store(columns, f);
  }
  template <class T, class F>
  __device__ __forceinline__ static void store(const WarpSums<T>& sums, uint4* shared, int64_t columns, const F& f) {
    sums.template store_rounded<S>(shared, columns, f);
  }
};

// float32 as tf32 (rounded when a lane loads it; features when they are computed), and float64. No instruction
// transposes such numbers. A lane loads 16 bytes of a row of the right operand: one number for each of kWidth blocks
// of 8 columns, so these blocks interleave columns, and the lane's sums are neighbours, too. Along the depth it loads
// two neighbours for its two positions in a product: the order of the depth is free if both operands have the same.
template <class S>
struct WideOperand {
  using Number = typename Mma<S>::Number;
  static constexpr int kWidth = 16 / sizeof(S), kDepth = 16;

  // 8 lanes that read four rows and two neighbouring pieces of each hit different banks.
  template <int ROWS, class T>
  FASTKAN_HD static int right_at(int row, int piece) {
    return row * (T::kColumns / kWidth) + (piece ^ row % 4 * 2);
  }
  // Calls f(n, b) with the columns of each block n of 8, of DEPTH rows from row0 on.
  template <int DEPTH, class T, class F>
  __device__ __forceinline__ static void each_block(const uint4* right, int row0, const F& f) {
    const int g = WarpSums<T>::lane() / 4, t = WarpSums<T>::lane() % 4, piece0 = WarpSums<T>::first_column() / kWidth;
    const uint4* first = right + right_at<0, T>(row0 + t, piece0 + g);
#pragma unroll
    for (int n = 0; n < T::kColumnBlocks; n += kWidth) {
      Number b[kWidth][4];
#pragma unroll
      for (int r = 0; r < DEPTH / 4; ++r) {
        S stored[kWidth];
        const uint4 piece = first[right_at<0, T>(4 * r, n / kWidth * 8)];
        memcpy(stored, &piece, sizeof stored);
#pragma unroll
        for (int block = 0; block < kWidth; ++block) b[block][r] = Mma<S>::rounded(stored[block]);
      }
#pragma unroll
      for (int block = 0; block < kWidth; ++block) f(n + block, b[block]);
    }
  }
  template <int ROWS, class T>
  __device__ __forceinline__ static void add_dense(WarpSums<T>& sums, const Number (&numbers)[T::kRowBlocks][4],
                                                   const uint4* right, int row0) {
    each_block<8, T>(right, row0, [&](int n, const Number(&b)[4]) {
#pragma unroll
      for (int m = 0; m < T::kRowBlocks; ++m) Mma<S>::multiply(sums.sum[m][n], numbers[m], b[0], b[1]);
    });
  }

  // Position of pair `which` of a K-major row, swizzled such that the rows read together hit all banks: four of 64
  // bytes or two of 128.
  FASTKAN_HD static int pair_at(int row, int which) {
    return row * (kDepth / 2) + (which ^ row / (kWidth / 2) % 2 * 4);
  }
  FASTKAN_HD static int deep_at(int row, int piece) { return pair_at(row, piece * kWidth / 2) * 2 / kWidth; }
  // A lane's pair of numbers of a product.
  template <class N>
  __device__ __forceinline__ static Pair<N> pair_of(const uint4* deep, int row, int product) {
    return reinterpret_cast<const Pair<N>*>(deep)[pair_at(row, product * 4 + static_cast<int>(threadIdx.x % 4))];
  }

  // The features of a step are stored column by column along the depth. A warp writes the rows of one column together
  // with those of the column one octet later; these two lie in different halves of the banks if a column is as long
  // as half of them.
  FASTKAN_HD static int place_of(int column) { return column ^ column / 8 % 2; }
  template <class T>
  __device__ __forceinline__ static void put_number(uint4* features, int row, int column, S value) {
    const int at = 2 * pair_at(place_of(column), row / 8 * 4 + row % 4) + row / 4 % 2;
    reinterpret_cast<Number*>(features)[at] = Mma<S>::rounded(value);
  }
  static constexpr Dtype kStored = Dtype::f32;
  template <int COUNT>
  __device__ __forceinline__ static void load_x(const char* const (&from)[COUNT], const bool (&there)[COUNT], bool,
                                                uint32_t (&to)[COUNT]) {
    load_as<uint32_t>(from, there, to);
  }
  __device__ __forceinline__ static float number_of(uint32_t bits, bool) { return number_of_bits(bits, kStored); }
  __device__ __forceinline__ static int row_of(int thread) { return thread % kDepth; }
  __device__ __forceinline__ static int octet_of(int thread) { return thread / kDepth; }

  template <class T, int K>
  __device__ __forceinline__ static void put_window(uint4* features, int row, int octet, int begin, const S (&w)[K + 1],
                                                    int function) {
#pragma unroll
    for (int j = 0; j < 8; ++j) put_number<T>(features, row, 8 * octet + j, S(0));
#pragma unroll
    for (int k = 0; k <= K; ++k)
      if (const int j = begin + k - function; j >= 0 && j < 8) put_number<T>(features, row, 8 * octet + j, w[k]);
  }
  template <class T>
  __device__ __forceinline__ static void add_features(WarpSums<T>& sums, const uint4* features, const uint4* right) {
    const int row0 = sums.first_row() + sums.lane() / 4;
#pragma unroll
    for (int product = 0; product < kDepth / 8; ++product) {
      Number numbers[T::kRowBlocks][4];
#pragma unroll
      for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Pair<Number> pair = pair_of<Number>(features, place_of(row0 + 16 * m + 8 * half), product);
          numbers[m][half] = pair.x, numbers[m][half + 2] = pair.y;
        }
      add_dense<0>(sums, numbers, right, 8 * product);
    }
  }

  template <class T>
  __device__ __forceinline__ static void add_deep(WarpSums<T>& sums, const uint4* left, const uint4* right) {
    const int g = sums.lane() / 4, left0 = sums.first_row() + g, right0 = sums.first_column() + g;
#pragma unroll
    for (int product = 0; product < kDepth / 8; ++product) {
      Number numbers[T::kRowBlocks][4];
#pragma unroll
      for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Pair<S> pair = pair_of<S>(left, left0 + 16 * m + 8 * half, product);
          numbers[m][half] = Mma<S>::rounded(pair.x), numbers[m][half + 2] = Mma<S>::rounded(pair.y);
        }
#pragma unroll
      for (int n = 0; n < T::kColumnBlocks; ++n) {
        const Pair<S> pair = pair_of<S>(right, right0 + 8 * n, product);
        const Number b0 = Mma<S>::rounded(pair.x), b1 = Mma<S>::rounded(pair.y);
#pragma unroll
        for (int m = 0; m < T::kRowBlocks; ++m) Mma<S>::multiply(sums.sum[m][n], numbers[m], b0, b1);
      }
    }
  }

  template <class T>
  __device__ __forceinline__ static int column(int n, int r) {
    const int in_block = WarpSums<T>::lane() % 4 * 2 + r % 2;
    return WarpSums<T>::first_column() + n / kWidth * 8 * kWidth + in_block * kWidth + n % kWidth;
  }
  template <class T, class F>
  __device__ __forceinline__ static void store_sums(const WarpSums<T>& sums, int64_t columns, const F& f) {
#pragma unroll
    for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        if (S* to = f(sums.first_row(m) + 8 * half + sums.lane() / 4))
#pragma unroll
          for (int n = 0; n < T::kColumnBlocks; n += kWidth)
#pragma unroll
            for (int r = 2 * half; r < 2 * half + 2; ++r)
              if (const int at = column<T>(n, r); at < columns) {
                S together[kWidth];
#pragma unroll
                for (int block = 0; block < kWidth; ++block) together[block] = sums.sum[m][n + block][r];
                store_partial<kWidth>(to + at, together);
              }
  }
  template <class T, class F>
  __device__ __forceinline__ static void store(const WarpSums<T>& sums, uint4*, int64_t columns, const F& f) {
    store_sums(sums, columns, f);
  }
};

template <>
struct MatrixOperand<float> : WideOperand<float> {};
template <>
struct MatrixOperand<double> : WideOperand<double> {};

}  // namespace fastkan
