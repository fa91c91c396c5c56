// kan_backward in bfloat16 by pairs: two outputs for the gradient of the input, two rows with the same window for that
// of the coefficients. As in kan_backward.h, a task owns a block of inputs, whose rows it processes sorted by window.
#pragma once

#include "kan_backward.h"
#include "pair.h"

namespace fastkan {
namespace {

// dots[at] (+)= u[n] * (sum_k w'_k coef[start + k]) of sorted rows n = order[at], lane by lane; NV vectors of 32
// outputs.
template <int NV, int R, bool BASE>
__attribute__((noinline)) void pair_grad_x(int64_t rows, const int32_t* order, const int32_t* start, const float* w,
                                           const uint16_t* u, int64_t u_stride, const uint16_t* coef, int64_t row,
                                           const uint16_t* base, bool first, Vec<float>* dots) {
  constexpr int kPlanes = R + BASE;
  Words held[kPlanes][NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) held[kPlanes - 1][v] = BASE ? load_pairs(base + v * kHalves) : Words{};
  int64_t of = -1;
  for (int64_t at = 0; at < rows; ++at) {
    if (start[at] != of) {
      of = start[at];
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) held[k][v] = load_pairs(coef + (of + k) * row + v * kHalves);
    }
    const uint16_t *from = u + order[at] * u_stride, *ahead = u + order[at + kAhead] * u_stride;
    Vec<float> of_plane[kPlanes];
#pragma GCC unroll 8
    for (int k = 0; k < kPlanes; ++k) of_plane[k] = Vec<float>{};
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const Words un = load_pairs(from + v * kHalves);
      __builtin_prefetch(ahead + v * kHalves);
#pragma GCC unroll 8
      for (int k = 0; k < kPlanes; ++k) of_plane[k] = add_products(of_plane[k], held[k][v], un);
    }
    Vec<float> dot = first ? Vec<float>{} : dots[at];
#pragma GCC unroll 8
    for (int k = 0; k < kPlanes; ++k) dot += splat(w[k * kVisitRows + at]) * of_plane[k];
    dots[at] = dot;
  }
}

// grad[start + k] += w_k u[n] of sorted rows, two at a time if they have the same window; NV vectors of 32 outputs. The
// sums of a window stay in registers, and shift when it advances. Of each 32 outputs the sums are in the order of
// unpack: see in_order().
template <int NV, int R, bool BASE>
__attribute__((noinline)) void pair_grad_coef(int64_t rows, const int32_t* order, const int32_t* start,
                                              const uint16_t* w, const uint16_t* u, int64_t u_stride, float* grad,
                                              int64_t row, float* grad_base) {
  constexpr int W = kLanes<float>, kPlanes = R + BASE;
  Vec<float> sum[kPlanes][2 * NV];
#pragma GCC unroll 8
  for (int k = 0; k < kPlanes; ++k)
#pragma GCC unroll 8
    for (int v = 0; v < 2 * NV; ++v) sum[k][v] = Vec<float>{};
  const auto flush = [&](int k, float* to) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int v = 0; v < 2 * NV; ++v) {
      store(to + v * W, load(to + v * W) + sum[k][v]);
      sum[k][v] = Vec<float>{};
    }
  };
  int64_t of = start[0];
  for (int64_t at = 0; at < rows;) {
    const int64_t to = start[at];
    if (to >= of + R) {
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k) flush(k, grad + (of + k) * row);
      of = to;
    }
    for (; of < to; ++of) {
      flush(0, grad + of * row);
#pragma GCC unroll 8
      for (int k = 0; k + 1 < R; ++k)
#pragma GCC unroll 8
        for (int v = 0; v < 2 * NV; ++v) sum[k][v] = sum[k + 1][v];
#pragma GCC unroll 8
      for (int v = 0; v < 2 * NV; ++v) sum[R - 1][v] = Vec<float>{};
    }
    const bool two = at + 1 < rows && start[at + 1] == to;
    const uint16_t *first = u + order[at] * u_stride, *second = u + order[at + 1] * u_stride;
    Words low[NV], high[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const auto a = reinterpret_cast<__m512i>(load_pairs(first + v * kHalves)),
                 b = reinterpret_cast<__m512i>(two ? load_pairs(second + v * kHalves) : Words{});
      low[v] = reinterpret_cast<Words>(_mm512_unpacklo_epi16(a, b));
      high[v] = reinterpret_cast<Words>(_mm512_unpackhi_epi16(a, b));
    }
