// kan_out in bfloat16 by pairs: two neighbouring functions of a window, or the base functions of two inputs.
#pragma once

#include "kan_out.h"
#include "pair.h"

namespace fastkan {
namespace {

// Weights of a block of inputs and outputs as pairs: of functions f and f + 1, [inputs, F - 1, width], and of the base
// functions of two inputs, [inputs / 2, width]. An odd last input is followed by zeros.
struct PairWeights {
  uint32_t *coef, *base;
  int64_t width, functions;

  void load(const Problem& p, int64_t i0, int64_t inputs, int64_t o0, int64_t outputs) {
    const auto* c = static_cast<const uint16_t*>(p.coef.data) + i0 * p.coef.stride[0] + o0;
    for (int64_t i = 0; i < inputs; ++i)
      for (int64_t f = 0; f < functions; ++f) {
        const uint16_t *low = c + i * p.coef.stride[0] + f * p.coef.stride[1], *high = low + p.coef.stride[1];
        uint32_t* to = coef + (i * functions + f) * width;
        for (int64_t o = 0; o < outputs; ++o) to[o] = pair_of(low[o], high[o]);
      }
    if (inputs % 2) memset(coef + inputs * functions * width, 0, static_cast<size_t>(functions * width) * 4);
    const auto* b = static_cast<const uint16_t*>(p.base_weight.data) + i0 * p.base_weight.stride[0] + o0;
    for (int64_t i = 0; p.with_base && i < inputs; i += 2) {
      const uint16_t *low = b + i * p.base_weight.stride[0], *high = low + p.base_weight.stride[0];
      uint32_t* to = base + i / 2 * width;
      for (int64_t o = 0; o < outputs; ++o) to[o] = i + 1 < inputs ? pair_of(low[o], high[o]) : low[o];
    }
  }
};

// Features of a block of rows and inputs as pairs: windows [inputs, H, rows], base functions [inputs / 2, rows].
struct PairFeatures {
  uint32_t *windows, *base;
  int32_t* start;  // [inputs, rows]
  int64_t rows;    // stride
};

// y += the sum over a block of inputs, for P rows.
template <int NV, int H, bool BASE, int P>
__attribute__((always_inline)) inline void pair_row_group(int64_t n, int64_t inputs, const PairFeatures& f,
                                                          const PairWeights& w, int64_t o0, float* y,
                                                          int64_t y_stride) {
  constexpr int W = kLanes<float>;
  const int64_t width = w.width, per_input = w.functions * width, rows = f.rows;
  Vec<float> sum[P][NV];
  float* to = y + n * y_stride + o0;
#pragma GCC unroll 8
  for (int q = 0; q < P; ++q)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) sum[q][v] = Vec<float>{};
  const uint32_t *coef = w.coef + o0, *base = w.base + o0, *weight = f.windows + n, *of_base = f.base + n;
  const int32_t* start = f.start + n;
  for (int64_t i = 0; i < inputs; i += 2) {
#pragma GCC unroll 2
    for (int of = 0; of < 2; ++of) {
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h)
#pragma GCC unroll 8
        for (int q = 0; q < P; ++q) {
          const uint32_t* row = coef + (start[q] + 2 * h) * width;
          const Words a = splat_pair(weight[h * rows + q]);
#pragma GCC unroll 16
          for (int v = 0; v < NV; ++v) sum[q][v] = add_products(sum[q][v], load_pairs(row + v * W), a);
        }
      coef += per_input;
      weight += H * rows;
      start += rows;
    }
    if constexpr (BASE) {
#pragma GCC unroll 8
      for (int q = 0; q < P; ++q) {
        const Words a = splat_pair(of_base[q]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sum[q][v] = add_products(sum[q][v], load_pairs(base + v * W), a);
      }
      base += width;
      of_base += rows;
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < P; ++q)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) store(to + q * y_stride + v * W, load(to + q * y_stride + v * W) + sum[q][v]);
}

template <int NV, int H, bool BASE>
__attribute__((noinline)) void pair_rows(int64_t rows, int64_t inputs, const PairFeatures& f, const PairWeights& w,
                                         int64_t o0, float* y, int64_t y_stride) {
  constexpr int P = NV >= 8 ? 2 : 4;
  int64_t n = 0;
  for (; n + P <= rows; n += P) pair_row_group<NV, H, BASE, P>(n, inputs, f, w, o0, y, y_stride);
  for (; n < rows; ++n) pair_row_group<NV, H, BASE, 1>(n, inputs, f, w, o0, y, y_stride);
}

constexpr int64_t kPairBytes = 28 * 1024;  // weights of a block: in the L1 cache beside the features
constexpr int64_t kPairWidth = 128, kPairRows = 256;

// A task is a block of rows by a block of outputs, in chunks of `width` outputs and of `inputs` inputs.
struct PairOutPlan {
  const Problem& p;
  int64_t rows, outputs, width, inputs;

