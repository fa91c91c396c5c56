// A stack of layers in one kernel, for weights and activations that fit the shared memory of a block. The mathematics
// is that of cpu/stack.h. A block takes a tile of rows through all layers and back, in steps of some inputs: threads
// first evaluate the windows, one (row, input) pair each. Then each thread sums over these inputs for one (row,
// output) pair, or in the backward over the rows for one coefficient. A second launch adds the blocks' weight
// gradients in a fixed order, one warp per coefficient.
#pragma once

#include "launch.h"
#include "operand.h"
#include "order.h"

namespace fastkan {

// Rows of a block: maximum; the number that must fit; minimum if there are more multiprocessors than blocks.
constexpr int kStackThreads = 128, kMaxStackRows = 128, kRequiredStackRows = 32, kMinStackRows = 8;
constexpr int kMaxStackTangents = 2;
// Shared memory of a block on every supported GPU; fastkan/stack.py computes the same sizes.
constexpr int64_t kMaxStackShared = 96 << 10;
constexpr int kStackWindow = kMaxDegree + 2;  // basis functions of a window, then the base function

template <class A, int T>
struct StackArgs {
  Stack s;
  Shape shape[kMaxLayers];
  int coef[kMaxLayers], base[kMaxLayers], bias[kMaxLayers], weights;  // offsets of each layer's weights; their number
  int knots[kMaxLayers + 1], nodes[kMaxLayers + 1];                   // prefix sums over layers
  int widest, rows, inputs;                                           // widest layer; rows of a tile; inputs of a step
  int64_t blocks;
  BaseFunction<A> silu[T + 2];  // of every order
  A* parts;                     // [blocks, weights]

  FASTKAN_HD int edges_and_biases(int l) const {
    const Problem& p = s.layer[l];
    return static_cast<int>((p.I + (p.bias ? 1 : 0)) * p.O);
  }
};

template <class A, int T>
struct StackShared {
  static constexpr int S = 1 << T;
  KnotRow<A>* knots;
  A *weight, *h, *both_u, *grad;
  A* stage;    // [input of the step][subset][function of the window][row]
  int* start;  // [input of the step][row]

  FASTKAN_HD StackShared(SharedAllocator& allocator, const StackArgs<A, T>& a, bool backward) {
    knots = allocator.take<KnotRow<A>>(a.knots[a.s.depth]);
    weight = allocator.take<A>(a.weights);
    h = allocator.take<A>(static_cast<int64_t>(a.nodes[a.s.depth]) * S * a.rows);
    side_ = static_cast<int64_t>(a.widest) * S * a.rows;
    both_u = allocator.take<A>(2 * side_);
    stage = allocator.take<A>(static_cast<int64_t>(a.inputs) * S * kStackWindow * a.rows);
    start = allocator.take<int>(a.inputs * a.rows);
    if (backward) grad = allocator.take<A>(a.weights);
  }
  // The gradients by the inputs of layer l: two buffers, used alternately.
  FASTKAN_HD A* u(int l) const { return both_u + l % 2 * side_; }

 private:
  int64_t side_;
};

// The window of one x at orders 0..D, combined with the tangents.
template <class A, int T, int D>
struct StackWindow {
  static constexpr int S = 1 << T, W = kStackWindow;
  int start;
  A w[D + 1][W];  // derivatives
  A s[S][T + 1];  // s_{A,d}; 0 if d exceeds the size of A
  A h[S];

