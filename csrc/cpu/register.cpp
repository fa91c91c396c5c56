// The operators of fastkan/ops.py on the CPU: checks, plain structs, and the kernels of this machine's instruction set.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>

#include "../basis/silu.h"
#include "problem.h"

namespace fastkan {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;

// The best that this processor has, or the one that FASTKAN_CPU_ISA names.
const Kernels& choose() {
  const Kernels* sets[] = {
#if defined(__x86_64__)
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vl")
          ? &avx512::kernels
          : nullptr,
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &avx2::kernels : nullptr,
#endif
      &baseline::kernels};
  if (const char* wanted = std::getenv("FASTKAN_CPU_ISA"); wanted && *wanted) {
    for (const Kernels* set : sets)
      if (set && std::strcmp(set->isa, wanted) == 0) return *set;
    STD_TORCH_CHECK(false, "FASTKAN_CPU_ISA=", wanted,
                    ": expected baseline, avx2 or avx512, as far as this processor has them");
  }
  for (const Kernels* set : sets)
    if (set) return *set;
  return baseline::kernels;
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

// Less than this many multiply-adds are not worth waking a thread for.
constexpr double kSerialWork = 1 << 18;

void run_parallel(int64_t tasks, void (*task)(int64_t, const void*), const void* context) {
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) task(t, context);
  });
}
void run_serial(int64_t tasks, void (*task)(int64_t, const void*), const void* context) {
  for (int64_t t = 0; t < tasks; ++t) task(t, context);
}

Pool pool_for(const Problem& p) {
  const double work = static_cast<double>(p.N) * static_cast<double>(p.I) * (static_cast<double>(p.O) + 16) * (p.K + 2);
  if (work < kSerialWork) return {run_serial, 1};
  return {run_parallel, static_cast<int>(torch::stable::get_num_threads())};
}

Dtype dtype_of(const char* name, const Tensor& t) {
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

View view(const char* name, const Tensor& t) {
  View v;
  v.data = t.const_data_ptr();
  v.dtype = dtype_of(name, t);
  for (int64_t d = 0; d < t.dim(); ++d) v.stride[d] = t.stride(d);
  return v;
}

View view(const char* name, const Maybe& t) { return t ? view(name, *t) : View{}; }

void expect(const char* name, const Tensor& t, std::initializer_list<int64_t> shape) {
  bool same = t.dim() == static_cast<int64_t>(shape.size());
  int64_t d = 0;
  for (int64_t size : shape) same = same && t.size(d++) == size;
  if (same) return;
  std::string expected, got;
  for (int64_t size : shape) expected += (expected.empty() ? "" : ", ") + std::to_string(size);
  for (d = 0; d < t.dim(); ++d) got += (got.empty() ? "" : ", ") + std::to_string(t.size(d));
  STD_TORCH_CHECK(false, name, " has shape [", got, "]: expected [", expected, "]");
}

void expect(const char* name, const Maybe& t, std::initializer_list<int64_t> shape) {
  if (t) expect(name, *t, shape);
}

bool empty(const Problem& p) { return p.N == 0 || p.I == 0 || p.O == 0; }

// A contiguous result, uninitialised or zero. Straight through the C interface: the way through the dispatcher costs
// more than the kernel of a small layer.
Tensor result(const Tensor& like, std::initializer_list<int64_t> shape, bool zero = false) {
  int64_t strides[3], size = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = size;
    size *= *(shape.begin() + d);
  }
  int32_t dtype;
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.begin(), strides, dtype,
                                                  aoti_torch_device_type_cpu(), 0, &handle));
  Tensor t(handle);
  if (zero) std::memset(t.mutable_data_ptr(), 0, static_cast<size_t>(size) * t.element_size());
  return t;
}

// What all operators share. `grid` outlives the kernels' run, in the caller.
Problem problem(const Tensor& x, int64_t I, int64_t O, const Tensor& grid, int64_t degree, int64_t base,
                int64_t outside, bool uniform, int64_t family, int64_t order) {
  STD_TORCH_CHECK(family == 0, "family=", family, ": expected 0, B-splines");
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
  expect("x", x, {p.N, I});
  expect("grid", grid, {I, p.M});
  STD_TORCH_CHECK(p.F > p.K, "grid has ", p.M, " knots: expected at least 2 * degree + 2 = ", 2 * p.K + 2);
  STD_TORCH_CHECK(grid.stride(1) == 1 || p.M == 1, "grid's knots have stride ", grid.stride(1), ": expected 1");
  p.base = static_cast<Base>(base);
  p.outside = static_cast<Outside>(outside);
  p.uniform = uniform;
  p.grid = static_cast<const double*>(grid.const_data_ptr());
  p.grid_stride = grid.stride(0);
  p.x = view("x", x);
  p.with_base = false;
  return p;
}

