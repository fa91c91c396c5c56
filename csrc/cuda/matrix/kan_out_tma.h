// kan_out of order 0 with wgmma, as a warp-specialised persistent kernel: one producer thread copies coefficients by
// TMA into a ring buffer; two consumer warpgroups build their left operands (kan_out.h) and multiply them by the same
// coefficients, 128 rows each. One block per multiprocessor loops over the tiles; copies for the next tile overlap
// the end of the current one. F must be a multiple of 4: then the functions of a chunk are a tile of the tensor
// coef[I, F, O] as stored.
#pragma once

#include <cuda/matrix/tma.h>

#include "kan_out.h"

namespace fastkan {

constexpr int kTmaStages = 6, kConsumers = 2;

// The part of a tile that one consumer warpgroup computes.
struct ConsumerTile : Tile<128, 128, true> {
  __device__ __forceinline__ static unsigned thread() { return threadIdx.x % kThreads; }
  __device__ __forceinline__ static int group() { return static_cast<int>(threadIdx.x / kThreads); }
  __device__ __forceinline__ static void sync() { named_barrier_sync<kThreads>(group()); }  // 1, 2; 0 is __syncthreads
};

struct MatrixOutTmaArgs {
  MatrixOutArgs<float> sparse;
  TensorMap coef, base_weight;
  int64_t tiles;
};

template <class S>
struct MatrixOutTmaShared {
  using T = ConsumerTile;
  using One = MatrixOutShared<S, T>;
  static constexpr int kStage = One::kStepRows * One::kPieces, kResults = T::kRows * T::kPieces;
  uint4* right;             // [kTmaStages][kStepRows][kPieces]
  uint4* results;           // [kConsumers][kResults]
  LeftOperand<S, T>* left;  // [kConsumers][2]
  Barrier *full, *empty;    // [kTmaStages]
  KnotRow<float>* knots;

  FASTKAN_HD explicit MatrixOutTmaShared(SharedAllocator allocator)
      : right(allocator.take<uint4>(kTmaStages * kStage)),
        results(allocator.take<uint4>(kConsumers * kResults)),
        left(allocator.take<LeftOperand<S, T>>(kConsumers * 2)),
        full(allocator.take<Barrier>(kTmaStages)),
        empty(allocator.take<Barrier>(kTmaStages)),
        knots(allocator.take<KnotRow<float>>(1)) {}
  static int64_t bytes() {
    return SharedAllocator::bytes<uint4>(kTmaStages * kStage + kConsumers * kResults) +
           SharedAllocator::bytes<LeftOperand<S, T>>(kConsumers * 2) + 2 * SharedAllocator::bytes<Barrier>(kTmaStages) +
           SharedAllocator::bytes<KnotRow<float>>(1);
  }
};

// The next stage of the ring buffer, and the parity of its phase.
struct PipelineState {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == kTmaStages) stage = 0, parity ^= 1;
  }
};

// Origin of a tile, and its range of steps.
struct TileCoordinates {
  int64_t n0, o0, begin, end;
  int split;
  __device__ __forceinline__ static TileCoordinates of(const MatrixOutArgs<float>& a, int64_t tile) {
    using T = ConsumerTile;
    const int64_t row_blocks = ceil_div(a.c.p.N, kConsumers * T::kRows);
    const int64_t column_blocks = ceil_div(a.c.p.O, T::kColumns);
    const int64_t rest = tile / row_blocks;
    const int split = static_cast<int>(rest / column_blocks);
    const int64_t begin = split * a.split_steps;
    return {tile % row_blocks * kConsumers * T::kRows, rest % column_blocks * T::kColumns, begin,
            min(a.steps, begin + a.split_steps), split};
  }
};

template <class S>
__device__ __forceinline__ void producer(const MatrixOutTmaArgs& a, const MatrixOutTmaShared<S>& shared) {
  using Shared = MatrixOutTmaShared<S>;
  const MatrixOutArgs<float>& s = a.sparse;
  PipelineState state;
  for (int64_t t = blockIdx.x; t < a.tiles; t += gridDim.x) {
    const TileCoordinates tile = TileCoordinates::of(s, t);
    for (int64_t step = tile.begin; step < tile.end; ++step, state.next()) {
      const bool spline = step < s.spline_steps;
      const int rows = spline ? 4 * s.chunks * s.inputs : kStepInputs;
      wait_for(shared.empty + state.stage, state.parity ^ 1);
      Barrier* full = shared.full + state.stage;
      arrive_expect_bytes(full, rows * ConsumerTile::kColumns * static_cast<int>(sizeof(S)));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int o = static_cast<int>(tile.o0) + 64 * half;
        uint4* to = shared.right + state.stage * Shared::kStage + right_at<Shared::One::kStepRows>(0, 8 * half);
        if (spline)
          copy_tma_tile(to, a.coef, {o, 0, 0, static_cast<int>(step) * s.inputs}, full);
        else
          copy_tma_tile(to, a.base_weight, {o, static_cast<int>(step - s.spline_steps) * kStepInputs, 0, 0}, full);
      }
    }
  }
}

