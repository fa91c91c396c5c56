// Features written out over all F functions, zeros included, in bfloat16: operands of products of matrices.
#pragma once

#include "problem.h"

namespace fastkan {

// The library of matrix products reads a left operand up to a whole number of so many columns: a NaN there would
// spread.
constexpr int64_t kPadded = 32;

struct DenseKernels {
  // The features of rows n0 .. n0 + rows - 1 by row: [i, f] in to[n * stride], the base function last, then zeros.
  void (*by_row)(const Problem& p, int64_t n0, int64_t rows, uint16_t* to, int64_t stride, const Pool&);
  // p.grad_x of these rows, the sums of features of p.x_order times g, if it is wanted; then, if p.grad_coef is, the
  // features of p.order in place of g. Both by function: [i, f, stride], followed by [i, stride] of the base function;
  // zeros
  // follow the last row, up to a whole number of kPadded.
  void (*by_function)(const Problem& p, int64_t n0, int64_t rows, uint16_t* g, int64_t stride, const Pool&);
  // sum = part, or sum += part, of `size` elements; then to = sum, if it is not null.
  void (*add)(const uint16_t* part, int64_t size, bool first, float* sum, uint16_t* to);
};

namespace avx512 {
extern const DenseKernels dense_kernels;
}

}  // namespace fastkan
