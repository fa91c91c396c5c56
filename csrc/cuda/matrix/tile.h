// A tile of a matrix product in shared memory, and what a warp makes of it.
#pragma once

#include <cuda/matrix/wgmma.h>

#include "../../basis/uniform.h"
#include "../operand.h"
#include "../order.h"

namespace fastkan {

// Rows of PIECES times 16 bytes: the pieces of 8 rows in a row lie such that any one of theirs, and any 8 neighbours of
// one row, are in different banks of memory.
template <int PIECES>
FASTKAN_HD int piece_at(int row, int piece) {
  static_assert(PIECES % 8 == 0 || PIECES == 4);
  return row * PIECES + (piece ^ (PIECES == 4 ? row / 2 % 4 : row % 8));
}

// A right operand whose rows are read by columns: 64 columns next to one another, 128 bytes a row, and after all ROWS
// of them the other 64. So wgmma takes it, from a multiple of 1024 on.
template <int ROWS>
FASTKAN_HD int right_at(int row, int piece) {
  return piece / 8 * (8 * ROWS) + piece_at<8>(row, piece % 8);
}
// What wgmma is told of it (PTX ISA, "Matrix-descriptor format"): where it begins, how far on the other columns lie,
// and the next 8 rows; 128 bytes swizzled.
template <int ROWS>
__device__ __forceinline__ uint64_t right_descriptor(const uint4* right) {
  return (shared_address(right) / 16 & 0x3fff) | uint64_t{ROWS * 128 / 16} << 16 | uint64_t{8 * 128 / 16} << 32 |
         uint64_t{1} << 62;
}

// A block of 4 warps makes ROWS by COLUMNS sums: two by two, a warp a quarter of them; or as a GROUP, a warp 16 rows of
// every 64.
template <int ROWS, int COLUMNS, bool GROUP = false, class SUM = float>
struct Tile {
  using Sum = SUM;
  static constexpr bool kGroup = GROUP;
  static constexpr int kRows = ROWS, kColumns = COLUMNS, kThreads = 4 * kWarp;
  static constexpr int kPieces = COLUMNS / 8;  // of 16 bytes, of a row of 16-bit numbers
  static constexpr int kHigh = GROUP ? ROWS / 64 : ROWS / 32, kWide = GROUP ? COLUMNS / 8 : COLUMNS / 16;  // of [16, 8]
  static_assert(ROWS % 64 == 0 && COLUMNS % 64 == 0 && (!GROUP || COLUMNS == 128));
  __device__ __forceinline__ static unsigned thread() { return threadIdx.x; }
  __device__ __forceinline__ static void sync() { __syncthreads(); }
};

// The four numbers that a window of three or four functions has, rounded to S.
template <class S, int K>
__device__ __forceinline__ uint64_t rounded_numbers(const UniformWindow<float, K>& window) {
  static_assert(K == 2 || K == 3);
  const uint32_t low = Matrices<S>::rounded(window.w[0], window.w[1]);
  const uint32_t high = Matrices<S>::rounded(window.w[2], K == 3 ? window.w[K] : 0.0f);
  return low | static_cast<uint64_t>(high) << 32;
}

// What the compiler shall know of a shape that has come this far.
template <int K>
__device__ __forceinline__ Shape smooth_shape(const Shape& shape) {
  return {shape.F, K, shape.M, shape.outside, true, false, shape.over_intervals};
}

// The steps of a sum over what a block does not hold at once. While one is multiplied, what is read from memory for the
// next two is on its way into one of kStages places, and what is made of it is made after that; the first turn only
// makes.
//   copy(step, stage)      starts the copies of a step
//   look(step)             starts to read what make will want
//   multiply(step, turn, stage)
//   make(step, turn)       what is made has two places, of even and odd turns
// Products of a group go on while the next step is made.
constexpr int kStages = 3;

template <class Steps>
__device__ __forceinline__ void run_steps(Steps& steps, int64_t begin, int64_t end) {
  for (int ahead = 0; ahead < kStages - 2; ++ahead) {
    if (begin + ahead < end) steps.copy(begin + ahead, ahead);
    end_copy_group();
  }
  for (int64_t step = begin - 1; step < end; ++step) {
    const int turn = static_cast<int>(step - begin) + kStages;
    wait_for_copy_groups<kStages - 2>();
    if constexpr (Steps::kGroup) show_copies_to_products();
    __syncthreads();
    const int64_t next = step + 1, after = step + kStages - 1;
    if (after < end) steps.copy(after, (turn + kStages - 1) % kStages);
    end_copy_group();
    if (next < end) steps.look(next);
    if (step >= begin) steps.multiply(step, turn, turn % kStages);
    if (next < end) steps.make(next, turn + 1);
    if constexpr (Steps::kGroup) wait_for_products();
  }
  wait_for_copy_groups<0>();
  __syncthreads();
}

// Two numbers that are read or written together.
template <class A>
struct alignas(2 * sizeof(A)) Pair {
  A x, y;
};

// The sums of a warp, and where they are in the tile.
template <class T>
struct WarpSums {
  using Sum = typename T::Sum;
  Sum sum[T::kHigh][T::kWide][4] = {};

