// The operators of fastkan/ops.py on NVIDIA's GPUs: where the kernels run, what they are given to work in, and which.
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include <atomic>
#include <vector>

#include "../contract/operators.h"
#include "../contract/stack.h"
#include "choose.h"

// Of libtorch_cuda.so, under this name since torch 2.9.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

#if !defined(FASTKAN_SM90A)  // whether the kernels were compiled for sm_90a
#define FASTKAN_SM90A 0
#endif

namespace fastkan {
namespace {

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  const cudaError_t status = cudaDeviceGetAttribute(&value, which, device);
  STD_TORCH_CHECK(status == cudaSuccess, "CUDA: ", cudaGetErrorString(status));
  return value;
}

// Of a device, as it was first asked.
template <cudaDeviceAttr WHICH>
int kept_attribute(int device) {
  static std::atomic<int> known[64];
  const bool keeps = device >= 0 && device < 64;
  int value = keeps ? known[device].load(std::memory_order_relaxed) : 0;
  if (value == 0) value = attribute(WHICH, device);
  if (keeps) known[device].store(value, std::memory_order_relaxed);
  return value;
}

// Uninitialised memory on the device of `like`.
Tensor uninitialised(const Tensor& like, std::initializer_list<int64_t> shape, int32_t dtype) {
  int64_t strides[3], size = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = size;
    size *= *(shape.begin() + d);
  }
  int32_t type;
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.begin(), strides, dtype,
                                                  type, like.get_device_index(), &handle));
  return Tensor(handle);
}

// The device of x, current while this lives, and workspace on it: torch hands out what is given back here once the
// stream has passed the kernels, so nothing waits.
class Run {
 public:
  explicit Run(const Tensor& x) : x_(x), guard_(x.get_device_index()) {
    void* stream;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    const int index = x.get_device_index();
    device = {static_cast<cudaStream_t>(stream),
              kept_attribute<cudaDevAttrMultiProcessorCount>(index),
              FASTKAN_SM90A && kept_attribute<cudaDevAttrComputeCapabilityMajor>(index) == 9,
              kept_attribute<cudaDevAttrSingleToDoublePrecisionPerfRatio>(index) == 2,
              this,
              allocate};
  }
  Device device;

 private:
  static void* allocate(void* self, int64_t bytes) {
    Run& run = *static_cast<Run*>(self);
    run.workspace_.push_back(uninitialised(run.x_, {bytes}, aoti_torch_dtype_uint8()));
    return run.workspace_.back().mutable_data_ptr();
  }

  const Tensor& x_;
  torch::stable::accelerator::DeviceGuard guard_;
  std::vector<Tensor> workspace_;
};

struct Cuda {
  static constexpr int kFamilies = 3;

  static Tensor result(const Tensor& like, std::initializer_list<int64_t> shape, int32_t dtype, bool zero = false) {
    Tensor t = uninitialised(like, shape, dtype);
    if (zero) fill(t, 0);
    return t;
  }

  static bool even(const Problem&) { return false; }  // the knots are on the GPU
  static void expect_beside(const Tensor& x, const char* name, const Tensor& t) {
    int32_t of_x, of_t;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &of_x));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &of_t));
    STD_TORCH_CHECK(of_x == of_t && x.get_device_index() == t.get_device_index(), name,
                    " is on another device than x: expected cuda:", x.get_device_index());
  }

  static void run(void (*Kernels::*contraction)(const Problem&, const Device&), const Problem& p, const Tensor& x) {
    const Run here(x);
    choose(contraction, p, here.device)(p, here.device);
  }
  static void kan_out(const Problem& p, const Tensor& x) { run(&Kernels::kan_out, p, x); }
  static void kan_backward(const Problem& p, const Tensor& x) {
    run(p.terms ? &Kernels::edge_backward : &Kernels::kan_backward, p, x);
  }
  static void edge_moments(const Problem& p, const Tensor& x) {
    if (p.N > 0) return run(&Kernels::edge_moments, p, x);
    const Run here(x);  // the mean of nothing: all bits set are a NaN of every type
    set(p.out, 0xff, 3 * p.I * p.O * (p.out_dtype == Dtype::f64 ? 8 : 4), here.device.stream);
  }

  static const StackKernels& stacks(const Stack& s) { return s.dtype == Dtype::f64 ? f64::stacks : f32::stacks; }
  static void stack_out(const Stack& s, const Tensor& x) { stacks(s).out(s, Run(x).device); }
  static void stack_backward(const Stack& s, const Tensor& x) { stacks(s).backward(s, Run(x).device); }

 private:
  static void fill(Tensor& t, int byte) {
    const Run run(t);
    set(t.mutable_data_ptr(), byte, t.numel() * static_cast<int64_t>(t.element_size()), run.device.stream);
  }
  static void set(void* memory, int byte, int64_t bytes, cudaStream_t stream) {
    if (bytes == 0) return;
    const cudaError_t status = cudaMemsetAsync(memory, byte, static_cast<size_t>(bytes), stream);
    STD_TORCH_CHECK(status == cudaSuccess, "CUDA: ", cudaGetErrorString(status));
  }
};

using Here = Operators<Cuda>;
using Rounding = Operators<Cuda, true>;
using Stacks = StackOperators<Cuda>;

// Whether the kernels were built for that GPU.
bool cuda_serves(int64_t device) {
  const torch::stable::accelerator::DeviceGuard guard(static_cast<int32_t>(device));
  const bool serves = f32::vectors.loads();
  cudaGetLastError();  // a missing one is an answer, not an error
  return serves;
}

// What the last contraction ran, an Algorithm.
int64_t cuda_algorithm() { return static_cast<int64_t>(last_algorithm.load()); }

}  // namespace
}  // namespace fastkan

#if !defined(FASTKAN_NAMESPACE)
#define FASTKAN_NAMESPACE fastkan
#define FASTKAN_KEY CUDA
#endif

STABLE_TORCH_LIBRARY_IMPL(FASTKAN_NAMESPACE, CompositeExplicitAutograd, m) {
  m.impl("cuda_serves", TORCH_BOX(&fastkan::cuda_serves));
  m.impl("cuda_algorithm", TORCH_BOX(&fastkan::cuda_algorithm));
}

STABLE_TORCH_LIBRARY_IMPL(FASTKAN_NAMESPACE, FASTKAN_KEY, m) {
  m.impl("kan_out", TORCH_BOX(&fastkan::Here::kan_out));
  m.impl("kan_in", TORCH_BOX(&fastkan::Here::kan_in));
  m.impl("kan_coef", TORCH_BOX(&fastkan::Here::kan_coef));
  m.impl("kan_backward", TORCH_BOX(&fastkan::Here::kan_backward));
  m.impl("kan_out_tf32", TORCH_BOX(&fastkan::Rounding::kan_out));
  m.impl("kan_in_tf32", TORCH_BOX(&fastkan::Rounding::kan_in));
  m.impl("kan_coef_tf32", TORCH_BOX(&fastkan::Rounding::kan_coef));
  m.impl("kan_backward_tf32", TORCH_BOX(&fastkan::Rounding::kan_backward));
  m.impl("edge_moments", TORCH_BOX(&fastkan::Here::edge_moments));
  m.impl("edge_backward", TORCH_BOX(&fastkan::Here::edge_backward));
  m.impl("stack_out", TORCH_BOX(&fastkan::Stacks::out));
  m.impl("stack_backward", TORCH_BOX(&fastkan::Stacks::backward));
}
