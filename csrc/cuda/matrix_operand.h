// What products of matrices have of their own by the type of their numbers, S, float standing for tf32: how operands
// lie in shared memory, what a lane takes of them, and which columns of the tile its sums are. A right operand has rows
// of all columns of the tile. Those of the backward, steps of kDepth, also lie along the depth: an operand of which
// each row, or column of the features, is 64 bytes of that.
#pragma once

#include "../basis/sparse.h"
#include "../basis/uniform.h"
#include "tile.h"

namespace fastkan {

// Of 16 bits.
template <class S>
struct MatrixOperand {
  static constexpr int kWidth = 8, kDepth = 32;  // numbers in 16 bytes; of a step of the backward

  template <int ROWS, class T>
  FASTKAN_HD static int right_at(int row, int piece) {
    return fastkan::right_at<ROWS>(row, piece);
  }
  // Adds a product with 16 rows of the right operand from row0 on.
  template <int ROWS, class T>
  __device__ __forceinline__ static void add_dense(WarpSums<T>& sums, const uint32_t (&numbers)[T::kHigh][4],
                                                   const uint4* right, int row0) {
    if constexpr (T::kGroup) {
      begin_products();
      const uint64_t descriptor = right_descriptor<ROWS>(right + row0 * 8);
#pragma unroll
      for (int m = 0; m < T::kHigh; ++m) GroupMatrices<S>::multiply(sums.sum[m], numbers[m], descriptor);
    } else {
      const int lane = sums.lane(), piece0 = sums.first_column() / 8;
      sums.template add_product<S>(numbers, [&](int n, uint32_t (&to)[4]) {
        load_transposed(to, right + fastkan::right_at<ROWS>(row0 + lane % 16, piece0 + n + lane / 16));
      });
    }
  }

  // The features of a step, [kDepth, T::kRows]: in octets of columns, which ldmatrix turns.
  template <class T, int K>
  __device__ __forceinline__ static void put_window(uint4* features, int row, int octet,
                                                    const UniformWindow<float, K>& window, int function) {
    const uint64_t four = rounded_numbers<S>(window);
    const int place = window.begin - function;  // `function` is the octet's first
    const uint64_t low = moved(four, place), high = moved(four, place - 4);
    features[piece_at<T::kRows / 8>(row, octet)] =
        make_uint4(static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32), static_cast<uint32_t>(high),
                   static_cast<uint32_t>(high >> 32));
  }
  template <class T>
  __device__ __forceinline__ static void put_number(uint4* features, int row, int column, float value) {
    uint16_t* numbers = reinterpret_cast<uint16_t*>(features + piece_at<T::kRows / 8>(row, column / 8));
    numbers[column % 8] = static_cast<uint16_t>(Matrices<S>::rounded(value, 0.0f));
  }
  // Adds features^T right.
  template <class T>
  __device__ __forceinline__ static void add_features(WarpSums<T>& sums, const uint4* features, const uint4* right) {
    const int lane = sums.lane(), octet0 = sums.first_row() / 8;
#pragma unroll
    for (int row0 = 0; row0 < kDepth; row0 += 16) {
      uint32_t numbers[T::kHigh][4];
#pragma unroll
      for (int m = 0; m < T::kHigh; ++m) {
        const int row = row0 + lane / 16 * 8 + lane % 8, octet = octet0 + 2 * m + lane / 8 % 2;
        load_transposed(numbers[m], features + piece_at<T::kRows / 8>(row, octet));
      }
      add_dense<kDepth>(sums, numbers, right, row0);
    }
  }

