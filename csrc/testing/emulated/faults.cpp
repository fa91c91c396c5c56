// Kernels with mistakes, which the emulator must find: tests/test_cuda_emulator.py.
#include <cuda/matrix/tma.h>

#include <stdexcept>
#include <string>

namespace fastkan {

extern unsigned char fastkan_shared[];

namespace {

constexpr int kThreads = 64;
alignas(16) uint32_t numbers[2][kThreads][4], found[kThreads];

void skipped_barrier(int) {
  if (threadIdx.x != 5) __syncthreads();
}
void lonely_named_barrier(int) {
  if (threadIdx.x < 32) named_barrier_sync<kThreads>(3);
}
void forgotten_arrival(int) {
  Barrier* barrier = reinterpret_cast<Barrier*>(fastkan_shared + 128);
  if (threadIdx.x == 0) init_barrier(barrier, 2);
  __syncthreads();
  if (threadIdx.x == 0) arrive(barrier);
  wait_for(barrier, 0);
}
void different_operations(int) { threadIdx.x % 2 ? __syncwarp() : static_cast<void>(__ballot_sync(~0u, true)); }
void endless_polling(int) {
  while (__ballot_sync(~0u, true)) continue;
}
void unwritten_operand(int) {
  uint32_t a[4] = {}, b[4];
  ldmatrix(b, fastkan_shared + 16 * (threadIdx.x % 32));
  float sums[4] = {};
  Mma<__half>::multiply(sums, a, b[0], b[1]);
}
// Two copies, each to be waited for before its numbers are read.
void copies(bool waits_for_first, bool overwrites) {
  const unsigned t = threadIdx.x;
  uint32_t* stage = reinterpret_cast<uint32_t*>(fastkan_shared);
  copy_async(stage + 4 * t, numbers[0][t], true);
  commit_copies();
  if (waits_for_first) wait_for_copies<0>();
  __syncthreads();
  if (overwrites) copy_async(stage + 4 * t, numbers[1][t], true);
  commit_copies();
  __syncwarp();
  found[t] = stage[4 * ((t + 1) % kThreads)];
  wait_for_copies<0>();
}
void right_copies(int) { copies(true, false); }
void copy_not_waited_for(int) { copies(false, false); }
void stage_overwritten_early(int) { copies(true, true); }

std::string run(void (*kernel)(int), int blocks) {
  for (unsigned t = 0; t < kThreads; ++t) numbers[0][t][0] = t, numbers[1][t][0] = 1000 + t;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = 16 * kThreads;
  try {
    cudaLaunchKernelEx(&config, kernel, 0);
  } catch (const std::exception& error) {
    return error.what();
  }
  if (kernel != right_copies && kernel != copy_not_waited_for && kernel != stage_overwritten_early) return "";
  for (unsigned t = 0; t < kThreads; ++t)
    if (found[t] != (t + 1) % kThreads) return "wrong numbers";
  return "";
}

}  // namespace
}  // namespace fastkan

// What is found in the kernel of that name; empty: nothing.
extern "C" __attribute__((visibility("default"))) const char* fastkan_emulated_fault(const char* name, int blocks) {
  static std::string result;
  result = "no such kernel";
#define FASTKAN_FAULT(kernel) \
  if (std::string(name) == #kernel) result = fastkan::run(fastkan::kernel, blocks);
  FASTKAN_FAULT(skipped_barrier)
  FASTKAN_FAULT(lonely_named_barrier)
  FASTKAN_FAULT(forgotten_arrival)
  FASTKAN_FAULT(different_operations)
  FASTKAN_FAULT(endless_polling)
  FASTKAN_FAULT(unwritten_operand)
  FASTKAN_FAULT(right_copies)
  FASTKAN_FAULT(copy_not_waited_for)
  FASTKAN_FAULT(stage_overwritten_early)
  return result.c_str();
}
