// Cache and register blocking of a contraction: blocks of inputs whose coefficients fit the L1 cache, chunks of
// outputs that fit the registers. Coefficients are read in place if they are contiguous and of the compute type, else
// copied block by block. The order of every sum is independent of the blocking.
#pragma once

#include "features.h"

namespace fastkan {
namespace {

constexpr int64_t kL1Bytes = 24 * 1024, kL2Bytes = 512 * 1024, kLastLevelBytes = 4 * 1024 * 1024;
constexpr int64_t kDirectWidth = 256;  // outputs above which rows of coefficients, read in place, alias in the cache

// Number of outputs rounded up to whole vectors.
template <class T>
int64_t padded(int64_t outputs) {
  return round_up(outputs, kLanes<T>);
}

// Number of inputs whose coefficients, `width` outputs wide, fit the L1 cache; for large F the L2 cache. With several
// windows per x, the coefficients of one window must fit L1.
template <class T>
int64_t block_inputs(const Problem& p, int64_t width) {
  const Windows windows = windows_of(p);
  const int64_t row = width * static_cast<int64_t>(sizeof(T)), each = (p.F + 1) * row;
  const int64_t fit = windows.count > 1 ? min(kL1Bytes / (windows.size * row), kL2Bytes / each)
                                        : max(kL1Bytes / each, min(4, kL2Bytes / each));
  return min(p.I, max(1, min(kMaxInputs, fit)));
}

// One of the windows at an x: its first plane of features, its start relative to the first window, and whether it
// consists of the base function alone.
struct WindowPart {
  int plane, start;
  bool of_base;
};

// Coefficients of a block of inputs and `width` outputs from o0: in place, or a copy.
template <class T>
struct Weights {
  const T* coef;
  const T* base;
  int64_t coef_input, coef_row, base_input;  // strides
  const T* rows(int64_t input) const { return coef + input * coef_input; }
  // The coefficients of one window; for the base function, a single row.
  Weights part(const WindowPart& window) const {
    if (window.of_base) return {base, nullptr, base_input, 0, 0};
    return {coef + window.start * coef_row, base, coef_input, coef_row, base_input};
  }
};

template <class T>
class WeightBlocks {
 public:
  // Blocks `width` outputs wide; always copied if p.O > widest.
  WeightBlocks(const Problem& p, int64_t width, int64_t widest)
      : p_(p),
        width_(padded<T>(width)),
        coef_in_place_(p.coef.dtype == kDtype<T> && p.coef.stride[2] == 1 && p.O % kLanes<T> == 0 && p.O <= widest),
        base_in_place_(!p.with_base ||
                       (p.base_weight.dtype == kDtype<T> && p.base_weight.stride[1] == 1 && p.O % kLanes<T> == 0)) {}

  size_t bytes(int64_t inputs) const {
    return (coef_in_place_ ? 0 : Scratch::bytes<T>(inputs * p_.F * width_)) +
           (base_in_place_ ? 0 : Scratch::bytes<T>(inputs * width_));
  }
  void take(Scratch& memory, int64_t inputs) {
    if (!coef_in_place_) coef_ = memory.take<T>(inputs * p_.F * width_);
    if (!base_in_place_) base_ = memory.take<T>(inputs * width_);
  }
  Weights<T> get(int64_t i0, int64_t inputs, int64_t o0, int64_t outputs) {
    Weights<T> w;
    if (coef_in_place_) {
      w.coef_input = p_.coef.stride[0];
      w.coef_row = p_.coef.stride[1];
      w.coef = static_cast<const T*>(p_.coef.data) + i0 * w.coef_input + o0;
    } else {
      const int64_t* stride = p_.coef.stride;
      for (int64_t i = 0; i < inputs; ++i)
        copy(coef_ + i * p_.F * width_, p_.coef, (i0 + i) * stride[0] + o0 * stride[2], stride[1], stride[2], p_.F,
             outputs);
      w.coef = coef_;
      w.coef_row = width_;
      w.coef_input = p_.F * width_;
    }
    w.base = base_;
    w.base_input = width_;
    if (!p_.with_base) return w;
    const int64_t* stride = p_.base_weight.stride;
    if (base_in_place_) {
      w.base_input = stride[0];
      w.base = static_cast<const T*>(p_.base_weight.data) + i0 * stride[0] + o0;
    } else {
      copy(base_, p_.base_weight, i0 * stride[0] + o0 * stride[1], stride[0], stride[1], inputs, outputs);
    }
    return w;
  }

 private:
  void copy(T* to, const View& from, int64_t offset, int64_t row, int64_t column, int64_t rows, int64_t outputs) const {
    if (outputs < width_) memset(to, 0, static_cast<size_t>(rows * width_) * sizeof(T));
    load_block(to, width_, 1, from, offset, row, column, rows, outputs);
  }

