// The kernels compiled as C++; the headers in this folder replace CUDA's.
#include "../../cuda/stack.cu"
