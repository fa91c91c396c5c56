// Which kernels take a problem; nothing else decides that.
//   matrix: uniform knots, degree 2 or 3, values and first derivatives, numbers of 16 bits, float64, or float32 where
//           tf32 is allowed, in rows of whole 16 bytes, and enough of them to fill tiles; float64 on GPUs made for it
//   wgmma:  of these kan_out of 16 bits, on sm_90
//   tma:    of these whose coefficients the copy engine can bring; by name alone, until a measurement prefers it
//   gather: everything, 16 bytes at a time where they lie so
// FASTKAN_CUDA_ALGORITHM names one; that never falls back, but for contractions that it has no kernel of.
#pragma once

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../basis/sparse.h"
#include "launch.h"

namespace fastkan {

enum class Algorithm : int { none, gather, matrix, wgmma, tma };

// What ran last, for tests.
inline std::atomic<Algorithm> last_algorithm{Algorithm::none};

// Whether rows of outputs can be taken 16 bytes at a time.
inline bool has_vectors(const View& v, int dimensions, Dtype dtype, int64_t width) {
  if (!v) return true;
  bool whole = v.dtype == dtype && v.stride[dimensions - 1] == 1 && reinterpret_cast<uintptr_t>(v.data) % 16 == 0;
  for (int d = 0; d + 1 < dimensions; ++d) whole = whole && v.stride[d] % width == 0;
  return whole;
}

inline bool has_vectors(const Problem& p, Dtype dtype) {
  const int64_t width = dtype == Dtype::f64 ? 2 : dtype == Dtype::f32 ? 4 : 8;
  return p.O % width == 0 && (dtype == Dtype::f64) == (p.compute == Dtype::f64) &&
         has_vectors(p.coef, 3, dtype, width) && has_vectors(p.u, 2, dtype, width) &&
         has_vectors(p.base_weight, 2, dtype, width) && has_vectors(p.bias, 1, dtype, width);
}

inline Dtype stored_dtype(const Problem& p) { return p.coef ? p.coef.dtype : p.u.dtype; }

inline const Kernels& gather_kernels(const Problem& p) {
  const Dtype dtype = stored_dtype(p);
  if (!has_vectors(p, dtype)) return p.compute == Dtype::f64 ? f64::elements : f32::elements;
  return dtype == Dtype::f32    ? f32::vectors
         : dtype == Dtype::f64  ? f64::vectors
         : dtype == Dtype::bf16 ? bf16::vectors
                                : f16::vectors;
}

inline const Kernels& matrix_kernels(const Problem& p, Algorithm algorithm) {
  static constexpr Kernels kNone = {};
  const Dtype dtype = stored_dtype(p);
  if (algorithm == Algorithm::matrix)
    return dtype == Dtype::bf16  ? bf16::matrix
           : dtype == Dtype::f16 ? f16::matrix
           : dtype == Dtype::f32 ? f32::matrix
                                 : f64::matrix;
  if (algorithm == Algorithm::wgmma)
    return dtype == Dtype::bf16 ? bf16::groups : dtype == Dtype::f16 ? f16::groups : kNone;
  return dtype == Dtype::bf16 ? bf16::tma : dtype == Dtype::f16 ? f16::tma : kNone;
}

// Why a problem cannot be a matrix product; nullptr if it can.
inline const char* no_matrix(const Problem& p) {
  const Dtype dtype = stored_dtype(p);
  const bool doubles = dtype == Dtype::f64;
  if (!doubles && p.compute == Dtype::f64) return "they take float64 for coefficients of float64";
  if (dtype == Dtype::f32 && !p.tf32) return "they take float32 that may be rounded to tf32, float64 or 16 bits";
  if (!has_vectors(p, dtype)) return "they take outputs in whole 16 bytes";
  if (p.s && p.s.dtype == Dtype::f64 && !doubles) return "they take weights of at most 32 bits";
  if (p.family != Family::bspline) return "they take B-splines";
  if (p.K != 2 && p.K != 3) return "they take degree 2 or 3";
  if (!p.uniform) return "they take uniform knots";
  const bool of_x_alone = p.grad_x && !p.grad_coef;
  if ((p.order != 0 && !of_x_alone) || p.x_order > 1) return "they take no higher derivatives";
  if (dtype == Dtype::f32) return p.F > kMostTf32Functions ? "they take up to 32 functions of float32" : nullptr;
  if (doubles) return p.F > kMostDoubleFunctions ? "they take up to 16 functions of float64" : nullptr;
  if (!is_sparse(p.F, p.K) || p.F > kMostMatrixFunctions) return "they take 5 to 56 functions";
  return nullptr;
}

// Why the copy engine cannot bring the weights of kan_out; nullptr if it can.
inline const char* no_boxes(const Problem& p) {
  if (p.F % 4 != 0) return "they take a multiple of 4 functions";
  for (int d = 0; d < 2; ++d)
    if (p.coef.stride[d] <= 0) return "they take coefficients that are not expanded";
  return p.base_weight && p.base_weight.stride[0] <= 0 ? "they take base weights that are not expanded" : nullptr;
}

// Whether it fills tiles, so that a product over all functions is faster than K + 1 of them from memory.
inline bool is_large(const Problem& p, const Device& device) {
  return p.N >= 64 && p.O >= 64 && (p.compute != Dtype::f64 || device.fast_doubles);
}

inline Algorithm asked_algorithm() {
  const char* name = std::getenv("FASTKAN_CUDA_ALGORITHM");
  if (!name || !*name) return Algorithm::none;
  if (std::strcmp(name, "gather") == 0) return Algorithm::gather;
  if (std::strcmp(name, "matrix") == 0) return Algorithm::matrix;
  if (std::strcmp(name, "wgmma") == 0) return Algorithm::wgmma;
  if (std::strcmp(name, "tma") == 0) return Algorithm::tma;
  throw std::runtime_error("FASTKAN_CUDA_ALGORITHM='" + std::string(name) + "': expected gather, matrix, wgmma or tma");
}

using Kernel = void (*)(const Problem&, const Device&);

inline Kernel choose(Kernel Kernels::* contraction, const Problem& p, const Device& device) {
  const Algorithm asked = asked_algorithm();
  const auto has = [&](Algorithm algorithm) { return matrix_kernels(p, algorithm).*contraction != nullptr; };
  const char* missing = no_matrix(p);
  Algorithm found = has(Algorithm::matrix) && !missing && is_large(p, device) ? Algorithm::matrix : Algorithm::gather;
  if (found == Algorithm::matrix && has(Algorithm::wgmma) && device.has_groups) found = Algorithm::wgmma;
  if (asked == Algorithm::gather) found = asked;
  if (has(Algorithm::matrix) && asked > Algorithm::gather) {
    found = has(asked) ? asked : Algorithm::matrix;
    if (!missing && found != Algorithm::matrix && !device.has_groups) missing = "they take a GPU of sm_90";
    if (!missing && found == Algorithm::tma) missing = no_boxes(p);
    if (missing) throw std::runtime_error(std::string("FASTKAN_CUDA_ALGORITHM: no such kernels for this: ") + missing);
  }
  last_algorithm = found;
  return (found == Algorithm::gather ? gather_kernels(p) : matrix_kernels(p, found)).*contraction;
}

}  // namespace fastkan
