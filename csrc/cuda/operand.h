// How a thread reads and writes outputs: 16 bytes at a time where alignment allows, else one by one in any layout and
// dtype.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <string.h>

#include <type_traits>

#include "../basis/bspline.h"
#include "problem.h"

namespace fastkan {

FASTKAN_HD int bytes_of(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }

template <class A>
__device__ __forceinline__ A element(const View& v, int64_t offset) {
  switch (v.dtype) {
    case Dtype::f32:
      return static_cast<A>(static_cast<const float*>(v.data)[offset]);
    case Dtype::f64:
      return static_cast<A>(static_cast<const double*>(v.data)[offset]);
    case Dtype::bf16:
      return static_cast<A>(__bfloat162float(static_cast<const __nv_bfloat16*>(v.data)[offset]));
    default:
      return static_cast<A>(__half2float(static_cast<const __half*>(v.data)[offset]));
  }
}

// The bits of a 16- or 32-bit number as a float.
__device__ __forceinline__ float number_of_bits(uint32_t bits, Dtype dtype) {
  if (dtype == Dtype::f16) {
    __half half;
    memcpy(&half, &bits, sizeof half);
    return __half2float(half);
  }
  if (dtype == Dtype::bf16) bits <<= 16;
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

// The same as a double, from any dtype.
__device__ __forceinline__ double number_of_bits(uint64_t bits, Dtype dtype) {
  if (dtype != Dtype::f64) return number_of_bits(static_cast<uint32_t>(bits), dtype);
  double number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

// Holds the bits of an operand of a computation in A: of any dtype for double, else of at most 32 bits.
template <class A>
using Bits = std::conditional_t<sizeof(A) == 8, uint64_t, uint32_t>;

// Loads COUNT neighbours of a row as raw bits, zeros beyond `count`. Converting them to numbers is what waits for the
// load.
template <int COUNT, class B>
__device__ __forceinline__ void load_bits(const View& v, int64_t offset, int64_t stride, int64_t count, B* to) {
#pragma unroll
  for (int k = 0; k < COUNT; ++k) to[k] = 0;
  if (sizeof(B) == 8 && v.dtype == Dtype::f64) {
    const uint64_t* from = static_cast<const uint64_t*>(v.data) + offset;
#pragma unroll
    for (int k = 0; k < COUNT; ++k, from += stride)
      if (k < count) to[k] = static_cast<B>(__ldg(from));
  } else if (v.dtype == Dtype::f32) {
    const uint32_t* from = static_cast<const uint32_t*>(v.data) + offset;
#pragma unroll
    for (int k = 0; k < COUNT; ++k, from += stride)
      if (k < count) to[k] = __ldg(from);
  } else {
    const uint16_t* from = static_cast<const uint16_t*>(v.data) + offset;
#pragma unroll
    for (int k = 0; k < COUNT; ++k, from += stride)
      if (k < count) to[k] = __ldg(from);
  }
}

template <class A>
__device__ __forceinline__ void put_element(void* to, Dtype dtype, int64_t offset, A value) {
  switch (dtype) {
    case Dtype::f32:
      static_cast<float*>(to)[offset] = static_cast<float>(value);
      break;
    case Dtype::f64:
      static_cast<double*>(to)[offset] = static_cast<double>(value);
      break;
    case Dtype::bf16:
      static_cast<__nv_bfloat16*>(to)[offset] = __float2bfloat16_rn(static_cast<float>(value));
      break;
    default:
      static_cast<__half*>(to)[offset] = __float2half_rn(static_cast<float>(value));
  }
}

// Outputs one by one; A is the compute type.
template <class A>
struct Elements {
  using Accumulator = A;
  static constexpr int kWidth = 1, kRows = 2;
  static constexpr bool kSame = false;  // whether the storage type is the compute type

  static __device__ __forceinline__ void load(const View& v, int64_t offset, int64_t o, int64_t stride, A* to) {
    to[0] = element<A>(v, offset + o * stride);
  }
  static __device__ __forceinline__ void store(void* to, Dtype dtype, int64_t offset, const A* from) {
    put_element(to, dtype, offset, from[0]);
  }
};

// The two halves of 32 bits.
__device__ __forceinline__ void widen(__nv_bfloat162 pair, float* to) {
  to[0] = __low2float(pair), to[1] = __high2float(pair);
}
__device__ __forceinline__ void widen(__half2 pair, float* to) {
  to[0] = __low2float(pair), to[1] = __high2float(pair);
}
__device__ __forceinline__ void narrow(const float* from, __nv_bfloat162* pair) {
  *pair = __floats2bfloat162_rn(from[0], from[1]);
}
__device__ __forceinline__ void narrow(const float* from, __half2* pair) {
  *pair = __floats2half2_rn(from[0], from[1]);
}

// 16 aligned bytes of neighbouring outputs; PAIR: two numbers of 16 bits, which are converted together.
template <class S, class PAIR = void>
struct VectorsOf {
  using Accumulator = std::conditional_t<sizeof(S) == 8, double, float>;
  static constexpr int kWidth = 16 / sizeof(S), kRows = 4;
  static constexpr bool kSame = sizeof(S) > 2;

  static __device__ __forceinline__ void load(const View& v, int64_t offset, int64_t o, int64_t, Accumulator* to) {
    const uint4 piece = __ldg(reinterpret_cast<const uint4*>(static_cast<const S*>(v.data) + offset + o));
    if constexpr (kSame) {
      memcpy(to, &piece, sizeof piece);
    } else {
      PAIR pairs[4];
      memcpy(pairs, &piece, sizeof piece);
#pragma unroll
      for (int j = 0; j < 4; ++j) widen(pairs[j], to + 2 * j);
    }
  }
  static __device__ __forceinline__ void store(void* to, Dtype, int64_t offset, const Accumulator* from) {
    uint4 piece;
    if constexpr (kSame) {
      memcpy(&piece, from, sizeof piece);
    } else {
      PAIR pairs[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) narrow(from + 2 * j, pairs + j);
      memcpy(&piece, pairs, sizeof piece);
    }
    *reinterpret_cast<uint4*>(static_cast<S*>(to) + offset) = piece;
  }
};

template <class S>
struct Vectors : VectorsOf<S> {};
template <>
struct Vectors<__nv_bfloat16> : VectorsOf<__nv_bfloat16, __nv_bfloat162> {};
template <>
struct Vectors<__half> : VectorsOf<__half, __half2> {};

// Stores the sums of V outputs to workspace, or to a result of the same type; 16 bytes at a time if there are as
// many.
template <int V, class A>
__device__ __forceinline__ void store_partial(A* to, const A* from) {
  constexpr int kTogether = 16 / sizeof(A);
  if constexpr (V % kTogether == 0) {
#pragma unroll
    for (int v = 0; v < V; v += kTogether) Vectors<A>::store(to, Dtype::f32, v, from + v);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = from[v];
  }
}

// The same, added to the previous sums, which the same thread has written.
template <int V, class A>
__device__ __forceinline__ void add_partial(A* to, const A* from) {
  A sum[V];
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] = to[v] + from[v];
  store_partial<V>(to, sum);
}

}  // namespace fastkan
