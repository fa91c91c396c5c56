// kan_out of order 0 on tensor cores: y = Phi C + b(X) W. Phi [N, I P] has 2:4 structured sparsity, or 1:2 in tf32
// (basis/sparse.h), for sparse tensor cores; float64 uses dense ones. Phi is computed into shared memory and never
// written to global memory. Uniform knots, degree 2 or 3; S is the storage type, with float for tf32. A block
// computes a tile of rows by outputs, in steps of 16 chunks of basis functions, then of 16 base functions, into the
// same accumulators. While it multiplies one step, the coefficients of the next two are being copied to shared
// memory; then each thread builds its row of the next left operand, in the register layout of mma.sp.
#pragma once

#include "../knots.h"
#include "../reduce.h"
#include "sparse_operand.h"

namespace fastkan {

constexpr int kStepChunks = 16, kStepInputs = 16, kStepPacks = kStepChunks / Sparse16832::kChunks;

template <class A>
struct MatrixOutArgs {
  Contraction<A> c;
  int chunks, inputs;    // chunks per input; inputs per step
  int64_t spline_steps;  // followed by the steps of the base function
  int64_t steps;
  int splits;  // split-K over the steps
  int64_t split_steps;
  const KnotRow<A>* knots;  // of each input; null if all share one row, which each block computes
  A* parts;                 // [splits, N, O] if splits > 1
};

template <class S, class T>
MatrixOutArgs<typename T::Sum> plan_matrix_out(const Problem& p, int processors) {
  constexpr int kMinStepsPerSplit = 8;  // with fewer, pipeline start and end dominate
  MatrixOutArgs<typename T::Sum> a = {};
  a.c = Contraction<typename T::Sum>::of(p);
  a.chunks = SparseOperand<S>::chunks(p);
  a.inputs = kStepChunks / a.chunks;
  a.spline_steps = ceil_div(p.I, a.inputs);
  a.steps = a.spline_steps + (p.with_base ? ceil_div(p.I, kStepInputs) : 0);
  const int64_t tiles = ceil_div(p.N, T::kRows) * ceil_div(p.O, T::kColumns);
  const int64_t splits = max(1, min(processors / tiles, a.steps / kMinStepsPerSplit));
  a.split_steps = max(1, ceil_div(a.steps, splits));
  a.splits = static_cast<int>(max(1, ceil_div(a.steps, a.split_steps)));
  return a;
}

// The left operand of a step in register layout: the four registers of a lane side by side, or as many as 16 bytes
// hold. The four lanes of a row are placed such that threads writing neighbouring rows hit different banks.
template <class S, class T>
struct LeftOperand {
  using Number = typename Mma<S>::Number;
  static constexpr int kBlocks = T::kRows / Sparse16832::kRows;
  static constexpr int kTogether = 16 / sizeof(Number), kPlanes = Sparse16832::kRegisters / kTogether;
  Number numbers[kStepPacks][kBlocks][kPlanes][kWarp][kTogether];
  uint16_t metadata[kStepPacks][kBlocks][8][2][2];  // [row % 8][chunk / 4][row / 8]

  __device__ __forceinline__ static int slot(int lane) { return lane ^ (lane / 8 % 4); }
  __device__ __forceinline__ void put(int pack, int row, int chunk, Number number) {
    const int in_block = row % Sparse16832::kRows, lane = Sparse16832::lane(in_block, chunk);
    const int r = Sparse16832::register_of(in_block, chunk);
    numbers[pack][row / Sparse16832::kRows][r / kTogether][slot(lane)][r % kTogether] = number;
  }
  __device__ __forceinline__ void put_metadata(int pack, int row, int four, uint32_t bits) {
    metadata[pack][row / Sparse16832::kRows][row % 8][four][row % Sparse16832::kRows / 8] = static_cast<uint16_t>(bits);
  }
  __device__ __forceinline__ void get(int pack, int block, int lane, Number (&to)[4]) const {
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
      const uint4 q = *reinterpret_cast<const uint4*>(numbers[pack][block][plane][slot(lane)]);
      memcpy(to + plane * kTogether, &q, sizeof q);
    }
  }
  __device__ __forceinline__ uint32_t get_metadata(int pack, int block, int lane) const {
    return *reinterpret_cast<const uint32_t*>(metadata[pack][block][lane / 4][lane % 2]);
  }
};

