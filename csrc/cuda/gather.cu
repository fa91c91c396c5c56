// The gather kernels of one type.
#include "gather/edge_moments.h"
#include "gather/kan_out.h"
#include "stored.h"

namespace fastkan {
namespace {

// Whether the driver finds code for the current device in this library.
template <class Operand>
bool has_code_for_current_device() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, out_kernel<Operand, kCubic, true>) == cudaSuccess;
}

template <class Operand>
constexpr Kernels kernels_of() {
  return {kan_out<Operand>, kan_backward<Operand>, edge_moments<Operand>, edge_backward<Operand>,
          has_code_for_current_device<Operand>};
}

}  // namespace

namespace FASTKAN_TYPE {

const Kernels vectors = kernels_of<Vectors<Stored>>();
#if FASTKAN_ELEMENTS
const Kernels elements = kernels_of<Elements<Stored>>();
#endif

}  // namespace FASTKAN_TYPE
}  // namespace fastkan
