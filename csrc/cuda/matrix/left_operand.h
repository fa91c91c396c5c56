// The left operand of the forward: windows of a step in the register layout of mma.sp, in shared memory, and how a
// thread evaluates its row of them.
#pragma once

#include "../knots.h"
#include "sparse_operand.h"

namespace fastkan {

// A step of the sum has 16 chunks of basis functions, or 16 base functions.
constexpr int kStepChunks = 16, kStepInputs = 16, kStepPacks = kStepChunks / Sparse16832::kChunks;

template <class A>
struct MatrixOutArgs {
  Contraction<A> c;
  int chunks, inputs;  // chunks per input; inputs per step
  int spline_steps;    // followed by the steps of the base function
  int steps;
  int coef_bytes;           // from the coefficients of a step to those of the next one
  int splits, split_steps;  // split-K over the steps
  int vector_bytes;         // of a number of x if rows of x can be read 16 bytes at a time, else 0
  const KnotRow<A>* knots;  // of each input; null if all share one row, which each block computes
  A* parts;                 // [splits, N, O] if splits > 1

  __device__ __forceinline__ bool is_spline(int step) const { return step < spline_steps; }
  // The first input of a step, and the number of inputs from there on.
  __device__ __forceinline__ int input_of(int step) const {
    return is_spline(step) ? step * inputs : (step - spline_steps) * kStepInputs;
  }
  __device__ __forceinline__ int inputs_from(int input) const { return static_cast<int>(c.p.I) - input; }
};

// The usual case; see UsualWindow.
inline bool is_usual(const Problem& p) {
  return p.compute == Dtype::f32 && p.grid_stride == 0 && p.outside == Outside::zero && !p.s && p.M <= kSpanOfNan;
}

// The registers of a lane side by side, or as many as 16 bytes hold, and metadata. The four lanes of a row are placed
// such that threads writing neighbouring rows hit different banks.
template <class S, int ROWS>
struct LeftOperand {
  using Number = typename Mma<S>::Number;
  static constexpr int kBlocks = ROWS / Sparse16832::kRows;
  static constexpr int kTogether = 16 / sizeof(Number), kPlanes = Sparse16832::kRegisters / kTogether;
  static constexpr int kBlock = kPlanes * kWarp;
  Number numbers[kStepPacks][kBlocks * kBlock][kTogether];
  alignas(8) uint16_t metadata[kBlocks][8][kStepPacks][2][2];  // [row % 8][pack][chunk / 4][row / 8]

  __device__ __forceinline__ static int slot(int lane) { return lane ^ (lane / 8 % 4); }
  // Where the lanes of a row are: of chunk q in place ^ q % 4.
  __device__ __forceinline__ static int place_of(int row) {
    return row / Sparse16832::kRows * kBlock + slot(Sparse16832::lane(row % Sparse16832::kRows, 0));
  }
  // The row, the first of two that are 8 apart.
  __device__ __forceinline__ static int row_of(int place) {
    return place / kBlock * Sparse16832::kRows + place % kWarp / 4;
  }
  // half: row / 8 % 2.
  __device__ __forceinline__ void put(int pack, int place, int half, int chunk, Number number) {
    const int r = Sparse16832::register_of(8 * half, chunk);
    numbers[pack][r / kTogether * kWarp + (place ^ chunk % 4)][r % kTogether] = number;
  }
  // Four bits of every chunk.
  __device__ __forceinline__ void put_metadata(int pack, int place, int half, uint32_t bits) {
    auto& rows = metadata[place / kBlock][place % kWarp / 4][pack];
    rows[0][half] = static_cast<uint16_t>(bits), rows[1][half] = static_cast<uint16_t>(bits >> 16);
  }
  // The same of both halves: all registers of a lane.
  __device__ __forceinline__ void put_lane(int pack, int place, int chunk, const uint4& registers) {
    *reinterpret_cast<uint4*>(numbers[pack][place ^ chunk]) = registers;
  }
  __device__ __forceinline__ void put_lane_metadata(int pack, int place, uint32_t low, uint32_t high) {
    *reinterpret_cast<uint2*>(metadata[place / kBlock][place % kWarp / 4][pack]) =
        make_uint2(pick_bytes(low, high, 0x5410), pick_bytes(low, high, 0x7632));
  }
  __device__ __forceinline__ void get(int pack, int block, int lane, Number (&to)[4]) const {
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
      const uint4 q = *reinterpret_cast<const uint4*>(numbers[pack][block * kBlock + plane * kWarp + slot(lane)]);
      memcpy(to + plane * kTogether, &q, sizeof q);
    }
  }
  // That of pack 0 in the lanes of selector 0, that of pack 1 in those of selector 1.
  __device__ __forceinline__ uint32_t get_metadata(int block, int lane) const {
    return *reinterpret_cast<const uint32_t*>(metadata[block][lane / 4][lane % 4 / 2][lane % 2]);
  }
};

