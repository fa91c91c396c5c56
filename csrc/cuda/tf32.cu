// The products of matrices of float32 that is rounded to tf32.
#include "sparse_out.h"
#include "stored.h"

namespace fastkan::FASTKAN_TYPE {

const Kernels matrix = {sparse_out<Stored>, nullptr, nullptr, nullptr, nullptr};

}  // namespace fastkan::FASTKAN_TYPE
