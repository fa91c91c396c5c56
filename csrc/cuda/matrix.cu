// The products of matrices of one type of 16 bits.
#include "bulk_out.h"
#include "matrix_backward.h"
#include "stored.h"

namespace fastkan {
namespace FASTKAN_TYPE {

const Kernels matrix = {sparse_out<Stored>, matrix_backward<Stored>, nullptr, nullptr, nullptr};
const Kernels groups = {sparse_out_of_groups<Stored>, nullptr, nullptr, nullptr, nullptr};
const Kernels bulk = {bulk_out<Stored>, nullptr, nullptr, nullptr, nullptr};

}  // namespace FASTKAN_TYPE
}  // namespace fastkan