// What all threads of a block share to evaluate windows.
template <class A>
struct WindowTables {
  static constexpr int kMaxChunks = chunks_of(kMaxMatrixFunctions);
  KnotRow<A> knots;  // if all inputs share one row
  UsualKnots usual;
  alignas(8) uint32_t selectors[kSpanOfNan + 1][kMaxChunks];  // rows are `chunks` long

  // By `count` threads; they synchronise afterwards.
  template <class S, int K>
  __device__ __forceinline__ void fill(const MatrixOutArgs<A>& a, int thread, int count) {
    if (thread == 0 && !a.knots) {
      knots = KnotRow<A>::of(a.c.shape, a.c.p.grid);
      if constexpr (sizeof(A) == 4) usual = UsualKnots::of(a.c.shape, knots);
    }
    if constexpr (sizeof(S) == 2)
      for (int q = thread; q < (kSpanOfNan + 1) * a.chunks; q += count)
        selectors[0][q] = selector_of(UsualWindow<K>::begin_of(q / a.chunks), q % a.chunks, a.chunks);
  }
};

// Evaluates one pack of chunks of a step for one row, or for two that lie 8 apart.
template <class S, int ROWS, int THREADS, int K, bool USUAL>
class LeftBuilder {
  using A = typename Mma<S>::Sum;
  using Number = typename Mma<S>::Number;
  using Operand = SparseOperand<S>;
  using Window = typename Operand::template Window<K, USUAL>;
  static constexpr int kRows = ROWS * kStepPacks / THREADS;
  static constexpr int kInputs = Operand::template kMaxInputsPerPack<K>, kBase = kStepInputs / kStepPacks;
  static_assert((kRows == 1 || kRows == 2) && kInputs <= kBase);
  static constexpr bool kSelected = USUAL && sizeof(S) == 2;

 public:
  using Left = LeftOperand<S, ROWS>;

  __device__ __forceinline__ LeftBuilder(const MatrixOutArgs<A>& args, const WindowTables<A>& tables, int thread)
      : a(args), p(args.c.p), tables_(tables), pack_(thread * kRows / ROWS) {
    const int row = thread % (ROWS / kRows);
    place_ = Left::place_of(kRows == 1 ? row : row / 8 * 16 + row % 8);
    if (kRows == 1) half_ = row / 8 % 2;
  }

  // Begins with the tile of rows from n0 on. Rows that are not there repeat the last one; they are not stored.
  __device__ __forceinline__ void start(int64_t n0) {
    n_ = n0 + Left::row_of(place_) + 8 * half(0);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      from_[r] = static_cast<const char*>(p.x.data) + row_of(r) * p.x.stride[0] * bytes_of(p.x.dtype);
  }

  // Starts the loads of x that `build` will use.
  __device__ __forceinline__ void prefetch(int step) {
    const int i = first_input(step);
    const int64_t stride = here(p.x.stride[1]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (in_vectors(step)) {
        const char* from = from_[r] + i * a.vector_bytes;
        a.is_spline(step) ? load_vectors<kInputs>(from, x_[r]) : load_vectors<kBase>(from, x_[r]);
        continue;
      }
      const View row = {from_[r], {}, p.x.dtype};
      if (a.is_spline(step))
        load_bits<kInputs>(row, i * stride, stride, min(count(), a.inputs_from(i)), x_[r]);
      else
        load_bits<kBase>(row, i * stride, stride, a.inputs_from(i), x_[r]);
    }
  }

