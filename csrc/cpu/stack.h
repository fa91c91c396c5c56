// A stack of layers, one block of rows at a time, with the kernels of a layer. With h_A the derivative of a layer's
// input along the tangents in a subset A, the derivatives of its output are
//   h'_A = sum_d out_d(h; s_{A,d}),   s_{A,d} = sum over partitions of A into d parts of the products of their h
// and with u_A the gradient by h'_A
//   the gradient by coef is sum_{A,d} coef_d(h; s_{A,d}, u_A)
//   the gradient by h    is sum_{A,d} s_{A,d} in_{d+1}(h; u_A)
//   the gradient by h_B  is sum_{A,d} s_{A-B,d-1} in_d(h; u_A), A with all of B.
// Nothing is saved for the backward: it repeats the forward of a block, and goes back while its activations are in
// the cache.
#pragma once

#include "kan_backward.h"
#include "kan_out.h"

namespace fastkan {
namespace {

// Rows of a block; maximum number of tasks, each with partial sums over its rows.
constexpr int64_t kStackRows = 256, kStackTasks = 64;
constexpr int kSubsets = 1 << kMaxTangents;
static_assert(kMaxTangents <= 3, "add_products keeps one product");

// Scratch of a thread, in addition to that of the layers' kernels.
inline Scratch& stack_scratch() {
  static thread_local Scratch s;
  return s;
}

template <class T>
View rows_of(const T* data, int64_t columns) {
  return {data, {columns, 1, 0}, kDtype<T>};
}

template <class T>
void add(T* to, const T* from, int64_t count) {
  for (int64_t k = 0; k < count; ++k) to[k] += from[k];
}

// The split into tasks, which is independent of the number of threads, and the data they share.
template <class T>
struct StackPlan {
  const Stack& s;
  int64_t blocks, tasks, widest, largest;  // most nodes, and most weights, of a layer
  int64_t begin[kMaxLayers + 1];           // offset of a layer's gradients: coef, base_weight, bias
  Problem layer[kMaxLayers];
  T* part = nullptr;  // [tasks, begin[depth]]

  explicit StackPlan(const Stack& stack) : s(stack), widest(0), largest(0) {
    blocks = ceil_div(s.N, kStackRows);
    tasks = min(blocks, kStackTasks);
    begin[0] = 0;
    for (int l = 0; l < s.depth; ++l) {
      layer[l] = s.layer[l];
      const int64_t size = coef_size(l) + edges(l) + layer[l].O;
      begin[l + 1] = begin[l] + size;
      largest = max(largest, size);
      widest = max(widest, max(layer[l].I, layer[l].O));
    }
  }
  int64_t edges(int l) const { return layer[l].I * layer[l].O; }
  int64_t coef_size(int l) const { return edges(l) * layer[l].F; }
  int64_t width(int l) const { return l == 0 ? layer[0].I : layer[l - 1].O; }
  int subsets() const { return 1 << s.tangents; }
};

// Forward and backward of one block of rows.
template <class T>
class StackBlock {
 public:
  explicit StackBlock(const StackPlan<T>& plan) : plan_(plan), s_(plan.s), memory_(stack_scratch()) {
    const int64_t wide = kStackRows * plan.widest;
    size_t bytes = (2 * plan.subsets() + 4) * Scratch::bytes<T>(wide) + Scratch::bytes<T>(plan.largest);
    for (int l = 0; l < s_.depth; ++l) bytes += plan.subsets() * Scratch::bytes<T>(kStackRows * plan.width(l));
    memory_.reserve(bytes);
    for (int l = 0; l < s_.depth; ++l)
      for (int A = 0; A < plan.subsets(); ++A) of_h_[l][A] = memory_.take<T>(kStackRows * plan.width(l));
    for (int A = 0; A < plan.subsets(); ++A)
      for (auto& side : of_u_) side[A] = memory_.take<T>(wide);
    product_ = memory_.take<T>(wide);
    weight_ = memory_.take<T>(wide);
    rest_ = memory_.take<T>(wide);
    term_ = memory_.take<T>(wide);
    grads_ = memory_.take<T>(plan.largest);
  }

  void forward(int64_t block) {
    load_inputs(block);
    const int last = s_.depth - 1, all = plan_.subsets() - 1;
    for (int l = 0; l < last; ++l) layer_forward(l);
    output(last, all, static_cast<T*>(s_.out) + n0_ * plan_.layer[last].O);
  }

