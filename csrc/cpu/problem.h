// What crosses from the operators (register.cpp, which knows torch) to the kernels (which do not).
#pragma once

#include <cstdint>

#include "../contract/windows.h"

namespace fastkan {

// Runs task(0..tasks-1, context) on torch's threads.
struct Pool {
  void (*run)(int64_t tasks, void (*task)(int64_t, const void*), const void* context);
  int threads;
};

// Whether the base function goes along with the only window; else it is the last one, alone.
inline bool base_inside(const Problem& p) { return p.with_base && windows_of(p).count == 1; }

// What lbfgs.h makes a direction of: the changes s and y are rows of [history, size], `pairs` of them from `oldest`
// on and round.
struct Changes {
  Dtype dtype;
  int64_t size, history, pairs, oldest;
  const void *g, *s, *y;
  const double* inverse;  // 1 / y s, from the oldest on
  double scale;
  double* share;  // scratch for as many
  void* q;
};

// What knots are found to be: whether those of every row are equidistant, to rounding; a row whose knots do not ascend
// or are not finite, -1 if there is none.
struct Evenness {
  bool even;
  int64_t unsorted;
};

// One set of kernels for each instruction set; kernels.cpp is compiled once for each.
struct Kernels {
  const char* isa;
  Evenness (*evenness)(const Problem&);
  void (*kan_out)(const Problem&, const Pool&);
  void (*kan_backward)(const Problem&, const Pool&);  // grad_x, grad_coef and grad_base, or those that are wanted
  void (*edge_moments)(const Problem&, const Pool&);
  void (*stack_out)(const Stack&, const Pool&);
  void (*stack_backward)(const Stack&, const Pool&);
  void (*two_loops)(const Changes&);
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
