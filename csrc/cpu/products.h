// Layers in bfloat16 as products of matrices, on processors with AMX: all F functions of a block of rows are written
// out (dense.h), and torch multiplies them. The matrix unit does so in less time than the gather kernels take to read
// K + 1 functions. Sums are float32; features, and sums over functions for grad_x, are rounded to bfloat16.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "../contract/tensor.h"
#include "dense.h"

namespace fastkan {
namespace {

// Whether this processor multiplies matrices of bfloat16 in AMX, and Linux lets this process use it.
inline bool has_amx() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kTile = 1U << 24, kBf16 = 1U << 22;
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kTile) && (d & kBf16) &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

// Multiply-adds of a row and input by gathering, above which products are faster: forward, and with gradients; the
// same for all rows and inputs. Break-even points measured at degree 3.
constexpr int64_t kLeastForward = 640, kLeastBackward = 320, kLeastWork = 10 << 20, kLeastRows = 64;
constexpr int64_t kFunctionsWork = 80;  // of them for each function beyond 4
constexpr int kMostFunctions = 20;
// Memory of a block of rows, and the number of columns up to which a block has enough rows.
constexpr int64_t kBlockBytes = 8 << 20, kLeastBlockRows = 128, kMostColumns = 1 << 17;

inline int64_t columns_of(const Problem& p) { return p.I * (p.F + p.with_base); }

// Whether v is absent, or bfloat16 with contiguous rows that, if `packed`, follow one another.
inline bool is_matrix(const View& v, int64_t rows, int64_t columns, bool packed) {
  return !v || (v.dtype == Dtype::bf16 && (columns == 1 || v.stride[1] == 1) &&
                (rows == 1 || (packed ? v.stride[0] == columns : v.stride[0] >= columns)));
}

// Whether p is computed by products: by its shape, types and layout alone.
inline bool fits_products(const Problem& p) {
  if (p.family != Family::bspline || p.compute != Dtype::f32 || p.terms) return false;
  const int64_t gathered = p.O * (p.K + 2);
  if (gathered < (p.out ? kLeastForward : kLeastBackward) || p.N * p.I * gathered < kLeastWork) return false;
  if (p.F > kMostFunctions || (p.F - 4) * kFunctionsWork > gathered) return false;
  if (p.N < kLeastRows || columns_of(p) > kMostColumns) return false;
  if (p.grad_x && p.O % kPadded != 0) return false;  // coef is then a left operand, with other values behind it
  if (p.grad_coef && p.grad_coef_dtype != Dtype::bf16) return false;
  if (p.bias && p.bias.dtype != Dtype::bf16) return false;
  const bool coef = !p.coef || (p.coef.dtype == Dtype::bf16 && (p.O == 1 || p.coef.stride[2] == 1) &&
                                (p.F == 1 || p.coef.stride[1] == p.O) && (p.I == 1 || p.coef.stride[0] == p.F * p.O));
  return coef && is_matrix(p.base_weight, p.I, p.O, true) && is_matrix(p.u, p.N, p.O, false);
}

// A matrix in the memory of its maker, as torch's tensor.
class Bf16Matrix {
 public:
  Bf16Matrix(const void* data, int64_t rows, int64_t columns, int64_t row, int64_t column = 1)
      : tensor_(of(data, 2, {rows, columns}, {row, column})) {}
  static Bf16Matrix vector(const void* data, int64_t size, int64_t stride) { return Bf16Matrix(data, size, stride); }
  AtenTensorHandle get() const { return tensor_.get(); }

 private:
  Bf16Matrix(const void* data, int64_t size, int64_t stride) : tensor_(of(data, 1, {size, 0}, {stride, 0})) {}
  static Tensor of(const void* data, int64_t dim, std::initializer_list<int64_t> sizes,
                   std::initializer_list<int64_t> strides) {
    AtenTensorHandle handle;
    TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob(const_cast<void*>(data), dim, sizes.begin(),
                                                              strides.begin(), 0, aoti_torch_dtype_bfloat16(),
                                                              aoti_torch_device_type_cpu(), 0, &handle));
    return Tensor(handle);
  }
  Tensor tensor_;
};

inline void multiply(const Bf16Matrix& to, const Bf16Matrix& a, const Bf16Matrix& b) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(to.get(), a.get(), b.get()));
}

// Memory of the calling thread, kept for the next call up to a size: new pages would cost as much as a product.
class Memory {
 public:
  explicit Memory(int64_t bytes) {
    const int64_t size = (bytes + 4095) / 4096 * 4096;
    if (size > kept().size) {
      kept().data.reset(static_cast<char*>(std::aligned_alloc(4096, static_cast<size_t>(size))));
      kept().size = kept().data ? size : 0;
      STD_TORCH_CHECK(kept().data, "no memory for a block of ", bytes, " bytes");
    }
  }
  ~Memory() {
    if (kept().size > 2 * kBlockBytes) kept() = {};
  }
  template <class T>
  T* at(int64_t bytes) const {
    return reinterpret_cast<T*>(kept().data.get() + bytes);
  }

