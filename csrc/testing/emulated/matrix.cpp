// The matrix kernels compiled as C++, likewise.
#include "../../cuda/matrix.cu"