  // Adds the gradients of the weights to `part`.
  void backward(int64_t block, T* part) {
    load_inputs(block);
    for (int l = 0; l + 1 < s_.depth; ++l) layer_forward(l);
    const int all = plan_.subsets() - 1;
    T* grad_out[kSubsets] = {};
    load(grad_out[all] = of_u_[s_.depth % 2][all], s_.u, plan_.layer[s_.depth - 1].O);
    for (int l = s_.depth - 1; l >= 0; --l) layer_backward(l, grad_out, of_u_[l % 2], part + plan_.begin[l]);
    if (s_.with_x) store_gradient(grad_out[0], s_.grad_x);
    for (int t = 0; s_.with_tangents && t < s_.tangents; ++t) store_gradient(grad_out[1 << t], s_.grad_tangent[t]);
  }

 private:
  static int first_order(int A) { return A != 0; }
  static int last_order(int A) { return __builtin_popcount(static_cast<unsigned>(A)); }

  void load_inputs(int64_t block) {
    n0_ = block * kStackRows;
    rows_ = min(kStackRows, s_.N - n0_);
    for (int A = 1; A < plan_.subsets(); ++A) h_[0][A] = nullptr;
    load(h_[0][0] = of_h_[0][0], s_.x, plan_.width(0));
    for (int t = 0; t < s_.tangents; ++t) load(h_[0][1 << t] = of_h_[0][1 << t], s_.tangent[t], plan_.width(0));
  }

  void load(T* to, const View& from, int64_t columns) const {
    load_block(to, columns, 1, from, n0_ * from.stride[0], from.stride[0], from.stride[1], rows_, columns);
  }

  void store_gradient(const T* from, void* result) const {
    const size_t bytes = static_cast<size_t>(rows_ * plan_.width(0)) * sizeof(T);
    T* to = static_cast<T*>(result) + n0_ * plan_.width(0);
    from ? void(memcpy(to, from, bytes)) : void(memset(to, 0, bytes));
  }

  void layer_forward(int l) {
    for (int A = 0; A < plan_.subsets(); ++A) output(l, A, h_[l + 1][A] = of_h_[l + 1][A]);
  }

  // h'_A of layer l.
  void output(int l, int A, T* to) {
    const int64_t size = rows_ * plan_.layer[l].O;
    bool first = true;
    for (int d = first_order(A); d <= last_order(A); ++d) {
      const T* weight = tangent_weight(l, A, d, weight_);
      if (A && !weight) continue;
      Problem p = problem(l, weight, d);
      if (A) p.bias = View{};
      p.out = first ? to : term_;
      kan_out<T>(p, kSerial);
      if (!first) add(to, term_, size);
      first = false;
    }
    if (first) memset(to, 0, static_cast<size_t>(size) * sizeof(T));
  }

  // s_{A,d} of layer l; null if it is zero, or if A is empty (where it is 1).
  const T* tangent_weight(int l, int A, int d, T* to) {
    if (A == 0) return nullptr;
    if (d == 1) return h_[l][A];
    memset(to, 0, static_cast<size_t>(rows_ * plan_.width(l)) * sizeof(T));
    return add_products(l, A, d, nullptr, to) ? to : nullptr;
  }

  // Adds factor * s_{A,d} by recursion: the block with the first tangent of A, then partitions of the remaining
  // tangents.
  bool add_products(int l, int A, int d, const T* factor, T* to) {
    const int64_t size = rows_ * plan_.width(l);
    if (d == 1) {
      const T* h = h_[l][A];
      for (int64_t k = 0; h && k < size; ++k) to[k] += factor[k] * h[k];
      return h != nullptr;
    }
    bool any = false;
    for (int B = (A - 1) & A; B; B = (B - 1) & A) {
      const T* h = h_[l][B];
      if (!(B & A & -A) || last_order(A ^ B) < d - 1 || !h) continue;
      for (int64_t k = 0; factor && k < size; ++k) product_[k] = factor[k] * h[k];
      any |= add_products(l, A ^ B, d - 1, factor ? product_ : h, to);
    }
    return any;
  }

  Problem problem(int l, const T* weight, int order) const {
    Problem p = plan_.layer[l];
    p.N = rows_;
    p.x = rows_of(h_[l][0], p.I);
    if (weight) p.s = rows_of(weight, p.I);
    p.order = p.x_order = order;
    p.grad_coef = p.grad_base = nullptr;
    return p;
  }

