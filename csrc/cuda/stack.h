// A stack of layers whose weights fit the shared memory of a block, in one launch each way: a thread takes a row
// through all layers and back, its activations in shared memory beside the weights. The mathematics is that of
// cpu/stack.h. What is summed over rows goes by inputs: every row leaves the weights of an input's window, then every
// thread adds up the gradients of some coefficients, row after row. A second launch adds the blocks' sums in their
// order.
#pragma once

#include "launch.h"
#include "operand.h"

namespace fastkan {

constexpr int kMostStackRows = 128, kMostStackTangents = 2;
// Bytes that a block has on every GPU that is built for; fastkan/stack_size.py knows what it holds.
constexpr size_t kMostStackShared = 96 << 10;

template <class A, int T>
struct StackArgs {
  Stack s;
  Shape shape[kMaxLayers];
  int coef[kMaxLayers], base[kMaxLayers], bias[kMaxLayers], weights;  // where those of a layer begin, how many in all
  int knots[kMaxLayers + 1], nodes[kMaxLayers + 1];                   // of all layers before
  int widest, rows;
  int64_t blocks;
  BaseFunction<A> silu[T + 2];  // of every order
  A* parts;                     // [blocks, weights]
};

template <class A, int T>
struct StackShared {
  static constexpr int S = 1 << T;
  KnotRow<A>* knots;
  A *weight, *h, *both_u, *grad, *stage;
  int* start;

  FASTKAN_HD StackShared(const StackArgs<A, T>& a, unsigned char* memory, bool back) {
    Pieces pieces(memory);
    knots = pieces.take<KnotRow<A>>(a.knots[a.s.depth]);
    weight = pieces.take<A>(a.weights);
    h = pieces.take<A>(static_cast<int64_t>(a.nodes[a.s.depth]) * S * a.rows);
    side_ = static_cast<int64_t>(a.widest) * S * a.rows;
    both_u = pieces.take<A>(2 * side_);
    if (!back) return;
    grad = pieces.take<A>(a.weights);
    stage = pieces.take<A>(static_cast<int64_t>(kMaxDegree + 2) * S * a.rows);
    start = pieces.take<int>(a.rows);
  }
  // The gradients by the nodes that enter layer l; those of neighbours lie apart.
  FASTKAN_HD A* u(int l) const { return both_u + l % 2 * side_; }

  static size_t bytes(const StackArgs<A, T>& a, bool back) {
    const int64_t row = static_cast<int64_t>(a.rows) * S;
    int64_t sum = Pieces::bytes<KnotRow<A>>(a.knots[a.s.depth]) + Pieces::bytes<A>(a.weights) +
                  Pieces::bytes<A>(a.nodes[a.s.depth] * row) + Pieces::bytes<A>(2 * a.widest * row);
    if (back)
      sum += Pieces::bytes<A>(a.weights) + Pieces::bytes<A>((kMaxDegree + 2) * row) + Pieces::bytes<int>(a.rows);
    return static_cast<size_t>(sum);
  }

 private:
  int64_t side_;
};

// The window of one number at orders 0..D, and what the tangents make of it.
template <class A, int T, int D>
struct StackWindow {
  static constexpr int S = 1 << T, W = kMaxDegree + 2;  // the functions of a window, then the base function
  int start;
  A w[D + 1][W];  // derivatives
  A s[S][T + 1];  // s_{A,d}, 0 for d above the size of A
  A h[S];

  __device__ __forceinline__ StackWindow(const StackArgs<A, T>& a, int l, const KnotRow<A>& knots, const double* row,
                                         const A* of, int64_t stride) {
    const Problem& p = a.s.layer[l];
#pragma unroll
    for (int B = 0; B < S; ++B) h[B] = of[B * stride];
    const Window<A, kMaxDegree, false> window(a.shape[l], knots, row, h[0]);
    start = window.start;
#pragma unroll
    for (int d = 0; d <= D; ++d) {
      A found[kMaxDegree + 1];
      window.weights(d, found);
#pragma unroll
      for (int k = 0; k <= kMaxDegree; ++k) w[d][k] = k <= p.K ? found[k] : A(0);
      w[d][W - 1] = !p.with_base || p.base == Base::zero ? A(0)
                    : p.base == Base::silu               ? a.silu[d](h[0])
                    : d == 0                             ? h[0]
                                                         : A(d == 1);
    }
    // s_{A,d}: the part with the first tangent of A, then partitions of the rest.
#pragma unroll
    for (int B = 0; B < S; ++B)
#pragma unroll
      for (int d = 0; d <= T; ++d) {
        s[B][d] = A(B == 0 && d == 0);
#pragma unroll
        for (int C = 1; C < S; ++C)
          if (d > 0 && (C & B) == C && (C & B & -B)) s[B][d] += h[C] * s[B ^ C][d - 1];
      }
  }

