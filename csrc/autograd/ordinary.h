// Which calls are ordinary ones: nothing traces, transforms, profiles or intercepts them, and their tensors are values
// on the CPU. fastkan/transforms.py asks the same.
#pragma once

#include <Python.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/profiler.h>
#include <torch/csrc/autograd/python_variable.h>

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/autocast_mode.h>
#include <ATen/record_function.h>

#include "../contract/tensor.h"

namespace fastkan {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

PyObject* parameter_class = nullptr;  // torch.nn.Parameter

const uint64_t kOrdinaryKeys = c10::DispatchKeySet({c10::DispatchKey::CPU, c10::DispatchKey::AutogradCPU,
                                                    c10::DispatchKey::AutocastCPU, c10::DispatchKey::ADInplaceOrView})
                                   .raw_repr();

// Whether a tensor is one of values on the CPU: no subclass, wrapper of a transform, lazy negative or dual number.
bool is_ordinary(const Tensor& t) {
  return (t.key_set().raw_repr() & ~kOrdinaryKeys) == 0 && t.layout() == at::kStrided &&
         !(t.unsafeGetTensorImpl()->autograd_meta() && t._fw_grad(0).defined());
}

bool is_float(const Tensor& t) {
  const ScalarType type = t.scalar_type();
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16 ||
         type == ScalarType::Half;
}

// Whether nothing traces, transforms, profiles or intercepts calls now.
bool is_plain() {
  const uint64_t included = c10::impl::tls_local_dispatch_key_set().included_.raw_repr();
  return (included & ~c10::default_included_set.raw_repr()) == 0 && !at::impl::torch_function_mode_enabled() &&
         !torch::autograd::profiler::profilerEnabled() && !at::hasCallbacks() &&
         !at::autocast::is_autocast_enabled(at::kCPU);
}

// An argument that is a tensor or None. False: it is neither, or not an ordinary tensor.
bool read(PyObject* argument, Maybe& t) {
  if (argument == Py_None) return true;
  if (Py_TYPE(argument) != reinterpret_cast<PyTypeObject*>(THPVariableClass) &&
      Py_TYPE(argument) != reinterpret_cast<PyTypeObject*>(parameter_class))
    return false;
  const Tensor& found = THPVariable_Unpack(argument);
  if (!is_ordinary(found)) return false;
  t = found;
  return true;
}

Maybe present(const Tensor& t) { return t.defined() ? Maybe(t) : std::nullopt; }

bool needs_grad(const Maybe& t) { return t && t->requires_grad(); }

pybind11::object to_python(const Tensor& t) {  // None if undefined
  return pybind11::reinterpret_steal<pybind11::object>(THPVariable_Wrap(t));
}

variable_list from_python(const pybind11::object& tensors) {
  variable_list found;
  for (const pybind11::handle t : tensors) found.push_back(t.is_none() ? Tensor() : THPVariable_Unpack(t.ptr()));
  return found;
}

}  // namespace
}  // namespace fastkan
