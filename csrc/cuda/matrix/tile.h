// Tiles of matrix products: layout in shared memory, the software pipeline, and the accumulators of a warp.
#pragma once

#include <cuda/matrix/wgmma.h>

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

// A tile of ROWS by COLUMNS sums, computed by 4 warps: each a quarter of it, two by two; or with WGMMA as one
// warpgroup, each 16 of every 64 rows.
template <int ROWS, int COLUMNS, bool WGMMA = false, class SUM = float>
struct Tile {
  using Sum = SUM;
  static constexpr bool kWgmma = WGMMA;
  static constexpr int kRows = ROWS, kColumns = COLUMNS, kThreads = 4 * kWarp;
  static constexpr int kPieces = COLUMNS / 8;  // of 16 bytes, per row of 16-bit numbers
  static constexpr int kRowBlocks = WGMMA ? ROWS / 64 : ROWS / 32,
                       kColumnBlocks = WGMMA ? COLUMNS / 8 : COLUMNS / 16;  // blocks [16, 8] of a warp
  static_assert(ROWS % 64 == 0 && COLUMNS % 64 == 0 && (!WGMMA || COLUMNS == 128));
  __device__ __forceinline__ static unsigned thread() { return threadIdx.x; }
  __device__ __forceinline__ static void sync() { __syncthreads(); }
};

// The values of a window of three or four functions, rounded to S and packed.
template <class S, int K>
__device__ __forceinline__ uint64_t rounded_numbers(const UniformWindow<float, K>& window) {
  static_assert(K == 2 || K == 3);
  const uint32_t low = Mma<S>::rounded(window.w[0], window.w[1]);
  const uint32_t high = Mma<S>::rounded(window.w[2], K == 3 ? window.w[K] : 0.0f);
  return low | static_cast<uint64_t>(high) << 32;
}

// The shape with the fields that all matrix kernels have in common as constants.
template <int K>
__device__ __forceinline__ Shape matrix_shape(const Shape& shape) {
  return {shape.F, K, shape.M, shape.outside, true, false, shape.inv_intervals};
}

// Software pipeline over the steps of a sum. While one step is multiplied, the asynchronous copies of the next two
// are in flight, into a ring buffer of kStages stages; then the left operand of the next step is built. The first
// iteration only builds.
//   start_copies(step, stage)
//   prefetch_x(step)                  starts the loads that build_left will use
//   multiply(step, iteration, stage)
//   build_left(step, iteration)       double-buffered: even and odd iterations
// Products by wgmma run while the next left operand is built.
constexpr int kStages = 3;

template <class Steps>
__device__ __forceinline__ void run_pipeline(Steps& steps, int64_t begin, int64_t end) {
  for (int ahead = 0; ahead < kStages - 2; ++ahead) {
    if (begin + ahead < end) steps.start_copies(begin + ahead, ahead);
    commit_copies();
  }
  for (int64_t step = begin - 1; step < end; ++step) {
    const int iteration = static_cast<int>(step - begin) + kStages;
    wait_for_copies<kStages - 2>();
    if constexpr (Steps::kWgmma) fence_for_wgmma();
    __syncthreads();
    const int64_t next = step + 1, after = step + kStages - 1;
    if (after < end) steps.start_copies(after, (iteration + kStages - 1) % kStages);
    commit_copies();
    if (next < end) steps.prefetch_x(next);
    if (step >= begin) steps.multiply(step, iteration, iteration % kStages);
    if (next < end) steps.build_left(next, iteration + 1);
    if constexpr (Steps::kWgmma) wgmma_wait();
  }
  wait_for_copies<0>();
  __syncthreads();
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
  // First row of the warp's m-th block of 16, and its first column.
  __device__ __forceinline__ static int first_row(int m = 0) {
    const int warp = static_cast<int>(T::thread() / kWarp);
    return T::kWgmma ? 64 * m + 16 * warp : warp % 2 * (T::kRows / 2) + 16 * m;
  }
  __device__ __forceinline__ static int first_column() {
    return T::kWgmma ? 0 : static_cast<int>(threadIdx.x / kWarp / 2) * (T::kColumns / 2);
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

  // Stores the first `columns` columns; f(row) is the destination of a row, nullptr: not stored.
  template <class F>
  __device__ __forceinline__ void store(int64_t columns, const F& f) const {
    const int column = first_column() + lane() % 4 * 2;
#pragma unroll
    for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        if (Sum* to = f(first_row(m) + 8 * half + lane() / 4))
#pragma unroll
          for (int n = 0; n < T::kColumnBlocks; ++n)
            if (column + 8 * n < columns)
              *reinterpret_cast<Pair<Sum>*>(to + column + 8 * n) = {sum[m][n][2 * half], sum[m][n][2 * half + 1]};
  }

  // The same, rounded to S and 16 bytes at a time, through shared memory of the size of the tile; called by all
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
