// The interface between the operators (register.cpp, which uses torch) and the kernels (which do not).
#pragma once

#include <cstdint>

#include "../contract/windows.h"

namespace fastkan {

// Runs task(0..tasks-1, context) on torch's thread pool.
struct Pool {
  void (*run)(int64_t tasks, void (*task)(int64_t, const void*), const void* context);
  int threads;
};

// Whether the base function is part of the window, which is then the only one; otherwise it is a window of its own,
// the last one.
inline bool base_inside(const Problem& p) { return p.with_base && windows_of(p).count == 1; }

// Input of the L-BFGS two-loop recursion (lbfgs.h): s and y are ring buffers [history, size] with `pairs` valid rows,
// beginning at row `oldest`.
struct LbfgsHistory {
  Dtype dtype;
  int64_t size, history, pairs, oldest;
  const void *g, *s, *y;
  const double* rho;  // 1 / (y . s), oldest first
  double scale;
  double* alpha;  // scratch, one per pair
  void* q;
};

// Rows of a table of 8-bit numbers, added (table_sum.h): of every row of x [N, I] one per input.
struct TableSum {
  int64_t N, I, O, levels;
  int64_t rows;  // of x in a task
  View x;
  const double *low, *per_unit;  // [I]
  const uint8_t* table;
  const void* bias;  // [O], of the result's dtype
  void* out;
  Dtype out_dtype;
};

// Result of the check of the knots: whether every row is equidistant up to rounding, and a row that is not ascending
// or not finite, -1 if there is none.
struct KnotCheck {
  bool equidistant;
  int64_t unsorted;
};

// The kernels of one instruction set and compute type; kernels.cpp is compiled once for each pair.
struct Kernels {
  const char* isa;
  KnotCheck (*check_knots)(const Problem&);
  void (*kan_out)(const Problem&, const Pool&);
  void (*kan_backward)(const Problem&, const Pool&);  // those of grad_x, grad_coef and grad_base that are not null
  void (*edge_moments)(const Problem&, const Pool&);
  void (*stack_out)(const Stack&, const Pool&);
  void (*stack_backward)(const Stack&, const Pool&);
  void (*lbfgs_direction)(const LbfgsHistory&);
  void (*table_sum)(const TableSum&, const Pool&);
};

namespace baseline {
extern const Kernels kernels_float, kernels_double;
}
namespace avx2 {
extern const Kernels kernels_float, kernels_double;
}
namespace avx512 {
extern const Kernels kernels_float, kernels_double;
}

}  // namespace fastkan
