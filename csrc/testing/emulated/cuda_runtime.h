// An emulated GPU for the tests: the part of CUDA that the kernels use, so that a C++ compiler can compile their
// source. Blocks, or clusters of them, run one after the other; threads are fibers, each running until it waits for
// others. The order of the fibers changes at every wait, and shared memory starts as NaN, which exposes missing
// barriers; except where the lanes of a warp exchange values: that makes them wait here, but orders no memory on a GPU.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <string>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

enum cudaError_t { cudaSuccess, cudaErrorLaunchFailure };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrSingleToDoublePrecisionPerfRatio
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
using cudaStream_t = struct EmulatedStream*;
struct cudaFuncAttributes {};
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    dim3 clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

// The emulator's own functions; the CUDA functions below call them.
namespace emulated {

inline constexpr int kWarp = 32;
// Shared memory of a block: without opt-in, and the maximum on sm_90 and elsewhere.
inline constexpr size_t kShared = 48 << 10, kMaxShared90 = 227 << 10, kMaxShared = 99 << 10;

void run(const cudaLaunchConfig_t& config, void (*body)(const void*), const void* context);
void allow_shared(const void* kernel, int bytes);
void expect_shared(const void* kernel, size_t bytes);
bool refuses_launches();  // FASTKAN_EMULATED_REFUSES is set
inline cudaError_t last_error = cudaSuccess;
void fail(const std::string& what);  // ends the launch with an error that names the running thread
void wait_for_block();
// Waits for the whole warp, whose threads must all call the same `operation`, and returns the value that each gave.
const uint64_t* exchange(const char* operation, uint64_t given);

template <class T>
uint64_t bits_of(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T value_of(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulated

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... args) {
  if (emulated::refuses_launches()) return emulated::last_error = cudaErrorLaunchFailure;
  emulated::expect_shared(reinterpret_cast<const void*>(kernel), config->dynamicSmemBytes);
  auto call = [&] { kernel(args...); };
  emulated::run(*config, [](const void* context) { (*static_cast<const decltype(call)*>(context))(); }, &call);
  return cudaSuccess;
}
template <class F>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, F) {
  return cudaSuccess;
}
template <class F>
cudaError_t cudaFuncSetAttribute(F kernel, cudaFuncAttribute, int bytes) {
  emulated::allow_shared(reinterpret_cast<const void*>(kernel), bytes);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device);
cudaError_t cudaMemsetAsync(void* memory, int byte, size_t bytes, cudaStream_t stream);
inline cudaError_t cudaGetLastError() { return std::exchange(emulated::last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }

inline void __trap() { emulated::fail("a trap"); }
inline void __syncthreads() { emulated::wait_for_block(); }
inline void __syncwarp(unsigned = ~0u) { emulated::exchange("syncwarp", 0); }

inline int emulated_lane() { return static_cast<int>(threadIdx.x % emulated::kWarp); }
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulated::value_of<T>(emulated::exchange("shfl", emulated::bits_of(value))[lane]);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int by) {
  return emulated::value_of<T>(emulated::exchange("shfl_xor", emulated::bits_of(value))[emulated_lane() ^ by]);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int by) {
  const uint64_t* given = emulated::exchange("shfl_up", emulated::bits_of(value));
  return emulated::value_of<T>(given[emulated_lane() < by ? emulated_lane() : emulated_lane() - by]);
}
inline unsigned __ballot_sync(unsigned, bool value) {
  const uint64_t* given = emulated::exchange("ballot", value);
  unsigned mask = 0;
  for (int l = 0; l < emulated::kWarp; ++l) mask |= static_cast<unsigned>(given[l] != 0) << l;
  return mask;
}
template <class T>
unsigned __match_any_sync(unsigned, T value) {
  const uint64_t* given = emulated::exchange("match_any", emulated::bits_of(value));
  unsigned mask = 0;
  for (int l = 0; l < emulated::kWarp; ++l) mask |= static_cast<unsigned>(given[l] == given[emulated_lane()]) << l;
  return mask;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulated {
void expect_aligned(const void* address, size_t bytes);
}
template <class T>
T __ldg(const T* from) {
  emulated::expect_aligned(from, sizeof(T));
  return *from;
}
