// The operators of fastkan/ops.py on the CPU, with the kernels of this machine's instruction set.
#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "../contract/operators.h"
#include "../contract/stack.h"
#include "edge_penalty.h"
#include "interface.h"
#include "pairs.h"
#include "products.h"

namespace fastkan {
namespace {

#if defined(__x86_64__)
#define FASTKAN_SETS(type) &avx512::kernels_##type, &avx2::kernels_##type, &baseline::kernels_##type
#else
#define FASTKAN_SETS(type) nullptr, nullptr, &baseline::kernels_##type
#endif

// Of the kernels of one compute type, those of the best instruction set of this processor, or of the one named by
// FASTKAN_CPU_ISA.
const Kernels& choose(const Kernels* with_avx512, const Kernels* with_avx2, const Kernels* baseline) {
#if defined(__x86_64__)
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")))
    with_avx512 = nullptr;
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) with_avx2 = nullptr;
#endif
  const char* wanted = std::getenv("FASTKAN_CPU_ISA");
  for (const Kernels* set : {with_avx512, with_avx2, baseline})
    if (set && (!wanted || !*wanted || std::strcmp(set->isa, wanted) == 0)) return *set;
  STD_TORCH_CHECK(false, "FASTKAN_CPU_ISA=", wanted,
                  ": expected baseline, avx2 or avx512, as far as this processor has them");
}

const Kernels& kernels(Dtype compute = Dtype::f32) {
  static const Kernels& of_float = choose(FASTKAN_SETS(float));
  static const Kernels& of_double = choose(FASTKAN_SETS(double));
  return compute == Dtype::f64 ? of_double : of_float;
}

// Multiply-adds below which one thread does the work: at 0.8 million, two threads gain 4 % on an idle machine, and
// lose a factor of two or more on a busy one.
constexpr double kSerialWork = 1 << 20;

void run_parallel(int64_t tasks, void (*task)(int64_t, const void*), const void* context) {
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) task(t, context);
  });
}
void run_serial(int64_t tasks, void (*task)(int64_t, const void*), const void* context) {
  for (int64_t t = 0; t < tasks; ++t) task(t, context);
}

double work(const Problem& p) {
  return static_cast<double>(p.N) * static_cast<double>(p.I) * (static_cast<double>(p.O) + 16) *
         (windows_of(p).functions + 1);
}

Pool pool_for(double work) {
  if (work < kSerialWork) return {run_serial, 1};
  return {run_parallel, static_cast<int>(torch::stable::get_num_threads())};
}

double work(const Stack& s) {
  double sum = 0;
  for (int l = 0; l < s.depth; ++l) sum += work(s.layer[l]);
  return sum;
}

bool equidistant(const Problem& p) {
  const KnotCheck check = kernels().check_knots(p);
  STD_TORCH_CHECK(check.unsorted < 0, "grid does not ascend in row ", check.unsorted, ": expected sorted finite knots");
  return check.equidistant;
}

// How the last contraction was computed: see cpu_algorithm.
std::atomic<int64_t> algorithm{0};

// The kernels with which p is computed by products of matrices; null: it is not.
const DenseKernels* dense_kernels(const Problem& p) {
#if defined(__x86_64__)
  static const bool is_fast = std::strcmp(kernels().isa, "avx512") == 0 && has_amx();
  if (is_fast && fits_products(p)) return &avx512::dense_kernels;
#endif
  return nullptr;
}

// The kernels of this processor for pairs of bfloat16, or null.
const PairKernels* pair_kernels() {
#if defined(__x86_64__)
  static const bool has_pairs = std::strcmp(kernels().isa, "avx512") == 0 && __builtin_cpu_supports("avx512bf16");
  if (has_pairs) return &avx512::pair_kernels;
#endif
  return nullptr;
}

void kan_out(const Problem& p) {
  const DenseKernels* dense = dense_kernels(p);
  const PairKernels* pairs = pair_kernels();
  const Pool pool = pool_for(work(p));
  if (dense) {
    algorithm = 2;
    Products(p, *dense, pool).out();
  } else if (pairs && pairs->fits_out(p)) {
    algorithm = 3;
    pairs->kan_out(p, pool);
  } else {
    algorithm = 1;
    kernels(p.compute).kan_out(p, pool);
  }
}

