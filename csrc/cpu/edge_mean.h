// E[i,o] = mean_n |phi[i,o](x[n,i])| and its gradients, an input at a time, without ever holding [N, I, O]:
//   v[n,o] = sign(phi) grad_mean[i,o] / N,   grad_coef[i,start+k,o] = sum_n w_k v[n,o],   grad_x[n,i] = sum_o phi'[n,o]
//   v[n,o]
#pragma once

#include "block.h"

namespace fastkan {
namespace {

template <class T>
inline Vec<T> absolute(Vec<T> a) {
  return a < 0 ? -a : a;
}

template <class T, int NV, int R, bool BASE>
inline void edge_values(const T* weight, int64_t plane, int64_t n, const T* row, int64_t stride, const T* base,
                        Vec<T>* phi) {
  constexpr int W = kLanes<T>;
#pragma GCC unroll 16
  for (int v = 0; v < NV; ++v) phi[v] = splat(weight[n]) * load(row + v * W);
#pragma GCC unroll 8
  for (int k = 1; k < R; ++k)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) phi[v] += splat(weight[k * plane + n]) * load(row + k * stride + v * W);
  if constexpr (BASE)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) phi[v] += splat(weight[R * plane + n]) * load(base + v * W);
}

template <class T, int NV, int R, bool BASE>
__attribute__((noinline)) void edge_sum(int64_t rows, const T* weight, int64_t plane, const int32_t* start,
                                        const T* coef, int64_t stride, const T* base, T* sum) {
  Vec<T> total[NV];
  for (int v = 0; v < NV; ++v) total[v] = load(sum + v * kLanes<T>);
  for (int64_t n = 0; n < rows; ++n) {
    Vec<T> phi[NV];
    edge_values<T, NV, R, BASE>(weight, plane, n, coef + start[n] * stride, stride, base, phi);
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) total[v] += absolute<T>(phi[v]);
  }
  for (int v = 0; v < NV; ++v) store(sum + v * kLanes<T>, total[v]);
}

template <class T, int NV, int R, bool BASE>
__attribute__((noinline)) void edge_gradients(int64_t rows, const T* weight, const T* slope, int64_t plane,
                                              const int32_t* start, const T* coef, int64_t stride, const T* base,
                                              const T* grad_mean, T* grad_coef, int64_t grad_stride, T* grad_base,
                                              T* grad_x) {
  constexpr int W = kLanes<T>;
  for (int64_t n = 0; n < rows; ++n) {
    Vec<T> phi[NV], rate[NV];
    edge_values<T, NV, R, BASE>(weight, plane, n, coef + start[n] * stride, stride, base, phi);
    edge_values<T, NV, R, BASE>(slope, plane, n, coef + start[n] * stride, stride, base, rate);
    Vec<T> dot = Vec<T>{};
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) {
      const Vec<T> g = load(grad_mean + v * W);
      phi[v] = phi[v] > 0 ? g : phi[v] < 0 ? -g : Vec<T>{};  // 0 for NaN too, whose weights are NaN
      dot += phi[v] * rate[v];
    }
    T* to = grad_coef + start[n] * grad_stride;
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k)
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) {
        T* at = to + k * grad_stride + v * W;
        store(at, load(at) + splat(weight[k * plane + n]) * phi[v]);
      }
    if constexpr (BASE)
      for (int v = 0; v < NV; ++v)
        store(grad_base + v * W, load(grad_base + v * W) + splat(weight[R * plane + n]) * phi[v]);
    T total = T(0);
    for (int l = 0; l < W; ++l) total += dot[l];
    grad_x[n] += total;
  }
}

constexpr int64_t kEdgeRows = 256;

