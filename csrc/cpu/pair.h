// Sums of products of bfloat16 by vdpbf16ps (AVX512-BF16): every 32-bit lane of a float32 sum gets the products of two
// pairs of numbers. Numbers are rounded to bfloat16, sums are float32.
#pragma once

#include <immintrin.h>

#include "simd.h"

namespace fastkan {
namespace {

typedef uint32_t Words __attribute__((vector_size(64), aligned(2), may_alias));  // pairs of bfloat16

constexpr int64_t kHalves = 32;  // bfloat16 numbers of a vector

inline Words load_pairs(const void* from) { return *static_cast<const Words*>(from); }
inline Words splat_pair(uint32_t pair) { return pair - Words{}; }

// sum + a0 b0 + a1 b1 in every lane.
inline Vec<float> add_products(Vec<float> sum, Words a, Words b) {
  return reinterpret_cast<Vec<float>>(
      _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
}

inline uint32_t pair_of(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

}  // namespace
}  // namespace fastkan
