// The operators of fastkan/ops.py for any device: argument checks, and plain structs for the kernels. A device's
// register.cpp provides
//   Backend::result(like, shape, dtype, zero)   a contiguous tensor on the device of `like`, uninitialised or zero
//   Backend::expect_same_device(x, name, t)     an error that names t if it is on another device than x
//   Backend::in_rows(u)                         a cotangent, copied if the kernels read it faster from another layout
//   Backend::equidistant(problem)               whether all knots are equidistant, if it can read them
//   Backend::kan_out(problem, x), kan_backward, edge_moments
#pragma once

#include <initializer_list>
#include <string>
#include <tuple>

#include "../basis/silu.h"
#include "problem.h"
#include "tensor.h"

namespace fastkan {

inline Dtype dtype_of(const char* name, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return Dtype::f32;
    case ScalarType::Double:
      return Dtype::f64;
    case ScalarType::BFloat16:
      return Dtype::bf16;
    case ScalarType::Half:
      return Dtype::f16;
    default:
      STD_TORCH_CHECK(false, name, " has an unsupported dtype: expected float32, float64, bfloat16 or float16");
  }
}

inline void expect(const char* name, const Tensor& t, std::initializer_list<int64_t> shape) {
  bool same = t.dim() == static_cast<int64_t>(shape.size());
  int64_t d = 0;
  for (int64_t size : shape) same = same && t.size(d++) == size;
  if (same) return;
  std::string expected, got;
  for (int64_t size : shape) expected += (expected.empty() ? "" : ", ") + std::to_string(size);
  for (d = 0; d < t.dim(); ++d) got += (got.empty() ? "" : ", ") + std::to_string(t.size(d));
  STD_TORCH_CHECK(false, name, " has shape [", got, "]: expected [", expected, "]");
}

inline void expect(const char* name, const Maybe& t, std::initializer_list<int64_t> shape) {
  if (t) expect(name, *t, shape);
}

inline bool empty(const Problem& p) { return p.N == 0 || p.I == 0 || p.O == 0; }

inline Dtype accumulator(const View& a, const View& b) {
  return a.dtype == Dtype::f64 || b.dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
}

// The torch dtype of the computation.
inline int32_t compute_dtype(const Problem& p) {
  return static_cast<int32_t>(p.compute == Dtype::f64 ? ScalarType::Double : ScalarType::Float);
}

template <class Backend, Products PRODUCTS = Products::stored>
struct Operators {
  static Tensor result(const Tensor& like, std::initializer_list<int64_t> shape, bool zero = false) {
    return Backend::result(like, shape, scalar_type_of(like), zero);
  }

  static View view(const char* name, const Tensor& t, const Tensor& x) {
    Backend::expect_same_device(x, name, t);
    View v;
    v.data = t.const_data_ptr();
    v.dtype = dtype_of(name, t);
    for (int64_t d = 0; d < t.dim(); ++d) v.stride[d] = t.stride(d);
    return v;
  }
  static View view(const char* name, const Maybe& t, const Tensor& x) { return t ? view(name, *t, x) : View{}; }

  // The part of a Problem that all operators share: shape, knots and derivative order. The caller keeps `grid` alive
  // while the kernels run.
  static Problem geometry(const Tensor& x, int64_t I, int64_t O, const Tensor& grid, int64_t degree, int64_t base,
                          int64_t outside, bool uniform, int64_t family, int64_t order) {
    STD_TORCH_CHECK(family >= 0 && family < kFamilies, "family=", family, ": expected 0 to ", kFamilies - 1);
    STD_TORCH_CHECK(family == 0 || (degree == 0 && uniform), "degree=", degree, ", uniform=", uniform,
                    ": expected 0 and true with family=", family);
    STD_TORCH_CHECK(x.dim() == 2, "x has ", x.dim(), " dimensions: expected 2");
    STD_TORCH_CHECK(degree >= 0 && degree <= 5, "degree=", degree, ": expected 0 to 5");
    STD_TORCH_CHECK(base >= 0 && base <= 2, "base=", base, ": expected 0 to 2");
    STD_TORCH_CHECK(outside >= 0 && outside <= 2, "outside=", outside, ": expected 0 to 2");
    STD_TORCH_CHECK(order >= 0 && order < kMaxOrder, "order=", order, ": expected 0 to ", kMaxOrder - 1);
    STD_TORCH_CHECK(grid.dim() == 2 && grid.scalar_type() == ScalarType::Double, "grid has ", grid.dim(),
                    " dimensions or another dtype than float64: expected float64 [I, M]");
    Problem p;
    p.N = x.size(0);
    p.I = I;
    p.O = O;
    p.K = static_cast<int>(degree);
    p.M = static_cast<int>(grid.size(1));
    p.F = p.M - p.K - 1;
    p.order = static_cast<int>(order);
    p.x_order = p.order;
    expect("grid", grid, {I, p.M});
    STD_TORCH_CHECK(p.F > p.K, "grid has ", p.M, " knots: expected at least 2 * degree + 2 = ", 2 * p.K + 2);
    STD_TORCH_CHECK(grid.stride(1) == 1 || p.M == 1, "grid's knots have stride ", grid.stride(1), ": expected 1");
    Backend::expect_same_device(x, "grid", grid);
    p.base = static_cast<Base>(base);
    p.outside = static_cast<Outside>(outside);
    p.family = static_cast<Family>(family);
    p.uniform = uniform;
    p.products = PRODUCTS;
    p.grid = static_cast<const double*>(grid.const_data_ptr());
    p.grid_stride = grid.stride(0);
    p.equidistant = uniform || Backend::equidistant(p);
    p.with_base = false;
    return p;
  }

