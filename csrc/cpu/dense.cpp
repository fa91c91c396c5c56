#include "dense.h"

#include "block.h"

namespace fastkan {
namespace {

constexpr int64_t kStride = 144;  // of columns: the 16 of a row in different cache sets
constexpr int64_t kChunk = 128;   // rows of a task: their features by row stay in the L1 cache

constexpr int64_t kHalves = FASTKAN_VECTOR_BYTES / 2;
static_assert(kPadded % kHalves == 0);
typedef uint16_t WholeHalves __attribute__((vector_size(FASTKAN_VECTOR_BYTES), aligned(2), may_alias));

// A chunk of rows of a block of inputs.
struct Chunk {
  int64_t i0, inputs, n0, rows;  // n0: the first row of N
  int64_t at;                    // the same row within its block
};

// Features of one input and chunk: values w[k * kChunk + n], the base function last; starts of the windows.
struct Values {
  const float* w;
  const int32_t* start;
};

// The features of the inputs of a chunk.
class Inputs {
 public:
  Inputs(const Problem& p, const Chunk& c)
      : p_(p),
        c_(c),
        planes_(feature_planes(p)),
        memory_(reserved()),
        column_(p, memory_, kChunk),
        x_(p.x, memory_, c.inputs, kChunk),
        s_(p.s, memory_, c.inputs, kChunk) {
    w_ = memory_.take<float>(planes_ * kChunk);
    found_ = memory_.take<int32_t>(kChunk);
    start_ = memory_.take<int32_t>(kChunk);
    x_.load(c.i0, c.inputs, c.n0, c.rows);
    s_.load(c.i0, c.inputs, c.n0, c.rows);
  }
  void set(int64_t i, int top_order) {
    column_.find_and_set_rows(c_.i0 + i, x_.column(i), s_.column(i), c_.rows, top_order, found_, start_);
  }
  Values values(int order) {
    column_.weights(order, w_, kChunk);
    return {w_, start_};
  }

 private:
  Scratch& reserved() {
    Scratch& memory = scratch();
    memory.reserve(Column<float>::bytes(p_, kChunk) + Tile<float>::bytes(p_.x, c_.inputs, kChunk) +
                   Tile<float>::bytes(p_.s, c_.inputs, kChunk) + Scratch::bytes<float>(planes_ * kChunk) +
                   2 * Scratch::bytes<int32_t>(kChunk));
    return memory;
  }

  const Problem& p_;
  const Chunk& c_;
  const int planes_;
  Scratch& memory_;
  Column<float> column_;
  Tile<float> x_, s_;
  float* w_;
  int32_t *found_, *start_;
};

// Runs f for the chunks of a block of rows.
template <class F>
struct Block {
  const Problem& p;
  int64_t n0, rows;
  const F& f;

  int64_t input_blocks() const { return ceil_div(p.I, kMaxInputs); }
  int64_t tasks() const { return input_blocks() * ceil_div(rows, kChunk); }
  void run(int64_t task) const {
    const int64_t i0 = task % input_blocks() * kMaxInputs, at = task / input_blocks() * kChunk;
    f(Chunk{i0, min(kMaxInputs, p.I - i0), n0 + at, min(kChunk, rows - at), at});
  }
};

template <class F>
void for_each_chunk(const Problem& p, int64_t n0, int64_t rows, const Pool& pool, const F& f) {
  const Block<F> block{p, n0, rows, f};
  pool.run(block.tasks(), [](int64_t task, const void* c) { static_cast<const Block<F>*>(c)->run(task); }, &block);
}

// Calls f with the number of functions that are not zero as a constant.
template <class F>
void by_degree(const Problem& p, const F& f) {
  by_size(p.K + 1, false, [&](auto size, auto) { f(size); });
}

// All planes of a chunk, rounded.
void round_planes(const Values& v, int planes, uint16_t* to) {
  for (int64_t k = 0; k < planes * kChunk; ++k) to[k] = round_bf16(v.w[k]);
}

template <int R>
void rows_of(const Problem& p, const Chunk& c, uint16_t* to, int64_t stride) {
  const int64_t each = p.F + p.with_base, begin = c.i0 * each;
  const int64_t end = c.i0 + c.inputs == p.I ? stride : begin + c.inputs * each;
  to += c.at * stride + begin;
  for (int64_t n = 0; n < c.rows; ++n) memset(to + n * stride, 0, static_cast<size_t>(end - begin) * 2);
  alignas(64) uint16_t w[(R + 1) * kChunk];
  Inputs inputs(p, c);
  for (int64_t i = 0; i < c.inputs; ++i) {
    inputs.set(i, p.order);
    const Values v = inputs.values(p.order);
    round_planes(v, R + p.with_base, w);
    uint16_t* row = to + i * each;
    for (int64_t n = 0; n < c.rows; ++n, row += stride) {
      uint16_t* at = row + v.start[n];
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k) at[k] = w[k * kChunk + n];
      if (p.with_base) row[p.F] = w[R * kChunk + n];
    }
  }
}

void by_row(const Problem& p, int64_t n0, int64_t rows, uint16_t* to, int64_t stride, const Pool& pool) {
  by_degree(p, [&](auto size) {
    for_each_chunk(p, n0, rows, pool, [&](const Chunk& c) { rows_of<size.value>(p, c, to, stride); });
  });
}

// sums[n] of a chunk and input with the rows of g at `g` and, of the base function, at `base`.
template <int R>
void slopes(const Problem& p, int64_t count, const Values& v, const uint16_t* g, const uint16_t* base, int64_t stride,
            float* sums) {
  for (int64_t n = 0; n < count; n += kLanes<float>) {
    const Index<float> start = load_index<float>(v.start + n);
    Vec<float> of[R] = {}, row[R];  // the rows of g in the window: one beside it may be infinite
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k) row[k] = load_widened<float>(g + k * stride + n);
    for (int f = 0;; ++f) {
      const Index<float> here = start == f;
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k) of[k] = here ? row[k] : of[k];
      if (f + R == p.F) break;
#pragma GCC unroll 8
      for (int k = 0; k + 1 < R; ++k) row[k] = row[k + 1];
      row[R - 1] = load_widened<float>(g + (f + R) * stride + n);
    }
    Vec<float> sum = p.with_base ? load(v.w + R * kChunk + n) * load_widened<float>(base + n) : Vec<float>{};
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k) sum += load(v.w + k * kChunk + n) * of[k];
    store(sums + n, sum);
  }
}

