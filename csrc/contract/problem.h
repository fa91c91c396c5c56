// What crosses from the operators, which know torch, to the kernels, which do not: plain structs.
#pragma once

#include <cstdint>

namespace fastkan {

enum class Dtype : int { f32, f64, bf16, f16 };
enum class Base : int { zero, identity, silu };       // as in fastkan/basis/base.py
enum class Outside : int { zero, linear, clamp };     // as in fastkan/basis/bspline.py
enum class Family : int { bspline, rbf, chebyshev };  // as in fastkan/spec.py

// A strided array of up to three dimensions; strides count elements.
struct View {
  const void* data = nullptr;
  int64_t stride[3] = {0, 0, 0};
  Dtype dtype = Dtype::f32;
  constexpr explicit operator bool() const { return data != nullptr; }  // constexpr: nvcc takes it on the device too
};

// One contraction: T_order(x; s, coef, u). N rows, I inputs, O outputs, F functions of degree K on M knots; of families
// other than B-splines the degree is 0.
struct Problem {
  int64_t N, I, O;
  int F, K, M;
  int order, x_order;  // of the features; of those in grad_x
  Base base;
  Outside outside;
  Family family;
  bool uniform;         // equidistant knots by the caller's word: of a row the first and the last are read
  bool even;            // equidistant knots, as they were found; those of a uniform problem are
  const double* grid;   // [I, M]
  int64_t grid_stride;  // of its rows; 0 where one row serves all inputs
  bool with_base;
  View x, s, u, coef, base_weight, bias;
  View terms;     // [3, I, O], see edge_backward
  Dtype compute;  // f32 or f64
  bool tf32;      // whether products of float32 may be those of numbers rounded to tf32
  // Results, contiguous; the kernels write all of them.
  void *out = nullptr, *grad_x = nullptr, *grad_coef = nullptr, *grad_base = nullptr;
  Dtype out_dtype, grad_x_dtype, grad_coef_dtype;
};

constexpr int kMaxLayers = 8, kMaxTangents = 3;
constexpr int kWeights = 4;  // of a layer of a stack: coef, scale, base_weight, bias
constexpr int kSpec = 5;     // integers of a layer: degree, base, outside, uniform, family

// Layers one after the other, f: D^k f(x)[t_1, ..., t_k], or the gradients of its product with u. See fastkan/stack.py.
struct Stack {
  int64_t N;
  int depth, tangents;
  Dtype dtype;  // of all but the knots: f32 or f64
  View x, tangent[kMaxTangents], u;
  Problem layer[kMaxLayers];                 // of a layer its shape, knots, weights and their gradients
  View scale[kMaxLayers];                    // [I, O], of coef
  bool with_x, with_tangents, with_weights;  // which gradients are wanted
  // Results, contiguous.
  void *out = nullptr, *grad_x = nullptr, *grad_tangent[kMaxTangents] = {};
  void *grad_scale[kMaxLayers] = {}, *grad_bias[kMaxLayers] = {};
};

}  // namespace fastkan