void kan_backward(const Problem& p) {
  const DenseKernels* dense = dense_kernels(p);
  const PairKernels* pairs = pair_kernels();
  const Pool pool = pool_for(2 * work(p));  // two contractions
  if (dense) {
    algorithm = 2;
    Products(p, *dense, pool).backward();
  } else if (pairs && pairs->fits_backward(p)) {
    algorithm = 3;
    pairs->kan_backward(p, pool);
  } else {
    algorithm = 1;
    kernels(p.compute).kan_backward(p, pool);
  }
}

const CpuInterface interface = {
    equidistant,
    kan_out,
    kan_backward,
    [](const Problem& p) { kernels(p.compute).edge_moments(p, pool_for(work(p))); },
    [](const Stack& s) { kernels(s.dtype).stack_out(s, pool_for(work(s))); },
    [](const Stack& s) { kernels(s.dtype).stack_backward(s, pool_for(work(s))); },
};

using Contractions = Operators<CpuBackend>;
using Stacks = StackOperators<CpuBackend>;

template <class T>
void run_penalty(const Tensor& moments, const Maybe& x, int64_t rows, const PenaltyWeights& weights, Tensor& penalty,
                 Tensor& terms, Tensor& x_mean, Tensor& x_term) {
  EdgePenalty<T>{rows,
                 moments.size(1),
                 moments.size(2),
                 weights,
                 static_cast<const T*>(moments.const_data_ptr()),
                 x ? static_cast<const T*>(x->const_data_ptr()) : nullptr,
                 x ? x->stride(0) : 0,
                 x ? x->stride(1) : 0,
                 static_cast<T*>(penalty.mutable_data_ptr()),
                 static_cast<T*>(terms.mutable_data_ptr()),
                 static_cast<T*>(x_mean.mutable_data_ptr()),
                 static_cast<T*>(x_term.mutable_data_ptr())}
      .run();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> edge_penalty(Tensor moments, Maybe x, int64_t rows, double l1,
                                                        double entropy, double weight) {
  STD_TORCH_CHECK(moments.dim() == 3 && moments.size(0) == 3 && moments.is_contiguous(),
                  "moments: expected a contiguous [3, I, O]");
  const int64_t I = moments.size(1), O = moments.size(2);
  expect("x", x, {rows, I});
  const Dtype dtype = dtype_of("moments", moments);
  STD_TORCH_CHECK(dtype == Dtype::f32 || dtype == Dtype::f64, "moments has another dtype than float32 or float64");
  STD_TORCH_CHECK(!x || dtype_of("x", *x) == dtype, "x has another dtype than moments");
  Tensor penalty = Contractions::result(moments, {}), terms = Contractions::result(moments, {3, I, O});
  Tensor x_mean = Contractions::result(moments, {x ? I : 0}), x_term = Contractions::result(moments, {x ? I : 0});
  const PenaltyWeights weights{l1, entropy, weight};
  if (dtype == Dtype::f64)
    run_penalty<double>(moments, x, rows, weights, penalty, terms, x_mean, x_term);
  else
    run_penalty<float>(moments, x, rows, weights, penalty, terms, x_mean, x_term);
  return {penalty, terms, x_mean, x_term};
}

Tensor lbfgs_direction(Tensor g, Tensor s, Tensor y, std::vector<double> inverse, int64_t oldest, double scale) {
  const Dtype dtype = dtype_of("g", g);
  STD_TORCH_CHECK(dtype == Dtype::f32 || dtype == Dtype::f64, "g has another dtype than float32 or float64");
  STD_TORCH_CHECK(g.dim() == 1 && g.is_contiguous(), "g: expected a contiguous vector");
  const int64_t size = g.size(0), pairs = static_cast<int64_t>(inverse.size());
  for (const Tensor* rows : {&s, &y})
    STD_TORCH_CHECK(rows->dim() == 2 && rows->size(1) == size && rows->size(0) == s.size(0) && rows->is_contiguous() &&
                        dtype_of("s, y", *rows) == dtype,
                    "s, y: expected contiguous matrices with rows like g");
  STD_TORCH_CHECK(pairs <= s.size(0) && oldest >= 0 && oldest < s.size(0), "inverse, oldest: expected rows of s and y");
  Tensor q = Contractions::result(g, {size});
  std::vector<double> alpha(inverse.size());
  kernels(dtype).lbfgs_direction({dtype, size, s.size(0), pairs, oldest, g.const_data_ptr(), s.const_data_ptr(),
                                  y.const_data_ptr(), inverse.data(), scale, alpha.data(), q.mutable_data_ptr()});
  return q;
}

Tensor table_sum(Tensor table, Tensor x, Tensor low, Tensor per_unit, Tensor bias) {
  STD_TORCH_CHECK(x.dim() == 2 && bias.dim() == 1, "x, bias have ", x.dim(), ", ", bias.dim(),
                  " dimensions: expected [N, I], [O]");
  constexpr int64_t kScales = 8, kTogether = 16;
  const int64_t N = x.size(0), I = x.size(1), O = bias.size(0);
  STD_TORCH_CHECK(table.dim() == 2 && table.scalar_type() == ScalarType::Byte && table.is_contiguous(),
                  "table: expected contiguous bytes [I * (levels + 1), O + 8]");
  const int64_t each = I ? table.size(0) / I : 2;
  expect("table", table, {I * (each < 2 ? 2 : each), O + kScales});
  for (const auto& [name, t] : {std::pair{"low", low}, std::pair{"per_unit", per_unit}}) {
    expect(name, t, {I});
    STD_TORCH_CHECK(t.scalar_type() == ScalarType::Double && t.is_contiguous(), name, ": expected contiguous float64");
  }
  STD_TORCH_CHECK(bias.is_contiguous(), "bias: expected a contiguous vector");
  Tensor out = Contractions::result(bias, {N, O});
  const TableSum sum{N,
                     I,
                     O,
                     each - 1,
                     kTogether,
                     Contractions::view("x", x, x),
                     static_cast<const double*>(low.const_data_ptr()),
                     static_cast<const double*>(per_unit.const_data_ptr()),
                     static_cast<const uint8_t*>(table.const_data_ptr()),
                     bias.const_data_ptr(),
                     out.mutable_data_ptr(),
                     dtype_of("bias", bias)};
  kernels().table_sum(sum, pool_for(static_cast<double>(N) * static_cast<double>(I) * static_cast<double>(O + 16)));
  return out;
}

// The instruction set in use: 0 baseline, 1 avx2, 2 avx512.
int64_t cpu_isa() {
  const std::string isa = kernels().isa;
  return isa == "avx512" ? 2 : isa == "avx2" ? 1 : 0;
}

// The last contraction's algorithm: 0 none so far, 1 gathering, 2 products of matrices, 3 gathering by pairs.
int64_t cpu_algorithm() { return algorithm; }

}  // namespace
}  // namespace fastkan

