// kan_out of order 0 on tensor cores: y = Phi C + b(X) W. Phi [N, I P] has 2:4 structured sparsity, or 1:2 in tf32
// (basis/sparse.h), for sparse tensor cores; float64 uses dense ones. Phi is computed into shared memory and never
// written to global memory. Uniform knots, degree 2 or 3; S is the storage type, with float for tf32. A block
// computes a tile of rows by outputs, in steps of 16 chunks of basis functions, then of 16 base functions, into the
// same accumulators: its threads build the left operand of a step, while its coefficients are being copied to shared
// memory, and then multiply. While one block of a multiprocessor builds, another one multiplies.
#pragma once

#include "../reduce.h"
#include "right_copies.h"

namespace fastkan {

template <class S, class T>
MatrixOutArgs<typename T::Sum> plan_matrix_out(const Problem& p, int processors) {
  constexpr int kMinStepsPerSplit = 8;  // with fewer, pipeline start and end dominate
  MatrixOutArgs<typename T::Sum> a = {};
  a.c = Contraction<typename T::Sum>::of(p);
  a.chunks = SparseOperand<S>::chunks(p);
  a.inputs = kStepChunks / a.chunks;
  a.coef_bytes = static_cast<int>(a.inputs * p.coef.stride[0] * static_cast<int64_t>(sizeof(S)));  // below 2^31
  a.spline_steps = static_cast<int>(ceil_div(p.I, a.inputs));
  a.steps = a.spline_steps + (p.with_base ? static_cast<int>(ceil_div(p.I, kStepInputs)) : 0);
  const int64_t tiles = ceil_div(p.N, T::kRows) * ceil_div(p.O, T::kColumns);
  const int64_t splits = max(1, min(processors / tiles, a.steps / kMinStepsPerSplit));
  a.split_steps = static_cast<int>(max(1, ceil_div(a.steps, splits)));
  a.splits = static_cast<int>(max(1, ceil_div(a.steps, a.split_steps)));
  const int bytes = p.x.dtype == Dtype::f32 ? 4 : p.x.dtype == p.coef.dtype ? static_cast<int>(sizeof(S)) : 0;
  const bool aligned = p.x.stride[0] * bytes % 16 == 0 && reinterpret_cast<uintptr_t>(p.x.data) % 16 == 0;
  a.vector_bytes = p.x.stride[1] == 1 && aligned ? bytes : 0;
  return a;
}

// A tile of outputs, and its range of steps. Tiles one below the other follow each other, in whole clusters: the last
// one may have no rows.
struct TileOfOut {
  int64_t n0, o0;
  int split, begin, end;
  template <class A>
  __device__ __forceinline__ static TileOfOut of(const MatrixOutArgs<A>& a, unsigned tile, int rows, int columns,
                                                 int cluster = 1) {
    const unsigned row_blocks = static_cast<unsigned>(ceil_div(a.c.p.N, cluster * rows)) * cluster;
    const unsigned rest = tile / row_blocks;
    const unsigned column_blocks = static_cast<unsigned>(ceil_div(a.c.p.O, columns)), split = rest / column_blocks;
    const int begin = static_cast<int>(split) * a.split_steps, end = begin + a.split_steps;
    return {int64_t{tile - rest * row_blocks} * rows, int64_t{rest - split * column_blocks} * columns,
            static_cast<int>(split), begin, end < a.steps ? end : a.steps};
  }
};

// Adds the bias of the columns from o0 on.
template <class S, class T>
__device__ __forceinline__ void add_bias(const Problem& p, int64_t o0, WarpSums<T>& sums) {
  using A = typename T::Sum;
#pragma unroll
  for (int n = 0; n < T::kColumnBlocks; ++n) {
    Bits<A> bits[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t o = o0 + SparseOperand<S>::template column<T>(n, r);
      load_bits<1>(p.bias, o, 1, p.O - o, bits + r);
    }
#pragma unroll
    for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
      for (int r = 0; r < 4; ++r) sums.sum[m][n][r] += number_of_bits(bits[r % 2], p.bias.dtype);
  }
}

template <class S, class T>
struct MatrixOutShared {
  using Left = LeftOperand<S, T::kRows>;
  using Tables = WindowTables<typename T::Sum>;
  using Copies = RightCopies<S, T, T::kThreads>;
  static constexpr int kStages = 2, kStage = Copies::kStage;
  uint4* right;  // [kStages][kStage]
  Left* left;
  Tables* tables;
  unsigned* offsets;  // [Copies::kOffsets]

