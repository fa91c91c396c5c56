// The base function silu(x) = x sigma(x) and its derivatives; branch-free, so that loops over them vectorise.
#pragma once

#include <cstdint>
#include <cstring>

#include "bspline.h"

namespace fastkan {

constexpr int kMaxOrder = 12;  // of derivatives

// Coefficients of P_n, constant first, with sigma^(n) = P_n(sigma): P_0 = s, P_{n+1} = P_n' (s - s^2). Degree n + 1.
inline void sigmoid_derivative(int order, double* p) {
  for (int k = 0; k <= order + 1; ++k) p[k] = k == 1;
  for (int n = 0; n < order; ++n) {
    double next[kMaxOrder + 2] = {0};
    for (int k = 1; k <= n + 1; ++k) {
      next[k] += k * p[k];
      next[k + 1] -= k * p[k];
    }
    for (int k = 0; k <= n + 2; ++k) p[k] = next[k];
  }
}

// exp(x) = 2^n e^r with |r| <= ln2 / 2, and e^r by its Taylor series to the rounding of the type. Results below the
// smallest normal number are 0, those above the largest are infinite: silu is 0 at any x far below 0.
FASTKAN_HD float exponential(float x) {
  x = x < 89.0f ? x : 89.0f;
  x = x > -88.0f ? x : -88.0f;
  const int32_t whole = static_cast<int32_t>(x * 1.44269504f + (x < 0 ? -0.5f : 0.5f));
  const float n = static_cast<float>(whole);
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  float e = 1.98412698e-4f;
  e = e * r + 1.38888889e-3f;
  e = e * r + 8.33333333e-3f;
  e = e * r + 4.16666667e-2f;
  e = e * r + 1.66666667e-1f;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  const int32_t bits = (whole + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return e * power;
}

FASTKAN_HD double exponential(double x) {
  x = x < 710.0 ? x : 710.0;
  x = x > -709.0 ? x : -709.0;
  const int32_t whole = static_cast<int32_t>(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5));
  const double n = static_cast<double>(whole);
  const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double e = 1.0 / 6227020800.0;
  e = e * r + 1.0 / 479001600.0;
  e = e * r + 1.0 / 39916800.0;
  e = e * r + 1.0 / 3628800.0;
  e = e * r + 1.0 / 362880.0;
  e = e * r + 1.0 / 40320.0;
  e = e * r + 1.0 / 5040.0;
  e = e * r + 1.0 / 720.0;
  e = e * r + 1.0 / 120.0;
  e = e * r + 1.0 / 24.0;
  e = e * r + 1.0 / 6.0;
  e = e * r + 0.5;
  e = e * r + 1.0;
  e = e * r + 1.0;
  const int64_t bits = (static_cast<int64_t>(whole) + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return e * power;
}

template <class T>
FASTKAN_HD T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}

// The same for a result that is rounded to at most 11 bits.
FASTKAN_HD double sigmoid_of_few_bits(double x) { return sigmoid(x); }
FASTKAN_HD float sigmoid_of_few_bits(float x) {
#if defined(__CUDA_ARCH__)
  float e;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(-1.44269504f * x));
  return __fdividef(1.0f, 1.0f + e);
#else
  return sigmoid(x);
#endif
}
template <class T>
FASTKAN_HD T silu_of_few_bits(T x) {
  return x * sigmoid_of_few_bits(x);
}
template <class T>
FASTKAN_HD T silu_slope_of_few_bits(T x) {
  const T sigma = sigmoid_of_few_bits(x);
  return sigma * (T(1) + x * (T(1) - sigma));
}

}  // namespace fastkan
