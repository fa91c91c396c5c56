// The products of matrices of one type: of 16 bits, float32 that is rounded to tf32, or float64.
#include "matrix/kan_backward.h"
#include "matrix/kan_out_tma.h"
#include "stored.h"

namespace fastkan {
namespace FASTKAN_TYPE {

const Kernels matrix = {matrix_out<Stored>, matrix_backward<Stored>, nullptr, nullptr, nullptr};
#if !FASTKAN_ELEMENTS  // of 16 bits
const Kernels groups = {matrix_out_of_groups<Stored>, nullptr, nullptr, nullptr, nullptr};
const Kernels tma = {matrix_out_tma<Stored>, nullptr, nullptr, nullptr, nullptr};
#endif

}  // namespace FASTKAN_TYPE
}  // namespace fastkan
