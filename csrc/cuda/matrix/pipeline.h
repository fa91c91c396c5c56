// Software pipeline over the steps of a sum by matrix products. While one step is multiplied, the asynchronous copies
// of the next two are in flight, into a ring buffer of kStages stages; then the left operand of the next step is built.
// The first turn only builds. Products by wgmma run while the next left operand is built.
//   start_copies(step, stage)   of the right operand, for 0, 1, 2, ...
//   prepare()                   before all else, while the first copies are in flight
//   prefetch_x(step)            starts the loads that build_left will use, likewise
//   multiply(parity, stage)
//   build_left(step, parity)    double-buffered: even and odd steps
#pragma once

#include "tile.h"

namespace fastkan {

constexpr int kStages = 3;

template <class T, class Steps>
__device__ __forceinline__ void run_pipeline(Steps& steps, int count) {
  for (int ahead = 0; ahead < kStages - 2; ++ahead) {
    if (ahead < count) steps.start_copies(ahead, ahead);
    commit_copies();
  }
  steps.prepare();
  int stage = kStages - 1;  // of `step`; the one before it is free
  for (int step = -1; step < count; ++step) {
    wait_for_copies<kStages - 2>();
    if constexpr (T::kWgmma) fence_for_wgmma();
    T::sync();
    const int next = step + 1, after = step + kStages - 1;
    if (after < count) steps.start_copies(after, stage == 0 ? kStages - 1 : stage - 1);
    commit_copies();
    if (next < count) steps.prefetch_x(next);
    if (step >= 0) steps.multiply(step & 1, stage);
    if (next < count) steps.build_left(next, next & 1);
    if constexpr (T::kWgmma) wgmma_wait();
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
  wait_for_copies<0>();
  T::sync();
}

}  // namespace fastkan
