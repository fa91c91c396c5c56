// The products of matrices as C++, likewise.
#include "../../cuda/matrix.cu"