template <class S, int K>
__device__ __forceinline__ void consumer(const MatrixOutTmaArgs& a, const MatrixOutTmaShared<S>& shared) {
  using T = ConsumerTile;
  const int group = T::group() - 1;
  LeftOperand<S, T>* left = shared.left + 2 * group;
  PipelineState state;
  for (int64_t t = blockIdx.x; t < a.tiles; t += gridDim.x) {
    const TileCoordinates at = TileCoordinates::of(a.sparse, t);
    MatrixOut<S, T, K> tile(a.sparse, MatrixOutShared<S, T>(shared.right, left, shared.knots), at.n0 + group * T::kRows,
                            at.o0);
    tile.prefetch_x(at.begin);
    tile.build_left(at.begin, 0);
    T::sync();
    for (int64_t step = at.begin; step < at.end; ++step, state.next()) {
      const int iteration = static_cast<int>(step - at.begin);
      const bool more = step + 1 < at.end;
      if (more) tile.prefetch_x(step + 1);
      wait_for(shared.full + state.stage, state.parity);
      tile.multiply(step, iteration, state.stage);
      if (more) tile.build_left(step + 1, iteration + 1);
      wgmma_wait();
      T::sync();
      if (T::thread() == 0) arrive(shared.empty + state.stage);
    }
    tile.store(at.split, shared.results + group * MatrixOutTmaShared<S>::kResults);
  }
}

template <class S, int K>
__global__ void __launch_bounds__((1 + kConsumers) * ConsumerTile::kThreads, 1)
    matrix_out_tma_kernel(const __grid_constant__ MatrixOutTmaArgs a) {
  extern __shared__ __align__(1024) unsigned char fastkan_shared[];
  if constexpr (kHasWgmma) {
    const MatrixOutTmaShared<S> shared{SharedAllocator(fastkan_shared)};
    if (threadIdx.x == 0) {
      for (int stage = 0; stage < kTmaStages; ++stage) {
        init_barrier(shared.full + stage, 1);
        init_barrier(shared.empty + stage, kConsumers);
      }
      fence_barrier_init();
      if (!a.sparse.knots) *shared.knots = KnotRow<float>::of(a.sparse.c.shape, a.sparse.c.p.grid);
    }
    // Zeros for the rows of the right operand that no copy writes.
    for (int q = threadIdx.x; q < kTmaStages * MatrixOutTmaShared<S>::kStage; q += blockDim.x)
      shared.right[q] = make_uint4(0, 0, 0, 0);
    fence_for_wgmma();
    __syncthreads();
    if (ConsumerTile::group() == 0) {
      warpgroup_reg_dealloc<40>();
      if (threadIdx.x == 0) producer(a, shared);
    } else {
      warpgroup_reg_alloc<232>();
      consumer<S, K>(a, shared);
    }
  } else {
    __trap();  // never launched on other architectures
  }
}

template <class S>
void matrix_out_tma(const Problem& p, const Device& device) {
  MatrixOutTmaArgs a = {};
  using T = ConsumerTile;
  a.sparse = plan_matrix_out<S, T>(p, device.processors);
  a.sparse.knots = rows_of_knots(a.sparse.c, device);
  if (a.sparse.splits > 1) a.sparse.parts = device.take<float>(a.sparse.splits * p.N * p.O);
  const int chunks = a.sparse.chunks;
  const View &c = p.coef, &b = p.base_weight;
  // Function f is column f / chunks of chunk f % chunks.
  a.coef = tensor_map(TensorLayout{c.data,
                                   {p.O, 4, chunks, p.I},
                                   {1, chunks * c.stride[1], c.stride[1], c.stride[0]},
                                   {64, 4, chunks, a.sparse.inputs}});
  if (p.with_base)
    a.base_weight = tensor_map(TensorLayout{b.data, {p.O, p.I, 1, 1}, {1, b.stride[0], 8, 8}, {64, kStepInputs, 1, 1}});
  a.tiles = ceil_div(p.N, kConsumers * T::kRows) * ceil_div(p.O, T::kColumns) * a.sparse.splits;
  const auto run = [&](auto kernel) {
    launch("matrix_out_tma", kernel, min(a.tiles, device.processors), (1 + kConsumers) * T::kThreads,
           MatrixOutTmaShared<S>::bytes(), device, a);
  };
  p.K == 3 ? run(matrix_out_tma_kernel<S, 3>) : run(matrix_out_tma_kernel<S, 2>);
  if (a.sparse.splits > 1)
    reduce<float>({a.sparse.parts, p.N * p.O, a.sparse.splits, p.out, p.out_dtype, p.bias, p.O}, {}, device);
}

}  // namespace fastkan