  // Backward of layer l: replaces the gradients by its outputs by those by its inputs, which are written to
  // `buffers`.
  void layer_backward(int l, T** grad_out, T** buffers, T* part) {
    const bool of_h = l > 0 || s_.with_x, of_parts = l > 0 || s_.with_tangents;
    T* grad_in[kSubsets] = {};
    for (int A = 0; A < plan_.subsets(); ++A) {
      if (!grad_out[A]) continue;
      if (A == 0 && s_.with_weights && s_.grad_bias[l]) add_bias(l, grad_out[0], part);
      for (int d = first_order(A); d <= last_order(A); ++d) {
        const T* weight = tangent_weight(l, A, d, weight_);
        if (weight || A == 0) value_gradients(l, d, weight, grad_out[A], of_h, grad_in, buffers, part);
        if (A && of_parts) tangent_gradients(l, A, d, grad_out[A], grad_in, buffers);
      }
    }
    memcpy(grad_out, grad_in, sizeof(grad_in));
  }

  // Gradients of the weights and of h.
  void value_gradients(int l, int d, const T* weight, const T* u, bool of_h, T** grad_in, T** buffers, T* part) {
    if (!of_h && !s_.with_weights) return;
    Problem p = problem(l, weight, d);
    p.u = rows_of(u, p.O);
    p.x_order = d + 1;
    if (of_h) p.grad_x = grad_in[0] ? term_ : buffers[0];
    if (s_.with_weights) {
      p.grad_coef = grads_;
      p.grad_base = grads_ + plan_.coef_size(l);
    }
    kan_backward<T>(p, kSerial);
    if (of_h && grad_in[0]) add(grad_in[0], term_, rows_ * p.I);
    if (of_h) grad_in[0] = buffers[0];
    if (s_.with_weights) add(part, grads_, plan_.coef_size(l) + (p.with_base ? plan_.edges(l) : 0));
  }

  // Gradients of the h_B; at the first layer only single tangents are non-zero.
  void tangent_gradients(int l, int A, int d, const T* u, T** grad_in, T** buffers) {
    const int64_t size = rows_ * plan_.width(l);
    bool ready = false;
    for (int B = A; B; B = (B - 1) & A) {
      if (l == 0 && last_order(B) > 1) continue;
      if ((d == 1) != (B == A)) continue;
      const T* rest = d == 1 ? nullptr : tangent_weight(l, A ^ B, d - 1, rest_);
      if (d > 1 && !rest) continue;
      if (!ready) {
        Problem p = problem(l, nullptr, d);
        p.u = rows_of(u, p.O);
        p.grad_x = term_;
        kan_backward<T>(p, kSerial);
        ready = true;
      }
      if (!grad_in[B]) memset(grad_in[B] = buffers[B], 0, static_cast<size_t>(size) * sizeof(T));
      for (int64_t k = 0; k < size; ++k) grad_in[B][k] += rest ? rest[k] * term_[k] : term_[k];
    }
  }

  void add_bias(int l, const T* u, T* part) const {
    const int64_t O = plan_.layer[l].O;
    T* to = part + plan_.coef_size(l) + plan_.edges(l);
    for (int64_t n = 0; n < rows_; ++n) add(to, u + n * O, O);
  }

  static void run_serially(int64_t tasks, void (*task)(int64_t, const void*), const void* context) {
    for (int64_t t = 0; t < tasks; ++t) task(t, context);
  }
  static constexpr Pool kSerial = {run_serially, 1};

  const StackPlan<T>& plan_;
  const Stack& s_;
  Scratch& memory_;
  int64_t n0_ = 0, rows_ = 0;
  T *h_[kMaxLayers][kSubsets] = {}, *of_h_[kMaxLayers][kSubsets], *of_u_[2][kSubsets];
  T *product_, *weight_, *rest_, *term_, *grads_;
};

// coef multiplied by the edge scales, shared by all tasks.
template <class T>
class ScaledCoef {
 public:
  explicit ScaledCoef(StackPlan<T>& plan) {
    int64_t size = 0;
    for (int l = 0; l < plan.s.depth; ++l) size += plan.s.scale[l] ? plan.coef_size(l) + plan.edges(l) : 0;
    if (!size) return;
    data_.reserve(Scratch::bytes<T>(size) + 2 * kMaxLayers * 64);
    for (int l = 0; l < plan.s.depth; ++l)
      if (plan.s.scale[l]) multiply(plan, l);
  }