  PairOutPlan(const Problem& problem, const Pool& pool) : p(problem) {
    rows = min(p.N, min(kPairRows, round_up(ceil_div(p.N, pool.threads), kMinRows)));
    outputs = p.O;
    // Few rows: split the outputs over threads.
    while (tasks() < pool.threads && outputs > kPairWidth / 2) outputs = round_up(ceil_div(outputs, 2), kLanes<float>);
    width = min(padded<float>(outputs), kPairWidth);
    const int64_t fit = kPairBytes / (p.F * width * static_cast<int64_t>(sizeof(uint32_t)));
    inputs = max(2, min(kMaxInputs, fit) / 2 * 2);
  }
  int64_t row_blocks() const { return ceil_div(p.N, rows); }
  int64_t tasks() const { return row_blocks() * ceil_div(p.O, outputs); }
};

void pair_out_task(const PairOutPlan& plan, int64_t task) {
  const Problem& p = plan.p;
  const int64_t n0 = task % plan.row_blocks() * plan.rows, rows = min(plan.rows, p.N - n0);
  const int64_t first = task / plan.row_blocks() * plan.outputs, all_outputs = min(plan.outputs, p.O - first);
  const int64_t stride = column_stride<float>(rows), y_stride = round_up(all_outputs, plan.width),
                halves = (p.K + 1) / 2, planes = p.K + 1 + p.with_base;
  Scratch& memory = scratch();
  memory.reserve(Column<float>::bytes(p, rows) + Tile<float>::bytes(p.x, kMaxInputs, rows) +
                 Tile<float>::bytes(p.s, kMaxInputs, rows) + Scratch::bytes<float>(planes * stride) +
                 Scratch::bytes<int32_t>(rows) + Scratch::bytes<uint32_t>(kMaxInputs * halves * stride) +
                 Scratch::bytes<uint32_t>(kMaxInputs / 2 * stride) + Scratch::bytes<int32_t>(kMaxInputs * stride) +
                 Scratch::bytes<uint32_t>(plan.inputs * (p.F - 1) * plan.width) +
                 Scratch::bytes<uint32_t>(plan.inputs / 2 * plan.width) + Scratch::bytes<float>(rows * y_stride));
  Column<float> column(p, memory, rows);
  Tile<float> x(p.x, memory, kMaxInputs, rows), s(p.s, memory, kMaxInputs, rows);
  float* w = memory.take<float>(planes * stride);
  int32_t* window = memory.take<int32_t>(rows);
  const PairFeatures all{memory.take<uint32_t>(kMaxInputs * halves * stride),
                         memory.take<uint32_t>(kMaxInputs / 2 * stride), memory.take<int32_t>(kMaxInputs * stride),
                         stride};
  PairWeights weights{memory.take<uint32_t>(plan.inputs * (p.F - 1) * plan.width),
                      memory.take<uint32_t>(plan.inputs / 2 * plan.width), plan.width, p.F - 1};
  float* y = memory.take<float>(rows * y_stride);
  memset(y, 0, static_cast<size_t>(rows * y_stride) * sizeof(float));
  if (p.bias) load_block(y, y_stride, 1, p.bias, first * p.bias.stride[0], 0, p.bias.stride[0], rows, all_outputs);
  for (int64_t i0 = 0; i0 < p.I; i0 += kMaxInputs) {
    const int64_t inputs = min(kMaxInputs, p.I - i0);
    x.load(i0, inputs, n0, rows);
    s.load(i0, inputs, n0, rows);
    for (int64_t i = 0; i < inputs; ++i) {
      int32_t* start = all.start + i * stride;
      column.find_and_set_rows(i0 + i, x.column(i), s.column(i), rows, p.order, window, start);
      column.weights(p.order, w, stride);
      for (int64_t h = 0; h < halves; ++h)
        for (int64_t n = 0; n < rows; ++n)
          all.windows[(i * halves + h) * stride + n] =
              pair_of(round_bf16(w[2 * h * stride + n]), round_bf16(w[(2 * h + 1) * stride + n]));
      const float* base = w + (p.K + 1) * stride;
      uint32_t* to = all.base + i / 2 * stride;
      for (int64_t n = 0; p.with_base && n < rows; ++n)
        to[n] = i % 2 ? pair_of(static_cast<uint16_t>(to[n]), round_bf16(base[n])) : round_bf16(base[n]);
    }
    if (inputs % 2) {
      memset(all.start + inputs * stride, 0, static_cast<size_t>(stride) * 4);
      memset(all.windows + inputs * halves * stride, 0, static_cast<size_t>(halves * stride) * 4);
    }
    for (int64_t o0 = 0; o0 < all_outputs; o0 += plan.width) {
      const int64_t outputs = min(plan.width, all_outputs - o0);
      for (int64_t at = 0; at < inputs; at += plan.inputs) {
        const int64_t count = min(plan.inputs, inputs - at);
        weights.load(p, i0 + at, count, first + o0, outputs);
        const PairFeatures f{all.windows + at * halves * stride, all.base + at / 2 * stride, all.start + at * stride,
                             stride};
        by_size((p.K + 1) / 2, p.with_base, [&](auto half, auto base) {
          chunks<8>(padded<float>(outputs) / kLanes<float>, 0, [&](auto vectors, int64_t chunk) {
            pair_rows<vectors.value, half.value, base.value>(rows, count, f, weights, chunk * kLanes<float>, y + o0,
                                                             y_stride);
          });
        });
      }
    }
  }
  store_block(p.out, p.out_dtype, n0 * p.O + first, p.O, y, y_stride, 1, rows, all_outputs);
}

void kan_out_by_pairs(const Problem& p, const Pool& pool) {
  const PairOutPlan plan(p, pool);
  pool.run(
      plan.tasks(), [](int64_t task, const void* c) { pair_out_task(*static_cast<const PairOutPlan*>(c), task); },
      &plan);
}

}  // namespace
}  // namespace fastkan
