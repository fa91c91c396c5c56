// Tiles of matrix products: layout in shared memory, the software pipeline, and the accumulators of a warp.
#pragma once

#include <cuda/matrix/tma.h>

#include "../../basis/uniform.h"
#include "../operand.h"
#include "../order.h"

namespace fastkan {

// Swizzled position in rows of PIECES times 16 bytes: the same piece of 8 consecutive rows, and 8 neighbouring pieces
// of one row, lie in different banks.
template <int PIECES>
FASTKAN_HD int piece_at(int row, int piece) {
  static_assert(PIECES % 8 == 0 || PIECES == 4);
  return row * PIECES + (piece ^ (PIECES == 4 ? row / 2 % 4 : row % 8));
}

// The piece whose number differs in the bits of `other`, in the same 128 aligned bytes.
__device__ __forceinline__ const uint4* piece_beside(const uint4* piece, int other) {
  return reinterpret_cast<const uint4*>(reinterpret_cast<uintptr_t>(piece) ^ (16 * static_cast<unsigned>(other)));
}

// A right operand that is read by columns: all ROWS rows of the first 64 columns (128 bytes each), then those of the
// other 64. This is wgmma's layout; it must be aligned to 1024 bytes.
template <int ROWS>
FASTKAN_HD int right_at(int row, int piece) {
  return piece / 8 * (8 * ROWS) + piece_at<8>(row, piece % 8);
}
// Its wgmma descriptor (PTX ISA, "Matrix-descriptor format"): address, offset of the other 64 columns, offset of the
// next 8 rows; 128-byte swizzle.
template <int ROWS>
__device__ __forceinline__ uint64_t right_descriptor(const uint4* right) {
  return (shared_address(right) / 16 & 0x3fff) | uint64_t{ROWS * 128 / 16} << 16 | uint64_t{8 * 128 / 16} << 32 |
         uint64_t{1} << 62;
}

// What to add to it for the operand `groups` times 64 columns further.
template <int ROWS>
__device__ __forceinline__ uint64_t beside(int groups) {
  return static_cast<uint64_t>(groups * ROWS * 128 / 16);
}

// The same for a right operand stored along the depth, each column 64 bytes (piece_at<4>), with 64-byte swizzle; it
// must be aligned to 512 bytes.
__device__ __forceinline__ uint64_t deep_descriptor(const uint4* right) {
  return (shared_address(right) / 16 & 0x3fff) | uint64_t{1} << 16 | uint64_t{8 * 64 / 16} << 32 | uint64_t{2} << 62;
}

// A tile of ROWS by COLUMNS sums, computed by 4 warps: each a quarter of it, two by two.
template <int ROWS, int COLUMNS, class SUM = float>
struct Tile {
  using Sum = SUM;
  static constexpr bool kWgmma = false;
  static constexpr int kRows = ROWS, kColumns = COLUMNS, kThreads = 4 * kWarp;
  static constexpr int kPieces = COLUMNS / 8;                                 // of 16 bytes, per row of 16-bit numbers
  static constexpr int kRowBlocks = ROWS / 32, kColumnBlocks = COLUMNS / 16;  // blocks [16, 8] of a warp
  static_assert(ROWS % 64 == 0 && COLUMNS % 64 == 0);
  __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ static void sync() { __syncthreads(); }
  // First row of the warp's m-th block, and its first column.
  __device__ __forceinline__ static int first_row(int m) {
    return static_cast<int>(threadIdx.x / kWarp) % 2 * (ROWS / 2) + 16 * m;
  }
  __device__ __forceinline__ static int first_column() {
    return static_cast<int>(threadIdx.x / kWarp / 2) * (COLUMNS / 2);
  }
};

// A tile of 128 rows by 128 columns for each of some warpgroups side by side, for wgmma: each warp computes 16 of every
// 64 rows.
template <int WARPGROUPS>
struct WarpgroupTile {
  using Sum = float;
  static constexpr bool kWgmma = true;
  static constexpr int kRows = 128, kColumns = 128 * WARPGROUPS, kThreads = 4 * kWarp * WARPGROUPS;
  static constexpr int kPieces = kColumns / 8, kRowBlocks = 2, kColumnBlocks = 16;
  __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x) % kThreads; }
  // Waits for the threads of the tile; a tile of one warpgroup may be one of several in a block.
  __device__ __forceinline__ static void sync() {
    if constexpr (WARPGROUPS == 1)
      named_barrier_sync<kThreads>(1 + static_cast<int>(threadIdx.x) / kThreads);
    else
      __syncthreads();
  }
  __device__ __forceinline__ static int first_row(int m) { return 64 * m + thread() / kWarp % 4 * 16; }
  __device__ __forceinline__ static int first_column() { return thread() / (4 * kWarp) * 128; }
};

