// What crosses from the operators (register.cpp, which knows torch) to the kernels (which do not).
#pragma once

#include <cuda_runtime.h>

#include "../contract/problem.h"

namespace fastkan {

// Where kernels run, and where their workspace comes from: it lives until the operator returns.
struct Device {
  cudaStream_t stream;
  int processors;
  bool has_groups;    // whether wgmma runs there, and was compiled for it
  bool fast_doubles;  // whether float64 is made for there: then its tensor cores multiply twice as fast as the others
  void* owner;
  void* (*allocate)(void* owner, int64_t bytes);

  template <class T>
  T* take(int64_t count) const {
    return static_cast<T*>(allocate(owner, count * static_cast<int64_t>(sizeof(T))));
  }
};

// The kernels of one algorithm, for one way in which coefficients and cotangents lie in memory; absent ones are
// nullptr.
struct Kernels {
  void (*kan_out)(const Problem&, const Device&);
  void (*kan_backward)(const Problem&, const Device&);  // grad_x, grad_coef and grad_base, or those that are wanted
  void (*edge_moments)(const Problem&, const Device&);
  void (*edge_backward)(const Problem&, const Device&);
  bool (*loads)();  // whether the device that is current has code among them
};

// Those of a stack of layers, stack.cu, for the types computed in.
struct StackKernels {
  void (*out)(const Stack&, const Device&);
  void (*backward)(const Stack&, const Device&);
};

// Of an input, in products of matrices; of float64 as many as are faster that way.
constexpr int kMostMatrixFunctions = 56, kMostTf32Functions = 32, kMostDoubleFunctions = 16;

// gather.cu and matrix.cu are compiled once for each type: aligned rows of it, and by gathering for the types computed
// in anything else.
namespace f32 {
extern const Kernels vectors, elements, matrix;
extern const StackKernels stacks;
}  // namespace f32
namespace f64 {
extern const Kernels vectors, elements, matrix;
extern const StackKernels stacks;
}  // namespace f64
namespace bf16 {
extern const Kernels vectors, matrix, groups, tma;
}
namespace f16 {
extern const Kernels vectors, matrix, groups, tma;
}

}  // namespace fastkan
