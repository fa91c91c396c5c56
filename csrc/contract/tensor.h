// The tensor type of the operators: that of torch's stable ABI, with which one library serves every torch, or with
// FASTKAN_ATEN that of the torch that is compiled against.
#pragma once

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#ifdef FASTKAN_ATEN
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#else
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#endif

namespace fastkan {

#ifdef FASTKAN_ATEN
using at::Tensor;
inline void copy_values(Tensor& to, const Tensor& from) { to.copy_(from); }
inline int32_t scalar_type_of(const Tensor& t) { return static_cast<int32_t>(t.scalar_type()); }
#else
using torch::stable::Tensor;
inline void copy_values(Tensor& to, const Tensor& from) { torch::stable::copy_(to, from); }
inline int32_t scalar_type_of(const Tensor& t) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &dtype));
  return dtype;
}
#endif
using Maybe = std::optional<Tensor>;
using torch::headeronly::ScalarType;

}  // namespace fastkan
