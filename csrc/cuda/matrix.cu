// The products of matrices of one type: of 16 bits, float32 that is rounded to tf32, or float64.
#include "bulk_out.h"
#include "matrix_backward.h"
#include "stored.h"

namespace fastkan {
namespace FASTKAN_TYPE {

const Kernels matrix = {sparse_out<Stored>, matrix_backward<Stored>, nullptr, nullptr, nullptr};
#if !FASTKAN_ELEMENTS  // of 16 bits
const Kernels groups = {sparse_out_of_groups<Stored>, nullptr, nullptr, nullptr, nullptr};
const Kernels bulk = {bulk_out<Stored>, nullptr, nullptr, nullptr, nullptr};
#endif

}  // namespace FASTKAN_TYPE
}  // namespace fastkan