  __device__ __forceinline__ static int lane() { return static_cast<int>(threadIdx.x % kWarp); }
  // Of a block of 16 rows, and of all columns.
  __device__ __forceinline__ static int first_row(int m = 0) {
    const int warp = static_cast<int>(T::thread() / kWarp);
    return T::kGroup ? 64 * m + 16 * warp : warp % 2 * (T::kRows / 2) + 16 * m;
  }
  __device__ __forceinline__ static int first_column() {
    return T::kGroup ? 0 : static_cast<int>(threadIdx.x / kWarp / 2) * (T::kColumns / 2);
  }

  // Adds a product 16 deep; right(n, b) loads the columns of two blocks of 8.
  template <class S, class F>
  __device__ __forceinline__ void add_product(const uint32_t (&left)[T::kHigh][4], const F& right) {
#pragma unroll
    for (int n = 0; n < T::kWide; n += 2) {
      uint32_t b[4];
      right(n, b);
#pragma unroll
      for (int m = 0; m < T::kHigh; ++m) {
        Matrices<S>::multiply(sum[m][n], left[m], b[0], b[1]);
        Matrices<S>::multiply(sum[m][n + 1], left[m], b[2], b[3]);
      }
    }
  }

  // f(row) tells where the sums of a row are to go, nullptr: nowhere; of them those of `columns` columns do.
  template <class F>
  __device__ __forceinline__ void store(int64_t columns, const F& f) const {
    const int column = first_column() + lane() % 4 * 2;
#pragma unroll
    for (int m = 0; m < T::kHigh; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        if (Sum* to = f(first_row(m) + 8 * half + lane() / 4))
#pragma unroll
          for (int n = 0; n < T::kWide; ++n)
            if (column + 8 * n < columns)
              *reinterpret_cast<Pair<Sum>*>(to + column + 8 * n) = {sum[m][n][2 * half], sum[m][n][2 * half + 1]};
  }

  // The same, rounded to S and 16 bytes at a time, by way of as much shared memory; all threads of the tile.
  template <class S, class F>
  __device__ __forceinline__ void store_rounded(uint4* shared, int64_t columns, const F& f) const {
    uint32_t* words = reinterpret_cast<uint32_t*>(shared);
#pragma unroll
    for (int m = 0; m < T::kHigh; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int n = 0; n < T::kWide; ++n)
          words[4 * piece_at<T::kPieces>(first_row(m) + 8 * half + lane() / 4, first_column() / 8 + n) + lane() % 4] =
              Matrices<S>::rounded(sum[m][n][2 * half], sum[m][n][2 * half + 1]);
    T::sync();
    for (int q = T::thread(); q < T::kRows * T::kPieces; q += T::kThreads) {
      const int row = q / T::kPieces, piece = q % T::kPieces;
      if (8 * piece >= columns) continue;
      if (S* to = f(row)) *reinterpret_cast<uint4*>(to + 8 * piece) = shared[piece_at<T::kPieces>(row, piece)];
    }
  }
};

}  // namespace fastkan
