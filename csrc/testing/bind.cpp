// Python bindings of the headers shared by host and device (csrc/basis), for the tests.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "basis/bspline.h"
#include "basis/silu.h"
#include "sparse.h"
#include "window.h"

namespace fastkan {
namespace {

template <int K, int D, class T, class Knots>
std::vector<T> window(const Knots& knots) {
  std::vector<T> w(K + 1);
  local_functions<K, D>(knots, w.data());
  return w;
}

// Calls f<K, D>() for a degree and an order known only at run time.
template <int K = 0, int D = 0, class F>
auto dispatch(int degree, int order, const F& f) -> decltype(f.template operator()<0, 0>()) {
  if (degree == K && order == D) return f.template operator()<K, D>();
  if constexpr (D < K) {
    return dispatch<K, D + 1>(degree, order, f);
  } else if constexpr (K < 5) {
    return dispatch<K + 1, 0>(degree, order, f);
  } else {
    throw std::invalid_argument("expected 0 <= order <= degree <= 5");
  }
}

// u = (x - t_m) / h of uniform knots; derivatives are per knot distance.
template <class T>
std::vector<T> uniform_functions(int degree, int order, T u) {
  return dispatch(degree, order, [&]<int K, int D>() { return window<K, D, T>(UniformKnots<T>{u}); });
}

// The 2K knots around x in [t_m, t_{m+1}): t_{m-K+1} .. t_{m+K}.
template <class T>
std::vector<T> local_functions_at(int degree, int order, double x, const std::vector<double>& t) {
  if (static_cast<int>(t.size()) != 2 * degree) throw std::invalid_argument("expected 2 * degree knots");
  return dispatch(degree, order, [&]<int K, int D>() {
    LocalKnots<T, K> knots;
    for (int j = 1; j <= K; ++j) {
      knots.l[j - 1] = static_cast<T>(x - t[K - j]);
      knots.r[j - 1] = static_cast<T>(t[K + j - 1] - x);
    }
    return window<K, D, T>(knots);
  });
}

std::vector<double> sigmoid_polynomial(int order) {
  if (order < 0 || order >= kMaxOrder) throw std::invalid_argument("order is out of range");
  std::vector<double> p(order + 2);
  sigmoid_derivative(order, p.data());
  return p;
}

}  // namespace
}  // namespace fastkan

PYBIND11_MODULE(fastkan_testing, m) {
  m.def("uniform_functions_f64", &fastkan::uniform_functions<double>);
  m.def("uniform_functions_f32", &fastkan::uniform_functions<float>);
  m.def("local_functions_f64", &fastkan::local_functions_at<double>);
  m.def("local_functions_f32", &fastkan::local_functions_at<float>);
  m.def("window_f64", &fastkan::window_at<double>);
  m.def("window_f32", &fastkan::window_at<float>);
  m.def("uniform_window_f32", &fastkan::uniform_window_at<float>);
  m.def("uniform_knots", &fastkan::knots_of);
  m.def("sparse_fragment", &fastkan::sparse_fragment);
  m.def("tf32_fragment", &fastkan::tf32_fragment);
  m.def("is_sparse", &fastkan::is_sparse);
  m.def("sigmoid_polynomial", &fastkan::sigmoid_polynomial);
  m.def("exponential_f32", [](float x) { return fastkan::exponential(x); });
  m.def("exponential_f64", [](double x) { return fastkan::exponential(x); });
}