  // Adds left right^T of operands that both lie along the depth: the sums are then WarpSums's own columns.
  FASTKAN_HD static int deep_at(int row, int piece) { return piece_at<kDepth / kWidth>(row, piece); }
  template <class T>
  __device__ __forceinline__ static void add_deep(WarpSums<T>& sums, const uint4* left, const uint4* right) {
    const int lane = sums.lane(), left0 = sums.first_row(), right0 = sums.first_column();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t numbers[T::kHigh][4];
#pragma unroll
      for (int m = 0; m < T::kHigh; ++m)
        load_matrices(numbers[m], left + deep_at(left0 + 16 * m + lane % 16, 2 * half + lane / 16));
      sums.template add_product<S>(numbers, [&](int n, uint32_t (&to)[4]) {
        const int column = right0 + 8 * (n + lane / 16) + lane % 8;
        load_matrices(to, right + deep_at(column, 2 * half + lane / 8 % 2));
      });
    }
  }

  // Of sum[m][n][r] of this lane, where the right operand has rows of all columns.
  template <class T>
  __device__ __forceinline__ static int column(int n, int r) {
    return WarpSums<T>::first_column() + 8 * n + WarpSums<T>::lane() % 4 * 2 + r % 2;
  }
  // f(row) tells where the sums of a row are to go, in float32 or rounded; those of `columns` columns do.
  template <class T, class F>
  __device__ __forceinline__ static void store_sums(const WarpSums<T>& sums, int64_t columns, const F& f) {
    sums.store(columns, f);
  }
  template <class T, class F>
  __device__ __forceinline__ static void store(const WarpSums<T>& sums, uint4* shared, int64_t columns, const F& f) {
    sums.template store_rounded<S>(shared, columns, f);
  }
};

// float32 as tf32, rounded where a lane takes it, features where they are made. No instruction turns numbers of 32
// bits. Of a row of the right operand a lane takes 16 bytes, one number each for four blocks of 8 columns, which
// therefore have every fourth of 32: its sums lie side by side, too. Along the depth it takes 16 bytes as well, which
// are its numbers of two products: the order of the depth is free where both operands have the same.
template <>
struct MatrixOperand<float> {
  static constexpr int kWidth = 4, kDepth = 16;
  static constexpr int kPieces = kDepth / kWidth;

  // Lanes that read, 8 at a time, four rows and two neighbouring pieces of each, meet different banks.
  template <int ROWS, class T>
  FASTKAN_HD static int right_at(int row, int piece) {
    return row * (T::kColumns / kWidth) + (piece ^ row % 4 * 2);
  }
  // Calls f(n, b) with the columns of each block n of 8, of DEPTH rows from row0 on.
  template <int DEPTH, class T, class F>
  __device__ __forceinline__ static void each_block(const uint4* right, int row0, const F& f) {
    const int g = WarpSums<T>::lane() / 4, t = WarpSums<T>::lane() % 4, piece0 = WarpSums<T>::first_column() / kWidth;
#pragma unroll
    for (int n = 0; n < T::kWide; n += 4) {
      uint32_t b[4][4];
#pragma unroll
      for (int r = 0; r < DEPTH / 4; ++r) {
        const uint4 piece = rounded(right[right_at<0, T>(row0 + t + 4 * r, piece0 + 2 * n + g)]);
        b[0][r] = piece.x, b[1][r] = piece.y, b[2][r] = piece.z, b[3][r] = piece.w;
      }
#pragma unroll
      for (int block = 0; block < 4; ++block) f(n + block, b[block]);
    }
  }
  template <int ROWS, class T>
  __device__ __forceinline__ static void add_dense(WarpSums<T>& sums, const uint32_t (&numbers)[T::kHigh][4],
                                                   const uint4* right, int row0) {
    each_block<8, T>(right, row0, [&](int n, const uint32_t (&b)[4]) {
#pragma unroll
      for (int m = 0; m < T::kHigh; ++m) Matrices<float>::multiply(sums.sum[m][n], numbers[m], b[0], b[1]);
    });
  }