// The coefficients in a row of the right operand, in a step of basis functions.
struct FunctionOfStep {
  int input, function;  // input -1: zeros
};

template <class S, class T>
struct MatrixOutShared {
  static constexpr int kPieces = T::kColumns / SparseOperand<S>::kWidth;  // of 16 bytes, per row
  static constexpr int kStepRows = SparseOperand<S>::kChunkColumns * kStepChunks;
  using Knots = KnotRow<typename T::Sum>;
  uint4* right;             // [kStages][kStepRows][kPieces]
  LeftOperand<S, T>* left;  // [2]
  FunctionOfStep* of_row;   // [kStepRows]
  Knots* knots;

  FASTKAN_HD explicit MatrixOutShared(SharedAllocator allocator)
      : right(allocator.take<uint4>(kStages * kStepRows * kPieces)),
        left(allocator.take<LeftOperand<S, T>>(2)),
        of_row(allocator.take<FunctionOfStep>(kStepRows)),
        knots(allocator.take<Knots>(1)) {}
  // Wraps existing memory; of_row is needed by copies only.
  FASTKAN_HD MatrixOutShared(uint4* right, LeftOperand<S, T>* left, Knots* knots)
      : right(right), left(left), of_row(nullptr), knots(knots) {}
  static int64_t bytes() {
    return SharedAllocator::bytes<LeftOperand<S, T>>(2) + SharedAllocator::bytes<uint4>(kStages * kStepRows * kPieces) +
           SharedAllocator::bytes<FunctionOfStep>(kStepRows) + SharedAllocator::bytes<Knots>(1);
  }
};

template <class S, class T, int K>
class MatrixOut {
  using A = typename T::Sum;
  using Number = typename Mma<S>::Number;
  using Shared = MatrixOutShared<S, T>;
  using Operand = SparseOperand<S>;
  using Window = typename Operand::template Window<K>;
  static constexpr int kPerRow = T::kThreads / T::kRows;  // threads per row
  static constexpr int kEach = kStepInputs / kPerRow;     // base functions per thread and step
  static constexpr int kPacks = kStepPacks / kPerRow;     // packs of chunks per thread and step
  static constexpr int kPackInputs = Window::kMaxInputsPerPack;
  static_assert(kPacks * kPackInputs <= kEach);

 public:
  static constexpr bool kWgmma = T::kWgmma;

  __device__ __forceinline__ MatrixOut(const MatrixOutArgs<A>& args, const Shared& memory, int64_t n0, int64_t o0)
      : a(args),
        p(args.c.p),
        shared(memory),
        n0_(n0),
        o0_(o0),
        row_(static_cast<int>(T::thread() % T::kRows)),
        part_(static_cast<int>(T::thread() / T::kRows)) {}

  __device__ __forceinline__ void run(int64_t begin, int64_t end) {
    prepare();
    run_pipeline(*this, begin, end);
  }

  // Writes the tile, through shared memory that holds one.
  __device__ __forceinline__ void store(int split, uint4* memory) {
    if (a.splits > 1) {
      A* to = a.parts + (split * p.N + n0_) * p.O + o0_;
      Operand::store_sums(sums_, p.O - o0_, [&](int row) { return n0_ + row < p.N ? to + row * p.O : nullptr; });
    } else {
      if (p.bias) add_bias();
      S* to = static_cast<S*>(p.out) + n0_ * p.O + o0_;
      Operand::store(sums_, memory, p.O - o0_, [&](int row) { return n0_ + row < p.N ? to + row * p.O : nullptr; });
    }
  }

