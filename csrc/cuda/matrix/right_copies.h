// Copies of the right operand of the forward to shared memory by cp.async: the coefficients, or base weights, of a
// step.
#pragma once

#include "left_operand.h"

namespace fastkan {

// Each of THREADS threads copies pieces of 16 bytes of every kApart-th row. Row q of a step of basis functions is
// column q % kChunkColumns of a chunk; function f of an input is in its chunk f % chunks, column f / chunks. Rows
// without a function are zeros.
template <class S, class T, int THREADS>
class RightCopies {
  using Operand = SparseOperand<S>;
  using A = typename T::Sum;

 public:
  static constexpr int kPieces = T::kColumns / Operand::kWidth;  // of 16 bytes, per row
  static constexpr int kRows = Operand::kChunkColumns * kStepChunks;
  static constexpr int kStage = kRows * kPieces, kOffsets = kStepChunks;
  static_assert(kRows >= kStepInputs && kStage % THREADS == 0 && THREADS % kPieces == 0);

  // Bytes from the first input of a step to the first column of each chunk, those of a thread side by side; by `count`
  // threads, which synchronise afterwards.
  __device__ __forceinline__ static void fill(const MatrixOutArgs<A>& a, unsigned* offsets, int thread, int count) {
    const View& v = a.c.p.coef;
    for (int chunk = thread; chunk < kStepChunks; chunk += count)
      offsets[chunk % kChunksApart * kEach + chunk / kChunksApart] =
          bytes(chunk / a.chunks * v.stride[0] + chunk % a.chunks * v.stride[1]);
  }

  __device__ __forceinline__ RightCopies(const MatrixOutArgs<A>& args, const unsigned* offsets, int thread)
      : a(args), p(args.c.p), row_(thread / kPieces), piece_(thread % kPieces) {
    const int column = row_ % Operand::kChunkColumns, chunk0 = row_ / Operand::kChunkColumns;
    offsets_ = offsets + chunk0 * kEach;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int chunk = chunk0 + k * kChunksApart, function = column * a.chunks + chunk % a.chunks;
      there_ |= static_cast<unsigned>(chunk / a.chunks < a.inputs && function < p.F) << k;
    }
#pragma unroll
    for (int k = 0; k < kPhases; ++k) at_[k] = here(Operand::template right_at<kRows, T>(row_ + k * kApart, piece_));
  }

  // Begins with the tile of outputs from o0 on.
  __device__ __forceinline__ void start(int64_t o0) {
    o_ = static_cast<int>(o0) + Operand::kWidth * piece_;
    inside_ = o_ < p.O ? ~0u : 0;
    const int64_t column = row_ % Operand::kChunkColumns * a.chunks * p.coef.stride[1];
    coef_ = here(static_cast<const char*>(p.coef.data) + (column + o_) * static_cast<int>(sizeof(S)));
  }

  __device__ __forceinline__ void copy(int step, uint4* stage) const {
    unsigned there = inside_;
    if (a.is_spline(step)) {
      there &= there_;
      if (step + 1 == a.spline_steps)
        there &= before(a.inputs_from(a.input_of(step)) * here(a.chunks) * Operand::kChunkColumns);
      const char* from = here(coef_ + int64_t{step} * a.coef_bytes);
#pragma unroll
      for (int k = 0; k < kEach; k += 4) {
        const uint4 next = *reinterpret_cast<const uint4*>(offsets_ + k);
        copy_row(k, from + next.x, there, stage);
        copy_row(k + 1, from + next.y, there, stage);
        copy_row(k + 2, from + next.z, there, stage);
        copy_row(k + 3, from + next.w, there, stage);
      }
    } else {
      const int i = a.input_of(step);
      there &= before(a.inputs_from(i));
      const int apart = bytes(kApart * p.base_weight.stride[0]);
      const View& v = p.base_weight;
      const char* from =
          static_cast<const char*>(v.data) + ((i + row_) * v.stride[0] + o_) * static_cast<int>(sizeof(S));
#pragma unroll
      for (int k = 0; k < kBase; ++k, from += apart) copy_row(k, from, there, stage);
    }
  }

 private:
  static constexpr int kApart = THREADS / kPieces, kEach = kStage / THREADS;
  static constexpr int kBase = (kStepInputs + kApart - 1) / kApart;
  static constexpr int kPhases = kApart < 8 ? 8 / kApart : 1;  // the swizzle repeats every 8 rows
  static constexpr int kChunksApart = kApart / Operand::kChunkColumns;
  static_assert(kEach <= 32 && kEach % 4 == 0 && kEach * kChunksApart == kStepChunks);

  __device__ __forceinline__ static unsigned bytes(int64_t numbers) {
    return static_cast<unsigned>(numbers) * static_cast<unsigned>(sizeof(S));
  }
  __device__ __forceinline__ void copy_row(int k, const char* from, unsigned there, uint4* stage) const {
    const int at = at_[k % kPhases] + Operand::template right_at<kRows, T>(k / kPhases * kPhases * kApart, 0);
    copy_async(stage + at, from, there & 1u << k);
  }
  // The copies of the first `rows` rows.
  __device__ __forceinline__ unsigned before(int rows) const {
    unsigned bits = 0;
#pragma unroll
    for (int k = 0; k < kEach; ++k) bits |= static_cast<unsigned>(row_ + k * kApart < rows) << k;
    return bits;
  }

  const MatrixOutArgs<A>& a;
  const Problem& p;
  const int row_, piece_;
  int o_ = 0;
  const unsigned* offsets_;
  const char* coef_ = nullptr;  // of the first input: this thread's column of a chunk and piece
  int at_[kPhases];             // positions in a stage
  unsigned there_ = 0, inside_ = 0;
};

}  // namespace fastkan
