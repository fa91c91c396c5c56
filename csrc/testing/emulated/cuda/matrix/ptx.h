// csrc/cuda/matrix/ptx.h for the emulated GPU, with the register layouts of the PTX ISA. A copy is carried out at once
// or when its group is waited for, at random: that exposes missing waits and stages that are overwritten too early. A
// product fails on operands with all bits set, as shared memory starts: nobody wrote them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

namespace emulated {

unsigned shared_offset(const void* shared);
void start_copy(void* to, const void* from, bool there);
void commit_copies();
void wait_for_copies(int most);

inline void expect_written(uint64_t bits, uint64_t all) {
  if (bits == all) fail("a product takes numbers that nobody wrote");
}

inline float number(uint32_t word, int which, __nv_bfloat16) {
  return __bfloat162float({static_cast<uint16_t>(word >> 16 * which)});
}
inline float number(uint32_t word, int, float) { return value_of<float>(word & ~0x1fffu); }  // as tf32
inline float number(uint32_t word, int which, __half) {
  return __half2float({static_cast<uint16_t>(word >> 16 * which)});
}

// Operands and metadata of a lane, and which lanes' metadata is meant.
struct Fragments {
  uint32_t a[4], b[4], metadata, selector;
};
static_assert(sizeof(Fragments) == 40);

// A row of the left operand, or a column of the right one, collected from the lanes of a warp: 16 numbers, sparse 32,
// in 16 bits; half as many in tf32.
template <class S>
constexpr int kDepth = sizeof(S) == 2 ? 16 : 8;

template <class S>
void left_row(const Fragments* lanes, int row, bool sparse, float* to) {
  constexpr int kHeld = kDepth<S> / 8;  // numbers per register
  for (int column = 0; column < kDepth<S> * (1 + sparse); ++column) to[column] = 0;
  for (int chunk = 0; chunk < 8; ++chunk) {
    const uint32_t word = lanes[4 * (row % 8) + chunk % 4].a[row / 8 + chunk / 4 * 2];
    const Fragments& holder = lanes[4 * (row % 8) + 2 * lanes[0].selector + chunk / 4];
    const uint32_t metadata = holder.metadata >> (16 * (row / 8) + chunk % 4 * 4) & 15;
    if (sparse && (kHeld == 2 ? (metadata & 3) >= metadata >> 2 : metadata != 0b0100 && metadata != 0b1110))
      fail("mma.sp has metadata that the hardware leaves undefined");
    for (int which = 0; which < kHeld; ++which) {
      const int place = kHeld == 2 ? static_cast<int>(metadata >> 2 * which & 3) : metadata == 0b1110;
      expect_written(kHeld == 2 ? word >> 16 * which & 0xffff : word, kHeld == 2 ? 0xffff : ~0u);
      to[kHeld * chunk * (1 + sparse) + (sparse ? place : which)] = number(word, which, S{});
    }
  }
}
template <class S>
void right_column(const Fragments* lanes, int column, int rows, float* to) {
  for (int row = 0; row < rows; ++row) {
    const int pair = row * 8 / kDepth<S>;  // 16-bit types have two rows per register
    const uint32_t word = lanes[4 * column + pair % 4].b[pair / 4];
    expect_written(sizeof(S) == 2 ? word >> 16 * (row % 2) & 0xffff : word, sizeof(S) == 2 ? 0xffff : ~0u);
    to[row] = number(word, row % 2, S{});
  }
}

// Shares the fragments of all lanes with the warp.
const Fragments* all_fragments(const char* operation, const Fragments& mine);

template <class S>
void multiply(const char* operation, float (&c)[4], const Fragments& mine, bool sparse) {
  const int lane = static_cast<int>(threadIdx.x % kWarp), depth = kDepth<S> * (1 + sparse);
  const Fragments* lanes = all_fragments(operation, mine);
  float left[2][32], right[2][32];
  for (int j = 0; j < 2; ++j) {
    left_row<S>(lanes, lane / 4 + 8 * j, sparse, left[j]);
    right_column<S>(lanes, lane % 4 * 2 + j, depth, right[j]);
  }
  for (int r = 0; r < 4; ++r)
    for (int k = 0; k < depth; ++k) c[r] += left[r / 2][k] * right[r % 2][k];
}

// m16n8k8 of float64 ("Matrix fragments for mma.m16n8k8"): lanes exchange their numbers one by one.
inline void multiply(double (&c)[4], const double (&a)[4], double b0, double b1) {
  const int lane = static_cast<int>(threadIdx.x % kWarp), g = lane / 4, t = lane % 4;
  for (double number : {a[0], a[1], a[2], a[3], b0, b1}) expect_written(bits_of(number), ~uint64_t{0});
  double left[2][8], right[2][8];
  for (int r = 0; r < 4; ++r) {
    const uint64_t* given = exchange("mma.f64", bits_of(a[r]));
    for (int j = 0; j < 4; ++j) left[r % 2][r / 2 * 4 + j] = value_of<double>(given[4 * g + j]);
  }
  for (int r = 0; r < 2; ++r) {
    const uint64_t* given = exchange("mma.f64", bits_of(r == 0 ? b0 : b1));
    for (int j = 0; j < 8; ++j) right[j / 4][r * 4 + j % 4] = value_of<double>(given[4 * (2 * t + j / 4) + j % 4]);
  }
  for (int r = 0; r < 4; ++r)
    for (int k = 0; k < 8; ++k) c[r] += left[r / 2][k] * right[r % 2][k];
}

}  // namespace emulated