template <class T>
void edge_mean_task(const Problem& p, int64_t i) {
  const int64_t width = padded<T>(p.O), rows_most = least(p.N, kEdgeRows);
  const int planes = p.K + 1 + p.with_base;
  WeightBlocks<T> blocks(p, p.O, p.O);
  Scratch& memory = scratch();
  memory.reserve(blocks.bytes(1) + Column<T>::bytes(p, rows_most) + Tile<T>::bytes(p.x, 1, rows_most) +
                 Scratch::bytes<T>(planes * rows_most) + 2 * Scratch::bytes<int32_t>(rows_most) +
                 Scratch::bytes<T>(width));
  blocks.take(memory, 1);
  Column<T> column(p, memory, rows_most);
  Tile<T> x(p.x, memory, 1, rows_most);
  T* weight = memory.take<T>(planes * rows_most);
  int32_t* found = memory.take<int32_t>(rows_most);
  int32_t* start = memory.take<int32_t>(rows_most);
  T* sum = memory.take<T>(width);
  memset(sum, 0, static_cast<size_t>(width) * sizeof(T));
  const Weights<T> w = blocks.get(i, 1, 0, p.O);
  for (int64_t n0 = 0; n0 < p.N; n0 += rows_most) {
    const int64_t rows = least(rows_most, p.N - n0);
    x.load(i, 1, n0, rows);
    column.find(i, x.column(0), rows, 0, found);
    column.place(x.column(0), nullptr, found, rows, start);
    column.weights(0, weight, rows_most);
    by_window(p, [&](auto window, auto base) {
      chunks<4>(width / kLanes<T>, 0, [&](auto vectors, int64_t at) {
        const int64_t o0 = at * kLanes<T>;
        edge_sum<T, vectors.value, window.value, base.value>(rows, weight, rows_most, start, w.coef + o0, w.coef_row,
                                                             w.base + o0, sum + o0);
      });
    });
  }
  for (int64_t o = 0; o < p.O; ++o) sum[o] /= static_cast<T>(p.N);
  store_block(p.out, p.out_dtype, i * p.O, 0, sum, 0, 1, 1, p.O);
}

template <class T>
void edge_mean_backward_task(const Problem& p, int64_t i) {
  const int64_t width = padded<T>(p.O), rows_most = least(p.N, kEdgeRows);
  const int planes = p.K + 1 + p.with_base;
  WeightBlocks<T> blocks(p, p.O, p.O);
  Scratch& memory = scratch();
  memory.reserve(blocks.bytes(1) + Column<T>::bytes(p, rows_most) + Tile<T>::bytes(p.x, 1, rows_most) +
                 2 * Scratch::bytes<T>(planes * rows_most) + 2 * Scratch::bytes<int32_t>(rows_most) +
                 Scratch::bytes<T>(width) + Scratch::bytes<T>(rows_most) + Scratch::bytes<T>((p.F + 1) * width));
  blocks.take(memory, 1);
  Column<T> column(p, memory, rows_most);
  Tile<T> x(p.x, memory, 1, rows_most);
  T* weight = memory.take<T>(planes * rows_most);
  T* slope = memory.take<T>(planes * rows_most);
  int32_t* found = memory.take<int32_t>(rows_most);
  int32_t* start = memory.take<int32_t>(rows_most);
  T* grad_mean = memory.take<T>(width);
  T* grad_x = memory.take<T>(rows_most);
  T* grad_coef = memory.take<T>((p.F + 1) * width);
  T* grad_base = grad_coef + p.F * width;
  memset(grad_coef, 0, static_cast<size_t>((p.F + 1) * width) * sizeof(T));
  const Weights<T> w = blocks.get(i, 1, 0, p.O);
  load_block(grad_mean, 0, 1, p.u, i * p.u.stride[0], 0, p.u.stride[1], 1, p.O);
  for (int64_t o = 0; o < p.O; ++o) grad_mean[o] /= static_cast<T>(p.N);
  for (int64_t o = p.O; o < width; ++o) grad_mean[o] = T(0);
  for (int64_t n0 = 0; n0 < p.N; n0 += rows_most) {
    const int64_t rows = least(rows_most, p.N - n0);
    x.load(i, 1, n0, rows);
    column.find(i, x.column(0), rows, 1, found);
    column.place(x.column(0), nullptr, found, rows, start);
    column.weights(0, weight, rows_most);
    column.weights(1, slope, rows_most);
    memset(grad_x, 0, static_cast<size_t>(rows) * sizeof(T));
    by_window(p, [&](auto window, auto base) {
      chunks<2>(width / kLanes<T>, 0, [&](auto vectors, int64_t at) {
        const int64_t o0 = at * kLanes<T>;
        edge_gradients<T, vectors.value, window.value, base.value>(rows, weight, slope, rows_most, start, w.coef + o0,
                                                                   w.coef_row, w.base + o0, grad_mean + o0,
                                                                   grad_coef + o0, width, grad_base + o0, grad_x);
      });
    });
    store_block(p.grad_x, p.grad_x_dtype, n0 * p.I + i, p.I, grad_x, 1, 1, rows, 1);
  }
  store_coef(p, i, grad_coef, width);
}

template <class T>
void edge_mean(const Problem& p, const Pool& pool) {
  pool.run(p.I, [](int64_t i, const void* c) { edge_mean_task<T>(*static_cast<const Problem*>(c), i); }, &p);
}

template <class T>
void edge_mean_backward(const Problem& p, const Pool& pool) {
  pool.run(p.I, [](int64_t i, const void* c) { edge_mean_backward_task<T>(*static_cast<const Problem*>(c), i); }, &p);
}

}  // namespace
}  // namespace fastkan
