// The operators of fastkan/ops.py on NVIDIA GPUs: device, stream, workspace and the choice of kernels.
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include <atomic>
#include <vector>

#include "../contract/operators.h"
#include "../contract/stack.h"
#include "choose.h"

// Of libtorch_cuda.so, under this name since torch 2.9.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

#if !defined(FASTKAN_SM90A)  // 1 if the kernels are compiled for sm_90a
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

// A device attribute, cached after the first query.
template <cudaDeviceAttr WHICH>
int cached_attribute(int device) {
  static std::atomic<int> cache[64];
  const bool cacheable = device >= 0 && device < 64;
  int value = cacheable ? cache[device].load(std::memory_order_relaxed) : 0;
  if (value == 0) value = attribute(WHICH, device);
  if (cacheable) cache[device].store(value, std::memory_order_relaxed);
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

// Makes the device of x current for its lifetime, and allocates workspace there. Torch's allocator reuses freed
// workspace only after the kernels on the stream, so nothing waits.
class DeviceScope {
 public:
  explicit DeviceScope(const Tensor& x) : x_(x), guard_(x.get_device_index()) {
    void* stream;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    const int index = x.get_device_index();
    device = {static_cast<cudaStream_t>(stream),
              cached_attribute<cudaDevAttrMultiProcessorCount>(index),
              FASTKAN_SM90A && cached_attribute<cudaDevAttrComputeCapabilityMajor>(index) == 9,
              cached_attribute<cudaDevAttrComputeCapabilityMajor>(index) <= 9 &&
                  cached_attribute<cudaDevAttrSingleToDoublePrecisionPerfRatio>(index) == 2,
              this,
              allocate};
  }
  Device device;

 private:
  static void* allocate(void* self, int64_t bytes) {
    DeviceScope& scope = *static_cast<DeviceScope*>(self);
    scope.workspace_.push_back(uninitialised(scope.x_, {bytes}, aoti_torch_dtype_uint8()));
    return scope.workspace_.back().mutable_data_ptr();
  }

  const Tensor& x_;
  torch::stable::accelerator::DeviceGuard guard_;
  std::vector<Tensor> workspace_;
};

bool is_in_rows(const Tensor& u, int64_t width) {
  const bool aligned = reinterpret_cast<uintptr_t>(u.const_data_ptr()) % 16 == 0;
  return aligned && u.stride(1) == 1 && u.stride(0) % width == 0;
}

struct CudaBackend {
  static Tensor result(const Tensor& like, std::initializer_list<int64_t> shape, int32_t dtype, bool zero = false) {
    Tensor t = uninitialised(like, shape, dtype);
    if (zero) fill(t, 0);
    return t;
  }

  // With rows in memory that can be read 16 bytes at a time: to copy them takes less than to read one number at a time
  // in every tile. The cotangent of a sum is a single number, expanded.
  static Tensor in_rows(const Tensor& u) {
    const int64_t width = 16 / static_cast<int64_t>(u.element_size());
    if (u.numel() == 0 || u.size(1) % width != 0 || is_in_rows(u, width)) return u;
    Tensor rows = uninitialised(u, {u.size(0), u.size(1)}, scalar_type_of(u));
    copy_values(rows, u);
    return rows;
  }

  static bool equidistant(const Problem&) { return false; }  // the knots are on the GPU
  static void expect_same_device(const Tensor& x, const char* name, const Tensor& t) {
    int32_t of_x, of_t;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &of_x));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &of_t));
    STD_TORCH_CHECK(of_x == of_t && x.get_device_index() == t.get_device_index(), name,
                    " is on another device than x: expected cuda:", x.get_device_index());
  }

  static void run(void (*Kernels::*contraction)(const Problem&, const Device&), const Problem& p, const Tensor& x) {
    const DeviceScope scope(x);
    choose(contraction, p, scope.device)(p, scope.device);
  }
  static void kan_out(const Problem& p, const Tensor& x) { run(&Kernels::kan_out, p, x); }
  static void kan_backward(const Problem& p, const Tensor& x) {
    run(p.terms ? &Kernels::edge_backward : &Kernels::kan_backward, p, x);
  }
  static void edge_moments(const Problem& p, const Tensor& x) {
    if (p.N > 0) return run(&Kernels::edge_moments, p, x);
    const DeviceScope scope(x);  // the mean of no rows is NaN: all bits set, in every type
    set(p.out, 0xff, 3 * p.I * p.O * (p.out_dtype == Dtype::f64 ? 8 : 4), scope.device.stream);
  }

  static const StackKernels& stacks(const Stack& s) { return s.dtype == Dtype::f64 ? f64::stacks : f32::stacks; }
  static void stack_out(const Stack& s, const Tensor& x) { stacks(s).out(s, DeviceScope(x).device); }
  static void stack_backward(const Stack& s, const Tensor& x) { stacks(s).backward(s, DeviceScope(x).device); }

 private:
  static void fill(Tensor& t, int byte) {
    const DeviceScope scope(t);
    set(t.mutable_data_ptr(), byte, t.numel() * static_cast<int64_t>(t.element_size()), scope.device.stream);
  }
  static void set(void* memory, int byte, int64_t bytes, cudaStream_t stream) {
    if (bytes == 0) return;
    const cudaError_t status = cudaMemsetAsync(memory, byte, static_cast<size_t>(bytes), stream);
    STD_TORCH_CHECK(status == cudaSuccess, "CUDA: ", cudaGetErrorString(status));
  }
};

