// The matrix-product kernels of one type: bf16, fp16, float32 rounded to tf32, or float64.
#include "matrix/kan_backward.h"
#include "matrix/kan_out_wgmma.h"
#include "stored.h"

namespace fastkan {
namespace FASTKAN_TYPE {

const Kernels matrix = {matrix_out<Stored>, matrix_backward<Stored>, nullptr, nullptr, nullptr};
#if !FASTKAN_ELEMENTS  // 16-bit types
const Kernels wgmma = {matrix_out_wgmma<Stored>, nullptr, nullptr, nullptr, nullptr};
#endif

}  // namespace FASTKAN_TYPE
}  // namespace fastkan
