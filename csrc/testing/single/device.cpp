// A device without float64, "single", whose memory is the host's: an accelerator for tests where there is none. It
// computes nothing itself: operators run as those of the CPU, on copies. Registered with torch when the library is
// loaded; its Python side is tests/support/single.py.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/copy_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <atomic>
#include <set>
#include <string>

namespace {

constexpr auto SINGLE = c10::DeviceType::PrivateUse1;
const c10::Device DEVICE(SINGLE, 0);

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
    return {data, data, &c10::free_cpu, DEVICE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};
Memory memory;
REGISTER_ALLOCATOR(SINGLE, &memory)

// One device, one stream, on which everything has happened already.
struct Guard final : c10::impl::NoOpDeviceGuardImpl<SINGLE> {
  c10::Device getDevice() const override { return DEVICE; }
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::Device getDeviceFromPtr(void*) const override { return DEVICE; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::detail::createCPUGenerator(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    at::native::resize_bytes_cpu(storage.unsafeGetStorageImpl(), bytes);
  }
};
Hooks hooks;
const bool registered = (at::RegisterPrivateUse1HooksInterface(&hooks), true);

// How often the host has waited for the device: it read a value, or copied a tensor to itself.
std::atomic<int64_t> waits{0};
thread_local bool within = false;  // one operator, whose own copies are not the caller's

struct Within {
  bool before = std::exchange(within, true);
  ~Within() { within = before; }
};

void wait() {
  if (!within) ++waits;
}

// Whether it has float64 after all, as a GPU has.
bool has_double = false;

void refuse_double(at::ScalarType type) {
  if (has_double) return;
  TORCH_CHECK_TYPE(type != at::kDouble && type != at::kComplexDouble,
                   "Cannot convert a single Tensor to float64 dtype as the device single doesn't support float64. "
                   "Please use float32 instead.");
}

using Type = std::optional<at::ScalarType>;
using Flag = std::optional<bool>;
using Layout = std::optional<at::Layout>;
using Place = std::optional<at::Device>;
using Format = std::optional<at::MemoryFormat>;

at::Tensor empty(at::IntArrayRef size, Type type, Layout, Place, Flag, Format format) {
  refuse_double(at::dtype_or_default(type));
  return at::detail::empty_generic(size, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   at::dtype_or_default(type), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, Type type, Layout, Place, Flag) {
  refuse_double(at::dtype_or_default(type));
  return at::detail::empty_strided_generic(size, stride, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           at::dtype_or_default(type));
}

// The same memory as a tensor of the host.
at::Tensor on_host(const at::Tensor& t) {
  if (!t.is_privateuseone()) return t;
  at::Tensor host = at::from_blob(t.mutable_data_ptr(), t.sizes(), t.strides(), t.options().device(at::kCPU));
  if (t.is_conj()) host = host.conj();
  return t.is_neg() ? host._neg_view() : host;
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  if (to.is_cpu()) {
    wait();
    if (to.scalar_type() != from.scalar_type())
      refuse_double(to.scalar_type());  // converts before it copies, as MPS does
  }
  on_host(to).copy_(on_host(from));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar local_scalar_dense(const at::Tensor& t) {
  wait();
  return at::native::_local_scalar_dense_cpu(on_host(t));
}

// Operators whose result's size depends on values, for which a host waits.
const std::set<std::string> SIZED_BY_VALUES = {"aten::nonzero", "aten::masked_select", "aten::_unique2",
                                               "aten::unique_dim", "aten::unique_consecutive"};

// Operators that take indices on the host too.
const std::set<std::string> INDEXED = {"aten::index", "aten::index_put_", "aten::_index_put_impl_"};

// Every device but this one, whose memory is the host's, would refuse a mixture.
void refuse_other_devices(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  if (INDEXED.count(op.schema().name())) return;
  auto check = [&](const at::Tensor& t) {
    TORCH_CHECK(!t.defined() || t.is_privateuseone() || t.dim() == 0,
                "Expected all tensors to be on the same device, but an argument of ", op.schema().name(), " is on ",
                t.device(), ", and another on single");
  };
  for (const auto& value : torch::jit::last(stack, op.schema().arguments().size())) {
    if (value.isTensor()) check(value.toTensor());
    if (value.isTensorList()) {
      for (const at::Tensor& t : value.toTensorVector()) check(t);
    }
  }
}

void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& returns = op.schema().returns();
  const bool value = !returns.empty() && !returns[0].type()->isSubtypeOf(*c10::TensorType::get()) &&
                     !returns[0].type()->isSubtypeOf(*c10::ListType::ofTensors());
  refuse_other_devices(op, *stack);
  if (value || SIZED_BY_VALUES.count(op.schema().name())) wait();
  Within guard;
  at::native::cpu_fallback(op, stack);
}

int64_t synchronizations() { return waits; }

void set_double(bool value) { has_double = value; }

TORCH_LIBRARY(fastkan_single, m) {
  m.def("synchronizations", &synchronizations);
  m.def("set_double", &set_double);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>()); }

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("resize_", &at::native::resize_);
  m.impl("set_", &at::native::set_cpu_);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
  m.impl("set_.source_Storage", &at::native::set_);
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
}

}  // namespace
