// dT/du: y[n,o] = sum_i s[n,i] (base_weight[i,o] b^(d)(x) + sum_k w_k coef[i, start + k, o]) + bias[o]. A block
// computes a tile of rows by outputs, in steps of some inputs: its threads evaluate the windows into shared memory,
// one (row, input) pair each, and then gather the coefficients of these windows, each thread for some rows and 16
// bytes of outputs. Families with several windows per x take them one after the other.
#pragma once

#include "../reduce.h"

namespace fastkan {

constexpr int kOutThreads = 256, kOutPairs = 512;  // (row, input) pairs per step

template <class A>
struct OutArgs {
  Contraction<A> c;
  int lanes;             // threads along the outputs, a power of two
  int rows, inputs;      // of a block; of a step, a power of two
  int splits;            // split-K over the inputs
  int64_t split_inputs;  // a multiple of inputs
  A* parts;              // [splits, N, O] if splits > 1
};

// The tiling for a GPU with that many multiprocessors; a thread has rows_each rows and `width` outputs.
template <class A>
OutArgs<A> plan_out(const Problem& p, int rows_each, int width, int processors) {
  OutArgs<A> a = {Contraction<A>::of(p), 1, 1, 1, 1, max(1, p.I), nullptr};
  while (a.lanes < 32 && a.lanes * width < p.O) a.lanes *= 2;
  const int64_t groups = min(kOutThreads / a.lanes, kOutPairs / rows_each);
  a.rows = static_cast<int>(groups * rows_each);
  while (a.inputs * 2 * a.rows <= kOutPairs && a.inputs < p.I) a.inputs *= 2;
  const int64_t blocks = ceil_div(p.N, a.rows) * ceil_div(p.O, a.lanes * width);
  const int64_t steps = ceil_div(p.I, a.inputs);
  // With fewer blocks than multiprocessors, inputs are split too, as long as each split has a few steps.
  a.splits = static_cast<int>(max(1, min(ceil_div(processors, max(1, blocks)), steps / 4)));
  a.split_inputs = max(1, ceil_div(steps, a.splits)) * a.inputs;
  a.splits = static_cast<int>(max(1, ceil_div(p.I, a.split_inputs)));
  return a;
}

template <class A>
struct OutShared {
  KnotRow<A>* knots;
  A* weight;   // [plane][input][row + 1]
  int* start;  // [input][row + 1]
  int stride;  // of a plane

