// The kernels for whole stacks of layers in one type.
#include "stack.h"
#include "stored.h"

namespace fastkan::FASTKAN_TYPE {

const StackKernels stacks = {stack<Stored, false>, stack<Stored, true>};

}  // namespace fastkan::FASTKAN_TYPE