const fastkan::CpuInterface* fastkan_cpu_interface() { return &fastkan::interface; }

STABLE_TORCH_LIBRARY_IMPL(fastkan, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&fastkan::cpu_isa));
  m.impl("cpu_algorithm", TORCH_BOX(&fastkan::cpu_algorithm));
}

STABLE_TORCH_LIBRARY_IMPL(fastkan, CPU, m) {
  m.impl("kan_out", TORCH_BOX(&fastkan::Contractions::kan_out));
  m.impl("kan_in", TORCH_BOX(&fastkan::Contractions::kan_in));
  m.impl("kan_coef", TORCH_BOX(&fastkan::Contractions::kan_coef));
  m.impl("kan_backward", TORCH_BOX(&fastkan::Contractions::kan_backward));
  m.impl("edge_moments", TORCH_BOX(&fastkan::Contractions::edge_moments));
  m.impl("edge_backward", TORCH_BOX(&fastkan::Contractions::edge_backward));
  m.impl("edge_penalty", TORCH_BOX(&fastkan::edge_penalty));
  m.impl("table_sum", TORCH_BOX(&fastkan::table_sum));
  m.impl("lbfgs_direction", TORCH_BOX(&fastkan::lbfgs_direction));
  m.impl("stack_out", TORCH_BOX(&fastkan::Stacks::out));
  m.impl("stack_backward", TORCH_BOX(&fastkan::Stacks::backward));
}
