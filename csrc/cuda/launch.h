// Kernel launches, integer arithmetic for tilings, and the allocator of a block's shared memory.
#pragma once

#include <stdexcept>
#include <string>

#include "../basis/wide.h"
#include "../basis/window.h"
#include "../contract/windows.h"
#include "problem.h"

namespace fastkan {

FASTKAN_HD int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
FASTKAN_HD int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
FASTKAN_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline void check(const char* kernel, cudaError_t status) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or torch would report it for its own next kernel
  throw std::runtime_error(std::string(kernel) + ": " + cudaGetErrorString(status));
}

constexpr int64_t kDefaultSharedBytes = 48 << 10;  // shared memory of a block without opt-in

template <class Args>
void launch(const char* name, void (*kernel)(Args), int64_t blocks, int threads, int64_t shared, const Device& device,
            const Args& args, int cluster = 1) {
  if (blocks > INT32_MAX) throw std::runtime_error(std::string(name) + ": more than 2^31 blocks are needed");
  if (shared > kDefaultSharedBytes)
    check(name, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = device.stream;
  cudaLaunchAttribute attribute = {};
  if (cluster > 1) {  // of blocks side by side, which run at the same time
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
  check(name, cudaLaunchKernelEx(&config, kernel, args));
}

// Arguments common to all kernels. Kernels for cubics have the degree at compile time; the others bound it and serve
// every family.
template <class A>
struct Contraction {
  Problem p;
  Windows windows;
  Shape shape;
  BaseFunction<A> base, base_of_x;  // of order `order`, and of order `x_order`

  static Contraction of(const Problem& p) {
    const bool exact = !p.uniform || (p.x_order > p.order ? p.x_order : p.order) >= p.K;
    return {p, windows_of(p), Shape{p.F, p.K, p.M, p.outside, p.uniform, exact, 1.0 / (p.M - 1)},
            BaseFunction<A>::of(p.base, p.order), BaseFunction<A>::of(p.base, p.x_order)};
  }
};

constexpr int kCubic = 3, kMaxDegree = 5;
static_assert(kWidestWindow == kMaxDegree + 1);

// Calls f<MAX, FIXED>().
template <class F>
void by_degree(const Problem& p, const F& f) {
  if (p.K == kCubic)
    f.template operator()<kCubic, true>();
  else
    f.template operator()<kMaxDegree, false>();
}

// Calls f<K>() for the degrees of kernels that take uniform knots.
template <class F>
void by_uniform_degree(const Problem& p, const F& f) {
  if (p.K == 3)
    f.template operator()<3>();
  else
    f.template operator()<2>();
}

// Hands out shared memory in pieces of whole 16 bytes.
class SharedAllocator {
 public:
  FASTKAN_HD explicit SharedAllocator(unsigned char* memory) : at_(memory) {}
  template <class T>
  FASTKAN_HD T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(at_);
    at_ += ceil_div(count * static_cast<int64_t>(sizeof(T)), 16) * 16;
    return piece;
  }
  FASTKAN_HD unsigned char* end() const { return at_; }

 private:
  unsigned char* at_;
};

// A type made of an allocator and the arguments: in that memory, and how much it takes.
template <class Shared, class... Args>
__device__ __forceinline__ Shared shared_at(unsigned char* memory, const Args&... args) {
  SharedAllocator allocator(memory);
  return Shared(allocator, args...);
}
template <class Shared, class... Args>
FASTKAN_HD int64_t shared_bytes(const Args&... args) {
  SharedAllocator allocator(nullptr);
  Shared(allocator, args...);
  return reinterpret_cast<intptr_t>(allocator.end());
}

}  // namespace fastkan