 private:
  struct Free {
    void operator()(char* data) const { std::free(data); }
  };
  struct Kept {
    std::unique_ptr<char, Free> data;
    int64_t size = 0;
  };
  static Kept& kept() {
    static thread_local Kept memory;
    return memory;
  }
};

inline int64_t padded(int64_t elements) { return (elements + kPadded - 1) / kPadded * kPadded; }  // a cache line

class Products {
 public:
  Products(const Problem& p, const DenseKernels& kernels, const Pool& pool)
      : p_(p), kernels_(kernels), pool_(pool), functions_(p.I * p.F), columns_(columns_of(p)) {
    const int64_t fit = std::max(kLeastBlockRows, kBlockBytes / (2 * columns_) / kPadded * kPadded);
    const int64_t blocks = (p.N + fit - 1) / fit;
    rows_ = std::min(p.N, padded((p.N + blocks - 1) / blocks));
  }

  // y = Phi [N, C] times coef and base_weight as one [C, O], so that y is rounded once.
  void out() const {
    const int64_t stride = padded(columns_), phi_bytes = rows_ * stride * 2,
                  weights = p_.base_weight ? columns_ * p_.O : 0;
    const Memory memory(phi_bytes + weights * 2);
    auto* phi = memory.at<uint16_t>(0);
    const void* w = p_.coef.data;
    if (p_.base_weight) {
      auto* both = memory.at<char>(phi_bytes);
      const auto *coef = static_cast<const char*>(p_.coef.data), *base = static_cast<const char*>(p_.base_weight.data);
      const int64_t row = p_.O * 2;
      for (int64_t i = 0; i < p_.I; ++i, both += (p_.F + 1) * row) {
        std::memcpy(both, coef + i * p_.F * row, static_cast<size_t>(p_.F * row));
        std::memcpy(both + p_.F * row, base + i * row, static_cast<size_t>(row));
      }
      w = memory.at<char>(phi_bytes);
    }
    const Bf16Matrix right(w, columns_, p_.O, p_.O);
    for (int64_t n0 = 0; n0 < p_.N; n0 += rows_) {
      const int64_t rows = std::min(rows_, p_.N - n0);
      kernels_.by_row(p_, n0, rows, phi, stride, pool_);
      const Bf16Matrix left(phi, rows, columns_, stride);
      const Bf16Matrix y(static_cast<uint16_t*>(p_.out) + n0 * p_.O, rows, p_.O, p_.O);
      if (p_.bias) {
        const Bf16Matrix bias = Bf16Matrix::vector(p_.bias.data, p_.O, p_.bias.stride[0]);
        TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_addmm_out(y.get(), bias.get(), left.get(), right.get(), 1, 1));
      } else {
        multiply(y, left, right);
      }
    }
  }

  // grad_x from G = coef u^T [C, N], and grad_coef = Phi^T [C, N] u: block by block of rows, Phi^T in place of G.
  void backward() const {
    // An odd number of cache lines: the rows of G fall into different cache sets.
    const int64_t stride = padded(rows_) / kPadded % 2 ? padded(rows_) : padded(rows_) + kPadded;
    const int64_t g_bytes = columns_ * stride * 2, size = columns_ * p_.O;
    const bool sums = p_.grad_coef && rows_ < p_.N;  // of the blocks' gradients, in float32
    const Memory memory(g_bytes + (sums ? padded(size) * 6 : 0));
    auto* g = memory.at<uint16_t>(0);
    auto* sum = memory.at<float>(g_bytes);
    auto* part = memory.at<uint16_t>(g_bytes + padded(size) * 4);
    for (int64_t n0 = 0; n0 < p_.N; n0 += rows_) {
      const int64_t rows = std::min(rows_, p_.N - n0);
      const auto* u = static_cast<const uint16_t*>(p_.u.data) + n0 * p_.u.stride[0];
      if (p_.grad_x) {
        const Bf16Matrix right(u, p_.O, rows, 1, p_.u.stride[0]);
        multiply({g, functions_, rows, stride}, {p_.coef.data, functions_, p_.O, p_.O}, right);
        if (p_.with_base)
          multiply({g + functions_ * stride, p_.I, rows, stride}, {p_.base_weight.data, p_.I, p_.O, p_.O}, right);
      }
      kernels_.by_function(p_, n0, rows, g, stride, pool_);
      if (!p_.grad_coef) continue;
      const Bf16Matrix right(u, rows, p_.O, p_.u.stride[0]);
      const auto gradient = [&](int64_t column, int64_t columns, void* result) {
        void* to = sums ? part : result;
        multiply({to, columns, p_.O, p_.O}, {g + column * stride, columns, rows, stride}, right);
        if (sums)
          kernels_.add(part, columns * p_.O, n0 == 0, sum + column * p_.O,
                       n0 + rows == p_.N ? static_cast<uint16_t*>(result) : nullptr);
      };
      gradient(0, functions_, p_.grad_coef);
      if (p_.with_base) gradient(functions_, p_.I, p_.grad_base);
    }
  }

 private:
  const Problem& p_;
  const DenseKernels& kernels_;
  const Pool& pool_;
  int64_t functions_, columns_, rows_;
};

}  // namespace
}  // namespace fastkan