  static Problem problem(const Tensor& x, int64_t I, int64_t O, const Tensor& grid, int64_t degree, int64_t base,
                         int64_t outside, bool uniform, int64_t family, int64_t order) {
    Problem p = geometry(x, I, O, grid, degree, base, outside, uniform, family, order);
    expect("x", x, {p.N, I});
    p.x = view("x", x, x);
    return p;
  }

  static void set_weights(Problem& p, const Tensor& x, const Tensor& coef, const Maybe& base_weight) {
    expect("coef", coef, {p.I, p.F, p.O});
    expect("base_weight", base_weight, {p.I, p.O});
    p.coef = view("coef", coef, x);
    p.base_weight = view("base_weight", base_weight, x);
    p.with_base = base_weight.has_value();
    p.compute = accumulator(p.x, p.coef);
  }

  static Tensor kan_out(Tensor x, Maybe s, Tensor coef, Maybe base_weight, Maybe bias, Tensor grid, int64_t degree,
                        int64_t base, int64_t outside, bool uniform, int64_t family, int64_t order) {
    STD_TORCH_CHECK(coef.dim() == 3, "coef has ", coef.dim(), " dimensions: expected 3");
    Problem p = problem(x, coef.size(0), coef.size(2), grid, degree, base, outside, uniform, family, order);
    set_weights(p, x, coef, base_weight);
    expect("s", s, {p.N, p.I});
    expect("bias", bias, {p.O});
    p.s = view("s", s, x);
    p.bias = view("bias", bias, x);
    Tensor y = result(coef, {p.N, p.O}, empty(p));
    p.out = y.mutable_data_ptr();
    p.out_dtype = p.coef.dtype;
    if (!empty(p)) {
      Backend::kan_out(p, x);
    } else if (bias) {  // no inputs: the bias alone
      copy_values(y, *bias);
    }
    return y;
  }

  static Tensor kan_in(Tensor x, Tensor u, Tensor coef, Maybe base_weight, Tensor grid, int64_t degree, int64_t base,
                       int64_t outside, bool uniform, int64_t family, int64_t order) {
    STD_TORCH_CHECK(coef.dim() == 3, "coef has ", coef.dim(), " dimensions: expected 3");
    Problem p = problem(x, coef.size(0), coef.size(2), grid, degree, base, outside, uniform, family, order);
    set_weights(p, x, coef, base_weight);
    expect("u", u, {p.N, p.O});
    u = Backend::in_rows(u);
    p.u = view("u", u, x);
    Tensor grad_x = result(x, {p.N, p.I}, empty(p));
    p.grad_x = grad_x.mutable_data_ptr();
    p.grad_x_dtype = p.x.dtype;
    if (!empty(p)) Backend::kan_backward(p, x);
    return grad_x;
  }

  static void set_coef_results(Problem& p, const Tensor& grad_coef, const Tensor& grad_base) {
    p.grad_coef = grad_coef.mutable_data_ptr();
    p.grad_base = grad_base.mutable_data_ptr();
    p.grad_coef_dtype = dtype_of("u", grad_coef);
  }

