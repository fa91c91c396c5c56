// All kernels of one instruction set, named by FASTKAN_ISA and selected by compiler flags.
#include "edge_moments.h"
#include "kan_backward.h"
#include "kan_out.h"
#include "knots.h"
#include "lbfgs.h"
#include "stack.h"

namespace fastkan {
namespace FASTKAN_ISA {

#define FASTKAN_STRING(x) #x
#define FASTKAN_NAME(x) FASTKAN_STRING(x)

// Dispatches to the kernel of the compute type.
#define FASTKAN_BY_TYPE(name) \
  [](const Problem& p, const Pool& pool) { p.compute == Dtype::f64 ? name<double>(p, pool) : name<float>(p, pool); }
#define FASTKAN_STACK_BY_TYPE(name) \
  [](const Stack& s, const Pool& pool) { s.dtype == Dtype::f64 ? name<double>(s, pool) : name<float>(s, pool); }

const Kernels kernels = {
    FASTKAN_NAME(FASTKAN_ISA),
    check_knots,
    FASTKAN_BY_TYPE(fastkan::kan_out),
    FASTKAN_BY_TYPE(fastkan::kan_backward),
    FASTKAN_BY_TYPE(fastkan::edge_moments),
    FASTKAN_STACK_BY_TYPE(fastkan::stack_out),
    FASTKAN_STACK_BY_TYPE(fastkan::stack_backward),
    [](const LbfgsHistory& c) { c.dtype == Dtype::f64 ? lbfgs_direction<double>(c) : lbfgs_direction<float>(c); }};

}  // namespace FASTKAN_ISA
}  // namespace fastkan