using Contractions = Operators<CudaBackend>;
using ContractionsTf32 = Operators<CudaBackend, Products::tf32>;
using ContractionsGather = Operators<CudaBackend, Products::none>;
using Stacks = StackOperators<CudaBackend>;

// Whether this library has code for that GPU.
bool cuda_serves(int64_t device) {
  const torch::stable::accelerator::DeviceGuard guard(static_cast<int32_t>(device));
  const bool serves = f32::vectors.has_code_for_current_device();
  cudaGetLastError();  // clears the error of missing code
  return serves;
}

// The Algorithm of the last contraction.
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
  m.impl("kan_out", TORCH_BOX(&fastkan::Contractions::kan_out));
  m.impl("kan_in", TORCH_BOX(&fastkan::Contractions::kan_in));
  m.impl("kan_coef", TORCH_BOX(&fastkan::Contractions::kan_coef));
  m.impl("kan_backward", TORCH_BOX(&fastkan::Contractions::kan_backward));
  m.impl("kan_out_tf32", TORCH_BOX(&fastkan::ContractionsTf32::kan_out));
  m.impl("kan_in_tf32", TORCH_BOX(&fastkan::ContractionsTf32::kan_in));
  m.impl("kan_coef_tf32", TORCH_BOX(&fastkan::ContractionsTf32::kan_coef));
  m.impl("kan_backward_tf32", TORCH_BOX(&fastkan::ContractionsTf32::kan_backward));
  m.impl("kan_out_gather", TORCH_BOX(&fastkan::ContractionsGather::kan_out));
  m.impl("kan_in_gather", TORCH_BOX(&fastkan::ContractionsGather::kan_in));
  m.impl("kan_coef_gather", TORCH_BOX(&fastkan::ContractionsGather::kan_coef));
  m.impl("kan_backward_gather", TORCH_BOX(&fastkan::ContractionsGather::kan_backward));
  m.impl("edge_moments", TORCH_BOX(&fastkan::Contractions::edge_moments));
  m.impl("edge_backward", TORCH_BOX(&fastkan::Contractions::edge_backward));
  m.impl("stack_out", TORCH_BOX(&fastkan::Stacks::out));
  m.impl("stack_backward", TORCH_BOX(&fastkan::Stacks::backward));
}