namespace fastkan {

// Offset from the start of the block's shared memory, which is sufficiently aligned.
inline unsigned shared_address(const void* shared) { return emulated::shared_offset(shared); }

inline uint64_t shifted_left(uint64_t bits, int by) { return by < 0 || by > 63 ? 0 : bits << by; }
inline uint64_t shifted_right(uint64_t bits, int by) { return by < 0 || by > 63 ? 0 : bits >> by; }

template <class N>
N here(N value) {
  return value;
}

inline void copy_async(void* shared, const void* global, unsigned there) {
  emulated::expect_aligned(shared, 16);
  if (there) emulated::expect_aligned(global, 16);
  emulated::start_copy(shared, global, there);
}
inline void copy_async_by_l1(void* shared, const void* global, bool there) { copy_async(shared, global, there); }
inline void commit_copies() { emulated::commit_copies(); }
template <int GROUPS>
void wait_for_copies() {
  emulated::wait_for_copies(GROUPS);
}

inline void ldmatrix(uint32_t (&to)[4], const void* row) {
  emulated::expect_aligned(row, 16);
  const uint64_t* rows = emulated::exchange("ldmatrix", emulated::bits_of(row));
  const int lane = static_cast<int>(threadIdx.x % emulated::kWarp);
  for (int j = 0; j < 4; ++j) to[j] = emulated::value_of<const uint32_t*>(rows[8 * j + lane / 4])[lane % 4];
}
inline void ldmatrix_transposed(uint32_t (&to)[4], const void* row) {
  emulated::expect_aligned(row, 16);
  const uint64_t* rows = emulated::exchange("ldmatrix.trans", emulated::bits_of(row));
  const int lane = static_cast<int>(threadIdx.x % emulated::kWarp);
  for (int j = 0; j < 4; ++j) {
    to[j] = 0;
    for (int which = 0; which < 2; ++which) {
      const uint16_t* numbers = emulated::value_of<const uint16_t*>(rows[8 * j + lane % 4 * 2 + which]);
      to[j] |= static_cast<uint32_t>(numbers[lane / 4]) << 16 * which;
    }
  }
}

template <class S>
struct Mma {
  using Number = uint32_t;
  using Sum = float;
  static void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    emulated::multiply<S>("mma", c, {{a[0], a[1], a[2], a[3]}, {b0, b1}, 0, 0}, false);
  }
  template <int SELECTOR>
  static void multiply_sparse(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t metadata) {
    emulated::multiply<S>("mma.sp", c, {{a[0], a[1], a[2], a[3]}, {b[0], b[1], b[2], b[3]}, metadata, SELECTOR}, true);
  }
  static float widened(uint32_t word, int which) { return emulated::number(word, which, S{}); }
  static uint32_t rounded(float low, float high) {
    if constexpr (std::is_same_v<S, __half>)
      return static_cast<uint32_t>(emulated::bits_of(__floats2half2_rn(low, high)));
    else
      return static_cast<uint32_t>(emulated::bits_of(__floats2bfloat162_rn(low, high)));
  }
  static uint32_t rounded(float number) {  // to tf32, a tie away from zero
    const uint32_t bits = static_cast<uint32_t>(emulated::bits_of(number));
    return isfinite(number) ? bits + 0x1000 : bits;
  }
};

template <>
struct Mma<double> {
  using Number = double;
  using Sum = double;
  static void multiply(double (&c)[4], const double (&a)[4], double b0, double b1) { emulated::multiply(c, a, b0, b1); }
  static double rounded(double number) { return number; }
};

}  // namespace fastkan