Dtype accumulator(const View& a, const View& b) {
  return a.dtype == Dtype::f64 || b.dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
}

void set_weights(Problem& p, const Tensor& coef, const Maybe& base_weight) {
  expect("coef", coef, {p.I, p.F, p.O});
  expect("base_weight", base_weight, {p.I, p.O});
  p.coef = view("coef", coef);
  p.base_weight = view("base_weight", base_weight);
  p.with_base = base_weight.has_value();
  p.compute = accumulator(p.x, p.coef);
}

Tensor kan_out(Tensor x, Maybe s, Tensor coef, Maybe base_weight, Maybe bias, Tensor grid, int64_t degree, int64_t base,
               int64_t outside, bool uniform, int64_t family, int64_t order) {
  STD_TORCH_CHECK(coef.dim() == 3, "coef has ", coef.dim(), " dimensions: expected 3");
  Problem p = problem(x, coef.size(0), coef.size(2), grid, degree, base, outside, uniform, family, order);
  set_weights(p, coef, base_weight);
  expect("s", s, {p.N, p.I});
  expect("bias", bias, {p.O});
  p.s = view("s", s);
  p.bias = view("bias", bias);
  Tensor y = result(coef, {p.N, p.O});
  p.out = y.mutable_data_ptr();
  p.out_dtype = p.coef.dtype;
  if (p.N > 0 && p.O > 0) kernels().kan_out(p, pool_for(p));
  return y;
}

Tensor kan_in(Tensor x, Tensor u, Tensor coef, Maybe base_weight, Tensor grid, int64_t degree, int64_t base,
              int64_t outside, bool uniform, int64_t family, int64_t order) {
  STD_TORCH_CHECK(coef.dim() == 3, "coef has ", coef.dim(), " dimensions: expected 3");
  Problem p = problem(x, coef.size(0), coef.size(2), grid, degree, base, outside, uniform, family, order);
  set_weights(p, coef, base_weight);
  expect("u", u, {p.N, p.O});
  p.u = view("u", u);
  Tensor grad_x = result(x, {p.N, p.I}, empty(p));
  p.grad_x = grad_x.mutable_data_ptr();
  p.grad_x_dtype = p.x.dtype;
  if (!empty(p)) kernels().kan_backward(p, pool_for(p));
  return grad_x;
}

void set_coef_results(Problem& p, const Tensor& grad_coef, const Tensor& grad_base) {
  p.grad_coef = grad_coef.mutable_data_ptr();
  p.grad_base = grad_base.mutable_data_ptr();
  p.grad_coef_dtype = dtype_of("u", grad_coef);
}

std::tuple<Tensor, Tensor> kan_coef(Tensor x, Maybe s, Tensor u, Tensor grid, int64_t degree, int64_t base,
                                    int64_t outside, bool uniform, int64_t family, int64_t order, bool with_base) {
  STD_TORCH_CHECK(u.dim() == 2, "u has ", u.dim(), " dimensions: expected 2");
  STD_TORCH_CHECK(x.dim() == 2, "x has ", x.dim(), " dimensions: expected 2");
  Problem p = problem(x, x.size(1), u.size(1), grid, degree, base, outside, uniform, family, order);
  expect("u", u, {p.N, p.O});
  expect("s", s, {p.N, p.I});
  p.u = view("u", u);
  p.s = view("s", s);
  p.with_base = with_base;
  p.compute = accumulator(p.x, p.u);
  Tensor grad_coef = result(u, {p.I, p.F, p.O}, empty(p));
  Tensor grad_base = result(u, {with_base ? p.I : 0, p.O}, empty(p));
  set_coef_results(p, grad_coef, grad_base);
  if (!empty(p)) kernels().kan_backward(p, pool_for(p));
  return {grad_coef, grad_base};
}