  // The weight of function k in h'_B.
  __device__ __forceinline__ A of(int B, int k) const {
    A sum = A(0);
#pragma unroll
    for (int d = 0; d <= T; ++d) sum += s[B][d] * w[d][k];
    return sum;
  }
};

// From a layer's nodes to the next: `of` and `to` are the thread's own columns, [subset][node] a stride apart.
template <class A, int T>
__device__ __forceinline__ void stack_layer(const StackArgs<A, T>& a, const StackShared<A, T>& shared, int l,
                                            const A* of, A* to) {
  constexpr int S = 1 << T, W = kMaxDegree + 2;
  const Problem& p = a.s.layer[l];
  const int I = static_cast<int>(p.I), O = static_cast<int>(p.O);
  for (int o = 0; o < O; ++o)
#pragma unroll
    for (int B = 0; B < S; ++B) to[(B * O + o) * a.rows] = B == 0 && p.bias ? shared.weight[a.bias[l] + o] : A(0);
  for (int i = 0; i < I; ++i) {
    const StackWindow<A, T, T> window(a, l, shared.knots[a.knots[l] + i], p.grid + i * p.grid_stride, of + i * a.rows,
                                      static_cast<int64_t>(I) * a.rows);
    const A* coef = shared.weight + a.coef[l] + (i * p.F + window.start) * O;
    const A* base = shared.weight + a.base[l] + i * O;
#pragma unroll
    for (int B = 0; B < S; ++B) {
      A weight[W];
#pragma unroll
      for (int k = 0; k < W; ++k) weight[k] = window.of(B, k);
      for (int o = 0; o < O; ++o) {
        A sum = to[(B * O + o) * a.rows];
#pragma unroll
        for (int k = 0; k <= kMaxDegree; ++k)
          if (k <= p.K) sum += weight[k] * coef[k * O + o];
        if (p.with_base) sum += weight[W - 1] * base[o];
        to[(B * O + o) * a.rows] = sum;
      }
    }
  }
}

// From the gradients by a layer's outputs, `u`, to those by its inputs, `to`. All threads of the block come here.
template <class A, int T>
__device__ __forceinline__ void stack_layer_back(const StackArgs<A, T>& a, const StackShared<A, T>& shared, int l,
                                                 const A* of, const A* u, A* to) {
  constexpr int S = 1 << T, W = kMaxDegree + 2;
  const Problem& p = a.s.layer[l];
  const int I = static_cast<int>(p.I), O = static_cast<int>(p.O), at = static_cast<int>(threadIdx.x);
  const A* mine = u + at;
  for (int i = 0; i < I; ++i) {
    const StackWindow<A, T, T + 1> window(a, l, shared.knots[a.knots[l] + i], p.grid + i * p.grid_stride,
                                          of + i * a.rows, static_cast<int64_t>(I) * a.rows);
    const A* coef = shared.weight + a.coef[l] + (i * p.F + window.start) * O;
    const A* base = shared.weight + a.base[l] + i * O;
    A found[S] = {};
#pragma unroll
    for (int B = 0; B < S; ++B) {
      A dot[W] = {};
      for (int o = 0; o < O; ++o) {
        const A by = mine[(B * O + o) * a.rows];
#pragma unroll
        for (int k = 0; k <= kMaxDegree; ++k)
          if (k <= p.K) dot[k] += by * coef[k * O + o];
        if (p.with_base) dot[W - 1] += by * base[o];
      }
#pragma unroll
      for (int d = 0; d <= T + 1; ++d) {
        A in = A(0);  // in_d(h; u_B)
#pragma unroll
        for (int k = 0; k < W; ++k) in += window.w[d][k] * dot[k];
        if (d > 0) found[0] += window.s[B][d - 1] * in;
#pragma unroll
        for (int C = 1; C < S; ++C)
          if (d > 0 && d <= T && (C & B) == C) found[C] += window.s[B ^ C][d - 1] * in;
      }
#pragma unroll
      for (int k = 0; k < W; ++k) shared.stage[(B * W + k) * a.rows + at] = window.of(B, k);
    }
#pragma unroll
    for (int B = 0; B < S; ++B) to[(B * I + i) * a.rows] = found[B];
    if (!a.s.with_weights) continue;
    shared.start[at] = window.start;
    __syncthreads();
    for (int q = at; q < (p.F + p.with_base) * O; q += a.rows) {
      const int f = q / O, o = q % O;
      A sum = A(0);
      for (int r = 0; r < a.rows; ++r) {
        const int k = f < p.F ? f - shared.start[r] : W - 1;
        if (k < 0 || (k > p.K && f < p.F)) continue;
#pragma unroll
        for (int B = 0; B < S; ++B) sum += shared.stage[(B * W + k) * a.rows + r] * u[(B * O + o) * a.rows + r];
      }
      shared.grad[f < p.F ? a.coef[l] + i * p.F * O + q : a.base[l] + i * O + o] += sum;
    }
    __syncthreads();
  }
  if (!a.s.with_weights || !p.bias) return;
  __syncthreads();
  for (int o = at; o < O; o += a.rows) {
    A sum = A(0);
    for (int r = 0; r < a.rows; ++r) sum += u[o * a.rows + r];
    shared.grad[a.bias[l] + o] += sum;
  }
  __syncthreads();
}

// The weights of all layers, coef times scale, and the knots.
template <class A, int T>
__device__ __forceinline__ void load_stack(const StackArgs<A, T>& a, const StackShared<A, T>& shared, bool back) {
  const int at = static_cast<int>(threadIdx.x);
  for (int l = 0; l < a.s.depth; ++l) {
    const Problem& p = a.s.layer[l];
    const View &scale = a.s.scale[l], &c = p.coef, &b = p.base_weight;
    const int I = static_cast<int>(p.I), O = static_cast<int>(p.O);
    for (int i = at; i < I; i += a.rows)
      shared.knots[a.knots[l] + i] = KnotRow<A>::of(a.shape[l], p.grid + i * p.grid_stride);
    for (int q = at; q < I * p.F * O; q += a.rows) {
      const int i = q / (p.F * O), f = q / O % p.F, o = q % O;
      const A factor = scale ? element<A>(scale, i * scale.stride[0] + o * scale.stride[1]) : A(1);
      shared.weight[a.coef[l] + q] = factor * element<A>(c, i * c.stride[0] + f * c.stride[1] + o * c.stride[2]);
    }
    for (int q = at; p.with_base && q < I * O; q += a.rows)
      shared.weight[a.base[l] + q] = element<A>(b, q / O * b.stride[0] + q % O * b.stride[1]);
    for (int o = at; p.bias && o < O; o += a.rows)
      shared.weight[a.bias[l] + o] = element<A>(p.bias, o * p.bias.stride[0]);
  }
  for (int q = at; back && q < a.weights; q += a.rows) shared.grad[q] = A(0);
  __syncthreads();
}

template <class A, int T, bool BACK>
__global__ void __launch_bounds__(kMostStackRows, 1) stack_kernel(const __grid_constant__ StackArgs<A, T> a) {
  constexpr int S = 1 << T;
  extern __shared__ __align__(16) unsigned char fastkan_shared[];
  const Stack& s = a.s;
  const StackShared<A, T> shared(a, fastkan_shared, BACK);
  const int at = static_cast<int>(threadIdx.x), last = s.depth - 1;
  const int I = static_cast<int>(s.layer[0].I), O = static_cast<int>(s.layer[last].O);
  load_stack(a, shared, BACK);
  for (int64_t tile = blockIdx.x; tile * a.rows < s.N; tile += a.blocks) {
    const int64_t n = tile * a.rows + at;
    const bool here = n < s.N;
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int B = 0; B < S; ++B) {
        const View& v = B == 0 ? s.x : s.tangent[B == 2];  // of two tangents at once there is none
        const bool given = here && (B & (B - 1)) == 0;
        shared.h[(B * I + i) * a.rows + at] = given ? element<A>(v, n * v.stride[0] + i * v.stride[1]) : A(0);
      }
    A* of = shared.h + at;
    for (int l = 0; l < s.depth; ++l) {
      A* to = l == last ? shared.u(s.depth) + at : shared.h + a.nodes[l + 1] * S * a.rows + at;
      if (!BACK || l < last) stack_layer(a, shared, l, of, to);
      of = to;
    }
    for (int o = 0; o < O; ++o) {
      A* all = shared.u(s.depth) + ((S - 1) * O + o) * a.rows + at;
      if (!BACK && here) put_element(s.out, s.dtype, n * O + o, *all);
      for (int B = 0; BACK && B < S - 1; ++B) shared.u(s.depth)[(B * O + o) * a.rows + at] = A(0);
      if (BACK) *all = here ? element<A>(s.u, n * s.u.stride[0] + o * s.u.stride[1]) : A(0);
    }
    if constexpr (BACK) {
      __syncthreads();
      for (int l = last; l >= 0; --l)
        stack_layer_back(a, shared, l, shared.h + a.nodes[l] * S * a.rows + at, shared.u(l + 1), shared.u(l) + at);
      for (int i = 0; here && i < I; ++i) {
        const A* g = shared.u(0) + i * a.rows + at;
        if (s.with_x) put_element(s.grad_x, s.dtype, n * I + i, *g);
        for (int t = 0; s.with_tangents && t < T; ++t)
          put_element(s.grad_tangent[t], s.dtype, n * I + i, g[static_cast<int64_t>(1 << t) * I * a.rows]);
      }
    }
  }
  if (!BACK || !s.with_weights) return;
  __syncthreads();
  for (int q = at; q < a.weights; q += a.rows) a.parts[blockIdx.x * a.weights + q] = shared.grad[q];
}

