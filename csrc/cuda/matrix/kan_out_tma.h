// kan_out of order 0 by wgmma, as in kan_out.h, where warps share the work another way: one thread does nothing but
// ask the copy engine for coefficients, two groups of four warps make their left operands and multiply them with the
// same coefficients, 128 rows each. A block for every processor stays for all tiles, and what it copies for the next
// goes on while one ends. Functions are a multiple of 4: then those of a chunk are boxes of coef[I, F, O] as it lies.
#pragma once

#include <cuda/matrix/tma.h>

#include "kan_out.h"

namespace fastkan {

constexpr int kTmaStages = 6, kConsumers = 2;

// A group's part of a tile.
struct ConsumerTile : Tile<128, 128, true> {
  __device__ __forceinline__ static unsigned thread() { return threadIdx.x % kThreads; }
  __device__ __forceinline__ static int group() { return static_cast<int>(threadIdx.x / kThreads); }
  __device__ __forceinline__ static void sync() { sync_some<kThreads>(group()); }  // 1 and 2: 0 is __syncthreads
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

  FASTKAN_HD explicit MatrixOutTmaShared(Pieces pieces)
      : right(pieces.take<uint4>(kTmaStages * kStage)),
        results(pieces.take<uint4>(kConsumers * kResults)),
        left(pieces.take<LeftOperand<S, T>>(kConsumers * 2)),
        full(pieces.take<Barrier>(kTmaStages)),
        empty(pieces.take<Barrier>(kTmaStages)),
        knots(pieces.take<KnotRow<float>>(1)) {}
  static int64_t bytes() {
    return Pieces::bytes<uint4>(kTmaStages * kStage + kConsumers * kResults) +
           Pieces::bytes<LeftOperand<S, T>>(kConsumers * 2) + 2 * Pieces::bytes<Barrier>(kTmaStages) +
           Pieces::bytes<KnotRow<float>>(1);
  }
};

// Which place is next, and the parity of its phase.
struct Turn {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == kTmaStages) stage = 0, parity ^= 1;
  }
};

// Where a tile begins, and which steps it sums.
struct TileOfGrid {
  int64_t n0, o0, begin, end;
  int split;
  __device__ __forceinline__ static TileOfGrid of(const MatrixOutArgs<float>& a, int64_t tile) {
    using T = ConsumerTile;
    const int64_t row_blocks = ceil_div(a.c.p.N, kConsumers * T::kRows);
    const int64_t column_blocks = ceil_div(a.c.p.O, T::kColumns);
    const int64_t rest = tile / row_blocks;
    const int split = static_cast<int>(rest / column_blocks);
    const int64_t begin = split * a.split_steps;
    return {tile % row_blocks * kConsumers * T::kRows, rest % column_blocks * T::kColumns, begin,
            least(a.steps, begin + a.split_steps), split};
  }
};

template <class S>
__device__ __forceinline__ void produce(const MatrixOutTmaArgs& a, const MatrixOutTmaShared<S>& shared) {
  using Shared = MatrixOutTmaShared<S>;
  const MatrixOutArgs<float>& s = a.sparse;
  Turn turn;
  for (int64_t t = blockIdx.x; t < a.tiles; t += gridDim.x) {
    const TileOfGrid tile = TileOfGrid::of(s, t);
    for (int64_t step = tile.begin; step < tile.end; ++step, turn.next()) {
      const bool spline = step < s.spline_steps;
      const int rows = spline ? 4 * s.chunks * s.inputs : kStepInputs;
      wait_for(shared.empty + turn.stage, turn.parity ^ 1);
      Barrier* full = shared.full + turn.stage;
      arrive_announcing(full, rows * ConsumerTile::kColumns * static_cast<int>(sizeof(S)));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int o = static_cast<int>(tile.o0) + 64 * half;
        uint4* to = shared.right + turn.stage * Shared::kStage + right_at<Shared::One::kStepRows>(0, 8 * half);
        if (spline)
          copy_box(to, a.coef, {o, 0, 0, static_cast<int>(step) * s.inputs}, full);
        else
          copy_box(to, a.base_weight, {o, static_cast<int>(step - s.spline_steps) * kStepInputs, 0, 0}, full);
      }
    }
  }
}

