// Layers and stacks on the CPU with their gradients, as functions of Python: what fastkan/functional.py, autograd.py
// and stack.py do, without their Python, which takes longer than a small layer. On torch's C++ interface, so for the
// torch and the Python that it was compiled with; without it, and for every call that is not an ordinary one, the
// Python serves.
#include "kan_out.h"
#include "stack_out.h"

namespace fastkan {
namespace {

// use(Parameter, kan_out_gradients, stack_gradients): the class of parameters, and the gradients by Python.
PyObject* use(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 3) return PyErr_Format(PyExc_TypeError, "expected 3 arguments");
  PyObject** kept[] = {&parameter_class, &kan_out_gradients, &stack_gradients};
  for (int k = 0; k < 3; ++k) *kept[k] = Py_NewRef(arguments[k]);
  Py_RETURN_NONE;
}

using Fast = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);
PyMethodDef method(const char* name, Fast f) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(f)), METH_FASTCALL, nullptr};
}
PyMethodDef methods[] = {method("use", use), method("kan_out", kan_out), method("stack_out", stack_out), {}};
PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "fastkan_autograd", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace fastkan

PyMODINIT_FUNC PyInit_fastkan_autograd() { return PyModule_Create(&fastkan::definition); }