template <class A, int T>
__device__ __forceinline__ A stack_sum(const StackArgs<A, T>& a, int q) {
  A sum = A(0);
  for (int64_t b = 0; b < a.blocks; ++b) sum += a.parts[b * a.weights + q];
  return sum;
}

// The blocks' sums, in their order, and what the scales make of them: a block for each layer.
template <class A, int T>
__global__ void __launch_bounds__(kMostStackRows) stack_sum_kernel(const __grid_constant__ StackArgs<A, T> a) {
  const int l = static_cast<int>(blockIdx.x);
  const Problem& p = a.s.layer[l];
  const View &scale = a.s.scale[l], &c = p.coef;
  const int O = static_cast<int>(p.O), edges = static_cast<int>(p.I) * O;
  for (int e = static_cast<int>(threadIdx.x); e < edges; e += kMostStackRows) {
    const int i = e / O, o = e % O;
    const A factor = scale ? element<A>(scale, i * scale.stride[0] + o * scale.stride[1]) : A(1);
    A of_scale = A(0);
    for (int f = 0; f < p.F; ++f) {
      const int q = (i * p.F + f) * O + o;
      const A sum = stack_sum(a, a.coef[l] + q);
      put_element(p.grad_coef, a.s.dtype, q, sum * factor);
      if (scale) of_scale += sum * element<A>(c, i * c.stride[0] + f * c.stride[1] + o * c.stride[2]);
    }
    if (scale) put_element(a.s.grad_scale[l], a.s.dtype, e, of_scale);
    if (p.with_base) put_element(p.grad_base, a.s.dtype, e, stack_sum(a, a.base[l] + e));
  }
  for (int o = static_cast<int>(threadIdx.x); p.bias && o < O; o += kMostStackRows)
    put_element(a.s.grad_bias[l], a.s.dtype, o, stack_sum(a, a.bias[l] + o));
}

