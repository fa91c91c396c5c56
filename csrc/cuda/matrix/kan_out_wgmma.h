// kan_out of order 0 with wgmma on sm_90, in 16 bits: a warp-specialised persistent kernel. A block computes tiles of
// 128 rows by 256 outputs. Two warpgroups produce: they take turns at the steps, evaluate the left operand of 128 rows
// (left_operand.h) into a stage of a ring buffer, and each warp starts the copy of a quarter of the coefficients there
// by TMA. Two warpgroups consume: 64 rows each, left operand in registers, right operand by descriptor. There is one
// block per multiprocessor; production for the next tile overlaps the end of the current one. Where there are as many
// rows, blocks are in clusters of two, with tiles one below the other: each copies half of the coefficients, to both.
//
// coef[I, F, O] as stored is a tensor of outputs, places, chunks and inputs, whose tiles arrive in the order of the
// columns. Where F is not a multiple of 4, or coefficients are expanded, the producers copy them by cp.async.
#pragma once

#include "kan_out.h"

namespace fastkan {

// The tile of a block; T::thread() counts the threads that compute it.
struct ConsumerTile {
  using Sum = float;
  static constexpr bool kWgmma = true;
  static constexpr int kGroup = 4 * kWarp, kProducers = 2 * kGroup, kThreads = 2 * kGroup;
  static constexpr int kRows = 128, kColumns = 256, kRowBlocks = 1, kColumnBlocks = 32;
  static constexpr int kPieces = kColumns / 8;
  static_assert(kGroup / kWarp * 64 == kColumns);  // each warp of producers copies 64 columns
  __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x) - kProducers; }
  __device__ __forceinline__ static int first_row(int) { return thread() / kWarp * 16; }
  __device__ __forceinline__ static int first_column() { return 0; }
};

struct MatrixOutWgmmaArgs {
  MatrixOutArgs<float> out;
  bool by_tma;
  int cluster;  // blocks of a cluster
  TensorMap coef, base_weight;
  unsigned tiles;
};

template <class S>
struct MatrixOutWgmmaShared {
  using T = ConsumerTile;
  using Left = LeftOperand<S, T::kRows>;
  using Copies = RightCopies<S, T, T::kGroup>;
  static constexpr int kStages = 5;
  uint4* right;  // [kStages][Copies::kStage]
  Left* left;    // [kStages]
  Barrier *full, *empty;
  WindowTables<float>* tables;
  unsigned* offsets;  // [Copies::kOffsets]

  FASTKAN_HD explicit MatrixOutWgmmaShared(SharedAllocator& allocator)
      : right(allocator.take<uint4>(kStages * Copies::kStage)),
        left(allocator.take<Left>(kStages)),
        full(allocator.take<Barrier>(kStages)),
        empty(allocator.take<Barrier>(kStages)),
        tables(allocator.take<WindowTables<float>>(1)),
        offsets(allocator.take<unsigned>(Copies::kOffsets)) {}
};

