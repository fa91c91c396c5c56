// The kernels as C++; the headers beside this file are the CUDA that they include.
#include "../../cuda/stack.cu"