  // `usual` are those of the tables, which a kernel may keep in registers.
  __device__ __forceinline__ void build(int step, const UsualKnots& usual, Left& left) {
    if (!a.is_spline(step)) return build_base(step, left);
    if constexpr (kSelected)
      if (a.chunks == 2) return build_usual(step, usual, left);
#pragma unroll
    for (int r = 0; r < kRows; ++r) build_any(step, usual, r, left);
  }

 private:
  __device__ __forceinline__ int64_t row_of(int r) const { return min(n_ + 8 * r, p.N - 1); }
  __device__ __forceinline__ int half(int r) const { return kRows == 1 ? half_ : r; }
  // The inputs of a step that have chunks in this thread's pack: first and number.
  __device__ __forceinline__ int first() const { return pack_ * Sparse16832::kChunks / a.chunks; }
  __device__ __forceinline__ int count() const {
    const int last = ((pack_ + 1) * Sparse16832::kChunks - 1) / a.chunks;
    return (a.inputs - 1 < last ? a.inputs : last + 1) - first();
  }
  __device__ __forceinline__ int first_input(int step) const {
    return a.input_of(step) + (a.is_spline(step) ? first() : pack_ * kBase);
  }
  // Whether x of a step is read 16 bytes at a time; then 16-bit numbers are two to a word.
  __device__ __forceinline__ bool in_vectors(int step) const {
    if (!USUAL || a.vector_bytes == 0) return false;
    if (!a.is_spline(step)) return kBase <= a.inputs_from(first_input(step));
    return kSelected && a.chunks == 2 && kInputs <= a.inputs_from(first_input(step));
  }
  template <int COUNT>
  __device__ __forceinline__ void load_vectors(const char* from, Bits<A>* to) const {
    if (a.vector_bytes == 2)
      load_words<COUNT / 2>(from, to);
    else
      load_words<COUNT>(from, to);
  }
  template <int WORDS>
  __device__ __forceinline__ static void load_words(const char* from, Bits<A>* to) {
    using Words = std::conditional_t<WORDS % 4 == 0, uint4, uint2>;
    constexpr int kEach = sizeof(Words) / 4;
#pragma unroll
    for (int word = 0; word < WORDS; word += kEach) {
      const Words q = __ldg(reinterpret_cast<const Words*>(from) + word / kEach);
      memcpy(to + word, &q, sizeof q);
    }
  }
  template <int COUNT>
  __device__ __forceinline__ void numbers_of(int step, A (&x)[kRows][COUNT]) const {
    if constexpr (sizeof(S) == 2)
      if (a.vector_bytes == 2 && in_vectors(step)) {
#pragma unroll
        for (int q = 0; q < kRows * COUNT; ++q)
          x[q / COUNT][q % COUNT] = Mma<S>::widened(x_[q / COUNT][q % COUNT / 2], q % 2);
        return;
      }
#pragma unroll
    for (int q = 0; q < kRows * COUNT; ++q)
      x[q / COUNT][q % COUNT] = number_of_bits(x_[q / COUNT][q % COUNT], p.x.dtype);
  }

  // Two chunks per input, picked by selectors. Chunks q and q + 4, which a lane holds, are of inputs 2 apart: four
  // windows of two rows side by side.
  __device__ __forceinline__ void build_usual(int step, UsualKnots usual, Left& left) const {
    float x[kRows][kInputs];
    numbers_of(step, x);
    const uint2* selectors = reinterpret_cast<const uint2*>(tables_.selectors);
    uint32_t places[kRows][4];
#pragma unroll
    for (int first = 0; first < 2; ++first) {
      uint32_t word[2][2][kRows];  // chunk of the input, input, row
#pragma unroll
      for (int q = 0; q < 2 * kRows; ++q) {
        const int second = q / kRows, r = q % kRows, k = first + 2 * second;
        const auto window = UsualWindow<K>::of(usual, x[r][k]);
        const uint2 selector = selectors[window.span];
        const uint64_t four = rounded_numbers<S>(window.w);
        const uint32_t low = static_cast<uint32_t>(four), high = static_cast<uint32_t>(four >> 32);
        word[0][second][r] = pick_bytes(low, high, selector.x);
        word[1][second][r] = pick_bytes(low, high, selector.y);
        places[r][k] = selector.x;
      }
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const auto& w = word[c];
        if constexpr (kRows == 2) {
          left.put_lane(pack_, place_, 2 * first + c, make_uint4(w[0][0], w[0][1], w[1][0], w[1][1]));
        } else {
          left.put(pack_, place_, half(0), 2 * first + c, w[0][0]);
          left.put(pack_, place_, half(0), 2 * first + c + 4, w[1][0]);
        }
      }
    }
    uint32_t metadata[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      metadata[r] = pick_bytes(pick_bytes(places[r][0], places[r][1], 0x0062),
                               pick_bytes(places[r][2], places[r][3], 0x0062), 0x5410);
    if constexpr (kRows == 2)
      left.put_lane_metadata(pack_, place_, metadata[0], metadata[1]);
    else
      left.put_metadata(pack_, place_, half(0), metadata[0]);
  }

