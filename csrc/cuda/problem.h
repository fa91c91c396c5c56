// The interface between the operators (register.cpp, which uses torch) and the kernels (which do not).
#pragma once

#include <cuda_runtime.h>

#include "../contract/problem.h"

namespace fastkan {

// The device of a launch. Workspace from it lives until the operator returns.
struct Device {
  cudaStream_t stream;
  int processors;
  bool has_wgmma;  // sm_90, and this library has code for sm_90a
  // sm_80 and sm_90: float64 at half the rate of float32, and twice that on tensor cores. On sm_100 these are no
  // faster.
  bool has_fp64_tensor_cores;
  void* owner;
  void* (*allocate)(void* owner, int64_t bytes);

  template <class T>
  T* take(int64_t count) const {
    return static_cast<T*>(allocate(owner, count * static_cast<int64_t>(sizeof(T))));
  }
};

// The kernels of one algorithm for one memory layout of coefficients and cotangents; nullptr if there is none.
struct Kernels {
  void (*kan_out)(const Problem&, const Device&);
  void (*kan_backward)(const Problem&, const Device&);  // those of grad_x, grad_coef and grad_base that are not null
  void (*edge_moments)(const Problem&, const Device&);
  void (*edge_backward)(const Problem&, const Device&);
  bool (*has_code_for_current_device)();  // whether this library has code for the current device
};

// The kernels for a stack of layers (stack.cu), in float32 or float64.
struct StackKernels {
  void (*out)(const Stack&, const Device&);
  void (*backward)(const Stack&, const Device&);
};

// Upper limits on the functions of an input for the matrix kernels; in float64, beyond it gathering is faster.
constexpr int kMaxMatrixFunctions = 56, kMaxTf32Functions = 32, kMaxDoubleFunctions = 16;

// gather.cu and matrix.cu are compiled once for each storage type, with aligned rows; gather.cu also for the compute
// types with any layout (`elements`).
namespace f32 {
extern const Kernels vectors, elements, matrix;
extern const StackKernels stacks;
}  // namespace f32
namespace f64 {
extern const Kernels vectors, elements, matrix;
extern const StackKernels stacks;
}  // namespace f64
namespace bf16 {
extern const Kernels vectors, matrix, wgmma;
}
namespace f16 {
extern const Kernels vectors, matrix, wgmma;
}

}  // namespace fastkan