#pragma GCC unroll 8
    for (int k = 0; k < kPlanes; ++k) {
      uint32_t pair;
      memcpy(&pair, w + k * kVisitRows + at, sizeof pair);
      const Words a = splat_pair(two ? pair : pair & 0xffff);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        sum[k][2 * v] = add_products(sum[k][2 * v], low[v], a);
        sum[k][2 * v + 1] = add_products(sum[k][2 * v + 1], high[v], a);
      }
    }
    at += two ? 2 : 1;
  }
#pragma GCC unroll 8
  for (int k = 0; k < R; ++k) flush(k, grad + (of + k) * row);
  if constexpr (BASE) flush(R, grad_base);
}

// Undoes the order of unpack in a row of 32 outputs each: lane j of the low sums is output 8 (j / 4) + j % 4.
void in_order(float* row, int64_t width) {
  for (int64_t o = 0; o < width; o += kHalves) {
    float sums[kHalves];
    memcpy(sums, row + o, sizeof sums);
    for (int j = 0; j < kHalves; ++j) {
      const int lane = j % 16, high = j / 16;
      row[o + lane / 4 * 8 + high * 4 + lane % 4] = sums[j];
    }
  }
}

// Rows of bfloat16 in whole vectors: in place, or a copy with zeros.
class PairRows {
 public:
  explicit PairRows(int64_t outputs)
      : width_(round_up(outputs, kHalves)), outputs_(outputs), in_place_(outputs == width_) {}
  size_t bytes(int64_t rows) const { return in_place_ ? 0 : Scratch::bytes<uint16_t>(rows * width_); }
  void take(Scratch& memory, int64_t rows) {
    if (!in_place_) copy_ = memory.take<uint16_t>(rows * width_);
  }
  // `rows` rows from `from`, a row every `stride`.
  const uint16_t* get(const void* data, int64_t from, int64_t stride, int64_t rows) {
    const auto* source = static_cast<const uint16_t*>(data) + from;
    stride_ = in_place_ ? stride : width_;
    if (in_place_) return source;
    for (int64_t n = 0; n < rows; ++n) {
      memcpy(copy_ + n * width_, source + n * stride, static_cast<size_t>(outputs_) * 2);
      memset(copy_ + n * width_ + outputs_, 0, static_cast<size_t>(width_ - outputs_) * 2);
    }
    return copy_;
  }
  int64_t stride() const { return stride_; }

 private:
  int64_t width_, outputs_, stride_ = 0;
  bool in_place_;
  uint16_t* copy_ = nullptr;
};

constexpr int64_t kPairSorted = 1024;  // most rows sorted together

// A task is a block of inputs.
struct PairBackwardPlan {
  const Problem& p;
  int64_t width, rows, inputs;

  PairBackwardPlan(const Problem& problem, const Pool& pool) : p(problem) {
    width = round_up(p.O, kHalves);
    rows = min(p.N, max(kVisitRows, min(kPairSorted, kL2Bytes / (2 * width) / kVisitRows * kVisitRows)));
    const int64_t fit = kL2Bytes / 2 / ((p.F + 1) * width * static_cast<int64_t>(sizeof(float)));
    inputs = min(p.I, max(1, min(kMaxInputs, fit)));
    while (inputs > 1 && ceil_div(p.I, inputs) < 2 * pool.threads) inputs = ceil_div(inputs, 2);
  }
  int64_t tasks() const { return ceil_div(p.I, inputs); }
};

