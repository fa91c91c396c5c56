// Sums of rows of a table of 8-bit numbers, one row per input: a layer of fastkan/nn/quantized.py.
#pragma once

#include <type_traits>

#include "block.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace fastkan {
namespace {

constexpr int64_t kScales = 8;  // bytes at the end of a table's row: scale and offset in float32

// The rows of the table for row n of x, which is loaded to `x`: of input i, that of its level.
template <class X>
void find_rows(const TableSum& t, int64_t n, X* x, int32_t* rows) {
  load_block(x, 0, 1, t.x, n * t.x.stride[0], 0, t.x.stride[1], 1, t.I);
  const auto levels = static_cast<int32_t>(t.levels);
  const X top = static_cast<X>(levels - 1);
  for (int64_t i = 0; i < t.I; ++i) {
    const X at = (x[i] - static_cast<X>(t.low[i])) * static_cast<X>(t.per_unit[i]);
    const X above = at > X(0) ? at : X(0), level = above < top ? above : top;
    rows[i] = static_cast<int32_t>(i) * (levels + 1) + (at == at ? static_cast<int32_t>(level) : levels);
  }
}

// A vector of bytes as float32; the compiler's conversion takes them one by one.
inline Vec<float> load_bytes(const uint8_t* from) {
#if defined(__AVX512F__)
  const __m512i numbers = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return reinterpret_cast<Vec<float>>(_mm512_cvtepi32_ps(numbers));
#elif defined(__AVX2__)
  const __m256i numbers = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  return reinterpret_cast<Vec<float>>(_mm256_cvtepi32_ps(numbers));
#else
  Vec<float> v;
  for (int l = 0; l < kLanes<float>; ++l) v[l] = from[l];
  return v;
#endif
}

// NV vectors of outputs from o: the sum over the inputs of scale times numbers, plus the sum of the offsets.
template <int NV>
inline void add_rows(const TableSum& t, const int32_t* rows, int64_t o, float* y) {
  constexpr int W = kLanes<float>;
  Vec<float> sum[NV] = {};
  float offsets = 0;
  for (int64_t i = 0; i < t.I; ++i) {
    const uint8_t* row = t.table + rows[i] * (t.O + kScales);
    float scale[2];
    memcpy(scale, row + t.O, sizeof scale);
    offsets += scale[1];
    const Vec<float> a = splat(scale[0]);
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      sum[v] += a * load_bytes(row + o + v * W);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) store(y + o + v * W, sum[v] + splat(offsets));
}

// The same for outputs that do not fill a vector.
void add_outputs(const TableSum& t, const int32_t* rows, int64_t o, float* y) {
  float offsets = 0;
  for (int64_t l = o; l < t.O; ++l) y[l] = 0;
  for (int64_t i = 0; i < t.I; ++i) {
    const uint8_t* row = t.table + rows[i] * (t.O + kScales);
    float scale[2];
    memcpy(scale, row + t.O, sizeof scale);
    offsets += scale[1];
    for (int64_t l = o; l < t.O; ++l) y[l] += scale[0] * static_cast<float>(row[l]);
  }
  for (int64_t l = o; l < t.O; ++l) y[l] += offsets;
}

// Row n of the result, in float32 or, with such a bias, float64.
template <class B>
void store_sums(const TableSum& t, int64_t n, const float* y) {
  typedef std::conditional_t<std::is_same_v<B, double>, double, float> Sum;
  const auto* bias = static_cast<const B*>(t.bias);
  B* to = static_cast<B*>(t.out) + n * t.O;
  for (int64_t o = 0; o < t.O; ++o) narrow(static_cast<Sum>(y[o]) + widen<Sum>(bias[o]), to + o);
}

// A task is a block of rows.
void table_sum_rows(const TableSum& t, int64_t task) {
  constexpr int W = kLanes<float>;
  Scratch& memory = scratch();
  memory.reserve(Scratch::bytes<int32_t>(t.I) + Scratch::bytes<double>(t.I) +
                 Scratch::bytes<float>(padded<float>(t.O)));
  int32_t* rows = memory.take<int32_t>(t.I);
  double* x = memory.take<double>(t.I);
  float* y = memory.take<float>(padded<float>(t.O));
  for (int64_t n = task * t.rows; n < min(t.N, (task + 1) * t.rows); ++n) {
    t.x.dtype == Dtype::f64 ? find_rows(t, n, x, rows) : find_rows(t, n, reinterpret_cast<float*>(x), rows);
    int64_t o = 0;
    for (; o + 4 * W <= t.O; o += 4 * W) add_rows<4>(t, rows, o, y);
    for (; o < t.O && o + W <= t.O + kScales; o += W) add_rows<1>(t, rows, o, y);
    if (o < t.O) add_outputs(t, rows, o, y);
    switch (t.out_dtype) {
      case Dtype::f32:
        store_sums<float>(t, n, y);
        break;
      case Dtype::f64:
        store_sums<double>(t, n, y);
        break;
      case Dtype::bf16:
        store_sums<uint16_t>(t, n, y);
        break;
      case Dtype::f16:
        store_sums<_Float16>(t, n, y);
        break;
    }
  }
}

void table_sum(const TableSum& t, const Pool& pool) {
  pool.run(
      ceil_div(t.N, t.rows),
      [](int64_t task, const void* c) { table_sum_rows(*static_cast<const TableSum*>(c), task); }, &t);
}

}  // namespace
}  // namespace fastkan