// Three or four values of a window, rounded to S and packed.
template <class S, int COUNT>
__device__ __forceinline__ uint64_t rounded_numbers(const float (&w)[COUNT]) {
  static_assert(COUNT == 3 || COUNT == 4);
  const uint32_t low = Mma<S>::rounded(w[0], w[1]);
  const uint32_t high = Mma<S>::rounded(w[2], COUNT == 4 ? w[COUNT - 1] : 0.0f);
  return low | static_cast<uint64_t>(high) << 32;
}

// The shape with the fields that all matrix kernels have in common as constants.
template <int K>
__device__ __forceinline__ Shape matrix_shape(const Shape& shape) {
  return {shape.F, K, shape.M, shape.outside, true, false, shape.inv_intervals};
}

// Two numbers that are loaded or stored together.
template <class A>
struct alignas(2 * sizeof(A)) Pair {
  A x, y;
};

// The accumulators of a warp, and their positions in the tile.
template <class T>
struct WarpSums {
  using Sum = typename T::Sum;
  Sum sum[T::kRowBlocks][T::kColumnBlocks][4] = {};

  __device__ __forceinline__ static int lane() { return static_cast<int>(threadIdx.x % kWarp); }
  __device__ __forceinline__ static int first_row(int m = 0) { return T::first_row(m); }
  __device__ __forceinline__ static int first_column() { return T::first_column(); }

  // The sums of 16 column blocks from n on.
  __device__ __forceinline__ Sum (&wgmma_sums(int m, int n))[16][4] {
    return reinterpret_cast<Sum(&)[16][4]>(sum[m][n]);
  }

  // Adds a product of depth 16; right(n, b) loads two blocks of 8 columns.
  template <class S, class F>
  __device__ __forceinline__ void add_product(const uint32_t (&left)[T::kRowBlocks][4], const F& right) {
#pragma unroll
    for (int n = 0; n < T::kColumnBlocks; n += 2) {
      uint32_t b[4];
      right(n, b);
#pragma unroll
      for (int m = 0; m < T::kRowBlocks; ++m) {
        Mma<S>::multiply(sum[m][n], left[m], b[0], b[1]);
        Mma<S>::multiply(sum[m][n + 1], left[m], b[2], b[3]);
      }
    }
  }

  // Stores the first `columns` columns, unrounded or in 16 bits; f(row) is the destination of a row, nullptr: not
  // stored.
  template <class F>
  __device__ __forceinline__ void store(int64_t columns, const F& f) const {
    const int column = first_column() + lane() % 4 * 2;
    const int rest = static_cast<int>(columns < T::kColumns ? columns : T::kColumns) - column;
#pragma unroll
    for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        if (auto* to = f(first_row(m) + 8 * half + lane() / 4))
#pragma unroll
          for (int n = 0; n < T::kColumnBlocks; ++n)
            if (8 * n < rest) store_pair(to + column + 8 * n, sum[m][n][2 * half], sum[m][n][2 * half + 1]);
  }

  __device__ __forceinline__ static void store_pair(Sum* to, Sum x, Sum y) {
    *reinterpret_cast<Pair<Sum>*>(to) = {x, y};
  }
  template <class S>
  __device__ __forceinline__ static void store_pair(S* to, float x, float y) {
    *reinterpret_cast<uint32_t*>(to) = Mma<S>::rounded(x, y);
  }

  // The same in 16 bits, 16 bytes at a time, through shared memory of the size of the tile; called by all
  // threads of the tile.
  template <class S, class F>
  __device__ __forceinline__ void store_rounded(uint4* shared, int64_t columns, const F& f) const {
    uint32_t* words = reinterpret_cast<uint32_t*>(shared);
#pragma unroll
    for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int n = 0; n < T::kColumnBlocks; ++n)
          words[4 * piece_at<T::kPieces>(first_row(m) + 8 * half + lane() / 4, first_column() / 8 + n) + lane() % 4] =
              Mma<S>::rounded(sum[m][n][2 * half], sum[m][n][2 * half + 1]);
    T::sync();
    for (int q = T::thread(); q < T::kRows * T::kPieces; q += T::kThreads) {
      const int row = q / T::kPieces, piece = q % T::kPieces;
      if (8 * piece >= columns) continue;
      if (S* to = f(row)) *reinterpret_cast<uint4*>(to + 8 * piece) = shared[piece_at<T::kPieces>(row, piece)];
    }
  }
};

}  // namespace fastkan
