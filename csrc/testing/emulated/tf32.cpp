// The products of matrices as C++, likewise.
#include "../../cuda/tf32.cu"