  FASTKAN_HD explicit MatrixOutShared(SharedAllocator& allocator)
      : right(allocator.take<uint4>(kStages * kStage)),
        left(allocator.take<Left>(1)),
        tables(allocator.take<Tables>(1)),
        offsets(allocator.take<unsigned>(Copies::kOffsets)) {}
};

// Adds a product with a step's right operand.
template <class S, class T>
__device__ __forceinline__ void multiply_step(bool spline, const LeftOperand<S, T::kRows>& left, const uint4* right,
                                              WarpSums<T>& sums) {
  using Operand = SparseOperand<S>;
  constexpr int kRows = Operand::kChunkColumns * kStepChunks;
  const int lane = WarpSums<T>::lane();
  typename Mma<S>::Number numbers[T::kRowBlocks][4];
  const auto get = [&](int pack) {
#pragma unroll
    for (int m = 0; m < T::kRowBlocks; ++m)
      left.get(pack, WarpSums<T>::first_row(m) / Sparse16832::kRows, lane, numbers[m]);
  };
  if (spline) {
    uint32_t metadata[T::kRowBlocks];
#pragma unroll
    for (int m = 0; m < T::kRowBlocks; ++m)
      metadata[m] = left.get_metadata(WarpSums<T>::first_row(m) / Sparse16832::kRows, lane);
    const auto add = [&]<int PACK>() {
      get(PACK);
      Operand::template add_sparse<kRows, PACK>(sums, numbers, metadata, right, kRows / kStepPacks * PACK);
    };
    add.template operator()<0>(), add.template operator()<1>();
    if constexpr (T::kWgmma) wgmma_commit();  // once per branch: accumulators may not move in between
  } else {
#pragma unroll
    for (int pack = 0; pack < Operand::kBasePacks; ++pack) {
      get(pack);
      Operand::template add_dense<kRows>(sums, numbers, right, Operand::kBaseRows * pack);
    }
    if constexpr (T::kWgmma) wgmma_commit();
  }
}

template <class S, class T, int K, bool USUAL>
__global__ void __launch_bounds__(T::kThreads, 2)
    matrix_out_kernel(const __grid_constant__ MatrixOutArgs<typename T::Sum> a) {
  extern __shared__ __align__(1024) unsigned char fastkan_shared[];
  using A = typename T::Sum;
  using Shared = MatrixOutShared<S, T>;
  const Problem& p = a.c.p;
  const auto shared = shared_at<Shared>(fastkan_shared);
  const int thread = static_cast<int>(threadIdx.x);
  shared.tables->template fill<S, K>(a, thread, T::kThreads);
  Shared::Copies::fill(a, shared.offsets, thread, T::kThreads);
  __syncthreads();
  const TileOfOut tile = TileOfOut::of(a, blockIdx.x, T::kRows, T::kColumns);
  LeftBuilder<S, T::kRows, T::kThreads, K, USUAL> builder(a, *shared.tables, thread);
  typename Shared::Copies copies(a, shared.offsets, thread);
  WarpSums<T> sums;
  builder.start(tile.n0);
  copies.start(tile.o0);
  int stage = 0;
  if (tile.begin < tile.end) {
    copies.copy(tile.begin, shared.right);
    builder.prefetch(tile.begin);
  }
  commit_copies();
  FASTKAN_ROLL
  for (int step = tile.begin; step < tile.end; ++step, stage ^= Shared::kStage) {
    if (step + 1 < tile.end) copies.copy(step + 1, shared.right + (stage ^ Shared::kStage));
    commit_copies();
    builder.build(step, shared.tables->usual, *shared.left);
    if (step + 1 < tile.end) builder.prefetch(step + 1);
    wait_for_copies<1>();
    __syncthreads();
    multiply_step<S>(a.is_spline(step), *shared.left, shared.right + stage, sums);
    __syncthreads();
  }
  using Operand = SparseOperand<S>;
  if (a.splits > 1) {
    A* to = a.parts + (tile.split * p.N + tile.n0) * p.O + tile.o0;
    Operand::store_sums(sums, p.O - tile.o0, [&](int row) { return tile.n0 + row < p.N ? to + row * p.O : nullptr; });
  } else {
    if (p.bias) add_bias<S>(p, tile.o0, sums);
    S* to = static_cast<S*>(p.out) + tile.n0 * p.O + tile.o0;
    Operand::store(sums, shared.right, p.O - tile.o0,
                   [&](int row) { return tile.n0 + row < p.N ? to + row * p.O : nullptr; });
  }
}

// Plans, launches by run(args, K, usual), and adds the splits.
template <class S, class T, class F>
void matrix_out_by(const Problem& p, const Device& device, const F& run) {
  using A = typename T::Sum;
  MatrixOutArgs<A> a = plan_matrix_out<S, T>(p, device.processors);
  a.knots = rows_of_knots(a.c, device);
  if (a.splits > 1) a.parts = device.take<A>(a.splits * p.N * p.O);
  const int64_t tiles = ceil_div(p.N, T::kRows) * ceil_div(p.O, T::kColumns) * a.splits;
  by_uniform_degree(p, [&]<int K>() {
    if constexpr (sizeof(A) == 4)
      if (is_usual(p)) return run.template operator()<K, true>(a, tiles);
    run.template operator()<K, false>(a, tiles);
  });
  if (a.splits > 1) reduce<A>({a.parts, p.N * p.O, a.splits, p.out, p.out_dtype, p.bias, p.O}, {}, device);
}

template <class S, class T>
void matrix_out_in_tiles(const Problem& p, const Device& device) {
  matrix_out_by<S, T>(p, device, [&]<int K, bool USUAL>(const MatrixOutArgs<typename T::Sum>& a, int64_t tiles) {
    launch("matrix_out", matrix_out_kernel<S, T, K, USUAL>, tiles, T::kThreads, shared_bytes<MatrixOutShared<S, T>>(),
           device, a);
  });
}

template <class S>
void matrix_out(const Problem& p, const Device& device) {
  using A = typename Mma<S>::Sum;
  using Large = Tile<sizeof(A) == 4 ? 128 : 64, 128, A>;
  if (ceil_div(p.N, Large::kRows) * ceil_div(p.O, Large::kColumns) >= device.processors)
    matrix_out_in_tiles<S, Large>(p, device);
  else
    matrix_out_in_tiles<S, Tile<64, 64, A>>(p, device);
}

}  // namespace fastkan
