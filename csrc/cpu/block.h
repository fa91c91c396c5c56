// How a contraction is cut: blocks of inputs whose coefficients stay in the first-level cache, chunks of outputs that
// fit the registers. Coefficients are read in place where they are contiguous in the type computed in, else copied
// block by block. The sums of one result are taken in the same order whatever the cut.
#pragma once

#include "features.h"

namespace fastkan {
namespace {

constexpr int64_t kFirstLevel = 24 * 1024, kSecondLevel = 512 * 1024, kLastLevel = 4 * 1024 * 1024;
constexpr int64_t kDirectWidth = 256;  // outputs above which rows of coefficients alias in the cache when read in place

// Outputs in whole vectors.
template <class T>
int64_t padded(int64_t outputs) {
  return round_up(outputs, kLanes<T>);
}

// Inputs of a block whose coefficients, `width` outputs wide, fit the first-level cache; for large F the second. Of
// several windows those of one have to fit the first.
template <class T>
int64_t block_inputs(const Problem& p, int64_t width) {
  const Windows windows = windows_of(p);
  const int64_t row = width * static_cast<int64_t>(sizeof(T)), each = (p.F + 1) * row;
  const int64_t fit = windows.count > 1 ? least(kFirstLevel / (windows.size * row), kSecondLevel / each)
                                        : most(kFirstLevel / each, least(4, kSecondLevel / each));
  return least(p.I, most(1, least(kMaxInputs, fit)));
}

// One of the windows at an x: its first plane of features, its start from the first window's, and whether it is of the
// base function alone.
struct Part {
  int plane, start;
  bool of_base;
};

// Rows of coefficients of a block of inputs, `width` outputs from o0: in place, or a copy.
template <class T>
struct Weights {
  const T* coef;
  const T* base;
  int64_t coef_input, coef_row, base_input;  // strides
  const T* rows(int64_t input) const { return coef + input * coef_input; }
  // Those of one window; of the base function, one row wherever a window starts.
  Weights part(const Part& window) const {
    if (window.of_base) return {base, nullptr, base_input, 0, 0};
    return {coef + window.start * coef_row, base, coef_input, coef_row, base_input};
  }
};

template <class T>
class WeightBlocks {
 public:
  // Blocks `width` outputs wide, copied where a row has more than `widest` outputs.
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

// A block of rows of a matrix [N, O] with padded rows in the type computed in: in place, or a copy; one row of zeros
// where there is no matrix.
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

// The coefficient gradients of input i, base last, [F + 1, width] in the type computed in, into the results.
template <class T>
void store_coef(const Problem& p, int64_t i, const T* from, int64_t width) {
  store_block(p.grad_coef, p.grad_coef_dtype, i * p.F * p.O, p.O, from, width, 1, p.F, p.O);
  if (p.with_base) store_block(p.grad_base, p.grad_coef_dtype, i * p.O, 0, from + p.F * width, 0, 1, 1, p.O);
}

// Calls f with the chunk width NV (vectors) as a constant, over all vectors of a row, widest first.
template <int NV, class F>
inline void chunks(int64_t vectors, int64_t at, const F& f) {
  for (; vectors >= NV; vectors -= NV, at += NV) f(Constant<NV>{}, at);
  if constexpr (NV > 1) {
    if (vectors > 0) chunks<NV / 2>(vectors, at, f);
  }
}

// The widest power of two of vectors for which those of a window, one for each of its functions, stay in registers,
// beside two more.
constexpr int window_vectors(int functions) {
  int nv = 1;
  while ((functions + 2) * nv * 2 + 2 <= kRegisters) nv *= 2;
  return nv;
}

// Calls f with the number of functions of a window and whether there is a base function beside them as constants.
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

// The same for each of the windows at an x, with which it is.
template <class F>
inline void by_window(const Problem& p, const F& f) {
  const Windows windows = windows_of(p);
  for (int g = 0; g < windows.count; ++g) {
    const Part part{g * windows.size, windows.start(g), false};
    by_size(windows.size, base_inside(p), [&](auto size, auto base) { f(size, base, part); });
  }
  if (p.with_base && !base_inside(p)) f(Constant<1>{}, Constant<0>{}, Part{windows.count * windows.size, 0, true});
}

}  // namespace
}  // namespace fastkan
