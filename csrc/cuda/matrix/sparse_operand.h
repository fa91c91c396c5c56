// Operands of sparse matrix products by storage type, in addition to operand.h: how a window is distributed to
// chunks.
#pragma once

#include "operand.h"

namespace fastkan {

// bf16 and fp16: 2:4 sparsity, both numbers of a chunk in one register.
template <class S>
struct SparseOperand : MatrixOperand<S> {
  static constexpr int kChunkColumns = 4;
  static constexpr int kBasePacks = 1, kBaseRows = 16;  // products for 16 base functions, and their depth

  FASTKAN_HD static int chunks(const Problem& p) { return chunks_of(p.F); }

  template <int K>
  static constexpr int kMaxInputsPerPack = Sparse16832::kChunks / 2;  // inputs that have chunks in a pack, at most
  template <int K, bool USUAL>
  struct Window {
    Quad quad;
    __device__ __forceinline__ static Window of(const UniformWindow<float, K>& window, int chunks) {
      return {Quad::of(window.begin, rounded_numbers<S>(window.w), chunks)};
    }
    __device__ __forceinline__ ChunkOfQuad chunk(int which, int chunks, const uint32_t*) const {
      return chunk_of_quad(quad, which, chunks);
    }
  };
  // Numbers that are not negative are picked by selectors [span, chunks].
  template <int K>
  struct Window<K, true> {
    int span;
    uint32_t low, high;
    __device__ __forceinline__ static Window of(const UsualWindow<K>& window, int) {
      const uint64_t four = rounded_numbers<S>(window.w);
      return {window.span, static_cast<uint32_t>(four), static_cast<uint32_t>(four >> 32)};
    }
    __device__ __forceinline__ ChunkOfQuad chunk(int which, int chunks, const uint32_t* selectors) const {
      const uint32_t selector = selectors[span * chunks + which];
      return {pick_bytes(low, high, selector), selector >> 16 & 15};
    }
  };

  // Calls put(pack, chunk, bits) for one half of the 16 base functions of a step.
  template <class F>
  __device__ __forceinline__ static void put_base(const float (&value)[8], int half, const F& put) {
#pragma unroll
    for (int k = 0; k < 4; ++k) put(0, 4 * half + k, Mma<S>::rounded(value[2 * k], value[2 * k + 1]));
  }

  // Adds a sparse product with the rows of the right operand from row0 on.
  template <int ROWS, int SELECTOR, class T>
  __device__ __forceinline__ static void add_sparse(WarpSums<T>& sums, const uint32_t (&numbers)[T::kRowBlocks][4],
                                                    const uint32_t (&metadata)[T::kRowBlocks], const uint4* right,
                                                    int row0) {
    if constexpr (T::kWgmma) {
      wgmma_fence();
      const uint64_t descriptor = right_descriptor<ROWS>(right + row0 * 8);
#pragma unroll
      for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
        for (int n = 0; n < T::kColumnBlocks; n += 16)
          Wgmma<S>::template multiply_sparse<SELECTOR>(sums.wgmma_sums(m, n), numbers[m], metadata[m],
                                                       descriptor + beside<ROWS>(n / 8));
    } else {
      const uint4* piece = right + fastkan::right_at<ROWS>(row0 + sums.lane(), sums.first_column() / 8);
#pragma unroll
      for (int n = 0; n < T::kColumnBlocks; ++n) {  // up to 8 pieces that begin at a multiple of their number
        uint32_t b[4];
        ldmatrix_transposed(b, piece_beside(piece, n));
#pragma unroll
        for (int m = 0; m < T::kRowBlocks; ++m)
          Mma<S>::template multiply_sparse<SELECTOR>(sums.sum[m][n], numbers[m], b, metadata[m]);
      }
    }
  }
};

// float32 as tf32: 1:2 sparsity.
template <>
struct SparseOperand<float> : MatrixOperand<float> {
  static constexpr int kChunkColumns = 2;
  static constexpr int kBasePacks = 2, kBaseRows = 8;

  FASTKAN_HD static int chunks(const Problem& p) { return chunks_of_two(p.F, p.K); }

  template <int K>
  static constexpr int kMaxInputsPerPack = K == 2 ? 3 : 2;
  template <int K, bool>
  struct Window {
    Singles<K> singles;
    __device__ __forceinline__ static Window of(const UniformWindow<float, K>& window, int) {
      return of(window.begin, window.w);
    }
    __device__ __forceinline__ static Window of(const UsualWindow<K>& window, int) {
      return of(window.begin(), window.w);
    }
    __device__ __forceinline__ static Window of(int begin, const float (&numbers)[K + 1]) {
      Window w = {{begin, {}}};
#pragma unroll
      for (int k = 0; k <= K; ++k) w.singles.numbers[k] = Mma<float>::rounded(numbers[k]);
      return w;
    }
    __device__ __forceinline__ ChunkOfQuad chunk(int which, int chunks, const uint32_t*) const {
      const ChunkOfSingles c = chunk_of_singles(singles, which, chunks);
      return {c.number, c.metadata};
    }
  };

  template <class F>
  __device__ __forceinline__ static void put_base(const float (&value)[8], int half, const F& put) {
#pragma unroll
    for (int k = 0; k < 8; ++k) put(half, k, Mma<float>::rounded(value[k]));
  }

  template <int ROWS, int SELECTOR, class T>
  __device__ __forceinline__ static void add_sparse(WarpSums<T>& sums, const uint32_t (&numbers)[T::kRowBlocks][4],
                                                    const uint32_t (&metadata)[T::kRowBlocks], const uint4* right,
                                                    int row0) {
    each_block<16, T>(right, row0, [&](int n, const uint32_t (&b)[4]) {
#pragma unroll
      for (int m = 0; m < T::kRowBlocks; ++m)
        Mma<float>::multiply_sparse<SELECTOR>(sums.sum[m][n], numbers[m], b, metadata[m]);
    });
  }
};

// float64: every column is a chunk; all of them are multiplied (dense).
template <>
struct SparseOperand<double> : MatrixOperand<double> {
  static constexpr int kChunkColumns = 1;
  static constexpr int kBasePacks = 2, kBaseRows = 8;

  FASTKAN_HD static int chunks(const Problem& p) { return p.F; }

  struct Chunk {
    double numbers;
    uint32_t metadata;
  };
  template <int K>
  static constexpr int kMaxInputsPerPack = K == 2 ? 4 : 3;
  template <int K, bool>
  struct Window {
    UniformWindow<double, K> window;
    __device__ __forceinline__ static Window of(const UniformWindow<double, K>& window, int) { return {window}; }
    __device__ __forceinline__ Chunk chunk(int which, int, const uint32_t*) const {
      double number = 0;
#pragma unroll
      for (int k = 0; k <= K; ++k) number = which == window.begin + k ? window.w[k] : number;
      return {number, 0};
    }
  };

  template <class F>
  __device__ __forceinline__ static void put_base(const double (&value)[8], int half, const F& put) {
#pragma unroll
    for (int k = 0; k < 8; ++k) put(half, k, value[k]);
  }

  template <int ROWS, int SELECTOR, class T>
  __device__ __forceinline__ static void add_sparse(WarpSums<T>& sums, const double (&numbers)[T::kRowBlocks][4],
                                                    const uint32_t (&)[T::kRowBlocks], const uint4* right, int row0) {
    add_dense<ROWS>(sums, numbers, right, row0);
  }
};

}  // namespace fastkan