  // The stages of run_pipeline.
  __device__ __forceinline__ void start_copies(int64_t step, int stage) const {
    uint4* to = right_of(stage);
    const bool spline = is_spline(step);
    const View& v = spline ? p.coef : p.base_weight;
    const int64_t i0 = spline ? step * a.inputs : (step - a.spline_steps) * kStepInputs;
    const int rows = spline ? Shared::kStepRows : kStepInputs;
    for (int q = threadIdx.x; q < rows * Shared::kPieces; q += T::kThreads) {
      const int row = q / Shared::kPieces, piece = q % Shared::kPieces;
      const FunctionOfStep f = spline ? shared.of_row[row] : FunctionOfStep{row, 0};
      const int64_t i = i0 + f.input, o = o0_ + Operand::kWidth * piece;
      const bool valid = f.input >= 0 && i < p.I && o < p.O;
      const int64_t offset = valid ? i * v.stride[0] + (spline ? f.function * v.stride[1] : 0) + o : 0;
      copy_async(to + Operand::template right_at<Shared::kStepRows, T>(row, piece),
                 static_cast<const S*>(v.data) + offset, valid);
    }
  }

  __device__ __forceinline__ void prefetch_x(int64_t step) {
    const int64_t n = n0_ + row_, offset = n * p.x.stride[0], stride = p.x.stride[1];
    const bool here = n < p.N;
    if (is_spline(step)) {
#pragma unroll
      for (int each = 0; each < kPacks; ++each) {
        const int pack = part_ + each * kPerRow;
        const int64_t i = step * a.inputs + first_of(pack);
        load_bits<kPackInputs>(p.x, offset + i * stride, stride, here ? min(count_of(pack), p.I - i) : 0,
                               prefetched_ + each * kPackInputs);
      }
    } else {
      const int64_t i = first_base_input(step);
      load_bits<kEach>(p.x, offset + i * stride, stride, here ? p.I - i : 0, prefetched_);
    }
  }
  __device__ __forceinline__ void build_left(int64_t step, int iteration) const {
    LeftOperand<S, T>& left = shared.left[iteration % 2];
    if (!is_spline(step)) return build_base(step, left);
    FASTKAN_ROLL
    for (int each = 0; each < kPacks; ++each) {
      const int pack = part_ + each * kPerRow;
      Window window[kPackInputs];
      windows(step * a.inputs + first_of(pack), count_of(pack), each, window);
      if (a.chunks == Operand::kUsualChunks)
        put_pack<Operand::kUsualChunks>(pack, window, left);
      else
        put_pack<0>(pack, window, left);
    }
  }

  __device__ __forceinline__ void multiply(int64_t step, int iteration, int stage) {
    const LeftOperand<S, T>& left = shared.left[iteration % 2];
    const uint4* right = right_of(stage);
    if (is_spline(step)) {
#pragma unroll
      for (int pack = 0; pack < kStepPacks; ++pack) multiply_spline(left, right, pack);
      if constexpr (T::kWgmma) wgmma_commit();  // once per branch: accumulators may not move in between
    } else {
#pragma unroll
      for (int pack = 0; pack < Operand::kBasePacks; ++pack) multiply_base(left, right, pack);
      if constexpr (T::kWgmma) wgmma_commit();
    }
  }

 private:
  // Function f of an input is in chunk f % chunks, column f / chunks of it.
  __device__ __forceinline__ void prepare() {
    for (int row = threadIdx.x; row < Shared::kStepRows; row += T::kThreads) {
      const int chunk = row / Operand::kChunkColumns, input = chunk / a.chunks;
      const int function = row % Operand::kChunkColumns * a.chunks + chunk % a.chunks;
      shared.of_row[row] = {input < a.inputs && function < p.F ? input : -1, function};
    }
    if (threadIdx.x == 0 && !a.knots) *shared.knots = KnotRow<A>::of(a.c.shape, p.grid);
    __syncthreads();
  }

  __device__ __forceinline__ uint4* right_of(int stage) const {
    return shared.right + stage * Shared::kStepRows * Shared::kPieces;
  }
  __device__ __forceinline__ bool is_spline(int64_t step) const { return step < a.spline_steps; }

  // The inputs that have chunks in a pack, counted in the step: first and number.
  __device__ __forceinline__ int first_of(int pack) const { return pack * Sparse16832::kChunks / a.chunks; }
  __device__ __forceinline__ int count_of(int pack) const {
    return static_cast<int>(min(a.inputs, ((pack + 1) * Sparse16832::kChunks - 1) / a.chunks + 1)) - first_of(pack);
  }

  __device__ __forceinline__ int64_t first_base_input(int64_t step) const {
    return (step - a.spline_steps) * kStepInputs + part_ * kEach;
  }

