// What crosses from the operators (register.cpp, which knows torch) to the kernels (which do not).
#pragma once

#include <cstdint>

#include "../contract/problem.h"

namespace fastkan {

// Runs task(0..tasks-1, context) on torch's threads.
struct Pool {
  void (*run)(int64_t tasks, void (*task)(int64_t, const void*), const void* context);
  int threads;
};

// What is not zero at an x: so many neighbouring functions, in windows of a size that kernels are compiled for.
struct Windows {
  int functions, size, count;
  bool base_inside;  // the base function goes along with the only window; else it is the last one, alone
  // Where a window starts, counted from the first; the last one takes some of the functions before it along, as zeros.
  int start(int window) const { return window + 1 < count ? window * size : functions - size; }
};

constexpr int kWidestWindow = 6;
// From one more than so many widths on exp(-t^2) is 0 in that type.
constexpr int kGaussianReach32 = 9, kGaussianReach64 = 26;

inline Windows windows_of(const Problem& p) {
  if (p.family == Family::bspline) return {p.K + 1, p.K + 1, 1, p.with_base};
  const int reach = p.compute == Dtype::f64 ? kGaussianReach64 : kGaussianReach32, most = 2 * reach + 2;
  const int functions = p.family == Family::rbf && p.F > most ? most : p.F;
  const int count = (functions + kWidestWindow - 1) / kWidestWindow;
  return {functions, (functions + count - 1) / count, count, p.with_base && count == 1};
}

// One set of kernels for each instruction set; kernels.cpp is compiled once for each.
struct Kernels {
  const char* isa;
  void (*kan_out)(const Problem&, const Pool&);
  void (*kan_backward)(const Problem&, const Pool&);  // grad_x, grad_coef and grad_base, or those that are wanted
  void (*edge_moments)(const Problem&, const Pool&);
  void (*stack_out)(const Stack&, const Pool&);
  void (*stack_backward)(const Stack&, const Pool&);
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace fastkan
