// The operators for a whole stack of layers, for any device: argument checks and plain structs. The mathematics is in
// fastkan/stack.py. Backend is that of operators.h, with two more members:
//   Backend::stack_out(stack, x), stack_backward
#pragma once

#include <exception>
#include <vector>

#include "operators.h"

namespace fastkan {

template <class Backend>
struct StackOperators {
  using Layers = Operators<Backend>;
  using Tensors = std::vector<Tensor>;
  using Maybes = std::vector<Maybe>;

  static Stack stack(const Tensor& x, const Tensors& tangents, const Maybes& weights, const Tensors& grids,
                     const std::vector<int64_t>& specs) {
    Stack s{};
    const size_t depth = grids.size();
    STD_TORCH_CHECK(x.dim() == 2, "x has ", x.dim(), " dimensions: expected 2");
    STD_TORCH_CHECK(depth >= 1 && depth <= kMaxLayers, "grids has ", depth, " layers: expected 1 to ", kMaxLayers);
    STD_TORCH_CHECK(weights.size() == kWeights * depth, "weights has ", weights.size(), " entries: expected ", kWeights,
                    " for each of ", depth, " layers");
    STD_TORCH_CHECK(specs.size() == kSpec * depth, "specs has ", specs.size(), " entries: expected ", kSpec,
                    " for each of ", depth, " layers");
    STD_TORCH_CHECK(tangents.size() <= kMaxTangents, "tangents has ", tangents.size(), " entries: expected at most ",
                    kMaxTangents);
    s.N = x.size(0);
    s.depth = static_cast<int>(depth);
    s.tangents = static_cast<int>(tangents.size());
    s.x = Layers::view("x", x, x);
    s.dtype = s.x.dtype;
    STD_TORCH_CHECK(s.dtype == Dtype::f32 || s.dtype == Dtype::f64,
                    "x has a dtype of 16 bits: expected float32 or float64");
    int64_t width = x.size(1);
    for (size_t l = 0; l < depth; ++l) {
      try {
        layer(s, l, width, x, &weights[kWeights * l], grids[l], &specs[kSpec * l]);
      } catch (const std::exception& e) {
        STD_TORCH_CHECK(false, "layer ", l, ": ", e.what());
      }
      width = s.layer[l].O;
    }
    for (size_t t = 0; t < tangents.size(); ++t)
      s.tangent[t] = same_dtype(s, "tangents", tangents[t], x, {s.N, x.size(1)});
    return s;
  }

  static void layer(Stack& s, size_t l, int64_t width, const Tensor& x, const Maybe* weights, const Tensor& grid,
                    const int64_t* spec) {
    STD_TORCH_CHECK(weights[0] && weights[0]->dim() == 3, "coef is missing or has another number of dimensions than 3");
    const Tensor& coef = *weights[0];
    const int64_t I = coef.size(0), O = coef.size(2);
    STD_TORCH_CHECK(I == width && I > 0 && O > 0, "coef is for ", I, " inputs and ", O, " outputs: expected ", width,
                    " inputs, and at least 1 of each");
    STD_TORCH_CHECK(spec[4] == static_cast<int64_t>(Family::bspline), "family=", spec[4],
                    ": expected 0, since stacks are of B-splines");
    Problem& p = s.layer[l];
    p = Layers::geometry(x, I, O, grid, spec[0], spec[1], spec[2], spec[3] != 0, spec[4], 0);
    p.coef = same_dtype(s, "coef", coef, x, {I, p.F, O});
    if (weights[1]) s.scale[l] = same_dtype(s, "scale", *weights[1], x, {I, O});
    if (weights[2]) p.base_weight = same_dtype(s, "base_weight", *weights[2], x, {I, O});
    if (weights[3]) p.bias = same_dtype(s, "bias", *weights[3], x, {O});
    p.with_base = weights[2].has_value();
    p.compute = p.out_dtype = p.grad_x_dtype = p.grad_coef_dtype = s.dtype;
  }

  static View same_dtype(const Stack& s, const char* name, const Tensor& t, const Tensor& x,
                         std::initializer_list<int64_t> shape) {
    expect(name, t, shape);
    const View v = Layers::view(name, t, x);
    STD_TORCH_CHECK(v.dtype == s.dtype, name, " has another dtype than x: expected the same");
    return v;
  }

  static Tensor out(Tensor x, Tensors tangents, Maybes weights, Tensors grids, std::vector<int64_t> specs) {
    Stack s = stack(x, tangents, weights, grids, specs);
    Tensor y = Operators<Backend>::result(x, {s.N, s.layer[s.depth - 1].O});
    s.out = y.mutable_data_ptr();
    if (s.N > 0) Backend::stack_out(s, x);
    return y;
  }

  // The gradients of x (if with_x), the tangents (if with_tangents) and the weights that are present (if
  // with_weights).
  static Tensors backward(Tensor x, Tensors tangents, Tensor u, Maybes weights, Tensors grids,
                          std::vector<int64_t> specs, bool with_x, bool with_tangents, bool with_weights) {
    Stack s = stack(x, tangents, weights, grids, specs);
    s.u = same_dtype(s, "u", u, x, {s.N, s.layer[s.depth - 1].O});
    s.with_x = with_x;
    s.with_tangents = with_tangents;
    s.with_weights = with_weights;
    Tensors grads;
    grads.reserve(1 + tangents.size() + weights.size());
    const auto result = [&](std::initializer_list<int64_t> shape) {
      grads.push_back(Operators<Backend>::result(x, shape, s.N == 0));
      return grads.back().mutable_data_ptr();
    };
    if (with_x) s.grad_x = result({s.N, x.size(1)});
    for (int t = 0; with_tangents && t < s.tangents; ++t) s.grad_tangent[t] = result({s.N, x.size(1)});
    for (int l = 0; with_weights && l < s.depth; ++l) {
      Problem& p = s.layer[l];
      p.grad_coef = result({p.I, p.F, p.O});
      if (s.scale[l]) s.grad_scale[l] = result({p.I, p.O});
      if (p.with_base) p.grad_base = result({p.I, p.O});
      if (p.bias) s.grad_bias[l] = result({p.O});
    }
    if (s.N > 0 && !grads.empty()) Backend::stack_backward(s, x);
    return grads;
  }
};

}  // namespace fastkan
