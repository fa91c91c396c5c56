// Plain structs passed from the operators, which use torch, to the kernels, which do not.
#pragma once

#include <cstdint>

namespace fastkan {

enum class Dtype : int { f32, f64, bf16, f16 };
enum class Base : int { zero, identity, silu };       // as in fastkan/basis/base.py
enum class Outside : int { zero, linear, clamp };     // as in fastkan/basis/bspline.py
enum class Family : int { bspline, rbf, chebyshev };  // as in fastkan/spec.py
// Matrix products on a GPU: of operands as they are stored, of float32 rounded to tf32 too, or none: gathering alone.
enum class Products : int { stored, tf32, none };
constexpr int kFamilies = 3;

// A strided array of up to three dimensions; strides count elements.
struct View {
  const void* data = nullptr;
  int64_t stride[3] = {0, 0, 0};
  Dtype dtype = Dtype::f32;
  constexpr explicit operator bool() const { return data != nullptr; }  // constexpr: usable in device code
};

// One contraction T_order(x; s, coef, u) of N rows, I inputs, O outputs and F basis functions of degree K on M knots.
// Families other than B-splines have degree 0.
struct Problem {
  int64_t N, I, O;
  int F, K, M;
  int order, x_order;  // derivative order of the basis functions; the one for grad_x
  Base base;
  Outside outside;
  Family family;
  bool uniform;         // equidistant knots, asserted by the caller: only the first and last knot of a row are read
  bool equidistant;     // equidistant knots, checked; always true with `uniform`
  const double* grid;   // [I, M]
  int64_t grid_stride;  // 0: all inputs share one row of knots
  bool with_base;
  View x, s, u, coef, base_weight, bias;
  View terms;     // [3, I, O], see edge_backward
  Dtype compute;  // f32 or f64
  Products products;
  // Results, contiguous. Kernels write every element; null: not wanted.
  void *out = nullptr, *grad_x = nullptr, *grad_coef = nullptr, *grad_base = nullptr;
  Dtype out_dtype, grad_x_dtype, grad_coef_dtype;
};

constexpr int kMaxLayers = 8, kMaxTangents = 3;
constexpr int kWeights = 4;  // per layer of a stack: coef, scale, base_weight, bias
constexpr int kSpec = 5;     // integers per layer: degree, base, outside, uniform, family

// A stack of layers f: D^k f(x)[t_1, ..., t_k], or the gradients of its product with u. See fastkan/stack.py.
struct Stack {
  int64_t N;
  int depth, tangents;
  Dtype dtype;  // of everything but the knots: f32 or f64
  View x, tangent[kMaxTangents], u;
  Problem layer[kMaxLayers];                 // shape, knots, weights and their gradients of each layer
  View scale[kMaxLayers];                    // [I, O], multiplies coef
  bool with_x, with_tangents, with_weights;  // which gradients are wanted
  // Results, contiguous.
  void *out = nullptr, *grad_x = nullptr, *grad_tangent[kMaxTangents] = {};
  void *grad_scale[kMaxLayers] = {}, *grad_bias[kMaxLayers] = {};
};

}  // namespace fastkan