// Writes the features of a chunk and input.
template <int R>
void functions_of(const Problem& p, int64_t count, const Values& v, uint16_t* to, uint16_t* base, int64_t stride) {
  alignas(64) uint16_t w[(R + 1) * kChunk], start[kChunk];
  round_planes(v, R + p.with_base, w);
  for (int64_t n = 0; n < kChunk; ++n) start[n] = static_cast<uint16_t>(v.start[n]);
  for (int64_t n = count; n < round_up(count, kPadded); ++n) {
    start[n] = 0x7fff;  // no functions
    w[R * kChunk + n] = 0;
  }
  for (int64_t n = 0; n < count; n += kHalves) {
    const WholeHalves at = *reinterpret_cast<const WholeHalves*>(start + n);
    WholeHalves values[R];
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k) values[k] = *reinterpret_cast<const WholeHalves*>(w + k * kChunk + n);
    for (int f = 0; f < p.F; ++f) {
      WholeHalves sum{};
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k) sum = at == static_cast<uint16_t>(f - k) ? values[k] : sum;  // no start is 65535
      *reinterpret_cast<WholeHalves*>(to + f * stride + n) = sum;
    }
    if (p.with_base)
      *reinterpret_cast<WholeHalves*>(base + n) = *reinterpret_cast<const WholeHalves*>(w + R * kChunk + n);
  }
}

template <int R>
void columns_of(const Problem& p, const Chunk& c, uint16_t* g, int64_t stride) {
  const int top = !p.grad_x ? p.order : !p.grad_coef || p.x_order > p.order ? p.x_order : p.order;
  Inputs inputs(p, c);
  alignas(64) float sums[kMaxInputs * kStride];
  for (int64_t i = 0; i < c.inputs; ++i) {
    uint16_t *rows = g + (c.i0 + i) * p.F * stride + c.at, *base = g + (p.I * p.F + c.i0 + i) * stride + c.at;
    inputs.set(i, top);
    if (p.grad_x) slopes<R>(p, c.rows, inputs.values(p.x_order), rows, base, stride, sums + i * kStride);
    if (p.grad_coef) functions_of<R>(p, c.rows, inputs.values(p.order), rows, base, stride);
  }
  if (!p.grad_x) return;
  const int64_t at = c.n0 * p.I + c.i0;
  store_block(p.grad_x, p.grad_x_dtype, at, p.I, sums, 1, kStride, c.rows, c.inputs);
}

void by_function(const Problem& p, int64_t n0, int64_t rows, uint16_t* g, int64_t stride, const Pool& pool) {
  by_degree(p, [&](auto size) {
    for_each_chunk(p, n0, rows, pool, [&](const Chunk& c) { columns_of<size.value>(p, c, g, stride); });
  });
}

void add(const uint16_t* part, int64_t size, bool first, float* sum, uint16_t* to) {
  for (int64_t k = 0; k < size; ++k) sum[k] = (first ? 0.0F : sum[k]) + widen_bf16(part[k]);
  for (int64_t k = 0; to && k < size; ++k) to[k] = round_bf16(sum[k]);
}

}  // namespace

namespace avx512 {
const DenseKernels dense_kernels = {by_row, by_function, add};
}

}  // namespace fastkan