  // The features of a step lie along the depth, 64 bytes a column, a lane's two numbers of a product side by side. The
  // rows of a column are written together, and those of one an octet on: these lie in different halves of the banks.
  // Half a warp reads from four columns, all banks.
  FASTKAN_HD static int pair_at(int column, int product, int t) {
    return (column ^ column / 8 % 2) * 8 + (product ^ column / 2 % 2) * 4 + t;
  }
  template <class T>
  __device__ __forceinline__ static void put_number(uint4* features, int row, int column, float value) {
    const int at = 2 * pair_at(column, row / 8, row % 4) + row / 4 % 2;
    reinterpret_cast<uint32_t*>(features)[at] = Matrices<float>::rounded(value);
  }
  template <class T, int K>
  __device__ __forceinline__ static void put_window(uint4* features, int row, int octet,
                                                    const UniformWindow<float, K>& window, int function) {
#pragma unroll
    for (int j = 0; j < 8; ++j) put_number<T>(features, row, 8 * octet + j, 0.0f);
#pragma unroll
    for (int k = 0; k <= K; ++k)
      if (const int j = window.begin + k - function; j >= 0 && j < 8)
        put_number<T>(features, row, 8 * octet + j, window.w[k]);
  }
  template <class T>
  __device__ __forceinline__ static void add_features(WarpSums<T>& sums, const uint4* features, const uint4* right) {
    const int row0 = sums.first_row() + sums.lane() / 4, t = sums.lane() % 4;
#pragma unroll
    for (int q = 0; q < kDepth / 8; ++q) {
      uint32_t numbers[T::kHigh][4];
#pragma unroll
      for (int m = 0; m < T::kHigh; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint2 pair = reinterpret_cast<const uint2*>(features)[pair_at(row0 + 16 * m + 8 * half, q, t)];
          numbers[m][half] = pair.x, numbers[m][half + 2] = pair.y;
        }
      add_dense<0>(sums, numbers, right, 8 * q);
    }
  }

  // A quarter of a warp reads two rows, all banks.
  FASTKAN_HD static int deep_at(int row, int piece) { return row * kPieces + piece; }
  template <class T>
  __device__ __forceinline__ static void add_deep(WarpSums<T>& sums, const uint4* left, const uint4* right) {
    const int g = sums.lane() / 4, t = sums.lane() % 4, left0 = sums.first_row(), right0 = sums.first_column();
    uint32_t numbers[2][T::kHigh][4];
#pragma unroll
    for (int m = 0; m < T::kHigh; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 piece = rounded(left[deep_at(left0 + 16 * m + 8 * half + g, t)]);
        numbers[0][m][half] = piece.x, numbers[0][m][half + 2] = piece.y;
        numbers[1][m][half] = piece.z, numbers[1][m][half + 2] = piece.w;
      }
#pragma unroll
    for (int n = 0; n < T::kWide; ++n) {
      const uint4 piece = rounded(right[deep_at(right0 + 8 * n + g, t)]);
#pragma unroll
      for (int m = 0; m < T::kHigh; ++m) {
        Matrices<float>::multiply(sums.sum[m][n], numbers[0][m], piece.x, piece.y);
        Matrices<float>::multiply(sums.sum[m][n], numbers[1][m], piece.z, piece.w);
      }
    }
  }

  template <class T>
  __device__ __forceinline__ static int column(int n, int r) {
    return WarpSums<T>::first_column() + n / 4 * 32 + (WarpSums<T>::lane() % 4 * 2 + r % 2) * 4 + n % 4;
  }
  template <class T, class F>
  __device__ __forceinline__ static void store_sums(const WarpSums<T>& sums, int64_t columns, const F& f) {
#pragma unroll
    for (int m = 0; m < T::kHigh; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        if (float* to = f(sums.first_row(m) + 8 * half + sums.lane() / 4))
#pragma unroll
          for (int n = 0; n < T::kWide; n += 4)
#pragma unroll
            for (int r = 2 * half; r < 2 * half + 2; ++r)
              if (const int at = column<T>(n, r); at < columns)
                *reinterpret_cast<float4*>(to + at) =
                    make_float4(sums.sum[m][n][r], sums.sum[m][n + 1][r], sums.sum[m][n + 2][r], sums.sum[m][n + 3][r]);
  }
  template <class T, class F>
  __device__ __forceinline__ static void store(const WarpSums<T>& sums, uint4*, int64_t columns, const F& f) {
    store_sums(sums, columns, f);
  }

 private:
  __device__ __forceinline__ static uint4 rounded(const uint4& piece) {
    float stored[4];
    memcpy(stored, &piece, sizeof stored);
    return make_uint4(Matrices<float>::rounded(stored[0]), Matrices<float>::rounded(stored[1]),
                      Matrices<float>::rounded(stored[2]), Matrices<float>::rounded(stored[3]));
  }
};

}  // namespace fastkan
