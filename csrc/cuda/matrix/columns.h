// How the functions of all inputs, and their base functions, are columns of a matrix: in groups of 64 columns, 8 octets
// of 8. An input's functions fill octets of its own; the last octet of a group is the base functions of its inputs.
#pragma once

#include "../launch.h"

namespace fastkan {

struct Columns {
  static constexpr int kOctets = 8, kGroup = 8 * kOctets;
  int octets, inputs;  // of an input; of a group
  bool with_base;
  int64_t groups;

  static Columns of(const Problem& p) {
    const int octets = (p.F + 7) / 8;
    const int inputs = (kOctets - p.with_base) / octets;
    return {octets, inputs, p.with_base, ceil_div(p.I, inputs)};
  }

  // What an octet of a group is: functions from `function` on of an input, counted in the group; or the base functions
  // of the group's inputs; or, where `input` is negative, nothing.
  struct Octet {
    int input, function;
    FASTKAN_HD bool is_base() const { return function < 0; }
  };
  FASTKAN_HD Octet octet(int which) const {
    if (with_base && which == kOctets - 1) return {0, -1};
    const int input = which / octets;
    return {input < inputs ? input : -1, which % octets * 8};
  }
};

// A column of a tile: the input and its function, kBaseColumn for the base function; input -1 where there is none.
constexpr int kBaseColumn = -1;
struct ColumnOfTile {
  int64_t input;
  int function;
};
FASTKAN_HD ColumnOfTile column_of_tile(const Columns& c, const Problem& p, int64_t first_group, int column) {
  const int64_t first = (first_group + column / Columns::kGroup) * c.inputs;
  const Columns::Octet octet = c.octet(column % Columns::kGroup / 8);
  const int in_octet = column % 8, function = octet.is_base() ? kBaseColumn : octet.function + in_octet;
  const int64_t input = octet.is_base() ? first + in_octet : first + octet.input;
  const bool there = octet.input >= 0 && (octet.is_base() ? in_octet < c.inputs : function < p.F) && input < p.I;
  return {there ? input : -1, function};
}

}  // namespace fastkan
