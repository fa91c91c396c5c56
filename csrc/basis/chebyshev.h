// Chebyshev polynomials of the first kind and their derivatives; defined in fastkan/basis/chebyshev.py.
#pragma once

#include "bspline.h"

namespace fastkan {

// T_f^(d)(z), |z| <= 1: T_f = 2 z T_{f-1} - T_{f-2}, and T_f^(d) = 2^(d-1) (d-1)! f C_{f-d}^(d) with the
// ultraspherical
//   (n + 1) C_{n+1} = 2 (n + d) z C_n - (n + 2 d - 1) C_{n-1}.
// V is T or a SIMD vector of T.
template <class T, class V>
FASTKAN_HD V chebyshev(int f, int d, V z) {
  const V zero = z - z;
  if (f < d) return zero;
  V below = d == 0 ? z : zero, here = zero + T(1);  // T_{-1} = z
  for (int n = 0; n < f - d; ++n) {
    const V twice = T(2) * z * here;
    const T over = T(1) / T(n + 1);
    const V above = d == 0 ? twice - below : T(n + d) * over * twice - T(n + 2 * d - 1) * over * below;
    below = here;
    here = above;
  }
  T factor = d == 0 ? T(1) : T(f);
  for (int k = 1; k < d; ++k) factor *= T(2 * k);
  return factor * here;
}

}  // namespace fastkan
