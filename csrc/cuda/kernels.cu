// All kernels of one type: FASTKAN_TYPE names it.
#include "edge_mean.h"
#include "kan_out.h"

namespace fastkan {
namespace {

// Of the device that is current; its code is chosen by the driver.
template <class Operand>
bool loads() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, out_kernel<Operand, kCubic, true>) == cudaSuccess;
}

template <class Operand>
constexpr Kernels kernels_of() {
  return {kan_out<Operand>, kan_backward<Operand>, edge_mean<Operand>, edge_mean_backward<Operand>, loads<Operand>};
}

}  // namespace

namespace FASTKAN_TYPE {

#define FASTKAN_IS_f32 float
#define FASTKAN_IS_f64 double
#define FASTKAN_IS_bf16 __nv_bfloat16
#define FASTKAN_IS_f16 __half
#define FASTKAN_JOIN(a, b) a##b
#define FASTKAN_STORED(type) FASTKAN_JOIN(FASTKAN_IS_, type)

using Stored = FASTKAN_STORED(FASTKAN_TYPE);

const Kernels vectors = kernels_of<Vectors<Stored>>();
#if FASTKAN_ELEMENTS
const Kernels elements = kernels_of<Elements<Stored>>();
#endif

}  // namespace FASTKAN_TYPE
}  // namespace fastkan
