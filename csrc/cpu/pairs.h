// Layers in bfloat16 on processors with AVX512-BF16, whose multiply-add takes pairs of numbers: twice as many products
// as in float32, from half as many loads.
#pragma once

#include "problem.h"

namespace fastkan {

struct PairKernels {
  bool (*fits_out)(const Problem&);  // whether kan_out takes it: by its shape, types and layout alone
  bool (*fits_backward)(const Problem&);
  void (*kan_out)(const Problem&, const Pool&);
  void (*kan_backward)(const Problem&, const Pool&);
};

namespace avx512 {
extern const PairKernels pair_kernels;
}

}  // namespace fastkan
