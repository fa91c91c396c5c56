// The local B-spline recurrence: the K + 1 basis functions that are non-zero on one knot span, and their derivatives.
// One source for g++ and nvcc. Source: de Boor, A Practical Guide to Splines, chapters IX and X.
#pragma once

#if defined(__CUDACC__)
#define FASTKAN_HD __host__ __device__ __forceinline__
#define FASTKAN_UNROLL _Pragma("unroll")
#define FASTKAN_ROLL _Pragma("unroll 1")
#else
#define FASTKAN_HD inline __attribute__((always_inline))
#define FASTKAN_UNROLL _Pragma("GCC unroll 8")
#define FASTKAN_ROLL _Pragma("GCC unroll 1")
#endif

namespace fastkan {

// Distances from x to its neighbouring knots, x in [t_m, t_{m+1}): left(j) = x - t_{m+1-j}, right(j) = t_{m+j} - x, j
// = 1..K, and inv_support, the reciprocal of t_{m+k+1} - t_{m-r+k+1}, by which a step of the recurrence divides.

// Knots one apart: u = x - t_m in units of the knot distance.
template <class T>
struct UniformKnots {
  T u;
  FASTKAN_HD T left(int j) const { return u + T(j - 1); }
  FASTKAN_HD T right(int j) const { return T(j) - u; }
  FASTKAN_HD T inv_support(int r, int) const { return T(1) / T(r); }
};

// Any knots: l[j-1] = left(j), r[j-1] = right(j).
template <class T, int K>
struct LocalKnots {
  T l[K > 0 ? K : 1], r[K > 0 ? K : 1];
  FASTKAN_HD T left(int j) const { return l[j - 1]; }
  FASTKAN_HD T right(int j) const { return r[j - 1]; }
  FASTKAN_HD T inv_support(int degree, int k) const { return T(1) / (right(k + 1) + left(degree - k)); }
};

// w[k] = d^D/dx^D of function m-K+k at x, k = 0..K (per knot distance, for uniform knots); D <= K <= MAX.
//   q_k = w_k / (t_{m+k+1} - t_{m-r+k+1})
//   value:      w_k <- left(r-k+1) q_{k-1} + right(k+1) q_k
//   derivative: w_k <- r (q_{k-1} - q_k)
template <int MAX, class T, class Knots>
FASTKAN_HD void local_functions(int K, int D, const Knots& knots, T* w) {
  w[0] = T(1);
  FASTKAN_UNROLL
  for (int r = 1; r <= MAX; ++r) {
    if (r <= K) {
      const bool derivative = r > K - D;
      T below = T(0);
      FASTKAN_UNROLL
      for (int k = 0; k < r; ++k) {
        const T q = w[k] * knots.inv_support(r, k);
        w[k] = derivative ? T(r) * (below - q) : knots.left(r - k + 1) * below + knots.right(k + 1) * q;
        below = q;
      }
      w[r] = derivative ? T(r) * below : knots.left(1) * below;
    }
  }
}

template <int K, int D, class T, class Knots>
FASTKAN_HD void local_functions(const Knots& knots, T* w) {
  local_functions<K>(K, D, knots, w);
}

}  // namespace fastkan
