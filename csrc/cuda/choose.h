// The choice of kernels for a problem; made nowhere else.
//   matrix: matrix products. Uniform knots, degree 2 or 3, values and first derivatives; bf16, fp16, float64, or
//   float32
//           if tf32 is allowed; rows of whole 16 bytes, enough to fill tiles; float64 only on GPUs with fast float64
//   wgmma:  the same for kan_out in 16 bits, on sm_90
//   gather: everything, 16 bytes at a time where alignment allows
// FASTKAN_CUDA_ALGORITHM names one. Such a request never falls back, except for contractions without a kernel of that
// algorithm. The operators without products gather, whatever it says.
#pragma once

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../basis/sparse.h"
#include "launch.h"

namespace fastkan {

enum class Algorithm : int { none, gather, matrix, wgmma };

// The algorithm of the last contraction, for tests.
inline std::atomic<Algorithm> last_algorithm{Algorithm::none};

// Whether rows of outputs can be read 16 bytes at a time.
inline bool has_vectors(const View& v, int dimensions, Dtype dtype, int64_t width) {
  if (!v) return true;
  bool aligned = v.dtype == dtype && v.stride[dimensions - 1] == 1 && reinterpret_cast<uintptr_t>(v.data) % 16 == 0;
  for (int d = 0; d + 1 < dimensions; ++d) aligned = aligned && v.stride[d] % width == 0;
  return aligned;
}

inline bool has_vectors(const Problem& p, Dtype dtype) {
  const int64_t width = dtype == Dtype::f64 ? 2 : dtype == Dtype::f32 ? 4 : 8;
  return p.O % width == 0 && (dtype == Dtype::f64) == (p.compute == Dtype::f64) &&
         has_vectors(p.coef, 3, dtype, width) && has_vectors(p.u, 2, dtype, width) &&
         has_vectors(p.base_weight, 2, dtype, width) && has_vectors(p.bias, 1, dtype, width);
}

inline Dtype stored_dtype(const Problem& p) { return p.coef ? p.coef.dtype : p.u.dtype; }

inline const Kernels& kernels_of(const Problem& p, Algorithm algorithm) {
  static constexpr Kernels kNone = {};
  const Dtype dtype = stored_dtype(p);
  const auto of_dtype = [&](const Kernels& of_f32, const Kernels& of_f64, const Kernels& of_bf16,
                            const Kernels& of_f16) {
    return dtype == Dtype::f32 ? &of_f32 : dtype == Dtype::f64 ? &of_f64 : dtype == Dtype::bf16 ? &of_bf16 : &of_f16;
  };
  if (algorithm == Algorithm::matrix) return *of_dtype(f32::matrix, f64::matrix, bf16::matrix, f16::matrix);
  if (algorithm == Algorithm::wgmma) return *of_dtype(kNone, kNone, bf16::wgmma, f16::wgmma);
  if (!has_vectors(p, dtype)) return p.compute == Dtype::f64 ? f64::elements : f32::elements;
  return *of_dtype(f32::vectors, f64::vectors, bf16::vectors, f16::vectors);
}

// Why the matrix kernels do not take a problem; nullptr if they do.
inline const char* why_not_matrix(const Problem& p) {
  const Dtype dtype = stored_dtype(p);
  const bool is_f64 = dtype == Dtype::f64;
  if (!is_f64 && p.compute == Dtype::f64) return "they take float64 for coefficients of float64";
  if (dtype == Dtype::f32 && p.products != Products::tf32)
    return "they take float32 that may be rounded to tf32, float64 or 16 bits";
  if (!has_vectors(p, dtype)) return "they take outputs in whole 16 bytes";
  if (p.s && p.s.dtype == Dtype::f64 && !is_f64) return "they take weights of at most 32 bits";
  if (p.family != Family::bspline) return "they take B-splines";
  if (p.K != 2 && p.K != 3) return "they take degree 2 or 3";
  if (!p.uniform) return "they take uniform knots";
  if (max(p.coef.stride[0] + p.coef.stride[1], p.base_weight.stride[0]) >= INT32_MAX / 64)
    return "they take inputs within 2^25 elements";
  const bool of_x_alone = p.grad_x && !p.grad_coef;
  if ((p.order != 0 && !of_x_alone) || p.x_order > 1) return "they take no higher derivatives";
  if (dtype == Dtype::f32) return p.F > kMaxTf32Functions ? "they take up to 32 functions of float32" : nullptr;
  if (is_f64) return p.F > kMaxDoubleFunctions ? "they take up to 16 functions of float64" : nullptr;
  if (!is_sparse(p.F, p.K) || p.F > kMaxMatrixFunctions) return "they take 5 to 56 functions";
  return nullptr;
}

// Whether it fills tiles, so that a product over all functions is faster than gathering K + 1 of them from memory.
inline bool is_large(const Problem& p, const Device& device) {
  return p.N >= 64 && p.O >= 64 && (p.compute != Dtype::f64 || device.has_fp64_tensor_cores);
}

// Whether more than half of a wgmma tile, 128 by 256, is used.
inline bool fills_wgmma(const Problem& p) { return p.N > 64 && p.O > 128; }

inline Algorithm requested_algorithm() {
  const char* name = std::getenv("FASTKAN_CUDA_ALGORITHM");
  if (!name || !*name) return Algorithm::none;
  if (std::strcmp(name, "gather") == 0) return Algorithm::gather;
  if (std::strcmp(name, "matrix") == 0) return Algorithm::matrix;
  if (std::strcmp(name, "wgmma") == 0) return Algorithm::wgmma;
  throw std::runtime_error("FASTKAN_CUDA_ALGORITHM='" + std::string(name) + "': expected gather, matrix or wgmma");
}

using Kernel = void (*)(const Problem&, const Device&);

inline Kernel choose(Kernel Kernels::* contraction, const Problem& p, const Device& device) {
  const Algorithm requested = p.products == Products::none ? Algorithm::gather : requested_algorithm();
  const auto has = [&](Algorithm algorithm) { return kernels_of(p, algorithm).*contraction != nullptr; };
  const char* reason = why_not_matrix(p);
  Algorithm chosen = has(Algorithm::matrix) && !reason && is_large(p, device) ? Algorithm::matrix : Algorithm::gather;
  if (chosen == Algorithm::matrix && has(Algorithm::wgmma) && device.has_wgmma && fills_wgmma(p))
    chosen = Algorithm::wgmma;
  if (requested == Algorithm::gather) chosen = requested;
  if (has(Algorithm::matrix) && requested > Algorithm::gather) {
    chosen = has(requested) ? requested : Algorithm::matrix;
    if (!reason && chosen != Algorithm::matrix && !device.has_wgmma) reason = "they take a GPU of sm_90";
    if (reason) throw std::runtime_error(std::string("FASTKAN_CUDA_ALGORITHM: no such kernels for this: ") + reason);
  }
  last_algorithm = chosen;
  return kernels_of(p, chosen).*contraction;
}

}  // namespace fastkan
