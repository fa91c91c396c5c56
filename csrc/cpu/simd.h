// SIMD vectors of the instruction set of this translation unit, and strided loads of every storage type. Everything
// here has internal linkage: code compiled for one instruction set must not be linked into another.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "problem.h"

#if defined(__AVX512F__)
#define FASTKAN_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define FASTKAN_VECTOR_BYTES 32
#else
#define FASTKAN_VECTOR_BYTES 16
#endif

namespace fastkan {
namespace {

constexpr int kRegisters = FASTKAN_VECTOR_BYTES == 64 ? 32 : 16;

template <class T>
struct Simd;
template <>
struct Simd<float> {
  typedef float vec __attribute__((vector_size(FASTKAN_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t mask __attribute__((vector_size(FASTKAN_VECTOR_BYTES)));
  typedef int32_t rows __attribute__((vector_size(FASTKAN_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct Simd<double> {
  typedef double vec __attribute__((vector_size(FASTKAN_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t mask __attribute__((vector_size(FASTKAN_VECTOR_BYTES)));
  typedef int32_t rows __attribute__((vector_size(FASTKAN_VECTOR_BYTES / 2), aligned(4), may_alias));
};

template <class T>
using Vec = typename Simd<T>::vec;
template <class T>
using Index = typename Simd<T>::mask;
template <class T>
constexpr int kLanes = FASTKAN_VECTOR_BYTES / sizeof(T);

template <class T>
inline Vec<T> load(const T* p) {
  return *reinterpret_cast<const Vec<T>*>(p);
}
template <class T>
inline void store(T* p, Vec<T> v) {
  *reinterpret_cast<Vec<T>*>(p) = v;
}
template <class T>
inline Vec<T> splat(T s) {
  return s - Vec<T>{};  // not a sum: -0 + 0 = 0, so the compiler could not drop it
}

// int32 numbers, one per lane.
template <class T>
inline Index<T> load_index(const int32_t* p) {
  return __builtin_convertvector(*reinterpret_cast<const typename Simd<T>::rows*>(p), Index<T>);
}
template <class T>
inline void store_index(int32_t* p, Index<T> index) {
  typedef typename Simd<T>::rows Rows;
  *reinterpret_cast<Rows*>(p) = __builtin_convertvector(index, Rows);
}

// table[index], of one vector or two.
constexpr bool kLookUp = FASTKAN_VECTOR_BYTES > 16;  // vector permutations take few instructions
template <class T>
inline Vec<T> lookup(Vec<T> table, Index<T> index) {
#if defined(__clang__)
  Vec<T> found;
  for (int l = 0; l < kLanes<T>; ++l) found[l] = table[index[l] % kLanes<T>];
  return found;
#else
  return __builtin_shuffle(table, index);
#endif
}
template <class T>
inline Vec<T> lookup(Vec<T> low, Vec<T> high, Index<T> index) {
#if defined(__clang__)
  return index < kLanes<T> ? lookup<T>(low, index) : lookup<T>(high, index);
#else
  return __builtin_shuffle(low, high, index);
#endif
}

inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Horizontal sums of kLanes vectors at once: lane l of the result is the sum over the lanes of q[l]. Each step halves
// the number of vectors: of a pair x, y, the two halves of every group of G lanes of x are added into the first half
// of the group, those of y into the second.
template <class T, int G>
inline void sum_step(Vec<T>* q) {
  constexpr int W = kLanes<T>;
  typename Simd<T>::mask low, high;
  for (int l = 0; l < W; ++l) {
    const int group = l / G * G, at = l % G, source = at < G / 2 ? group + at : W + group + at - G / 2;
    low[l] = source;
    high[l] = source + G / 2;
  }
#pragma GCC unroll 8
  for (int j = 0; j < G / 2; ++j) {
#if defined(__clang__)
    Vec<T> a, b;
    for (int l = 0; l < W; ++l) {
      a[l] = low[l] < W ? q[j][low[l]] : q[j + G / 2][low[l] - W];
      b[l] = high[l] < W ? q[j][high[l]] : q[j + G / 2][high[l] - W];
    }
    q[j] = a + b;
#else
    q[j] = __builtin_shuffle(q[j], q[j + G / 2], low) + __builtin_shuffle(q[j], q[j + G / 2], high);
#endif
  }
  if constexpr (G > 2) sum_step<T, G / 2>(q);
}

// Conversions between storage types and the compute type.
inline float widen_bf16(uint16_t h) {
  const uint32_t bits = static_cast<uint32_t>(h) << 16;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
inline uint16_t round_bf16(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return f != f ? 0x7fc0 : static_cast<uint16_t>(rounded);
}

template <class T>
inline T widen(float v) {
  return static_cast<T>(v);
}
template <class T>
inline T widen(double v) {
  return static_cast<T>(v);
}
template <class T>
inline T widen(uint16_t v) {
  return static_cast<T>(widen_bf16(v));
}
template <class T>
inline T widen(_Float16 v) {
  return static_cast<T>(static_cast<float>(v));
}
template <class T>
inline void narrow(T v, float* to) {
  *to = static_cast<float>(v);
}
template <class T>
inline void narrow(T v, double* to) {
  *to = static_cast<double>(v);
}
template <class T>
inline void narrow(T v, uint16_t* to) {
  *to = round_bf16(static_cast<float>(v));
}
template <class T>
inline void narrow(T v, _Float16* to) {
  *to = static_cast<_Float16>(static_cast<float>(v));
}

// W numbers of a storage type, in the compute type.
template <class T, class S>
inline Vec<T> load_widened(const S* from) {
  Vec<T> v;
#pragma GCC unroll 16
  for (int l = 0; l < kLanes<T>; ++l) v[l] = widen<T>(from[l]);
  return v;
}
template <>
inline Vec<float> load_widened<float>(const float* from) {
  return load(from);
}
template <>
inline Vec<double> load_widened<double>(const double* from) {
  return load(from);
}
typedef uint16_t Halves __attribute__((vector_size(FASTKAN_VECTOR_BYTES / 2), aligned(2), may_alias));
template <>
inline Vec<float> load_widened<float>(const uint16_t* from) {
  const Index<float> bits = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Index<float>) << 16;
  return reinterpret_cast<Vec<float>>(bits);
}

// The reverse.
template <class T, class S>
inline void store_narrowed(S* to, Vec<T> v) {
#pragma GCC unroll 16
  for (int l = 0; l < kLanes<T>; ++l) narrow(v[l], to + l);
}
template <>
inline void store_narrowed<float, float>(float* to, Vec<float> v) {
  store(to, v);
}
template <>
inline void store_narrowed<double, double>(double* to, Vec<double> v) {
  store(to, v);
}
template <>
inline void store_narrowed<float, uint16_t>(uint16_t* to, Vec<float> v) {
  typedef uint32_t Bits __attribute__((vector_size(FASTKAN_VECTOR_BYTES)));
  const Bits bits = reinterpret_cast<Bits>(v);
  const Bits rounded = (v == v) ? (bits + 0x7fff + ((bits >> 16) & 1)) >> 16 : Bits{} + 0x7fc0;
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(rounded, Halves);
}

// Transposes a square of vectors: exchanges lane l of q[r] with lane r of q[l], one bit of l and r after the other.
template <class T, int D = kLanes<T> / 2>
inline void transpose(Vec<T>* q) {
  constexpr int W = kLanes<T>;
  Index<T> low, high;
  for (int l = 0; l < W; ++l) {
    low[l] = l & D ? W + l - D : l;
    high[l] = l & D ? W + l : l + D;
  }
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r) {
    if (r & D) continue;
    const Vec<T> a = q[r], b = q[r + D];
#if defined(__clang__)
    for (int l = 0; l < W; ++l) {
      q[r][l] = l & D ? b[l - D] : a[l];
      q[r + D][l] = l & D ? b[l] : a[l + D];
    }
#else
    q[r] = __builtin_shuffle(a, b, low);
    q[r + D] = __builtin_shuffle(a, b, high);
#endif
  }
  if constexpr (D > 1) transpose<T, D / 2>(q);
}

// Calls f(n, c) for a block of rows by columns, in row order.
template <class F>
__attribute__((always_inline)) inline void for_each(int64_t rows, int64_t columns, const F& f) {
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t c = 0; c < columns; ++c) f(n, c);
}

// The same for a matrix that is transposed on the way: square(n, c) for whole squares of W by W elements, f(n, c) for
// the others, a few rows at a time, to use whole cache lines.
template <int W, class F, class Q>
__attribute__((always_inline)) inline void for_each_transposed(int64_t rows, int64_t columns, const F& f,
                                                               const Q& square) {
  constexpr int64_t kTogether = 32;
  const int64_t squares = W > 1 ? columns / W * W : 0;
  for (int64_t n0 = 0; n0 < rows; n0 += kTogether) {
    const int64_t end = min(rows, n0 + kTogether), whole = n0 + (end - n0) / W * W;
    for (int64_t c = 0; c < squares; c += W)
      for (int64_t n = n0; n < whole; n += W) square(n, c);
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t n = c < squares ? whole : n0; n < end; ++n) f(n, c);
  }
}

template <class T, class S>
void load_typed(T* to, int64_t to_row, int64_t to_column, const S* from, int64_t row, int64_t column, int64_t rows,
                int64_t columns) {
  constexpr int W = kLanes<T>;
  const auto element = [=](int64_t n, int64_t c) {
    to[n * to_row + c * to_column] = widen<T>(from[n * row + c * column]);
  };
  const auto square = [=](int64_t n, int64_t c) {
    Vec<T> q[W];
#pragma GCC unroll 16
    for (int r = 0; r < W; ++r) q[r] = load_widened<T>(from + (n + r) * row + c);
    transpose<T>(q);
#pragma GCC unroll 16
    for (int r = 0; r < W; ++r) store(to + n + (c + r) * to_column, q[r]);
  };
  if (column == 1 && to_column == 1)
    for_each(rows, columns, [=](int64_t n, int64_t c) { to[n * to_row + c] = widen<T>(from[n * row + c]); });
  else if (column == 1 && to_row == 1)
    for_each_transposed<W>(rows, columns, element, square);
  else
    for_each_transposed<1>(rows, columns, element, element);
}

// to[n * to_row + c * to_column] = from[offset + n * row + c * column], of any storage type.
template <class T>
void load_block(T* to, int64_t to_row, int64_t to_column, const View& from, int64_t offset, int64_t row, int64_t column,
                int64_t rows, int64_t columns) {
  switch (from.dtype) {
    case Dtype::f32:
      return load_typed(to, to_row, to_column, static_cast<const float*>(from.data) + offset, row, column, rows,
                        columns);
    case Dtype::f64:
      return load_typed(to, to_row, to_column, static_cast<const double*>(from.data) + offset, row, column, rows,
                        columns);
    case Dtype::bf16:
      return load_typed(to, to_row, to_column, static_cast<const uint16_t*>(from.data) + offset, row, column, rows,
                        columns);
    case Dtype::f16:
      return load_typed(to, to_row, to_column, static_cast<const _Float16*>(from.data) + offset, row, column, rows,
                        columns);
  }
}

template <class T, class S>
void store_typed(S* to, int64_t to_row, const T* from, int64_t row, int64_t column, int64_t rows, int64_t columns) {
  constexpr int W = kLanes<T>;
  const auto element = [=](int64_t n, int64_t c) { narrow(from[n * row + c * column], to + n * to_row + c); };
  const auto square = [=](int64_t n, int64_t c) {
    Vec<T> q[W];
#pragma GCC unroll 16
    for (int r = 0; r < W; ++r) q[r] = load(from + n + (c + r) * column);
    transpose<T>(q);
#pragma GCC unroll 16
    for (int r = 0; r < W; ++r) store_narrowed<T>(to + (n + r) * to_row + c, q[r]);
  };
  if (column == 1)
    for_each(rows, columns, [=](int64_t n, int64_t c) { narrow(from[n * row + c], to + n * to_row + c); });
  else if (row == 1)
    for_each_transposed<W>(rows, columns, element, square);
  else
    for_each_transposed<1>(rows, columns, element, element);
}

// to[offset + n * to_row + c] = from[n * row + c * column], in any storage type.
template <class T>
void store_block(void* to, Dtype dtype, int64_t offset, int64_t to_row, const T* from, int64_t row, int64_t column,
                 int64_t rows, int64_t columns) {
  switch (dtype) {
    case Dtype::f32:
      return store_typed(static_cast<float*>(to) + offset, to_row, from, row, column, rows, columns);
    case Dtype::f64:
      return store_typed(static_cast<double*>(to) + offset, to_row, from, row, column, rows, columns);
    case Dtype::bf16:
      return store_typed(static_cast<uint16_t*>(to) + offset, to_row, from, row, column, rows, columns);
    case Dtype::f16:
      return store_typed(static_cast<_Float16*>(to) + offset, to_row, from, row, column, rows, columns);
  }
}

template <class T>
constexpr Dtype kDtype = sizeof(T) == 4 ? Dtype::f32 : Dtype::f64;

// Scratch memory of one thread, reused by all tasks: reserve() starts over, take() hands out consecutive aligned
// pieces.
class Scratch {
 public:
  ~Scratch() { free(data_); }
  void reserve(size_t bytes) {
    if (bytes > size_) {
      free(data_);
      data_ = static_cast<char*>(aligned_alloc(64, static_cast<size_t>(round_up(bytes, 4096))));
      size_ = data_ ? static_cast<size_t>(round_up(bytes, 4096)) : 0;
      if (!data_) throw std::bad_alloc();
    }
    used_ = 0;
  }
  template <class T>
  T* take(int64_t count) {
    T* p = reinterpret_cast<T*>(data_ + used_);
    used_ += bytes<T>(count);
    return p;
  }
  template <class T>
  static size_t bytes(int64_t count) {
    return static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
  }

 private:
  char* data_ = nullptr;
  size_t size_ = 0, used_ = 0;
};

inline Scratch& scratch() {
  static thread_local Scratch s;
  return s;
}

}  // namespace
}  // namespace fastkan