  // s of COUNT neighbouring inputs.
  template <int COUNT>
  __device__ __forceinline__ void weights_from(int64_t i, A* s) const {
    const int64_t n = n0_ + row_;
    Bits<A> bits[COUNT];
    load_bits<COUNT>(p.s, n * p.s.stride[0] + i * p.s.stride[1], p.s.stride[1], n < p.N ? p.I - i : 0, bits);
#pragma unroll
    for (int k = 0; k < COUNT; ++k) s[k] = number_of_bits(bits[k], p.s.dtype);
  }

  // Evaluates the windows of neighbouring inputs.
  __device__ __forceinline__ void windows(int64_t i, int count, int each, Window (&to)[kPackInputs]) const {
    const Shape shape = matrix_shape<K>(a.c.shape);
    KnotRow<A> row = *shared.knots;
    A s[kPackInputs];
    if (p.s) weights_from<kPackInputs>(i, s);
#pragma unroll
    for (int k = 0; k < kPackInputs; ++k) {
      Bits<A> bits = prefetched_[k];
#pragma unroll
      for (int other = 1; other < kPacks; ++other)  // registers cannot be indexed
        bits = other == each ? prefetched_[other * kPackInputs + k] : bits;
      if (a.knots) row = a.knots[min(i + k, p.I - 1)];
      auto window = UniformWindow<A, K>::template of<0>(shape, row, number_of_bits(bits, p.x.dtype));
      if (p.s)
#pragma unroll
        for (int j = 0; j <= K; ++j) window.w[j] *= s[k];
      to[k] = k < count ? Window::of(window, a.chunks) : Window{};
    }
  }

  // CHUNKS: chunks per input if known at compile time, else 0.
  template <int CHUNKS>
  __device__ __forceinline__ void put_pack(int pack, Window (&window)[kPackInputs], LeftOperand<S, T>& left) const {
    const int chunks = CHUNKS ? CHUNKS : a.chunks;
    int chunk = pack * Sparse16832::kChunks - first_of(pack) * chunks;
    uint32_t metadata = 0;
#pragma unroll
    for (int q = 0; q < Sparse16832::kChunks; ++q) {
      const auto held = window[CHUNKS ? q / CHUNKS : 0].chunk(CHUNKS ? q % CHUNKS : chunk, chunks);
      left.put(pack, row_, q, held.numbers);
      metadata |= held.metadata << 4 * (q % 4);
      if (q % 4 == 3) {
        left.put_metadata(pack, row_, q / 4, metadata);
        metadata = 0;
      }
      if (!CHUNKS && ++chunk == chunks) {  // next input
        chunk = 0;
#pragma unroll
        for (int k = 0; k < kPackInputs; ++k) window[k] = k + 1 < kPackInputs ? window[k + 1] : Window{};
      }
    }
  }

  __device__ __forceinline__ void build_base(int64_t step, LeftOperand<S, T>& left) const {
    A value[kEach], s[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) value[k] = a.c.base.value(number_of_bits(prefetched_[k], p.x.dtype));
    if (p.s) {
      weights_from<kEach>(first_base_input(step), s);
#pragma unroll
      for (int k = 0; k < kEach; ++k) value[k] *= s[k];
    }
    Operand::put_base(value, part_ * kEach,
                      [&](int pack, int chunk, Number number) { left.put(pack, row_, chunk, number); });
  }

  __device__ __forceinline__ void multiply_spline(const LeftOperand<S, T>& left, const uint4* right, int pack) {
    const int lane = WarpSums<T>::lane();
    Number numbers[T::kRowBlocks][4];
    uint32_t metadata[T::kRowBlocks];
#pragma unroll
    for (int m = 0; m < T::kRowBlocks; ++m) {
      const int block = WarpSums<T>::first_row(m) / Sparse16832::kRows;
      left.get(pack, block, lane, numbers[m]);
      metadata[m] = left.get_metadata(pack, block, lane);
    }
    constexpr int kRows = Operand::kChunkColumns * Sparse16832::kChunks;
    Operand::template add_sparse<Shared::kStepRows>(sums_, numbers, metadata, right, kRows * pack);
  }

