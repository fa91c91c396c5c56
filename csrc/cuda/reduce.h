// Second launch of a split-K reduction: adds the partial sums of splits over rows or inputs in a fixed order.
#pragma once

#include "launch.h"
#include "operand.h"

namespace fastkan {

constexpr int kReduceThreads = 256;

// to[j] = sum of parts[q * size + j] over q (+ bias[j % O]), j < size.
template <class A>
struct PartialSums {
  const A* parts = nullptr;
  int64_t size = 0, count = 0;
  void* to = nullptr;
  Dtype dtype = Dtype::f32;
  View bias;
  int64_t O = 1;
};

template <class A>
struct TwoPartialSums {
  PartialSums<A> first, second;
};

template <class A>
__global__ void __launch_bounds__(kReduceThreads) reduce_kernel(const __grid_constant__ TwoPartialSums<A> both) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const bool is_first = j < both.first.size;
  const PartialSums<A>& p = is_first ? both.first : both.second;
  const int64_t at = is_first ? j : j - both.first.size;
  if (at >= p.size) return;
  A sum = A(0);
  for (int64_t q = 0; q < p.count; ++q) sum += p.parts[q * p.size + at];
  if (p.bias) sum += element<A>(p.bias, at % p.O * p.bias.stride[0]);
  put_element(p.to, p.dtype, at, sum);
}

template <class A>
void reduce(const PartialSums<A>& first, const PartialSums<A>& second, const Device& device) {
  if (first.size + second.size == 0) return;
  launch("reduce", reduce_kernel<A>, ceil_div(first.size + second.size, kReduceThreads), kReduceThreads, 0, device,
         TwoPartialSums<A>{first, second});
}

}  // namespace fastkan
