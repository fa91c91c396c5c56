// csrc/cuda/matrix/wgmma.h for the emulated GPU. Products are computed at once or when they are waited for: shared
// memory that they read must be written before and stay valid until then, and accumulators must not be read before.
#pragma once

#include <cuda/matrix/ptx.h>

namespace emulated {

// Two rows of the left operand times the right operand, added to the accumulators of one lane.
struct Product {
  float (*sums)[4];
  float left[2][32];
  int depth;
  uint64_t right;
  bool deep;  // the right operand is stored along the depth
  float (*number)(const void*);
  int group = 0;  // set when it starts
};
void start_product(const Product& product);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int most);
void compute_products(int groups);
void fence_for_wgmma();
// Address of element [k][n] of a right operand, by the PTX ISA's "Matrix-descriptor format" and "Shared memory matrix
// layout": rows of neighbouring columns, 128-byte swizzle; `deep`: columns along the depth, 64-byte swizzle.
const void* right_number(uint64_t descriptor, bool deep, int k, int n);

template <class S>
float stored_number(const void* at) {
  uint16_t bits;
  memcpy(&bits, at, sizeof bits);
  expect_written(bits, 0xffff);
  return number(bits, 0, S{});
}

template <class S>
void start_product(float (&c)[16][4], const Fragments& mine, bool sparse, uint64_t right, bool deep) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const Fragments* lanes = all_fragments("wgmma", mine);
  Product product = {c, {}, sparse ? 32 : 16, right, deep, stored_number<S>};
  for (int j = 0; j < 2; ++j) left_row<S>(lanes, lane / 4 + 8 * j, sparse, product.left[j]);
  start_product(product);
}

}  // namespace emulated

namespace fastkan {

constexpr bool kHasWgmma = true;

inline void fence_for_wgmma() { emulated::fence_for_wgmma(); }
inline void wgmma_fence() { emulated::wgmma_fence(); }
inline void wgmma_commit() { emulated::wgmma_commit(); }
template <int GROUPS = 0>
void wgmma_wait() {
  emulated::wgmma_wait(GROUPS);
}

template <class S>
struct Wgmma {
  template <bool DEEP>
  static void multiply(float (&c)[16][4], const uint32_t (&a)[4], uint64_t right) {
    emulated::start_product<S>(c, {{a[0], a[1], a[2], a[3]}, {}, 0, 0}, false, right, DEEP);
  }
  template <int SELECTOR>
  static void multiply_sparse(float (&c)[16][4], const uint32_t (&a)[4], uint32_t metadata, uint64_t right) {
    emulated::start_product<S>(c, {{a[0], a[1], a[2], a[3]}, {}, metadata, SELECTOR}, true, right, false);
  }
};

}  // namespace fastkan