// A stage of a ring buffer, and the parity of its phase.
template <int STAGES>
struct Ring {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// One arrival for each warp, in every block of the cluster.
__device__ __forceinline__ void arrive_as_warp(Barrier* barrier, int cluster) {
  __syncwarp();
  for (int rank = 0; threadIdx.x % kWarp == 0 && rank < cluster; ++rank) arrive_at(barrier, rank);
}

// Announces the 64 columns of a stage from `column` on, and starts their copy if that is this block's part.
template <class S>
__device__ __forceinline__ void start_tma_copy(const MatrixOutWgmmaArgs& a, int step, int64_t o0, int column,
                                               uint4* right, Barrier* full) {
  const MatrixOutArgs<float>& out = a.out;
  const bool spline = out.is_spline(step);
  const int rows = spline ? 4 * out.chunks * out.inputs : kStepInputs, i = out.input_of(step);
  const int o = static_cast<int>(o0) + column;
  uint4* to = right + right_at<MatrixOutWgmmaShared<S>::Copies::kRows>(0, column / 8);
  arrive_expect_bytes(full, rows * 64 * static_cast<int>(sizeof(S)));
  if (column * a.cluster / ConsumerTile::kColumns != cluster_rank()) return;
  copy_tma_tile(to, spline ? a.coef : a.base_weight, {o, spline ? 0 : i, 0, spline ? i : 0}, full, a.cluster);
}

template <class S, int K, bool USUAL>
__device__ __forceinline__ void produce(const MatrixOutWgmmaArgs& a, const MatrixOutWgmmaShared<S>& shared) {
  using T = ConsumerTile;
  using Copies = typename MatrixOutWgmmaShared<S>::Copies;
  const int thread = static_cast<int>(threadIdx.x) % T::kGroup;
  bool mine = threadIdx.x >= T::kGroup;  // the step before the first one
  LeftBuilder<S, T::kRows, T::kGroup, K, USUAL> builder(a.out, *shared.tables, thread);
  Copies copies(a.out, shared.offsets, thread);
  const UsualKnots usual = shared.tables->usual;
  Ring<MatrixOutWgmmaShared<S>::kStages> ring;
  for (unsigned t = blockIdx.x; t < a.tiles; t += gridDim.x) {
    const TileOfOut tile = TileOfOut::of(a.out, t, T::kRows, T::kColumns, a.cluster);
    builder.start(tile.n0);
    copies.start(tile.o0);
    bool fetched = false;
    FASTKAN_ROLL
    for (int step = tile.begin; step < tile.end; ++step, ring.next()) {
      mine = !mine;
      if (!mine) continue;
      uint4* right = shared.right + ring.stage * Copies::kStage;
      Barrier* full = shared.full + ring.stage;
      if (!fetched) builder.prefetch(step);
      wait_for(shared.empty + ring.stage, ring.parity ^ 1);
      if (!a.by_tma)
        copies.copy(step, right);
      else if (thread % kWarp == 0)
        start_tma_copy<S>(a, step, tile.o0, thread / kWarp * 64, right, full);
      builder.build(step, usual, shared.left[ring.stage]);
      fetched = step + 2 < tile.end;
      if (fetched) builder.prefetch(step + 2);
      if (!a.by_tma) {
        commit_copies();
        wait_for_copies<0>();
        fence_for_wgmma();
      }
      __syncwarp();
      if (thread % kWarp == 0) arrive(full);
    }
  }
}

template <class S>
__device__ __forceinline__ void consume(const MatrixOutWgmmaArgs& a, const MatrixOutWgmmaShared<S>& shared) {
  using T = ConsumerTile;
  using Copies = typename MatrixOutWgmmaShared<S>::Copies;
  const Problem& p = a.out.c.p;
  Ring<MatrixOutWgmmaShared<S>::kStages> ring;
  for (unsigned t = blockIdx.x; t < a.tiles; t += gridDim.x) {
    const TileOfOut tile = TileOfOut::of(a.out, t, T::kRows, T::kColumns, a.cluster);
    WarpSums<T> sums;
    Barrier* before = nullptr;  // of the step that is still being multiplied
    FASTKAN_ROLL
    for (int step = tile.begin; step < tile.end; ++step, ring.next()) {
      wait_for(shared.full + ring.stage, ring.parity);
      multiply_step<S>(a.out.is_spline(step), shared.left[ring.stage], shared.right + ring.stage * Copies::kStage,
                       sums);
      wgmma_wait<1>();
      if (before) arrive_as_warp(before, a.cluster);
      before = shared.empty + ring.stage;
    }
    wgmma_wait<0>();
    if (before) arrive_as_warp(before, a.cluster);
    const auto row_of = [&](auto* out) {
      return [=, &p](int row) { return tile.n0 + row < p.N ? out + (tile.n0 + row) * p.O + tile.o0 : nullptr; };
    };
    if (a.out.splits > 1) {
      sums.store(p.O - tile.o0, row_of(a.out.parts + tile.split * p.N * p.O));
    } else {
      if (p.bias) add_bias<S>(p, tile.o0, sums);
      sums.store(p.O - tile.o0, row_of(static_cast<S*>(p.out)));
    }
  }
}

template <class S, int K, bool USUAL>
__global__ void __launch_bounds__(ConsumerTile::kProducers + ConsumerTile::kThreads, 1)
    matrix_out_wgmma_kernel(const __grid_constant__ MatrixOutWgmmaArgs a) {
  extern __shared__ __align__(1024) unsigned char fastkan_shared[];
  if constexpr (kHasWgmma) {
    using T = ConsumerTile;
    using Shared = MatrixOutWgmmaShared<S>;
    const auto shared = shared_at<Shared>(fastkan_shared);
    if (threadIdx.x == 0) {
      for (int stage = 0; stage < Shared::kStages; ++stage) {
        init_barrier(shared.full + stage, T::kGroup / kWarp * (1 + a.by_tma));
        init_barrier(shared.empty + stage, T::kThreads / kWarp * a.cluster);
      }
      fence_barrier_init();
    }
    shared.tables->template fill<S, K>(a.out, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
    Shared::Copies::fill(a.out, shared.offsets, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
    // Zeros for the rows of the right operand that no copy writes.
    for (int q = static_cast<int>(threadIdx.x); q < Shared::kStages * Shared::Copies::kStage; q += blockDim.x)
      shared.right[q] = make_uint4(0, 0, 0, 0);
    fence_for_wgmma();
    cluster_sync();
    if (threadIdx.x < T::kProducers) {
      warpgroup_reg_dealloc<88>();
      produce<S, K, USUAL>(a, shared);
    } else {
      warpgroup_reg_alloc<168>();
      consume<S>(a, shared);
    }
    cluster_sync();  // the other block may still arrive here, and copy to here
  } else {
    __trap();  // never launched on other architectures
  }
}

inline bool tma_can_copy(const Problem& p) {
  const View &c = p.coef, &b = p.base_weight;
  return p.F % 4 == 0 && c.stride[0] > 0 && c.stride[1] > 0 && (!p.with_base || b.stride[0] > 0);
}

template <class S>
void matrix_out_wgmma(const Problem& p, const Device& device) {
  using T = ConsumerTile;
  matrix_out_by<S, T>(p, device, [&]<int K, bool USUAL>(const MatrixOutArgs<float>& out, int64_t) {
    MatrixOutWgmmaArgs a = {};
    a.out = out;
    a.by_tma = tma_can_copy(p);
    a.cluster = a.by_tma && p.N > T::kRows && device.processors > 1 ? 2 : 1;
    a.tiles = static_cast<unsigned>(ceil_div(p.N, a.cluster * T::kRows) * a.cluster * ceil_div(p.O, T::kColumns) *
                                    out.splits);
    const View &c = p.coef, &b = p.base_weight;
    if (a.by_tma)  // function f is column f / chunks of chunk f % chunks
      a.coef = tensor_map(TensorLayout{c.data,
                                       {p.O, 4, out.chunks, p.I},
                                       {1, out.chunks * c.stride[1], c.stride[1], c.stride[0]},
                                       {64, 4, out.chunks, out.inputs}});
    if (a.by_tma && p.with_base)
      a.base_weight =
          tensor_map(TensorLayout{b.data, {p.O, p.I, 1, 1}, {1, b.stride[0], 8, 8}, {64, kStepInputs, 1, 1}});
    const int64_t blocks = min(a.tiles, device.processors / a.cluster * a.cluster);
    launch("matrix_out_wgmma", matrix_out_wgmma_kernel<S, K, USUAL>, blocks, T::kProducers + T::kThreads,
           shared_bytes<MatrixOutWgmmaShared<S>>(), device, a, a.cluster);
  });
}

}  // namespace fastkan
