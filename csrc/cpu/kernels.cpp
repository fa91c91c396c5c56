// All kernels of one instruction set, named by FASTKAN_ISA and selected by compiler flags, and one compute type,
// FASTKAN_TYPE: float or double.
#include "edge_moments.h"
#include "kan_backward.h"
#include "kan_out.h"
#include "knots.h"
#include "lbfgs.h"
#include "stack.h"
#include "table_sum.h"

namespace fastkan {
namespace FASTKAN_ISA {

#define FASTKAN_STRING(x) #x
#define FASTKAN_NAME(x) FASTKAN_STRING(x)
#define FASTKAN_JOIN(a, b) a##b
#define FASTKAN_KERNELS(type) FASTKAN_JOIN(kernels_, type)

const Kernels FASTKAN_KERNELS(FASTKAN_TYPE) = {FASTKAN_NAME(FASTKAN_ISA),
                                               check_knots,
                                               fastkan::kan_out<FASTKAN_TYPE>,
                                               fastkan::kan_backward<FASTKAN_TYPE>,
                                               fastkan::edge_moments<FASTKAN_TYPE>,
                                               fastkan::stack_out<FASTKAN_TYPE>,
                                               fastkan::stack_backward<FASTKAN_TYPE>,
                                               fastkan::lbfgs_direction<FASTKAN_TYPE>,
                                               table_sum};

}  // namespace FASTKAN_ISA
}  // namespace fastkan
