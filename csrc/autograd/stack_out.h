// A stack of layers and its gradients.
#pragma once

#include <algorithm>

#include "../contract/stack.h"
#include "kan_out.h"

namespace fastkan {
namespace {

using Stacks = StackOperators<CpuBackend>;

PyObject* stack_gradients = nullptr;  // fastkan.direct.stack_gradients

struct StackArguments {
  std::vector<Maybe> weights;  // coef, scale, base_weight and bias of every layer
  std::vector<Tensor> grids;
  std::vector<int64_t> specs;
};

struct StackOut : torch::autograd::Function<StackOut> {
  // tensors: x, the weights that are present, the grids. present: a bit for each of the weights.
  static Tensor forward(AutogradContext* ctx, at::TensorList tensors, int64_t present,
                        const std::vector<int64_t>& specs) {
    ctx->save_for_backward(tensors.vec());
    ctx->saved_data["present"] = present;
    ctx->saved_data["specs"] = specs;
    ctx->set_materialize_grads(false);
    const StackArguments a = arguments(tensors, present, specs);
    return Stacks::out(tensors[0], {}, a.weights, a.grids, a.specs);
  }

  static variable_list backward(AutogradContext* ctx, variable_list cotangents) {
    const Tensor& u = cotangents[0];
    const variable_list saved = ctx->get_saved_variables();
    variable_list grads(saved.size() + 2);
    if (!u.defined()) return grads;
    const int64_t present = ctx->saved_data["present"].toInt();
    const StackArguments a = arguments(saved, present, ctx->saved_data["specs"].toIntVector());
    const size_t weights = saved.size() - 1 - a.grids.size();
    const bool with_x = ctx->needs_input_grad(0);
    bool with_weights = false;
    for (size_t k = 1; k <= weights; ++k) with_weights = with_weights || ctx->needs_input_grad(k);
    const variable_list found =
        at::GradMode::is_enabled() || !is_ordinary(u) || !is_plain()
            ? by_python(saved[0], u, a, with_x, with_weights)
            : Stacks::backward(saved[0], {}, u, a.weights, a.grids, a.specs, with_x, false, with_weights);
    std::copy(found.begin(), found.end(), grads.begin() + !with_x);
    return grads;
  }

  static StackArguments arguments(at::TensorList tensors, int64_t present, const std::vector<int64_t>& specs) {
    StackArguments a;
    a.specs = specs;
    size_t at = 1;
    const size_t layers = specs.size() / kSpec;
    for (size_t k = 0; k < kWeights * layers; ++k)
      a.weights.push_back(present >> k & 1 ? Maybe(tensors[at++]) : std::nullopt);
    a.grids.assign(tensors.begin() + at, tensors.end());
    return a;
  }

  // The gradients by fastkan.stack, differentiable and for every kind of tensor; of those tensors that are present.
  static variable_list by_python(const Tensor& x, const Tensor& u, const StackArguments& a, bool with_x,
                                 bool with_weights) {
    const pybind11::gil_scoped_acquire gil;
    pybind11::list weights, grids, specs;
    for (const Maybe& t : a.weights) weights.append(t ? to_python(*t) : pybind11::none());
    for (const Tensor& t : a.grids) grids.append(to_python(t));
    for (const int64_t s : a.specs) specs.append(s);
    return from_python(
        pybind11::handle(stack_gradients)(to_python(x), to_python(u), weights, grids, specs, with_x, with_weights));
  }
};

// stack_out(x, layers, coefs, work): layers as one operator, if they have at most so many coefficients, and these times
// rows are at most `work`, else one by one; None for a call that is not an ordinary one, or with an error, which the
// Python names.
PyObject* stack_out(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  if (count != 4 || !PyList_Check(arguments[1]) || !is_plain()) Py_RETURN_NONE;
  const Py_ssize_t depth = PyList_GET_SIZE(arguments[1]);
  Maybe x;
  if (depth < 2 || depth > kMaxLayers || !read(arguments[0], x) || !x || x->dim() < 1 || x->size(-1) == 0)
    Py_RETURN_NONE;
  const ScalarType type = x->scalar_type();
  if (type != ScalarType::Float && type != ScalarType::Double) Py_RETURN_NONE;
  variable_list tensors{*x}, grids;
  std::vector<Maybe> weights;
  std::vector<int64_t> specs;
  int64_t present = 0, size = 0;
  for (Py_ssize_t l = 0; l < depth; ++l) {
    PyObject* layer = PyList_GET_ITEM(arguments[1], l);  // Layer of fastkan/stack.py
    if (!PyTuple_Check(layer) || PyTuple_GET_SIZE(layer) != kWeights + 2) Py_RETURN_NONE;
    for (int k = 0; k < kWeights; ++k) {
      Maybe t;
      if (!read(PyTuple_GET_ITEM(layer, k), t) || (t && t->scalar_type() != type) || (k == 0 && !t)) Py_RETURN_NONE;
      if (k == 0) size += t->numel();
      weights.push_back(t);
      if (!t) continue;
      tensors.push_back(*t);
      present |= int64_t{1} << (l * kWeights + k);
    }
    Maybe grid;
    if (!read(PyTuple_GET_ITEM(layer, kWeights), grid) || !grid || grid->scalar_type() != ScalarType::Double)
      Py_RETURN_NONE;
    grids.push_back(*grid);
    PyObject* spec = PyTuple_GET_ITEM(layer, kWeights + 1);
    if (!PyTuple_Check(spec) || PyTuple_GET_SIZE(spec) != kSpec) Py_RETURN_NONE;
    for (int k = 0; k < kSpec; ++k) specs.push_back(PyLong_AsLongLong(PyTuple_GET_ITEM(spec, k)));
    if (specs.back() != static_cast<int64_t>(Family::bspline)) Py_RETURN_NONE;
  }
  const int64_t rows = x->numel() / x->size(-1);
  const bool is_small = size <= PyLong_AsLongLong(arguments[2]) && rows * size <= PyLong_AsLongLong(arguments[3]);
  Tensor y;
  {
    const pybind11::gil_scoped_release nogil;
    Tensor& h = tensors[0];
    if (x->dim() != 2) h = x->reshape({rows, x->size(-1)});
    if (!is_small) {
      for (Py_ssize_t l = 0; l < depth; ++l) {
        const Maybe* of = &weights[kWeights * l];
        const int64_t* spec = &specs[kSpec * l];
        h = layer_out(h, *of[0], of[1], of[2], of[3], grids[l], {spec[0], spec[1], spec[2], spec[3], spec[4]});
      }
      y = h;
    } else if (at::GradMode::is_enabled() && std::any_of(tensors.begin(), tensors.end(), needs_grad)) {
      tensors.insert(tensors.end(), grids.begin(), grids.end());
      y = StackOut::apply(at::TensorList(tensors), present, specs);
    } else {
      y = Stacks::out(h, {}, weights, grids, specs);
    }
    if (x->dim() != 2) {
      auto shape = x->sizes().vec();
      shape.back() = y.size(1);
      y = y.view(shape);
    }
  }
  return THPVariable_Wrap(std::move(y));
  END_HANDLE_TH_ERRORS
}

}  // namespace
}  // namespace fastkan