  const Problem& p_;
  int64_t width_;
  bool coef_in_place_, base_in_place_;
  T *coef_ = nullptr, *base_ = nullptr;
};

// A block of rows of a matrix [N, O] in the compute type with padded rows: in place, or a copy; a row of zeros if the
// matrix is absent.
template <class T>
class RowBlocks {
 public:
  RowBlocks(const View& v, int64_t columns)
      : v_(v),
        columns_(columns),
        in_place_(v && v.dtype == kDtype<T> && v.stride[1] == 1 && columns % kLanes<T> == 0) {}
  size_t bytes(int64_t rows) const { return in_place_ ? 0 : Scratch::bytes<T>((v_ ? rows : 1) * padded<T>(columns_)); }
  void take(Scratch& memory, int64_t rows) {
    if (!in_place_) copy_ = memory.take<T>((v_ ? rows : 1) * padded<T>(columns_));
  }
  const T* get(int64_t n0, int64_t rows) {
    if (in_place_) return static_cast<const T*>(v_.data) + n0 * v_.stride[0];
    const int64_t width = padded<T>(columns_);
    if (columns_ < width || !v_) memset(copy_, 0, static_cast<size_t>((v_ ? rows : 1) * width) * sizeof(T));
    if (v_) load_block(copy_, width, 1, v_, n0 * v_.stride[0], v_.stride[0], v_.stride[1], rows, columns_);
    return copy_;
  }
  int64_t stride() const { return in_place_ ? v_.stride[0] : v_ ? padded<T>(columns_) : 0; }

 private:
  const View& v_;
  int64_t columns_;
  bool in_place_;
  T* copy_ = nullptr;
};

template <int V>
struct Constant {
  static constexpr int value = V;
};

// Stores the coefficient gradients of input i, base last, [F + 1, width] in the compute type, to the results.
template <class T>
void store_coef(const Problem& p, int64_t i, const T* from, int64_t width) {
  store_block(p.grad_coef, p.grad_coef_dtype, i * p.F * p.O, p.O, from, width, 1, p.F, p.O);
  if (p.with_base) store_block(p.grad_base, p.grad_coef_dtype, i * p.O, 0, from + p.F * width, 0, 1, 1, p.O);
}

// Splits the vectors of a row into chunks, widest first, and calls f with the chunk width NV as a constant.
template <int NV, class F>
inline void chunks(int64_t vectors, int64_t at, const F& f) {
  for (; vectors >= NV; vectors -= NV, at += NV) f(Constant<NV>{}, at);
  if constexpr (NV > 1) {
    if (vectors > 0) chunks<NV / 2>(vectors, at, f);
  }
}

// The largest power of two of vectors per row such that the rows of a window, and two more, fit the registers.
constexpr int window_vectors(int functions) {
  int nv = 1;
  while ((functions + 2) * nv * 2 + 2 <= kRegisters) nv *= 2;
  return nv;
}

// Calls f with the size of a window, and whether it includes the base function, as constants.
template <class F>
inline void by_size(int size, bool with_base, const F& f) {
  switch (2 * (size - 1) + with_base) {
    case 0:
      f(Constant<1>{}, Constant<0>{});
      break;
    case 1:
      f(Constant<1>{}, Constant<1>{});
      break;
    case 2:
      f(Constant<2>{}, Constant<0>{});
      break;
    case 3:
      f(Constant<2>{}, Constant<1>{});
      break;
    case 4:
      f(Constant<3>{}, Constant<0>{});
      break;
    case 5:
      f(Constant<3>{}, Constant<1>{});
      break;
    case 6:
      f(Constant<4>{}, Constant<0>{});
      break;
    case 7:
      f(Constant<4>{}, Constant<1>{});
      break;
    case 8:
      f(Constant<5>{}, Constant<0>{});
      break;
    case 9:
      f(Constant<5>{}, Constant<1>{});
      break;
    case 10:
      f(Constant<6>{}, Constant<0>{});
      break;
    default:
      f(Constant<6>{}, Constant<1>{});
      break;
  }
}

// The same for each of the windows at an x.
template <class F>
inline void by_window(const Problem& p, const F& f) {
  const Windows windows = windows_of(p);
  for (int g = 0; g < windows.count; ++g) {
    const WindowPart part{g * windows.size, windows.start(g), false};
    by_size(windows.size, base_inside(p), [&](auto size, auto base) { f(size, base, part); });
  }
  if (p.with_base && !base_inside(p))
    f(Constant<1>{}, Constant<0>{}, WindowPart{windows.count * windows.size, 0, true});
}

}  // namespace
}  // namespace fastkan