  // Gradients of coef and of scale, from that of their product.
  void split(const StackPlan<T>& plan, int l, const T* product) const {
    const Problem& p = plan.layer[l];
    const View& coef = plan.s.layer[l].coef;
    T *grad_coef = static_cast<T*>(p.grad_coef), *grad_scale = static_cast<T*>(plan.s.grad_scale[l]);
    memset(grad_scale, 0, static_cast<size_t>(plan.edges(l)) * sizeof(T));
    for (int64_t i = 0; i < p.I; ++i, grad_scale += p.O)
      for (int64_t f = 0; f < p.F; ++f, grad_coef += p.O, product += p.O)
        for (int64_t o = 0; o < p.O; ++o) {
          grad_coef[o] = product[o] * scale_[l][i * p.O + o];
          grad_scale[o] += product[o] * static_cast<const T*>(
                                            coef.data)[i * coef.stride[0] + f * coef.stride[1] + o * coef.stride[2]];
        }
  }

 private:
  void multiply(StackPlan<T>& plan, int l) {
    Problem& p = plan.layer[l];
    const View& scale = plan.s.scale[l];
    scale_[l] = data_.template take<T>(plan.edges(l));
    load_block(scale_[l], p.O, 1, scale, 0, scale.stride[0], scale.stride[1], p.I, p.O);
    T* to = data_.template take<T>(plan.coef_size(l));
    for (int64_t i = 0; i < p.I; ++i) {
      T* rows = to + i * p.F * p.O;
      load_block(rows, p.O, 1, p.coef, i * p.coef.stride[0], p.coef.stride[1], p.coef.stride[2], p.F, p.O);
      for (int64_t f = 0; f < p.F; ++f)
        for (int64_t o = 0; o < p.O; ++o) rows[f * p.O + o] *= scale_[l][i * p.O + o];
    }
    p.coef = {to, {p.F * p.O, p.O, 1}, kDtype<T>};
  }

  Scratch data_;
  T* scale_[kMaxLayers] = {};
};

template <class T>
void stack_out(const Stack& s, const Pool& pool) {
  StackPlan<T> plan(s);
  ScaledCoef<T> scaled(plan);
  pool.run(
      plan.tasks,
      [](int64_t task, const void* c) {
        const StackPlan<T>& plan = *static_cast<const StackPlan<T>*>(c);
        StackBlock<T> block(plan);
        for (int64_t b = task; b < plan.blocks; b += plan.tasks) block.forward(b);
      },
      &plan);
}

// Adds the tasks' partial gradients in a fixed order.
template <class T>
void add_parts(const StackPlan<T>& plan, const ScaledCoef<T>& scaled) {
  const int64_t size = plan.begin[plan.s.depth];
  for (int64_t task = 1; task < plan.tasks; ++task) add(plan.part, plan.part + task * size, size);
  for (int l = 0; l < plan.s.depth; ++l) {
    const Problem& p = plan.layer[l];
    const T* part = plan.part + plan.begin[l];
    if (plan.s.scale[l])
      scaled.split(plan, l, part);
    else
      memcpy(p.grad_coef, part, static_cast<size_t>(plan.coef_size(l)) * sizeof(T));
    part += plan.coef_size(l);
    if (p.with_base) memcpy(p.grad_base, part, static_cast<size_t>(plan.edges(l)) * sizeof(T));
    part += plan.edges(l);
    if (p.bias) memcpy(plan.s.grad_bias[l], part, static_cast<size_t>(p.O) * sizeof(T));
  }
}

template <class T>
void stack_backward(const Stack& s, const Pool& pool) {
  StackPlan<T> plan(s);
  ScaledCoef<T> scaled(plan);
  Scratch parts;
  const int64_t size = s.with_weights ? plan.tasks * plan.begin[s.depth] : 0;
  parts.reserve(Scratch::bytes<T>(size + 1));
  plan.part = parts.take<T>(size);
  memset(plan.part, 0, static_cast<size_t>(size) * sizeof(T));
  pool.run(
      plan.tasks,
      [](int64_t task, const void* c) {
        const StackPlan<T>& plan = *static_cast<const StackPlan<T>*>(c);
        StackBlock<T> block(plan);
        T* part = plan.s.with_weights ? plan.part + task * plan.begin[plan.s.depth] : nullptr;
        for (int64_t b = task; b < plan.blocks; b += plan.tasks) block.backward(b, part);
      },
      &plan);
  if (s.with_weights) add_parts(plan, scaled);
}

}  // namespace
}  // namespace fastkan
