// The kernels of libfastkan_cpu.so, chosen for this machine and run on torch's threads, and the operators' backend of
// them. csrc/autograd uses them from another library.
#pragma once

#include <cstring>
#include <initializer_list>

#include "../contract/tensor.h"
#include "problem.h"

namespace fastkan {

struct CpuInterface {
  bool (*equidistant)(const Problem&);  // whether all knots are; an error if they do not ascend
  void (*kan_out)(const Problem&);
  void (*kan_backward)(const Problem&);
  void (*edge_moments)(const Problem&);
  void (*stack_out)(const Stack&);
  void (*stack_backward)(const Stack&);
};

}  // namespace fastkan

extern "C" __attribute__((visibility("default"))) const fastkan::CpuInterface* fastkan_cpu_interface();

namespace fastkan {
namespace {

struct CpuBackend {
  // A contiguous result, uninitialised or zero, without torch's dispatcher, which costs more than the kernel of a small
  // layer.
  static Tensor result(const Tensor&, std::initializer_list<int64_t> shape, int32_t dtype, bool zero = false) {
#ifdef FASTKAN_ATEN
    Tensor t = at::detail::empty_cpu({shape.begin(), shape.size()}, static_cast<ScalarType>(dtype));
#else
    int64_t strides[3], size = 1;
    for (size_t d = shape.size(); d-- > 0;) {
      strides[d] = size;
      size *= *(shape.begin() + d);
    }
    AtenTensorHandle handle;
    TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.begin(), strides, dtype,
                                                    aoti_torch_device_type_cpu(), 0, &handle));
    Tensor t(handle);
#endif
    if (zero) std::memset(t.mutable_data_ptr(), 0, static_cast<size_t>(t.numel()) * t.element_size());
    return t;
  }
  static void expect_same_device(const Tensor&, const char*, const Tensor&) {}
  static Tensor in_rows(const Tensor& u) { return u; }
  static bool equidistant(const Problem& p) { return fastkan_cpu_interface()->equidistant(p); }
  static void kan_out(const Problem& p, const Tensor&) { fastkan_cpu_interface()->kan_out(p); }
  static void kan_backward(const Problem& p, const Tensor&) { fastkan_cpu_interface()->kan_backward(p); }
  static void edge_moments(const Problem& p, const Tensor&) { fastkan_cpu_interface()->edge_moments(p); }
  static void stack_out(const Stack& s, const Tensor&) { fastkan_cpu_interface()->stack_out(s); }
  static void stack_backward(const Stack& s, const Tensor&) { fastkan_cpu_interface()->stack_backward(s); }
};

}  // namespace
}  // namespace fastkan
