// L1 and entropy penalties of a layer's edge sizes, with their gradients, as defined in
// fastkan/network/train/penalties.py. For small layers the number of calls dominates the time: this is a single one.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace fastkan {

struct PenaltyWeights {
  double l1, entropy, grad;
};

template <class T>
struct EdgePenalty {
  int64_t N, I, O;
  PenaltyWeights weights;
  const T* moments;  // [3, I, O]
  const T* x;        // [N, I] with strides x_row, x_column; or null
  int64_t x_row, x_column;
  // Results: 0-dimensional, [3, I, O], [I] and [I].
  T *penalty, *terms, *x_mean, *x_term;

  void run() const {
    const double more = N > 1 ? static_cast<double>(N) / static_cast<double>(N - 1) : 1, less = N > 1 ? N - 1 : 1;
    const int64_t edges = I * O;
    std::vector<double> x_std(I), size(edges), sum_in(I, 1), sum_out(O, 1), grad(edges, weights.l1);
    spread(less, x_std.data());
    double total = 0;
    for (int64_t i = 0; i < I; ++i)
      for (int64_t o = 0, e = i * O; o < O; ++o, ++e) {
        size[e] = std::sqrt(moments[2 * edges + e] * more) / room(x_std[i]);
        sum_in[i] += size[e];
        sum_out[o] += size[e];
        total += size[e];
      }
    total *= weights.l1;
    if (weights.entropy != 0) {
      total += entropy(size.data(), sum_in, 1, grad.data());
      total += entropy(size.data(), sum_out, 0, grad.data());
    }
    *penalty = static_cast<T>(total);
    for (int64_t i = 0; i < I; ++i) {
      double of_room = 0;
      for (int64_t o = 0, e = i * O; o < O; ++o, ++e) {
        const double by_std = weights.grad * grad[e] / room(x_std[i]), std = size[e] * room(x_std[i]);
        const double factor = std > 0 ? by_std / (std * less) : 0;
        terms[e] = T(0);
        terms[edges + e] = static_cast<T>(-factor * moments[edges + e]);
        terms[2 * edges + e] = static_cast<T>(factor);
        of_room -= by_std * size[e];
      }
      if (x) x_term[i] = static_cast<T>(x_std[i] > 0 ? of_room / (x_std[i] * less) : 0);
    }
  }

 private:
  double room(double x_std) const { return x ? x_std + 0.1 : 1; }

  // Means and standard deviations of the columns of x.
  void spread(double less, double* x_std) const {
    if (!x) return;
    std::vector<double> sum(I, 0), squares(I, 0);
    for (int64_t n = 0; n < N; ++n)
      for (int64_t i = 0; i < I; ++i) sum[i] += x[n * x_row + i * x_column];
    for (int64_t i = 0; i < I; ++i) sum[i] /= static_cast<double>(N);
    for (int64_t n = 0; n < N; ++n)
      for (int64_t i = 0; i < I; ++i) {
        const double apart = x[n * x_row + i * x_column] - sum[i];
        squares[i] += apart * apart;
      }
    for (int64_t i = 0; i < I; ++i) {
      x_mean[i] = static_cast<T>(sum[i]);
      x_std[i] = std::sqrt(squares[i] / less);
    }
  }

  // Mean over nodes of the entropy -sum share log2(share + 1e-4), share = size / sum over the node's edges; nodes are
  // inputs or outputs. Adds the gradient by size to `grad`.
  double entropy(const double* size, const std::vector<double>& sums, bool by_input, double* grad) const {
    constexpr double kTiny = 1e-4, kLog2 = 1.4426950408889634;
    const double weight = -weights.entropy / static_cast<double>(sums.size());
    std::vector<double> slope(I * O), of_sum(sums.size(), 0);
    double total = 0;
    for (int64_t i = 0; i < I; ++i)
      for (int64_t o = 0, e = i * O; o < O; ++o, ++e) {
        const int64_t node = by_input ? i : o;
        const double share = size[e] / sums[node], bits = std::log(share + kTiny) * kLog2;
        slope[e] = bits + kLog2 * share / (share + kTiny);  // of share log2(share + 1e-4)
        of_sum[node] += slope[e] * share;
        total += share * bits;
      }
    for (int64_t i = 0; i < I; ++i)
      for (int64_t o = 0, e = i * O; o < O; ++o, ++e) {
        const int64_t node = by_input ? i : o;
        grad[e] += weight * (slope[e] - of_sum[node]) / sums[node];
      }
    return weight * total;
  }
};

}  // namespace fastkan