template <class S, int K>
__device__ __forceinline__ void consume(const MatrixOutTmaArgs& a, const MatrixOutTmaShared<S>& shared) {
  using T = ConsumerTile;
  const int group = T::group() - 1;
  LeftOperand<S, T>* left = shared.left + 2 * group;
  Turn turn;
  for (int64_t t = blockIdx.x; t < a.tiles; t += gridDim.x) {
    const TileOfGrid of = TileOfGrid::of(a.sparse, t);
    MatrixOut<S, T, K> tile(a.sparse, MatrixOutShared<S, T>(shared.right, left, shared.knots), of.n0 + group * T::kRows,
                            of.o0);
    tile.look(of.begin);
    tile.make(of.begin, 0);
    T::sync();
    for (int64_t step = of.begin; step < of.end; ++step, turn.next()) {
      const int at = static_cast<int>(step - of.begin);
      const bool more = step + 1 < of.end;
      if (more) tile.look(step + 1);
      wait_for(shared.full + turn.stage, turn.parity);
      tile.multiply(step, at, turn.stage);
      if (more) tile.make(step + 1, at + 1);
      wait_for_products();
      T::sync();
      if (T::thread() == 0) arrive(shared.empty + turn.stage);
    }
    tile.store(of.split, shared.results + group * MatrixOutTmaShared<S>::kResults);
  }
}

template <class S, int K>
__global__ void __launch_bounds__((1 + kConsumers) * ConsumerTile::kThreads, 1)
    matrix_out_tma_kernel(const __grid_constant__ MatrixOutTmaArgs a) {
  extern __shared__ __align__(1024) unsigned char fastkan_shared[];
  if constexpr (kHasGroups) {
    const MatrixOutTmaShared<S> shared{Pieces(fastkan_shared)};
    if (threadIdx.x == 0) {
      for (int stage = 0; stage < kTmaStages; ++stage) {
        make_barrier(shared.full + stage, 1);
        make_barrier(shared.empty + stage, kConsumers);
      }
      show_barriers();
      if (!a.sparse.knots) *shared.knots = KnotRow<float>::of(a.sparse.c.shape, a.sparse.c.p.grid);
    }
    // Rows of the right operand that no box of coefficients reaches.
    for (int q = threadIdx.x; q < kTmaStages * MatrixOutTmaShared<S>::kStage; q += blockDim.x)
      shared.right[q] = make_uint4(0, 0, 0, 0);
    show_copies_to_products();
    __syncthreads();
    if (ConsumerTile::group() == 0) {
      shrink_registers<40>();
      if (threadIdx.x == 0) produce(a, shared);
    } else {
      grow_registers<232>();
      consume<S, K>(a, shared);
    }
  } else {
    __trap();  // never launched where there are none
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
  // Function f is at place f / chunks of chunk f % chunks.
  a.coef = tensor_map(Boxes{c.data,
                            {p.O, 4, chunks, p.I},
                            {1, chunks * c.stride[1], c.stride[1], c.stride[0]},
                            {64, 4, chunks, a.sparse.inputs}});
  if (p.with_base)
    a.base_weight = tensor_map(Boxes{b.data, {p.O, p.I, 1, 1}, {1, b.stride[0], 8, 8}, {64, kStepInputs, 1, 1}});
  a.tiles = ceil_div(p.N, kConsumers * T::kRows) * ceil_div(p.O, T::kColumns) * a.sparse.splits;
  const auto run = [&](auto kernel) {
    launch("matrix_out_tma", kernel, least(a.tiles, device.processors), (1 + kConsumers) * T::kThreads,
           MatrixOutTmaShared<S>::bytes(), device, a);
  };
  p.K == 3 ? run(matrix_out_tma_kernel<S, 3>) : run(matrix_out_tma_kernel<S, 2>);
  if (a.sparse.splits > 1)
    reduce<float>({a.sparse.parts, p.N * p.O, a.sparse.splits, p.out, p.out_dtype, p.bias, p.O}, {}, device);
}

}  // namespace fastkan