// As many rows in a block as fit, but no more than leave work for every processor.
template <class A, int T>
StackArgs<A, T> plan_stack(const Stack& s, bool back, int processors) {
  StackArgs<A, T> a = {};
  a.s = s;
  for (int l = 0; l < s.depth; ++l) {
    const Problem& p = s.layer[l];
    const bool exact = !p.uniform || T + back >= p.K;
    a.shape[l] = Shape{p.F, p.K, p.M, p.outside, p.uniform, exact, 1.0 / (p.M - 1)};
    const int I = static_cast<int>(p.I), O = static_cast<int>(p.O);
    a.coef[l] = a.weights;
    a.base[l] = a.coef[l] + I * p.F * O;
    a.bias[l] = a.base[l] + I * O;
    a.weights = a.bias[l] + O;
    a.knots[l + 1] = a.knots[l] + I;
    a.nodes[l + 1] = a.nodes[l] + I;
    a.widest = static_cast<int>(most(a.widest, most(I, O)));
  }
  for (int d = 0; d <= T + 1; ++d) a.silu[d] = BaseFunction<A>::of(Base::silu, d);
  a.rows = kMostStackRows;
  while (a.rows > 32 && (StackShared<A, T>::bytes(a, back) > kMostStackShared || ceil_div(s.N, a.rows) < processors))
    a.rows /= 2;
  if (const size_t bytes = StackShared<A, T>::bytes(a, back); bytes > kMostStackShared)
    throw std::runtime_error("the layers take " + std::to_string(bytes) +
                             " bytes of the shared memory of a GPU's block: " + "expected at most " +
                             std::to_string(kMostStackShared));
  a.blocks = least(ceil_div(s.N, a.rows), 2 * processors);
  return a;
}

template <class A, int T, bool BACK>
void run_stack(const Stack& s, const Device& device) {
  StackArgs<A, T> a = plan_stack<A, T>(s, BACK, device.processors);
  if (BACK && s.with_weights) a.parts = device.take<A>(a.blocks * a.weights);
  launch("stack", stack_kernel<A, T, BACK>, a.blocks, a.rows, StackShared<A, T>::bytes(a, BACK), device, a);
  if (BACK && s.with_weights) launch("stack_sum", stack_sum_kernel<A, T>, s.depth, kMostStackRows, 0, device, a);
}

template <class A, bool BACK>
void stack(const Stack& s, const Device& device) {
  if (s.tangents > kMostStackTangents) throw std::runtime_error("tangents: expected at most 2 on a GPU");
  s.tangents == 0   ? run_stack<A, 0, BACK>(s, device)
  : s.tangents == 1 ? run_stack<A, 1, BACK>(s, device)
                    : run_stack<A, 2, BACK>(s, device);
}

}  // namespace fastkan
