// Gaussian radial functions exp(-t^2), t = (x - c_f) / h, and their derivatives; defined in fastkan/basis/rbf.py.
#pragma once

#include "silu.h"

namespace fastkan {

// (-1)^d d^d/dt^d exp(-t^2) = H_d(t) exp(-t^2), with H_{n+1} = 2 t H_n - 2 n H_{n-1}.
template <class T>
FASTKAN_HD T gaussian(int d, T t) {
  T below = T(0), here = exponential(-t * t);
  FASTKAN_UNROLL
  for (int n = 0; n < d; ++n) {
    const T above = T(2) * (t * here - T(n) * below);
    below = here;
    here = above;
  }
  return here;
}

}  // namespace fastkan