// Runs a kernel for the gradients of x, coef and base_weight together.
std::tuple<Tensor, Tensor, Tensor> all_gradients(Problem& p, const Tensor& x, const Tensor& coef,
                                                 void (*kernel)(const Problem&, const Pool&)) {
  Tensor grad_x = result(x, {p.N, p.I}, empty(p));
  Tensor grad_coef = result(coef, {p.I, p.F, p.O}, empty(p));
  Tensor grad_base = result(coef, {p.with_base ? p.I : 0, p.O}, empty(p));
  p.grad_x = grad_x.mutable_data_ptr();
  p.grad_x_dtype = p.x.dtype;
  set_coef_results(p, grad_coef, grad_base);
  if (!empty(p)) kernel(p, pool_for(p));
  return {grad_x, grad_coef, grad_base};
}

std::tuple<Tensor, Tensor, Tensor> kan_backward(Tensor x, Maybe s, Tensor u, Tensor coef, Maybe base_weight,
                                                Tensor grid, int64_t degree, int64_t base, int64_t outside,
                                                bool uniform, int64_t family, int64_t order) {
  STD_TORCH_CHECK(coef.dim() == 3, "coef has ", coef.dim(), " dimensions: expected 3");
  Problem p = problem(x, coef.size(0), coef.size(2), grid, degree, base, outside, uniform, family, order);
  set_weights(p, coef, base_weight);
  expect("u", u, {p.N, p.O});
  expect("s", s, {p.N, p.I});
  p.u = view("u", u);
  p.s = view("s", s);
  p.x_order = p.order + 1;
  return all_gradients(p, x, coef, kernels().kan_backward);
}

// Which kernels serve this machine: 0 baseline, 1 avx2, 2 avx512.
int64_t cpu_isa() {
  const std::string isa = kernels().isa;
  return isa == "avx512" ? 2 : isa == "avx2" ? 1 : 0;
}

Tensor edge_mean(Tensor x, Tensor coef, Maybe base_weight, Tensor grid, int64_t degree, int64_t base, int64_t outside,
                 bool uniform, int64_t family) {
  STD_TORCH_CHECK(coef.dim() == 3, "coef has ", coef.dim(), " dimensions: expected 3");
  Problem p = problem(x, coef.size(0), coef.size(2), grid, degree, base, outside, uniform, family, 0);
  set_weights(p, coef, base_weight);
  Tensor mean = result(coef, {p.I, p.O});
  p.out = mean.mutable_data_ptr();
  p.out_dtype = p.coef.dtype;
  if (p.I > 0 && p.O > 0) kernels().edge_mean(p, pool_for(p));  // of no rows: 0 / 0
  return mean;
}

std::tuple<Tensor, Tensor, Tensor> edge_mean_backward(Tensor x, Tensor grad_mean, Tensor coef, Maybe base_weight,
                                                      Tensor grid, int64_t degree, int64_t base, int64_t outside,
                                                      bool uniform, int64_t family) {
  STD_TORCH_CHECK(coef.dim() == 3, "coef has ", coef.dim(), " dimensions: expected 3");
  Problem p = problem(x, coef.size(0), coef.size(2), grid, degree, base, outside, uniform, family, 0);
  set_weights(p, coef, base_weight);
  expect("grad_mean", grad_mean, {p.I, p.O});
  p.u = view("grad_mean", grad_mean);
  return all_gradients(p, x, coef, kernels().edge_mean_backward);
}

}  // namespace
}  // namespace fastkan

STABLE_TORCH_LIBRARY_IMPL(fastkan, CompositeExplicitAutograd, m) { m.impl("cpu_isa", TORCH_BOX(&fastkan::cpu_isa)); }

STABLE_TORCH_LIBRARY_IMPL(fastkan, CPU, m) {
  m.impl("kan_out", TORCH_BOX(&fastkan::kan_out));
  m.impl("kan_in", TORCH_BOX(&fastkan::kan_in));
  m.impl("kan_coef", TORCH_BOX(&fastkan::kan_coef));
  m.impl("kan_backward", TORCH_BOX(&fastkan::kan_backward));
  m.impl("edge_mean", TORCH_BOX(&fastkan::edge_mean));
  m.impl("edge_mean_backward", TORCH_BOX(&fastkan::edge_mean_backward));
}
