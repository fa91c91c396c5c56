// What products on sparse tensor cores have of their own by the type of their numbers: how a window is dealt out to
// chunks, how the right operand lies in shared memory, and which columns of the tile the sums of a lane are.
#pragma once

#include "../basis/sparse.h"
#include "../basis/uniform.h"
#include "tile.h"

namespace fastkan {

// Of 16 bits: two numbers in every four columns, a chunk of both in a register.
template <class S>
struct SparseOperand {
  static constexpr int kChunkColumns = 4, kUsualChunks = 2;  // the latter of 8 functions
  static constexpr int kWidth = 8;                           // numbers in 16 bytes
  static constexpr int kBasePacks = 1, kBaseRows = 16;       // products of 16 base functions, and their depth

  FASTKAN_HD static int chunks(const Problem& p) { return chunks_of(p.F); }

  template <int K>
  struct Window {
    static constexpr int kMostInPack = Sparse16832::kChunks / 2;  // so many have chunks among those of a pack
    Quad quad;
    __device__ __forceinline__ static Window of(const UniformWindow<float, K>& window, int chunks) {
      return {Quad::of(window.begin, rounded_numbers<S>(window), chunks)};
    }
    __device__ __forceinline__ ChunkOfQuad chunk(int which, int chunks) const {
      return chunk_of_quad(quad, which, chunks);
    }
  };

  template <int ROWS, class T>
  FASTKAN_HD static int right_at(int row, int piece) {
    return fastkan::right_at<ROWS>(row, piece);
  }

  // put(pack, chunk, bits) takes some base functions from `first` on of 16.
  template <int COUNT, class F>
  __device__ __forceinline__ static void put_base(const float (&value)[COUNT], int first, const F& put) {
#pragma unroll
    for (int k = 0; k < COUNT; k += 2) put(0, (first + k) / 2, Matrices<S>::rounded(value[k], value[k + 1]));
  }

  // Adds products with the rows of the right operand from row0 on.
  template <int ROWS, class T>
  __device__ __forceinline__ static void add_sparse(WarpSums<T>& sums, const uint32_t (&numbers)[T::kHigh][4],
                                                    const uint32_t (&places)[T::kHigh], const uint4* right, int row0) {
    if constexpr (T::kGroup) {
      begin_products();
      const uint64_t descriptor = right_descriptor<ROWS>(right + row0 * 8);
#pragma unroll
      for (int m = 0; m < T::kHigh; ++m)
        GroupMatrices<S>::multiply_sparse(sums.sum[m], numbers[m], places[m], descriptor);
    } else {
      const int piece0 = sums.first_column() / 8;
#pragma unroll
      for (int n = 0; n < T::kWide; ++n) {
        uint32_t b[4];
        load_transposed(b, right + fastkan::right_at<ROWS>(row0 + sums.lane(), piece0 + n));
#pragma unroll
        for (int m = 0; m < T::kHigh; ++m) Matrices<S>::multiply_sparse(sums.sum[m][n], numbers[m], b, places[m]);
      }
    }
  }
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

  // Of sum[m][n][r] of this lane.
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

// float32 as tf32: one number in every two columns. A lane takes 16 bytes of a row of the right operand, one number
// each for four blocks of 8 columns, which therefore have every fourth of 32: its sums lie side by side, too.
template <>
struct SparseOperand<float> {
  static constexpr int kChunkColumns = 2, kUsualChunks = 4;
  static constexpr int kWidth = 4;
  static constexpr int kBasePacks = 2, kBaseRows = 8;

  FASTKAN_HD static int chunks(const Problem& p) { return chunks_of_two(p.F, p.K); }

  template <int K>
  struct Window {
    static constexpr int kMostInPack = K == 2 ? 3 : 2;
    Singles<K> singles;
    __device__ __forceinline__ static Window of(const UniformWindow<float, K>& window, int) {
      Window w = {{window.begin, {}}};
#pragma unroll
      for (int k = 0; k <= K; ++k) w.singles.numbers[k] = Matrices<float>::rounded(window.w[k]);
      return w;
    }
    __device__ __forceinline__ ChunkOfQuad chunk(int which, int chunks) const {
      const ChunkOfSingles c = chunk_of_singles(singles, which, chunks);
      return {c.number, c.places};
    }
  };

  // Lanes that read, 8 at a time, four rows and two neighbouring pieces of each, meet different banks.
  template <int ROWS, class T>
  FASTKAN_HD static int right_at(int row, int piece) {
    return row * (T::kColumns / kWidth) + (piece ^ row % 4 * 2);
  }

  template <int COUNT, class F>
  __device__ __forceinline__ static void put_base(const float (&value)[COUNT], int first, const F& put) {
#pragma unroll
    for (int k = 0; k < COUNT; ++k) put((first + k) / 8, (first + k) % 8, Matrices<float>::rounded(value[k]));
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
        const uint4 q = right[right_at<0, T>(row0 + t + 4 * r, piece0 + 2 * n + g)];
        const uint32_t words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int block = 0; block < 4; ++block) {
          float number;
          memcpy(&number, &words[block], sizeof number);
          b[block][r] = Matrices<float>::rounded(number);
        }
      }
#pragma unroll
      for (int block = 0; block < 4; ++block) f(n + block, b[block]);
    }
  }
  template <int ROWS, class T>
  __device__ __forceinline__ static void add_sparse(WarpSums<T>& sums, const uint32_t (&numbers)[T::kHigh][4],
                                                    const uint32_t (&places)[T::kHigh], const uint4* right, int row0) {
    each_block<16, T>(right, row0, [&](int n, const uint32_t (&b)[4]) {
#pragma unroll
      for (int m = 0; m < T::kHigh; ++m) Matrices<float>::multiply_sparse(sums.sum[m][n], numbers[m], b, places[m]);
    });
  }
  template <int ROWS, class T>
  __device__ __forceinline__ static void add_dense(WarpSums<T>& sums, const uint32_t (&numbers)[T::kHigh][4],
                                                   const uint4* right, int row0) {
    each_block<8, T>(right, row0, [&](int n, const uint32_t (&b)[4]) {
#pragma unroll
      for (int m = 0; m < T::kHigh; ++m) Matrices<float>::multiply(sums.sum[m][n], numbers[m], b[0], b[1]);
    });
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
};

}  // namespace fastkan
