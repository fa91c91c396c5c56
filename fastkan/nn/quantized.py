"""QuantizedKANLinear: a layer of edges as tables of 8-bit numbers, for inference."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import functional
from ..devices import HOST, place
from ..transforms import is_plain
from .module import Module

SCALES = 8  # bytes at the end of a table's row: scale and offset in float32
_OPERATORS: Any = torch.ops.quantized


class QuantizedKANLinear(Module):
    """y[n,o] = sum_i (scale[i,l] table[i,l,o] + offset[i,l]) + bias[o], l the level of x[n,i]. See quantize.

    The level is that of the nearest of 2^bits equidistant points in the range of input i, whose ends included; an x
    beyond the range has the level of its end. One more level, the last, is that of a NaN, which makes its row NaN.

    For inference: there is no gradient, and an x that requires one is a RuntimeError. An ordinary call on a CPU is one
    of C++ (csrc/cpu/table_sum.h); all others are operators of torch.

    Args:
        values: of every edge at the points of `points`, [I, 2^bits, O], finite.
        low, high: the range of every input, [I], in float64.
        bias: [O], or None.
        dtype: of the result.

    Buffers: table [I * (2^bits + 1), O + 8], of bytes: a row has a number from 0 to 255 for every output, then scale
    and offset in float32. bias [O]. low and per_unit [I], the start of the first level and levels per unit of x, always
    in float64 (float32 on a device without it).
    """

    exact = ("low", "per_unit")
    table: Tensor
    bias: Tensor
    low: Tensor
    per_unit: Tensor

    def __init__(self, values: Tensor, low: Tensor, high: Tensor, bias: Tensor | None, dtype: torch.dtype):
        super().__init__()
        self.in_features, self.levels, self.out_features = values.shape
        device, values = values.device, values.to(HOST).double()
        middle = (values.amin(1) + values.amax(1)) / 2  # [I, O]: goes to the bias, so that rows have a small range
        table = torch.cat([self._packed(values - middle[:, None]), self._nan_rows()], 1).flatten(0, 1)
        total = middle.sum(0) + (0.0 if bias is None else bias.detach().to(HOST).double())
        step = (high - low) / (self.levels - 1)
        self.register_buffer("table", table.to(device))
        self.register_buffer("bias", total.to(dtype).to(device))
        self.register_buffer("low", place(low - step / 2, device))
        self.register_buffer("per_unit", place(1 / step, device))

    def _packed(self, values: Tensor) -> Tensor:
        """Rows of 8-bit numbers with scale and offset, each with the range of its own values."""
        rows = _OPERATORS.embedding_bag_byte_prepack(values.float().flatten(0, 1))
        return rows.view(self.in_features, self.levels, -1)

    def _nan_rows(self) -> Tensor:
        numbers = torch.zeros(self.in_features, 1, self.out_features, dtype=torch.uint8)
        scales = torch.tensor([0.0, torch.nan]).view(torch.uint8)
        return torch.cat([numbers, scales.expand(self.in_features, 1, SCALES)], 2)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]; a row with a NaN is NaN."""
        functional.check_input(x, self.in_features)
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "x.requires_grad=True: expected an x without gradient, since tables have none; "
                "call the layer under torch.inference_mode(), or with x.detach()"
            )
        rows = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        of = self._buffers  # an attribute takes as long as an operator
        sums = torch.ops.fastkan.table_sum if x.is_cpu and is_plain((x,)) else reference
        y = sums(of["table"], rows, of["low"], of["per_unit"], of["bias"])
        return y if x.dim() == 2 else y.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, levels={self.levels}"


def reference(table: Tensor, x: Tensor, low: Tensor, per_unit: Tensor, bias: Tensor) -> Tensor:
    """The layer with these buffers, x [N, I] -> [N, O], by operators of torch."""
    rows = rows_of(x, low, per_unit, table.shape[0])
    sums = _bag if x.is_cpu and x.shape[1] else _gathered
    return (sums(table, rows) + bias).to(bias.dtype)


torch.library.impl("fastkan::table_sum", "CompositeExplicitAutograd", reference)


def rows_of(x: Tensor, low: Tensor, per_unit: Tensor, count: int) -> Tensor:
    """The rows for x [N, I] in a table of `count` rows: [N, I] in int32."""
    inputs = x.shape[1]
    levels = count // max(1, inputs) - 1
    if x.dtype != torch.float64:
        low, per_unit = low.float(), per_unit.float()
    # The start of the first level is half a step below its point: so truncation finds the nearest point.
    level = x.sub(low).mul_(per_unit).clamp_(0, levels - 1).nan_to_num_(levels)
    first = torch.arange(inputs, dtype=torch.int32, device=x.device) * (levels + 1)
    return level.int().add_(first).contiguous()


def _bag(table: Tensor, rows: Tensor) -> Tensor:
    """_gathered by an operator of torch for the CPU."""
    offsets = None
    if torch.compiler.is_compiling():  # which needs them: where each sum begins
        n, inputs = rows.shape
        offsets, rows = torch.arange(n, dtype=torch.int32) * inputs, rows.flatten()
    return _OPERATORS.embedding_bag_byte_rowwise_offsets(table, rows, offsets, False, 0, False, None, None, False)


def _gathered(table: Tensor, rows: Tensor) -> Tensor:
    """The sums [N, O] of rows [N, I] of a table of 8-bit rows, in float32."""
    found = table[rows.long()]
    scales = found[..., -SCALES:].clone(memory_format=torch.contiguous_format).view(torch.float32)  # N I 2
    return (found[..., :-SCALES] * scales[..., :1] + scales[..., 1:]).sum(1)


def points(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """The x at which tables have values, [2^bits, I], for ranges low, high [I]."""
    levels = 1 << bits
    return low + (high - low) * (torch.arange(levels, dtype=low.dtype) / (levels - 1))[:, None]


def ranges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of the ranges of the columns of x [N, I], in float64 on the host.

    A constant column c has the range from c, which is a point of the table then, to c + max(1, |c|). Raises ValueError
    where x is empty or not finite.
    """
    if not x.numel() or not bool(x.isfinite().all()):
        raise ValueError(f"x gives a layer rows {list(x.shape)}, empty or not finite: expected finite inputs of layers")
    low, high = x.detach().to(HOST).double().aminmax(dim=0)
    constant = high - low <= 1e-12 * torch.maximum(low.abs(), high.abs()).clamp_min(1e-18)
    return low, torch.where(constant, low + low.abs().clamp_min(1.0), high)


def checked(values: Tensor, name: str) -> Tensor:
    """values [I, L, O] of edges; ValueError where one is not finite."""
    if bool(values.isfinite().all()):
        return values
    i, _, o = (~values.isfinite()).nonzero()[0].tolist()
    raise ValueError(f"{name} has an edge from input {i} to output {o} that is not finite in the range of the input")