  FASTKAN_HD OutShared(SharedAllocator& allocator, const OutArgs<A>& a, int planes) : stride(a.inputs * (a.rows + 1)) {
    knots = allocator.take<KnotRow<A>>(a.inputs);
    weight = allocator.take<A>(planes * stride);
    start = allocator.take<int>(stride);
  }
};

// Evaluates window number `window` for the rows from n0 and inputs from i0 of a step; the base function is added to
// the last window.
template <class A, int MAX, bool FIXED>
__device__ __forceinline__ void evaluate_windows(const OutArgs<A>& a, const OutShared<A>& shared, int window,
                                                 bool with_base, int64_t n0, int64_t i0, int64_t i_end) {
  const Problem& p = a.c.p;
  const int size = FIXED ? MAX + 1 : a.c.windows.size;
  for (int q = threadIdx.x; q < a.rows * a.inputs; q += blockDim.x) {
    const int i_at = q & (a.inputs - 1), row = q / a.inputs;
    const int64_t n = n0 + row, i = i0 + i_at;
    if (n >= p.N || i >= i_end) continue;
    const A x = element<A>(p.x, n * p.x.stride[0] + i * p.x.stride[1]);
    const A s = p.s ? element<A>(p.s, n * p.s.stride[0] + i * p.s.stride[1]) : A(1);
    const KnotRow<A>& knots = shared.knots[p.grid_stride == 0 ? 0 : i_at];
    const int at = i_at * (a.rows + 1) + row;
    A* weight = shared.weight + at;
    if (FIXED || p.family == Family::bspline) {
      const Window<A, MAX, FIXED> spline(a.c.shape, knots, p.grid + i * p.grid_stride, x);
      A w[MAX + 1];
      spline.weights(p.order, w);
      shared.start[at] = spline.start;
#pragma unroll
      for (int k = 0; k <= MAX; ++k)
        if (k < size) weight[k * shared.stride] = w[k] * s;
    } else {
      const Wide<A> wide(a.c.shape, p.family, knots, x);
      const int start = wide.first(a.c.windows.functions) + a.c.windows.start(window);
      shared.start[at] = start;
      FASTKAN_ROLL
      for (int k = 0; k < size; ++k)
        weight[k * shared.stride] = k < a.c.windows.zeros(window) ? A(0) : wide(p.order, start + k) * s;
    }
    if (with_base) weight[size * shared.stride] = a.c.base(x) * s;
  }
}

// Adds the contribution of a window to the sums of a thread's rows: at most `rows` of them, the first at shared index
// `at`.
template <class Operand, int MAX, bool FIXED, class A>
__device__ __forceinline__ void gather_window(const OutArgs<A>& a, const OutShared<A>& shared, bool with_base,
                                              int64_t i, int64_t o, int at, int64_t rows,
                                              A (&sum)[Operand::kRows][Operand::kWidth]) {
  constexpr int V = Operand::kWidth;
  const Problem& p = a.c.p;
  const int size = FIXED ? MAX + 1 : a.c.windows.size;
  A base[V] = {};
  if (with_base) Operand::load(p.base_weight, i * p.base_weight.stride[0], o, p.base_weight.stride[1], base);
#pragma unroll
  for (int r = 0; r < Operand::kRows; ++r) {
    if (r >= rows) continue;
    const int64_t offset = i * p.coef.stride[0] + shared.start[at + r] * p.coef.stride[1];
#pragma unroll
    for (int k = 0; k <= MAX; ++k) {
      if (k >= size) continue;
      A coef[V];
      Operand::load(p.coef, offset + k * p.coef.stride[1], o, p.coef.stride[2], coef);
      const A w = shared.weight[k * shared.stride + at + r];
#pragma unroll
      for (int v = 0; v < V; ++v) sum[r][v] += w * coef[v];
    }
    if (with_base) {
      const A w = shared.weight[size * shared.stride + at + r];
#pragma unroll
      for (int v = 0; v < V; ++v) sum[r][v] += w * base[v];
    }
  }
}

template <class Operand, int MAX, bool FIXED>
__global__ void __launch_bounds__(kOutThreads, FIXED && sizeof(typename Operand::Accumulator) == 4 ? 2 : 1)
    out_kernel(const __grid_constant__ OutArgs<typename Operand::Accumulator> a) {
  using A = typename Operand::Accumulator;
  constexpr int V = Operand::kWidth, R = Operand::kRows;
  extern __shared__ __align__(16) unsigned char fastkan_shared[];
  const Problem& p = a.c.p;
  const int size = FIXED ? MAX + 1 : a.c.windows.size, windows = FIXED ? 1 : a.c.windows.count;
  const auto shared = shared_at<OutShared<A>>(fastkan_shared, a, size + p.with_base);

  const int64_t row_blocks = ceil_div(p.N, a.rows), column_blocks = ceil_div(p.O, a.lanes * V);
  const int64_t n0 = blockIdx.x % row_blocks * a.rows;
  const int64_t rest = blockIdx.x / row_blocks;
  const int split = static_cast<int>(rest / column_blocks);
  const int64_t o = (rest % column_blocks * a.lanes + threadIdx.x % a.lanes) * V;
  const int row0 = static_cast<int>(threadIdx.x / a.lanes) * R;
  const bool here = o < p.O;
  const int64_t i_begin = split * a.split_inputs, i_end = min(p.I, i_begin + a.split_inputs);

  A sum[R][V] = {};
  for (int64_t i0 = i_begin; i0 < i_end; i0 += a.inputs) {
    if (i0 == i_begin || p.grid_stride != 0) {
      const int i_at = static_cast<int>(threadIdx.x);
      if (i_at < (p.grid_stride == 0 ? 1 : a.inputs) && i0 + i_at < i_end)
        shared.knots[i_at] = KnotRow<A>::of(a.c.shape, p.grid + (i0 + i_at) * p.grid_stride);
      __syncthreads();
    }
    for (int window = 0; window < windows; ++window) {
      const bool with_base = p.with_base && window + 1 == windows;
      evaluate_windows<A, MAX, FIXED>(a, shared, window, with_base, n0, i0, i_end);
      __syncthreads();
      for (int i_at = 0; here && i_at < min(a.inputs, i_end - i0); ++i_at)
        gather_window<Operand, MAX, FIXED>(a, shared, with_base, i0 + i_at, o, i_at * (a.rows + 1) + row0,
                                           p.N - n0 - row0, sum);
      __syncthreads();
    }
  }

  if (!here) return;
  A bias[V] = {};
  if (p.bias && a.splits == 1) Operand::load(p.bias, 0, o, p.bias.stride[0], bias);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int64_t n = n0 + row0 + r;
    if (n >= p.N) continue;
#pragma unroll
    for (int v = 0; v < V; ++v) sum[r][v] += bias[v];
    if (a.splits == 1)
      Operand::store(p.out, p.out_dtype, n * p.O + o, sum[r]);
    else
      store_partial<V>(a.parts + (split * p.N + n) * p.O + o, sum[r]);
  }
}

template <class Operand>
void kan_out(const Problem& p, const Device& device) {
  using A = typename Operand::Accumulator;
  OutArgs<A> a = plan_out<A>(p, Operand::kRows, Operand::kWidth, device.processors);
  if (a.splits > 1) a.parts = device.take<A>(a.splits * p.N * p.O);
  const int64_t blocks = ceil_div(p.N, a.rows) * ceil_div(p.O, a.lanes * Operand::kWidth) * a.splits;
  const int threads = a.rows / Operand::kRows * a.lanes;
  const int64_t shared = shared_bytes<OutShared<A>>(a, a.c.windows.size + p.with_base);
  by_degree(p, [&]<int MAX, bool FIXED>() {
    launch("kan_out", out_kernel<Operand, MAX, FIXED>, blocks, threads, shared, device, a);
  });
  if (a.splits > 1) reduce<A>({a.parts, p.N * p.O, a.splits, p.out, p.out_dtype, p.bias, p.O}, {}, device);
}

}  // namespace fastkan