  __device__ __forceinline__ StackWindow(const StackArgs<A, T>& a, int l, const KnotRow<A>& knots, const double* row,
                                         const A* h_in, int64_t stride) {
    const Problem& p = a.s.layer[l];
#pragma unroll
    for (int B = 0; B < S; ++B) h[B] = h_in[B * stride];
    const Window<A, kMaxDegree, false> window(a.shape[l], knots, row, h[0]);
    start = window.start;
#pragma unroll
    for (int d = 0; d <= D; ++d) {
      A v[kMaxDegree + 1];
      window.weights(d, v);
#pragma unroll
      for (int k = 0; k <= kMaxDegree; ++k) w[d][k] = k <= p.K ? v[k] : A(0);
      w[d][W - 1] = !p.with_base || p.base == Base::zero ? A(0)
                    : p.base == Base::silu               ? a.silu[d](h[0])
                    : d == 0                             ? h[0]
                                                         : A(d == 1);
    }
    // s_{A,d} by recursion: the block with the first tangent of A, times partitions of the remaining tangents.
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

// Calls f(row, j) for all rows and 0 <= j < count, spread over the threads of the block.
template <class A, int T, class F>
__device__ __forceinline__ void for_each_pair(const StackArgs<A, T>& a, int count, const F& f) {
  for (int q = static_cast<int>(threadIdx.x); q < a.rows * count; q += kStackThreads) f(q % a.rows, q / a.rows);
}

// All tensors of a stack have the type A.
template <class A>
__device__ __forceinline__ A number(const View& v, int64_t offset) {
  return static_cast<const A*>(v.data)[offset];
}

// Evaluates the windows of inputs i0 .. i0 + count - 1 of a layer into `stage`, and calls f(window, row, input) for
// each. h holds the layer's inputs, [subset][node][row].
template <int D, class A, int T, class F>
__device__ __forceinline__ void stack_windows(const StackArgs<A, T>& a, const StackShared<A, T>& shared, int l,
                                              const A* h_in, int i0, int count, const F& f) {
  constexpr int S = 1 << T, W = kStackWindow;
  const Problem& p = a.s.layer[l];
  for_each_pair(a, count, [&](int r, int i_at) {
    const int i = i0 + i_at;
    const StackWindow<A, T, D> window(a, l, shared.knots[a.knots[l] + i], p.grid + i * p.grid_stride,
                                      h_in + i * a.rows + r, p.I * a.rows);
    shared.start[i_at * a.rows + r] = window.start;
#pragma unroll
    for (int B = 0; B < S; ++B)
#pragma unroll
      for (int k = 0; k < W; ++k) shared.stage[((i_at * S + B) * W + k) * a.rows + r] = window.of(B, k);
    f(window, r, i);
  });
  __syncthreads();
}

// Forward of one layer: from its inputs h_in to its outputs h_out.
template <class A, int T>
__device__ __forceinline__ void stack_layer_forward(const StackArgs<A, T>& a, const StackShared<A, T>& shared, int l,
                                                    const A* h_in, A* h_out) {
  constexpr int S = 1 << T, W = kStackWindow;
  const Problem& p = a.s.layer[l];
  const int I = static_cast<int>(p.I), O = static_cast<int>(p.O);
  for (int i0 = 0; i0 < I; i0 += a.inputs) {
    const int count = static_cast<int>(min(a.inputs, I - i0));
    stack_windows<T>(a, shared, l, h_in, i0, count, [](const auto&, int, int) {});
    for_each_pair(a, O, [&](int r, int o) {
#pragma unroll
      for (int B = 0; B < S; ++B) {
        A& result = h_out[(B * O + o) * a.rows + r];
        A sum = i0 > 0 ? result : B == 0 && p.bias ? shared.weight[a.bias[l] + o] : A(0);
        for (int i_at = 0; i_at < count; ++i_at) {
          const int i = i0 + i_at;
          const A* coef = shared.weight + a.coef[l] + (i * p.F + shared.start[i_at * a.rows + r]) * O + o;
          const A* weight = shared.stage + (i_at * S + B) * W * a.rows + r;
#pragma unroll
          for (int k = 0; k <= kMaxDegree; ++k)
            if (k <= p.K) sum += weight[k * a.rows] * coef[k * O];
          if (p.with_base) sum += weight[(W - 1) * a.rows] * shared.weight[a.base[l] + i * O + o];
        }
        result = sum;
      }
    });
    __syncthreads();
  }
}

// The gradients by one input's nodes, grad[subset], from the gradients u by the layer's outputs.
template <class A, int T>
__device__ __forceinline__ void stack_node_backward(const StackArgs<A, T>& a, const StackShared<A, T>& shared, int l,
                                                    const StackWindow<A, T, T + 1>& window, int i, const A* u,
                                                    A* grad) {
  constexpr int S = 1 << T, W = kStackWindow;
  const Problem& p = a.s.layer[l];
  const int O = static_cast<int>(p.O);
  const A* coef = shared.weight + a.coef[l] + (i * p.F + window.start) * O;
  const A* base = shared.weight + a.base[l] + i * O;
#pragma unroll
  for (int B = 0; B < S; ++B) grad[B] = A(0);
#pragma unroll
  for (int B = 0; B < S; ++B) {
    A dot[W] = {};
    for (int o = 0; o < O; ++o) {
      const A by = u[(B * O + o) * a.rows];
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
      if (d > 0) grad[0] += window.s[B][d - 1] * in;
#pragma unroll
      for (int C = 1; C < S; ++C)
        if (d > 0 && d <= T && (C & B) == C) grad[C] += window.s[B ^ C][d - 1] * in;
    }
  }
}

// Adds the gradients of the coefficients and base weights of the step's inputs, summed over the tile's rows.
template <class A, int T>
__device__ __forceinline__ void stack_weights_backward(const StackArgs<A, T>& a, const StackShared<A, T>& shared, int l,
                                                       int i0, int count, const A* u) {
  constexpr int S = 1 << T, W = kStackWindow;
  const Problem& p = a.s.layer[l];
  const int O = static_cast<int>(p.O), functions = p.F + p.with_base;
  for (int q = static_cast<int>(threadIdx.x); q < count * functions * O; q += kStackThreads) {
    const int i_at = q / (functions * O), f = q / O % functions, o = q % O, i = i0 + i_at;
    const bool spline = f < p.F;
    const int* start = shared.start + i_at * a.rows;
    A sum = A(0);
#pragma unroll 4  // several loads in flight
    for (int r = 0; r < a.rows; ++r) {
      const int k = spline ? f - start[r] : W - 1;
      const bool meets = !spline || (k >= 0 && k <= p.K);
      const A* weight = shared.stage + (i_at * S * W + (meets ? k : 0)) * a.rows + r;
#pragma unroll
      for (int B = 0; B < S; ++B) {
        const A more = weight[B * W * a.rows] * u[(B * O + o) * a.rows + r];
        sum = meets ? sum + more : sum;
      }
    }
    shared.grad[spline ? a.coef[l] + (i * p.F + f) * O + o : a.base[l] + i * O + o] += sum;
  }
}

// Backward of one layer: from the gradients u by its outputs to grad_in by its inputs.
template <class A, int T>
__device__ __forceinline__ void stack_layer_backward(const StackArgs<A, T>& a, const StackShared<A, T>& shared, int l,
                                                     const A* h_in, const A* u, A* grad_in) {
  constexpr int S = 1 << T;
  const Problem& p = a.s.layer[l];
  const int I = static_cast<int>(p.I), O = static_cast<int>(p.O);
  for (int i0 = 0; i0 < I; i0 += a.inputs) {
    const int count = static_cast<int>(min(a.inputs, I - i0));
    stack_windows<T + 1>(a, shared, l, h_in, i0, count, [&](const StackWindow<A, T, T + 1>& window, int r, int i) {
      A grad[S];
      stack_node_backward(a, shared, l, window, i, u + r, grad);
#pragma unroll
      for (int B = 0; B < S; ++B) grad_in[(B * I + i) * a.rows + r] = grad[B];
    });
    if (a.s.with_weights) stack_weights_backward(a, shared, l, i0, count, u);
    __syncthreads();
  }
  if (!a.s.with_weights || !p.bias) return;
  for (int o = static_cast<int>(threadIdx.x); o < O; o += kStackThreads) {
    A sum = A(0);
    for (int r = 0; r < a.rows; ++r) sum += u[o * a.rows + r];
    shared.grad[a.bias[l] + o] += sum;
  }
  __syncthreads();
}

// Loads the weights of all layers (coef times scale) and the knots into shared memory.
template <class A, int T>
__device__ __forceinline__ void load_stack(const StackArgs<A, T>& a, const StackShared<A, T>& shared, bool backward) {
  const int at = static_cast<int>(threadIdx.x);
  for (int l = 0; l < a.s.depth; ++l) {
    const Problem& p = a.s.layer[l];
    const View &scale = a.s.scale[l], &c = p.coef, &b = p.base_weight;
    const int I = static_cast<int>(p.I), O = static_cast<int>(p.O);
    for (int i = at; i < I; i += kStackThreads)
      shared.knots[a.knots[l] + i] = KnotRow<A>::of(a.shape[l], p.grid + i * p.grid_stride);
#pragma unroll 4
    for (int q = at; q < I * p.F * O; q += kStackThreads) {
      const int i = q / (p.F * O), f = q / O % p.F, o = q % O;
      const A factor = scale ? number<A>(scale, i * scale.stride[0] + o * scale.stride[1]) : A(1);
      shared.weight[a.coef[l] + q] = factor * number<A>(c, i * c.stride[0] + f * c.stride[1] + o * c.stride[2]);
    }
    for (int q = at; p.with_base && q < I * O; q += kStackThreads)
      shared.weight[a.base[l] + q] = number<A>(b, q / O * b.stride[0] + q % O * b.stride[1]);
    for (int o = at; p.bias && o < O; o += kStackThreads)
      shared.weight[a.bias[l] + o] = number<A>(p.bias, o * p.bias.stride[0]);
  }
  for (int q = at; backward && q < a.weights; q += kStackThreads) shared.grad[q] = A(0);
  __syncthreads();
}

template <class A, int T, bool BACKWARD>
__global__ void __launch_bounds__(kStackThreads, 1) stack_kernel(const __grid_constant__ StackArgs<A, T> a) {
  constexpr int S = 1 << T;
  extern __shared__ __align__(16) unsigned char fastkan_shared[];
  const Stack& s = a.s;
  const auto shared = shared_at<StackShared<A, T>>(fastkan_shared, a, BACKWARD);
  const int last = s.depth - 1;
  const int I = static_cast<int>(s.layer[0].I), O = static_cast<int>(s.layer[last].O);
  load_stack(a, shared, BACKWARD);
  for (int64_t tile = blockIdx.x; tile * a.rows < s.N; tile += a.blocks) {
    const int64_t n0 = tile * a.rows;
    for_each_pair(a, I, [&](int r, int i) {
#pragma unroll
      for (int B = 0; B < S; ++B) {
        const View& v = B == 0 ? s.x : s.tangent[B == 2];  // x has no second-order part
        const bool given = n0 + r < s.N && (B & (B - 1)) == 0;
        shared.h[(B * I + i) * a.rows + r] = given ? number<A>(v, (n0 + r) * v.stride[0] + i * v.stride[1]) : A(0);
      }
    });
    __syncthreads();
    A* h_in = shared.h;
    for (int l = 0; l < s.depth; ++l) {
      A* h_out = l == last ? shared.u(s.depth) : shared.h + a.nodes[l + 1] * S * a.rows;
      if (!BACKWARD || l < last) stack_layer_forward(a, shared, l, h_in, h_out);
      h_in = h_out;
    }
    for_each_pair(a, O, [&](int r, int o) {
      const bool here = n0 + r < s.N;
      A* all = shared.u(s.depth) + ((S - 1) * O + o) * a.rows + r;
      if (!BACKWARD && here) static_cast<A*>(s.out)[(n0 + r) * O + o] = *all;
      for (int B = 0; BACKWARD && B < S - 1; ++B) shared.u(s.depth)[(B * O + o) * a.rows + r] = A(0);
      if (BACKWARD) *all = here ? number<A>(s.u, (n0 + r) * s.u.stride[0] + o * s.u.stride[1]) : A(0);
    });
    if constexpr (BACKWARD) {
      __syncthreads();
      for (int l = last; l >= 0; --l)
        stack_layer_backward(a, shared, l, shared.h + a.nodes[l] * S * a.rows, shared.u(l + 1), shared.u(l));
      for_each_pair(a, I, [&](int r, int i) {
        const int64_t to = (n0 + r) * I + i;
        if (n0 + r >= s.N) return;
        if (s.with_x) static_cast<A*>(s.grad_x)[to] = shared.u(0)[i * a.rows + r];
        for (int t = 0; s.with_tangents && t < T; ++t)
          static_cast<A*>(s.grad_tangent[t])[to] = shared.u(0)[((1 << t) * I + i) * a.rows + r];
      });
    }
  }
  if (!BACKWARD || !s.with_weights) return;
  __syncthreads();
  for (int q = static_cast<int>(threadIdx.x); q < a.weights; q += kStackThreads)
    a.parts[blockIdx.x * a.weights + q] = shared.grad[q];
}

// The sum over blocks of weight gradient q, by one warp.
template <class A, int T>
__device__ __forceinline__ A stack_sum(const StackArgs<A, T>& a, int q) {
  A sum = A(0);
  for (int64_t b = threadIdx.x % kWarp; b < a.blocks; b += kWarp) sum += a.parts[b * a.weights + q];
#pragma unroll
  for (int by = kWarp / 2; by > 0; by /= 2) sum += __shfl_xor_sync(kFullWarp, sum, by);
  return sum;
}

// Adds the blocks' weight gradients, and splits those of scale * coef: one warp per edge and per bias.
template <class A, int T>
__global__ void __launch_bounds__(kStackThreads) stack_sum_kernel(const __grid_constant__ StackArgs<A, T> a) {
  int e = static_cast<int>((blockIdx.x * kStackThreads + threadIdx.x) / kWarp), l = 0;
  while (l < a.s.depth && e >= a.edges_and_biases(l)) e -= a.edges_and_biases(l++);
  if (l == a.s.depth) return;
  const Problem& p = a.s.layer[l];
  const View &scale = a.s.scale[l], &c = p.coef;
  const int O = static_cast<int>(p.O), i = e / O, o = e % O;
  const bool first = threadIdx.x % kWarp == 0;
  if (i == p.I) {
    const A sum = stack_sum(a, a.bias[l] + o);
    if (first) static_cast<A*>(a.s.grad_bias[l])[o] = sum;
    return;
  }
  const A factor = scale ? number<A>(scale, i * scale.stride[0] + o * scale.stride[1]) : A(1);
  A of_scale = A(0);
  for (int f = 0; f < p.F; ++f) {
    const int q = (i * p.F + f) * O + o;
    const A sum = stack_sum(a, a.coef[l] + q);
    if (first) static_cast<A*>(p.grad_coef)[q] = sum * factor;
    if (scale) of_scale += sum * number<A>(c, i * c.stride[0] + f * c.stride[1] + o * c.stride[2]);
  }
  if (scale && first) static_cast<A*>(a.s.grad_scale[l])[e] = of_scale;
  if (!p.with_base) return;
  const A sum = stack_sum(a, a.base[l] + e);
  if (first) static_cast<A*>(p.grad_base)[e] = sum;
}

// As many rows per block as fit, but few enough that every multiprocessor has work; then as many inputs per step as
// fit.
template <class A, int T>
StackArgs<A, T> plan_stack(const Stack& s, bool backward, int processors) {
  StackArgs<A, T> a = {};
  a.s = s;
  for (int l = 0; l < s.depth; ++l) {
    const Problem& p = s.layer[l];
    const bool exact = !p.uniform || T + backward >= p.K;
    a.shape[l] = Shape{p.F, p.K, p.M, p.outside, p.uniform, exact, 1.0 / (p.M - 1)};
    const int I = static_cast<int>(p.I), O = static_cast<int>(p.O);
    a.coef[l] = a.weights;
    a.base[l] = a.coef[l] + I * p.F * O;
    a.bias[l] = a.base[l] + I * O;
    a.weights = a.bias[l] + O;
    a.knots[l + 1] = a.knots[l] + I;
    a.nodes[l + 1] = a.nodes[l] + I;
    a.widest = static_cast<int>(max(a.widest, max(I, O)));
  }
  for (int d = 0; d <= T + 1; ++d) a.silu[d] = BaseFunction<A>::of(Base::silu, d);
  const auto bytes = [&] { return shared_bytes<StackShared<A, T>>(a, backward); };
  a.rows = kMaxStackRows;
  a.inputs = 1;
  while (a.rows > kRequiredStackRows && bytes() > kMaxStackShared) a.rows /= 2;
  if (bytes() > kMaxStackShared)
    throw std::runtime_error("the layers take " + std::to_string(bytes()) +
                             " bytes of the shared memory of a GPU's block: expected at most " +
                             std::to_string(kMaxStackShared));
  while (a.rows > kMinStackRows && ceil_div(s.N, a.rows) < processors) a.rows /= 2;
  a.inputs = a.widest;
  while (a.inputs > 1 && bytes() > kMaxStackShared) a.inputs = (a.inputs + 1) / 2;
  a.blocks = min(ceil_div(s.N, a.rows), 2 * processors);
  return a;
}

template <class A, int T, bool BACKWARD>
void run_stack(const Stack& s, const Device& device) {
  StackArgs<A, T> a = plan_stack<A, T>(s, BACKWARD, device.processors);
  if (BACKWARD && s.with_weights) a.parts = device.take<A>(a.blocks * a.weights);
  launch("stack", stack_kernel<A, T, BACKWARD>, a.blocks, kStackThreads, shared_bytes<StackShared<A, T>>(a, BACKWARD),
         device, a);
  if (!BACKWARD || !s.with_weights) return;
  int64_t warps = 0;
  for (int l = 0; l < s.depth; ++l) warps += a.edges_and_biases(l);
  launch("stack_sum", stack_sum_kernel<A, T>, ceil_div(warps * kWarp, kStackThreads), kStackThreads, 0, device, a);
}

template <class A, bool BACKWARD>
void stack(const Stack& s, const Device& device) {
  if (s.tangents > kMaxStackTangents) throw std::runtime_error("tangents: expected at most 2 on a GPU");
  s.tangents == 0   ? run_stack<A, 0, BACKWARD>(s, device)
  : s.tangents == 1 ? run_stack<A, 1, BACKWARD>(s, device)
                    : run_stack<A, 2, BACKWARD>(s, device);
}

}  // namespace fastkan
