// A layer and its gradients.
#pragma once

#include "../contract/operators.h"
#include "../cpu/interface.h"
#include "ordinary.h"

namespace fastkan {
namespace {

using Contractions = Operators<CpuBackend>;

PyObject* kan_out_gradients = nullptr;  // fastkan.autograd.kan_out_gradients

struct Basis {
  int64_t degree, base, outside, uniform, family;

  int64_t packed() const { return degree | base << 8 | outside << 16 | uniform << 24 | family << 32; }
  static Basis of(int64_t p) { return {p & 255, p >> 8 & 255, p >> 16 & 255, p >> 24 & 255, p >> 32}; }
};

Tensor scaled(const Tensor& coef, const Maybe& scale) { return scale ? coef * scale->unsqueeze(1) : coef; }

Tensor forward_of(const Tensor& x, const Tensor& coef, const Maybe& scale, const Maybe& weight, const Maybe& bias,
                  const Tensor& grid, const Basis& b) {
  return Contractions::kan_out(x, std::nullopt, scaled(coef, scale), weight, bias, grid, b.degree, b.base, b.outside,
                               b.uniform, b.family, 0);
}

// The gradients by fastkan.autograd, differentiable and for every kind of tensor.
variable_list gradients_by_python(const variable_list& saved, const Basis& b, const Tensor& u, const bool* needs) {
  const pybind11::gil_scoped_acquire gil;
  return from_python(pybind11::handle(kan_out_gradients)(
      to_python(u), to_python(saved[0]), to_python(saved[1]), to_python(saved[2]), to_python(saved[3]),
      to_python(saved[4]), pybind11::make_tuple(b.degree, b.base, b.outside, b.uniform != 0, b.family),
      pybind11::make_tuple(needs[0], needs[1], needs[2], needs[3], needs[4])));
}

struct KanOut : torch::autograd::Function<KanOut> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& coef, const Maybe& scale,
                        const Maybe& weight, const Maybe& bias, const Tensor& grid, int64_t basis) {
    ctx->save_for_backward({x, coef, scale.value_or(Tensor()), weight.value_or(Tensor()), grid});
    ctx->saved_data["basis"] = basis;
    ctx->saved_data["bias"] = bias.has_value();
    ctx->set_materialize_grads(false);
    return forward_of(x, coef, scale, weight, bias, grid, Basis::of(basis));
  }

  static variable_list backward(AutogradContext* ctx, variable_list cotangents) {
    const Tensor& u = cotangents[0];
    if (!u.defined()) return variable_list(7);
    const variable_list saved = ctx->get_saved_variables();
    const Basis b = Basis::of(ctx->saved_data["basis"].toInt());
    // Absent tensors are no inputs of the graph, and have no place in needs_input_grad.
    const bool present_of[5] = {true, true, saved[2].defined(), saved[3].defined(), ctx->saved_data["bias"].toBool()};
    bool needs[5];
    for (size_t k = 0, at = 0; k < 5; ++k) needs[k] = present_of[k] && ctx->needs_input_grad(at++);
    variable_list grads = at::GradMode::is_enabled() || !is_ordinary(u) || !is_plain()
                              ? gradients_by_python(saved, b, u, needs)
                              : gradients_of(saved, b, u, needs);
    grads.resize(7);
    return grads;
  }

  static variable_list gradients_of(const variable_list& saved, const Basis& b, const Tensor& u, const bool* needs) {
    const Tensor &x = saved[0], &coef = saved[1], &grid = saved[4];
    const Maybe scale = present(saved[2]), weight = present(saved[3]);
    const auto [need_x, need_coef, need_scale, need_weight, need_bias] =
        std::tuple(needs[0], needs[1], needs[2], needs[3], needs[4]);
    Tensor of_x, of_coef, of_weight, of_scale, of_bias;
    if (need_coef || need_scale || need_weight) {
      if (need_x)
        std::tie(of_x, of_coef, of_weight) = Contractions::kan_backward(
            x, std::nullopt, u, scaled(coef, scale), weight, grid, b.degree, b.base, b.outside, b.uniform, b.family, 0);
      else
        std::tie(of_coef, of_weight) = Contractions::kan_coef(x, std::nullopt, u, grid, b.degree, b.base, b.outside,
                                                              b.uniform, b.family, 0, weight.has_value());
    } else if (need_x) {
      of_x = Contractions::kan_in(x, u, scaled(coef, scale), weight, grid, b.degree, b.base, b.outside, b.uniform,
                                  b.family, 1);
    }
    if (need_scale) of_scale = (of_coef * coef).sum(1);
    if (need_bias) of_bias = u.sum(0);
    return {of_x, need_coef ? scaled(of_coef, scale) : Tensor(), of_scale, need_weight ? of_weight : Tensor(), of_bias};
  }
};

// x [N, I] -> [N, O], with a node in the graph if a gradient may be asked for.
Tensor layer_out(const Tensor& x, const Tensor& coef, const Maybe& scale, const Maybe& weight, const Maybe& bias,
                 const Tensor& grid, const Basis& basis) {
  const bool graph = at::GradMode::is_enabled() && (x.requires_grad() || coef.requires_grad() || needs_grad(scale) ||
                                                    needs_grad(weight) || needs_grad(bias));
  return graph ? KanOut::apply(x, coef, scale, weight, bias, grid, basis.packed())
               : forward_of(x, coef, scale, weight, bias, grid, basis);
}

// kan_out(x, coef, grid, base_weight, bias, scale, spec): functional.apply on "native" with the automatic choice; None
// for a call that is not an ordinary one, or with an error, which the Python names.
PyObject* kan_out(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  if (count != 7 || !PyTuple_Check(arguments[6]) || PyTuple_GET_SIZE(arguments[6]) != 5 || !is_plain()) Py_RETURN_NONE;
  Maybe tensors[6];
  for (int k = 0; k < 6; ++k)
    if (!read(arguments[k], tensors[k])) Py_RETURN_NONE;
  auto& [x, coef, grid, weight, bias, scale] = tensors;
  if (!x || !coef || !grid) Py_RETURN_NONE;
  int64_t spec[5];
  for (int k = 0; k < 5; ++k) spec[k] = PyLong_AsLongLong(PyTuple_GET_ITEM(arguments[6], k));
  const Basis basis{spec[0], spec[1], spec[2], spec[3], spec[4]};
  if (basis.family >= kFamilies || x->dim() < 1 || coef->dim() != 3 || x->size(-1) != coef->size(0) || !is_float(*x) ||
      !is_float(*coef) || grid->scalar_type() != ScalarType::Double)
    Py_RETURN_NONE;
  for (const Maybe* t : {&weight, &bias, &scale})
    if (*t && (*t)->scalar_type() != coef->scalar_type()) Py_RETURN_NONE;
  Tensor y;
  {
    const pybind11::gil_scoped_release nogil;
    const auto lead = x->sizes().slice(0, x->dim() - 1).vec();
    const Tensor rows = x->dim() == 2 ? *x : x->reshape({c10::multiply_integers(lead), x->size(-1)});
    y = layer_out(rows, *coef, scale, weight, bias, *grid, basis);
    if (x->dim() != 2) {
      auto shape = lead;
      shape.push_back(coef->size(2));
      y = y.view(shape);
    }
  }
  return THPVariable_Wrap(std::move(y));
  END_HANDLE_TH_ERRORS
}

}  // namespace
}  // namespace fastkan