  static std::tuple<Tensor, Tensor> kan_coef(Tensor x, Maybe s, Tensor u, Tensor grid, int64_t degree, int64_t base,
                                             int64_t outside, bool uniform, int64_t family, int64_t order,
                                             bool with_base) {
    STD_TORCH_CHECK(u.dim() == 2, "u has ", u.dim(), " dimensions: expected 2");
    STD_TORCH_CHECK(x.dim() == 2, "x has ", x.dim(), " dimensions: expected 2");
    Problem p = problem(x, x.size(1), u.size(1), grid, degree, base, outside, uniform, family, order);
    expect("u", u, {p.N, p.O});
    expect("s", s, {p.N, p.I});
    u = Backend::in_rows(u);
    p.u = view("u", u, x);
    p.s = view("s", s, x);
    p.with_base = with_base;
    p.compute = accumulator(p.x, p.u);
    Tensor grad_coef = result(u, {p.I, p.F, p.O}, empty(p));
    Tensor grad_base = result(u, {with_base ? p.I : 0, p.O}, empty(p));
    set_coef_results(p, grad_coef, grad_base);
    if (!empty(p)) Backend::kan_backward(p, x);
    return {grad_coef, grad_base};
  }

  // The gradients of x (if with_x), coef and base_weight in one launch.
  static std::tuple<Tensor, Tensor, Tensor> all_gradients(Problem& p, const Tensor& x, const Tensor& coef,
                                                          bool with_x = true) {
    Tensor grad_x = result(x, {with_x ? p.N : 0, p.I}, empty(p));
    Tensor grad_coef = result(coef, {p.I, p.F, p.O}, empty(p));
    Tensor grad_base = result(coef, {p.with_base ? p.I : 0, p.O}, empty(p));
    if (with_x) p.grad_x = grad_x.mutable_data_ptr();
    p.grad_x_dtype = p.x.dtype;
    set_coef_results(p, grad_coef, grad_base);
    if (!empty(p)) Backend::kan_backward(p, x);
    return {grad_x, grad_coef, grad_base};
  }

  static std::tuple<Tensor, Tensor, Tensor> kan_backward(Tensor x, Maybe s, Tensor u, Tensor coef, Maybe base_weight,
                                                         Tensor grid, int64_t degree, int64_t base, int64_t outside,
                                                         bool uniform, int64_t family, int64_t order) {
    STD_TORCH_CHECK(coef.dim() == 3, "coef has ", coef.dim(), " dimensions: expected 3");
    Problem p = problem(x, coef.size(0), coef.size(2), grid, degree, base, outside, uniform, family, order);
    set_weights(p, x, coef, base_weight);
    expect("u", u, {p.N, p.O});
    expect("s", s, {p.N, p.I});
    u = Backend::in_rows(u);
    p.u = view("u", u, x);
    p.s = view("s", s, x);
    p.x_order = p.order + 1;
    return all_gradients(p, x, coef);
  }

  static Tensor edge_moments(Tensor x, Tensor coef, Maybe base_weight, Tensor grid, int64_t degree, int64_t base,
                             int64_t outside, bool uniform, int64_t family) {
    STD_TORCH_CHECK(coef.dim() == 3, "coef has ", coef.dim(), " dimensions: expected 3");
    Problem p = problem(x, coef.size(0), coef.size(2), grid, degree, base, outside, uniform, family, 0);
    set_weights(p, x, coef, base_weight);
    Tensor moments = Backend::result(coef, {3, p.I, p.O}, compute_dtype(p));
    p.out = moments.mutable_data_ptr();
    p.out_dtype = p.compute;
    if (p.I > 0 && p.O > 0) Backend::edge_moments(p, x);  // no rows: 0 / 0 = NaN
    return moments;
  }

  static std::tuple<Tensor, Tensor, Tensor> edge_backward(Tensor x, Maybe u, Tensor terms, Tensor coef,
                                                          Maybe base_weight, Tensor grid, int64_t degree, int64_t base,
                                                          int64_t outside, bool uniform, int64_t family, bool with_x) {
    STD_TORCH_CHECK(coef.dim() == 3, "coef has ", coef.dim(), " dimensions: expected 3");
    Problem p = problem(x, coef.size(0), coef.size(2), grid, degree, base, outside, uniform, family, 0);
    set_weights(p, x, coef, base_weight);
    expect("u", u, {p.N, p.O});
    expect("terms", terms, {3, p.I, p.O});
    if (u) u = Backend::in_rows(*u);
    p.u = view("u", u, x);
    p.terms = view("terms", terms, x);
    STD_TORCH_CHECK(p.terms.dtype == p.compute, "terms has another dtype than is computed in: expected ",
                    p.compute == Dtype::f64 ? "float64" : "float32");
    p.x_order = 1;
    return all_gradients(p, x, coef, with_x);
  }
};

}  // namespace fastkan
