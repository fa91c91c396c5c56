// csrc/cuda/matrix/wgmma.h on the emulated GPU. Products are made when they are waited for: what they read of shared
// memory has to be there until then, and what they add to is not to be read before.
#pragma once

#include <cuda/matrix/ptx.h>

namespace emulated {

// Two rows of the left operand times shared memory, added to the sums of one lane.
struct Product {
  float (*sums)[4];
  float left[2][32];
  int depth;
  uint64_t right;
  float (*number)(const void*);
};
void start_product(const Product& product);
void begin_products();
void wait_for_products();
void show_copies();
// [k][n] of a right operand, by the PTX ISA's "Matrix-descriptor format" and "Shared memory matrix layout": columns
// next to one another, 128 bytes swizzled.
const void* right_number(uint64_t descriptor, int k, int n);

template <class S>
float stored_number(const void* at) {
  uint16_t bits;
  memcpy(&bits, at, sizeof bits);
  return number(bits, 0, S{});
}

template <class S>
void start_product(float (&c)[16][4], const Fragments& mine, bool sparse, uint64_t right) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const Fragments* lanes = all_fragments("wgmma", mine);
  Product product = {c, {}, sparse ? 32 : 16, right, stored_number<S>};
  for (int j = 0; j < 2; ++j) left_row<S>(lanes, lane / 4 + 8 * j, sparse, product.left[j]);
  start_product(product);
}

}  // namespace emulated

namespace fastkan {

constexpr bool kHasGroups = true;

inline void show_copies_to_products() { emulated::show_copies(); }
inline void begin_products() { emulated::begin_products(); }
inline void end_products() {}
inline void wait_for_products() { emulated::wait_for_products(); }

template <class S>
struct GroupMatrices {
  static void multiply(float (&c)[16][4], const uint32_t (&a)[4], uint64_t right) {
    emulated::start_product<S>(c, {{a[0], a[1], a[2], a[3]}, {}, 0}, false, right);
  }
  static void multiply_sparse(float (&c)[16][4], const uint32_t (&a)[4], uint32_t places, uint64_t right) {
    emulated::start_product<S>(c, {{a[0], a[1], a[2], a[3]}, {}, places}, true, right);
  }
};

}  // namespace fastkan
