// The products of matrices of float32 that is rounded to tf32.
#include "matrix_backward.h"
#include "sparse_out.h"
#include "stored.h"

namespace fastkan::FASTKAN_TYPE {

const Kernels matrix = {sparse_out<Stored>, matrix_backward<Stored>, nullptr, nullptr, nullptr};

}  // namespace fastkan::FASTKAN_TYPE
