// The plans of the backward by matrix products, for tests/test_cuda_backward.py.
#include "../../cuda/matrix/backward_plan.h"

#include <cuda_bf16.h>

namespace fastkan {
namespace {

template <class T>
void plan(const Problem& p, int processors, int64_t* to) {
  const auto plan = plan_matrix_backward<__nv_bfloat16, T, true>(p, processors);
  const int64_t found[] = {plan.args.coef_tiles, plan.coef_block, plan.blocks_of_x, plan.x_block,
                           plan.args.splits,     plan.cycles,     T::kBlocks};
  memcpy(to, found, sizeof found);
}

}  // namespace
}  // namespace fastkan

// The costs that plans are made of, for the usual case or others: of a step of coefficients, a step of x, a row of x,
// and all else of a block. `bytes`: of a stored number.
extern "C" __attribute__((visibility("default"))) void fastkan_emulated_backward_costs(int bytes, int tiles, bool usual,
                                                                                       int* to) {
  using namespace fastkan;
  const auto of = [&]<class S, class T>() {
    return usual ? backward_costs<S, T, true>() : backward_costs<S, T, false>();
  };
  using Half = __nv_bfloat16;
  const BackwardCosts costs = tiles == 256  ? of.template operator()<Half, WarpgroupTiles>()
                              : tiles == 64 ? bytes == 2   ? of.template operator()<Half, SquareTiles<64>>()
                                              : bytes == 4 ? of.template operator()<float, SquareTiles<64>>()
                                                           : of.template operator()<double, SquareTiles<64, double>>()
                              : bytes == 2  ? of.template operator()<Half, SquareTiles<128>>()
                                            : of.template operator()<float, SquareTiles<128>>();
  const int found[] = {costs.coef_step, costs.x_step, costs.x_row, BackwardCosts::kBlock};
  memcpy(to, found, sizeof found);
}

// Blocks of coefficients and their cycles, blocks of x and theirs, splits, cycles of the launch, blocks per
// multiprocessor. `tiles`: 64 or 128, or 256 for warpgroups. Of cubics on 5 intervals, with a base function, in bf16.
extern "C" __attribute__((visibility("default"))) void fastkan_emulated_backward_plan(int64_t N, int64_t I, int64_t O,
                                                                                      bool with_x, bool with_coef,
                                                                                      int tiles, int processors,
                                                                                      int64_t* to) {
  static char any;
  fastkan::Problem p = {};
  p.N = N, p.I = I, p.O = O;
  p.F = 8, p.K = 3, p.M = 12;
  p.uniform = p.equidistant = p.with_base = true;
  p.x_order = 1;
  if (with_x) p.grad_x = &any;
  if (with_coef) p.grad_coef = &any;
  using namespace fastkan;
  tiles == 64    ? plan<SquareTiles<64>>(p, processors, to)
  : tiles == 128 ? plan<SquareTiles<128>>(p, processors, to)
                 : plan<WarpgroupTiles>(p, processors, to);
}