  __device__ __forceinline__ void multiply_base(const LeftOperand<S, T>& left, const uint4* right, int pack) {
    Number numbers[T::kRowBlocks][4];
#pragma unroll
    for (int m = 0; m < T::kRowBlocks; ++m)
      left.get(pack, WarpSums<T>::first_row(m) / Sparse16832::kRows, WarpSums<T>::lane(), numbers[m]);
    Operand::template add_dense<Shared::kStepRows>(sums_, numbers, right, Operand::kBaseRows * pack);
  }

  __device__ __forceinline__ void add_bias() {
#pragma unroll
    for (int n = 0; n < T::kColumnBlocks; ++n) {
      Bits<A> bits[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int64_t o = o0_ + Operand::template column<T>(n, r);
        load_bits<1>(p.bias, o, 1, p.O - o, bits + r);
      }
#pragma unroll
      for (int m = 0; m < T::kRowBlocks; ++m)
#pragma unroll
        for (int r = 0; r < 4; ++r) sums_.sum[m][n][r] += number_of_bits(bits[r % 2], p.bias.dtype);
    }
  }

  const MatrixOutArgs<A>& a;
  const Problem& p;
  const Shared shared;
  const int64_t n0_, o0_;
  const int row_, part_;
  Bits<A> prefetched_[kEach];
  WarpSums<T> sums_;
};

template <class S, class T, int K>
__device__ __forceinline__ void matrix_out_tile(const MatrixOutArgs<typename T::Sum>& a, unsigned char* memory) {
  const Problem& p = a.c.p;
  const int64_t row_blocks = ceil_div(p.N, T::kRows), column_blocks = ceil_div(p.O, T::kColumns);
  const int64_t rest = blockIdx.x / row_blocks;
  const int split = static_cast<int>(rest / column_blocks);
  const int64_t begin = split * a.split_steps;
  MatrixOut<S, T, K> tile(a, MatrixOutShared<S, T>(SharedAllocator(memory)), blockIdx.x % row_blocks * T::kRows,
                          rest % column_blocks * T::kColumns);
  tile.run(begin, min(a.steps, begin + a.split_steps));
  tile.store(split, reinterpret_cast<uint4*>(memory));
}

template <class S, class T, int K>
__global__ void __launch_bounds__(T::kThreads, 2)
    matrix_out_kernel(const __grid_constant__ MatrixOutArgs<typename T::Sum> a) {
  extern __shared__ __align__(1024) unsigned char fastkan_shared[];
  if constexpr (!T::kWgmma || kHasWgmma)
    matrix_out_tile<S, T, K>(a, fastkan_shared);
  else
    __trap();  // never launched on other architectures
}

template <class S, class T>
void matrix_out_in_tiles(const Problem& p, const Device& device) {
  using A = typename T::Sum;
  MatrixOutArgs<A> a = plan_matrix_out<S, T>(p, device.processors);
  a.knots = rows_of_knots(a.c, device);
  if (a.splits > 1) a.parts = device.take<A>(a.splits * p.N * p.O);
  const int64_t blocks = ceil_div(p.N, T::kRows) * ceil_div(p.O, T::kColumns) * a.splits;
  const auto run = [&](auto kernel) {
    launch("matrix_out", kernel, blocks, T::kThreads, MatrixOutShared<S, T>::bytes(), device, a);
  };
  p.K == 3 ? run(matrix_out_kernel<S, T, 3>) : run(matrix_out_kernel<S, T, 2>);
  if (a.splits > 1) reduce<A>({a.parts, p.N * p.O, a.splits, p.out, p.out_dtype, p.bias, p.O}, {}, device);
}

template <class S>
void matrix_out(const Problem& p, const Device& device) {
  using A = typename Mma<S>::Sum;
  using Large = Tile<sizeof(A) == 4 ? 128 : 64, 128, false, A>;
  if (ceil_div(p.N, Large::kRows) * ceil_div(p.O, Large::kColumns) >= device.processors)
    matrix_out_in_tiles<S, Large>(p, device);
  else
    matrix_out_in_tiles<S, Tile<64, 64, false, A>>(p, device);
}

// The same with wgmma.
template <class S>
void matrix_out_wgmma(const Problem& p, const Device& device) {
  matrix_out_in_tiles<S, Tile<128, 128, true>>(p, device);
}

}  // namespace fastkan
