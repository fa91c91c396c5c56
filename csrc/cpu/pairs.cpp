#include "pairs.h"

#include "pair_backward.h"
#include "pair_out.h"

namespace fastkan {
namespace {

constexpr int64_t kLeastRows = 8;  // below, weights are read once, unpaired
constexpr int64_t kLeastOutputs = 17,
                  kLeastInputs = 9;    // of the backward: more than half a vector; else rows are split
constexpr int64_t kRowsPerWindow = 8;  // of the backward, about: of odd numbers, one has no partner
constexpr int kMostFunctions = 48;     // weights of a block of inputs fit the L1 cache

bool is_bf16(const View& v, int last) { return !v || (v.dtype == Dtype::bf16 && v.stride[last] == 1); }

// Windows are whole pairs, so that no other coefficient is multiplied by zero: it may be infinite.
bool fits(const Problem& p) {
  return p.family == Family::bspline && p.compute == Dtype::f32 && p.K % 2 == 1 && is_bf16(p.coef, 2) &&
         is_bf16(p.base_weight, 1);
}
bool fits_out(const Problem& p) {
  return fits(p) && p.F <= kMostFunctions && p.N >= kLeastRows && p.O > kMaxFewOutputs;
}
bool fits_backward(const Problem& p) {
  return fits(p) && p.u && is_bf16(p.u, 1) && !p.terms && p.O >= kLeastOutputs && p.I >= kLeastInputs &&
         p.N >= kRowsPerWindow * p.M;
}

}  // namespace

namespace avx512 {
const PairKernels pair_kernels = {fits_out, fits_backward, kan_out_by_pairs, kan_backward_by_pairs};
}

}  // namespace fastkan