  // Chunk by chunk.
  __device__ __forceinline__ void build_any(int step, const UsualKnots& usual, int r, Left& left) {
    const int i0 = a.input_of(step);
    int input = first(), chunk = pack_ * Sparse16832::kChunks - input * a.chunks;
    Window window = evaluate(usual, i0 + input, r);
    uint32_t metadata = 0;
    FASTKAN_ROLL
    for (int q = 0; q < Sparse16832::kChunks; ++q, ++chunk) {
      if (chunk == a.chunks) {
        chunk = 0;
        window = evaluate(usual, i0 + ++input, r);
      }
      const auto held = window.chunk(chunk, a.chunks, tables_.selectors[0]);
      left.put(pack_, place_, half(r), q, held.numbers);
      metadata |= held.metadata << 4 * q;
    }
    left.put_metadata(pack_, place_, half(r), metadata);
  }

  // The window of the next x. Beyond the inputs of a step x is 0, and the coefficients are.
  __device__ __forceinline__ Window evaluate(const UsualKnots& usual, int i, int r) {
    const A x = number_of_bits(x_[r][0], p.x.dtype);
#pragma unroll
    for (int k = 0; k + 1 < kInputs; ++k) x_[r][k] = x_[r][k + 1];  // registers cannot be indexed
    x_[r][kInputs - 1] = 0;
    if constexpr (USUAL) {
      return Window::of(UsualWindow<K>::of(usual, x), a.chunks);
    } else {
      const int64_t there = min(i, p.I - 1);
      const KnotRow<A> knots = a.knots ? a.knots[there] : tables_.knots;
      auto window = UniformWindow<A, K>::template of<0>(matrix_shape<K>(a.c.shape), knots, x);
      if (p.s) {
        const A s = element<A>(p.s, row_of(r) * p.s.stride[0] + there * p.s.stride[1]);
#pragma unroll
        for (int j = 0; j <= K; ++j) window.w[j] *= s;
      }
      return Window::of(window, a.chunks);
    }
  }

  __device__ __forceinline__ void build_base(int step, Left& left) const {
    A value[kRows][kBase];
    numbers_of(step, value);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int k = 0; k < kBase; ++k) value[r][k] = base_of(value[r][k]);
      if (!USUAL && p.s) {
        const int i = first_input(step);
        const int64_t stride = here(p.s.stride[1]);
        Bits<A> s[kBase];
        load_bits<kBase>(p.s, row_of(r) * p.s.stride[0] + i * stride, stride, a.inputs_from(i), s);
#pragma unroll
        for (int k = 0; k < kBase; ++k) value[r][k] *= number_of_bits(s[k], p.s.dtype);
      }
      Operand::put_base(value[r], pack_,
                        [&](int pack, int chunk, Number number) { left.put(pack, place_, half(r), chunk, number); });
    }
  }

  __device__ __forceinline__ A base_of(A x) const {
    if constexpr (USUAL)
      return a.c.base.kind == Base::silu ? silu_of_few_bits(x) : a.c.base.kind == Base::identity ? x : A(0);
    else
      return a.c.base.value(x);
  }

  const MatrixOutArgs<A>& a;
  const Problem& p;
  const WindowTables<A>& tables_;
  const int pack_;
  int place_, half_ = 0;
  int64_t n_ = 0;
  const char* from_[kRows] = {};  // rows of x
  Bits<A> x_[kRows][kBase];
};

}  // namespace fastkan