void pair_backward_task(const PairBackwardPlan& plan, int64_t task) {
  const Problem& p = plan.p;
  const int64_t i0 = task * plan.inputs, inputs = min(plan.inputs, p.I - i0), width = plan.width;
  const int64_t tile_stride = column_stride<float>(plan.rows), size = (p.F + 1) * width;
  const int planes = p.K + 1 + p.with_base;
  const int top = !p.grad_coef ? p.x_order : !p.grad_x || p.order > p.x_order ? p.order : p.x_order;
  PairRows u_rows(p.O), coef_rows(p.O), base_rows(p.O);
  Scratch& memory = scratch();
  memory.reserve(Column<float>::bytes(p, kVisitRows) + Tile<float>::bytes(p.x, inputs, plan.rows) +
                 Tile<float>::bytes(p.s, inputs, plan.rows) + SortedRows<float>::bytes(p, plan.rows) +
                 u_rows.bytes(plan.rows) + coef_rows.bytes(p.F) + base_rows.bytes(1) +
                 Scratch::bytes<int32_t>(plan.rows) + Scratch::bytes<int32_t>(kVisitRows + 1) +
                 Scratch::bytes<float>(planes * kVisitRows) + Scratch::bytes<uint16_t>(planes * kVisitRows + 2) +
                 Scratch::bytes<Vec<float>>(kVisitRows) + Scratch::bytes<float>(tile_stride * inputs) +
                 Scratch::bytes<float>(inputs * size));
  Column<float> column(p, memory, kVisitRows);
  Tile<float> x(p.x, memory, inputs, plan.rows), s(p.s, memory, inputs, plan.rows);
  SortedRows<float> sorted(p, memory, plan.rows);
  u_rows.take(memory, plan.rows);
  coef_rows.take(memory, p.F);
  base_rows.take(memory, 1);
  int32_t *found = memory.take<int32_t>(plan.rows), *start = memory.take<int32_t>(kVisitRows + 1);
  float* w = memory.take<float>(planes * kVisitRows);
  uint16_t* rounded = memory.take<uint16_t>(planes * kVisitRows + 2);
  Vec<float>* dots = memory.take<Vec<float>>(kVisitRows);
  float *tile = memory.take<float>(tile_stride * inputs), *grad = memory.take<float>(inputs * size);
  memset(grad, 0, static_cast<size_t>(inputs * size) * sizeof(float));
  for (int64_t n0 = 0; n0 < p.N; n0 += plan.rows) {
    const int64_t rows = min(plan.rows, p.N - n0);
    const uint16_t* u = u_rows.get(p.u.data, n0 * p.u.stride[0], p.u.stride[0], rows);
    x.load(i0, inputs, n0, rows);
    s.load(i0, inputs, n0, rows);
    for (int64_t i = 0; i < inputs; ++i) {
      const uint16_t *coef = nullptr, *base = nullptr;
      if (p.grad_x) coef = coef_rows.get(p.coef.data, (i0 + i) * p.coef.stride[0], p.coef.stride[1], p.F);
      if (p.grad_x && p.with_base) base = base_rows.get(p.base_weight.data, (i0 + i) * p.base_weight.stride[0], 0, 1);
      column.find_windows(i0 + i, x.column(i), rows, top, found);
      sorted.build(found, x.column(i), s.column(i), rows);
      float* of_input = grad + i * size;
      for (int64_t at = 0; at < rows; at += kVisitRows) {
        const int64_t visited = min(kVisitRows, rows - at);
        const int32_t* order = sorted.order + at;
        column.set_rows(sorted.x + at, p.s ? sorted.s + at : nullptr, sorted.window + at, visited, start);
        by_size(p.K + 1, p.with_base, [&](auto window, auto with_base) {
          constexpr int R = window.value;
          constexpr bool kBase = with_base.value;
          if constexpr (R % 2 == 0) {
            if (p.grad_x) {
              column.weights(p.x_order, w, kVisitRows);
              chunks<window_vectors(R + kBase)>(width / kHalves, 0, [&](auto vectors, int64_t chunk) {
                const int64_t o = chunk * kHalves;
                pair_grad_x<vectors.value, R, kBase>(visited, order, start, w, u + o, u_rows.stride(), coef + o,
                                                     coef_rows.stride(), base + o, chunk == 0, dots);
              });
              float* to = tile + i * tile_stride;
              for (int64_t n = 0; n < visited; n += kLanes<float>) {
                sum_step<float, kLanes<float>>(dots + n);
                const float* sums = reinterpret_cast<const float*>(dots + n);
                for (int64_t l = 0; l < min(kLanes<float>, visited - n); ++l) to[order[n + l]] = sums[l];
              }
            }
            if (p.grad_coef) {
              column.weights(p.order, w, kVisitRows);
              for (int64_t k = 0; k < (R + kBase) * kVisitRows; ++k) rounded[k] = round_bf16(w[k]);
              chunks<window_vectors(R + kBase) / 2>(width / kHalves, 0, [&](auto vectors, int64_t chunk) {
                const int64_t o = chunk * kHalves;
                pair_grad_coef<vectors.value, R, kBase>(visited, order, start, rounded, u + o, u_rows.stride(),
                                                        of_input + o, width, of_input + p.F * width + o);
              });
            }
          }
        });
      }
    }
    if (p.grad_x) store_block(p.grad_x, p.grad_x_dtype, n0 * p.I + i0, p.I, tile, 1, tile_stride, rows, inputs);
  }
  for (int64_t i = 0; p.grad_coef && i < inputs; ++i) {
    for (int64_t f = 0; f < p.F + p.with_base; ++f) in_order(grad + i * size + f * width, width);
    store_coef(p, i0 + i, grad + i * size, width);
  }
}

void kan_backward_by_pairs(const Problem& p, const Pool& pool) {
  const PairBackwardPlan plan(p, pool);
  pool.run(
      plan.tasks(),
      [](int64_t task, const void* c) { pair_backward_task(*static_cast<const PairBackwardPlan*>(c), task); }, &plan);
}

}  // namespace
}  // namespace fastkan
