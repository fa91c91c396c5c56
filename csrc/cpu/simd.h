// Vectors of the instruction set that this translation unit is compiled for, and strided loads of every storage type.
// Everything here is internal to the unit: nothing that one set compiles may be linked into another.
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
  typedef int32_t index;
};
template <>
struct Simd<double> {
  typedef double vec __attribute__((vector_size(FASTKAN_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t mask __attribute__((vector_size(FASTKAN_VECTOR_BYTES)));
  typedef int64_t index;
};

template <class T>
using Vec = typename Simd<T>::vec;
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
  return s - Vec<T>{};  // not a sum: -0 + 0 is 0, which would have to be computed
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Sums of kLanes vectors, as one vector: lane l holds the sum over the lanes of q[l]. Halves the number of vectors in
// each step; with groups of g lanes, the two halves of a group of x add up to the group's first half, those of y to its
// second.
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

// Storage types <-> the type computed in.
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
__attribute__((always_inline)) inline void load_strided(T* to, const View& from, int64_t offset, int64_t stride,
                                                        int64_t n) {
  switch (from.dtype) {
    case Dtype::f32: {
      const float* p = static_cast<const float*>(from.data) + offset;
      for (int64_t k = 0; k < n; ++k) to[k] = static_cast<T>(p[k * stride]);
      break;
    }
    case Dtype::f64: {
      const double* p = static_cast<const double*>(from.data) + offset;
      for (int64_t k = 0; k < n; ++k) to[k] = static_cast<T>(p[k * stride]);
      break;
    }
    case Dtype::bf16: {
      const uint16_t* p = static_cast<const uint16_t*>(from.data) + offset;
      for (int64_t k = 0; k < n; ++k) to[k] = static_cast<T>(widen_bf16(p[k * stride]));
      break;
    }
    case Dtype::f16: {
      const _Float16* p = static_cast<const _Float16*>(from.data) + offset;
      for (int64_t k = 0; k < n; ++k) to[k] = static_cast<T>(static_cast<float>(p[k * stride]));
      break;
    }
  }
}

// The common case has stride 1, and then these loops are vector code.
template <class T>
inline void load_row(T* to, const View& from, int64_t offset, int64_t stride, int64_t n) {
  if (stride == 1)
    load_strided(to, from, offset, 1, n);
  else
    load_strided(to, from, offset, stride, n);
}

template <class T>
inline void store_row(void* to, Dtype dtype, int64_t offset, const T* from, int64_t n) {
  switch (dtype) {
    case Dtype::f32: {
      float* p = static_cast<float*>(to) + offset;
      for (int64_t k = 0; k < n; ++k) p[k] = static_cast<float>(from[k]);
      break;
    }
    case Dtype::f64: {
      double* p = static_cast<double*>(to) + offset;
      for (int64_t k = 0; k < n; ++k) p[k] = static_cast<double>(from[k]);
      break;
    }
    case Dtype::bf16: {
      uint16_t* p = static_cast<uint16_t*>(to) + offset;
      for (int64_t k = 0; k < n; ++k) p[k] = round_bf16(static_cast<float>(from[k]));
      break;
    }
    case Dtype::f16: {
      _Float16* p = static_cast<_Float16*>(to) + offset;
      for (int64_t k = 0; k < n; ++k) p[k] = static_cast<_Float16>(static_cast<float>(from[k]));
      break;
    }
  }
}

template <class T>
constexpr Dtype kDtype = sizeof(T) == 4 ? Dtype::f32 : Dtype::f64;

// Scratch of one thread, kept between tasks: take() hands out consecutive aligned pieces, a Frame gives them back.
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
