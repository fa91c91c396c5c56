// Maps the basis functions and base functions of all inputs to columns of a matrix, in groups of 64 columns = 8
// octets. The functions of an input fill octets of its own; the last octet of a group holds the base functions of its
// inputs.
#pragma once

#include "../launch.h"

namespace fastkan {

struct Columns {
  static constexpr int kOctets = 8, kGroup = 8 * kOctets;
  // Content of an octet: functions from `function` on of an input, counted in the group; or the base functions of the
  // group's inputs; or nothing if `input` is negative.
  struct Octet {
    int8_t input, function;
    FASTKAN_HD bool is_base() const { return function < 0; }
  };
  Octet octet[kOctets];
  int octets, inputs;  // octets per input; inputs per group
  int lanes_log2;      // lanes that take the inputs of a group side by side: a power of two, at least as many
  bool with_base;
  int64_t groups;

  static Columns of(const Problem& p) {
    const int octets = (p.F + 7) / 8;
    const int inputs = (kOctets - p.with_base) / octets;
    int lanes_log2 = 0;
    while (1 << lanes_log2 < inputs) ++lanes_log2;
    Columns c = {{}, octets, inputs, lanes_log2, p.with_base, ceil_div(p.I, inputs)};
    for (int which = 0; which < kOctets; ++which) {
      const int input = which / octets;
      c.octet[which] = {static_cast<int8_t>(input < inputs ? input : -1), static_cast<int8_t>(which % octets * 8)};
    }
    if (p.with_base) c.octet[kOctets - 1] = {0, -1};
    return c;
  }
};

// A column of a tile: input and function, kBaseColumn for the base function; input -1: an empty column.
constexpr int kBaseColumn = -1;
struct TileColumn {
  int64_t input;
  int function;
};
FASTKAN_HD TileColumn tile_column(const Columns& c, const Problem& p, int64_t first_group, int column) {
  const int64_t first = (first_group + column / Columns::kGroup) * c.inputs;
  const Columns::Octet octet = c.octet[column % Columns::kGroup / 8];
  const int in_octet = column % 8, function = octet.is_base() ? kBaseColumn : octet.function + in_octet;
  const int64_t input = octet.is_base() ? first + in_octet : first + octet.input;
  const bool valid = octet.input >= 0 && (octet.is_base() ? in_octet < c.inputs : function < p.F) && input < p.I;
  return {valid ? input : -1, function};
}

}  // namespace fastkan
