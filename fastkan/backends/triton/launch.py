"""Kernel launches: chooses kernel and tiles, allocates the results.

The functions are the operators of fastkan/ops.py, with the fields of a Spec as separate arguments. Kernels run on the
current stream of the tensors' device. Nothing here synchronises, or allocates more than the results and, for split-K
gradients of the coefficients, their partial sums.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from ...spec import FAMILIES, Spec
from . import plan
from .kernels import edge_moments as edge_kernels
from .kernels import kan_coef as coef_kernels
from .kernels import kan_in as in_kernels
from .kernels import kan_out as out_kernels
from .kernels.base import MAX_ORDER
from .kernels.bspline import FAMILY as BSPLINE
from .kernels.bspline import is_closed
from .kernels.chebyshev import FAMILY as CHEBYSHEV
from .kernels.family import Family, Shape
from .kernels.order import order as order_kernel
from .kernels.rbf import FAMILY as RBF
from .knots import knots_of

_TYPES = {
    torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16,
}  # fmt: skip
# Autotuning key: arguments, beside dtypes, on which the fastest tiles may depend.
_TUNED_BY = ("BUCKET", "I", "O", "F", "SPEC", "ORDER", "PRECISION")
_FAMILIES = {"bspline": BSPLINE, "rbf": RBF, "chebyshev": CHEBYSHEV}
INTERPRETED = knobs.runtime.interpret


class Contraction(NamedTuple):
    """What all kernels of a call have in common."""

    family: Family
    shape: Shape
    base: int
    index: tl.dtype
    accumulator: torch.dtype
    operand: torch.dtype
    precision: str
    gathers: bool
    light: bool

    @classmethod
    def of(cls, spec: Spec, order: int, grid: Tensor, s: Tensor | None, *tensors: Tensor | None) -> "Contraction":
        if not 0 <= order <= MAX_ORDER:
            raise ValueError(f"order={order}: expected 0 to {MAX_ORDER}")
        present = [t for t in (s, *tensors) if t is not None]
        double = any(t.dtype == torch.float64 for t in present)
        narrow = present[-1].dtype
        # Derivatives may overflow in float16: they have the magnitude of h^-order.
        operand = torch.float64 if double else torch.float32 if order > 0 and narrow == torch.float16 else narrow
        family, functions = _FAMILIES[FAMILIES[spec.family]], grid.shape[1] - spec.degree - 1
        return cls(
            family=family,
            shape=Shape(
                spec.degree, spec.outside, spec.uniform, 0 if spec.uniform else (functions + spec.degree).bit_length()
            ),
            base=spec.base,
            index=index_type(*present),
            accumulator=torch.float64 if double else torch.float32,
            operand=operand,
            precision=plan.precision(operand, plan.architecture(grid.device)),
            gathers=plan.gathers(family, spec, functions, operand),
            light=s is None and (family is RBF or is_closed(order, spec.degree, spec.uniform)),
        )

    def constants(self, order: int | None = None) -> dict[str, object]:
        constants = {
            "FAMILY": self.family, "SPEC": self.shape, "BASE": self.base, "INDEX": self.index,
            "ACCUMULATOR": _TYPES[self.accumulator],
        }  # fmt: skip
        return constants if order is None else {**constants, "ORDER": order}

    def products(self) -> dict[str, object]:
        return {"OPERAND": _TYPES[self.operand], "PRECISION": self.precision}

    def reaching(self, *tensors: Tensor | None) -> "Contraction":
        """With indices that are wide enough for these tensors too."""
        return self if self.index == tl.int64 else self._replace(index=index_type(*tensors))

    def tiles(self, kernel: str, x: Tensor, outputs: int) -> plan.Tiles:
        """Tiles of a matrix product."""
        of_device = plan.architecture(x.device), plan.processors(x.device)
        return plan.matrix(kernel, *of_device, self.operand, self.light, *x.shape, outputs)

    def gathered(self, kernel: str, x: Tensor, outputs: int) -> plan.Tiles:
        return plan.gathered(kernel, self.accumulator, x.shape[1], outputs)


def index_type(*tensors: Tensor | None) -> tl.dtype:
    """int64 if an offset into one of the tensors, or into a contiguous tensor of its shape, exceeds 31 bits."""
    for t in tensors:
        if t is None:
            continue
        reach = t.numel()
        if not t.is_contiguous():
            reach = max(reach, sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)))
        if reach >= 2**31:
            return tl.int64
    return tl.int32


def _strides(t: Tensor | None, dimensions: int) -> tuple[int, ...]:
    return (0,) * dimensions if t is None else t.stride()


def _launch(
    kernel, programs: Callable[[Mapping[str, int]], int], device: torch.device, args: tuple, constants: dict,
    tiles: plan.Tiles,
) -> None:  # fmt: skip
    """Launch a kernel; the grid follows from the tile sizes."""
    blocks = tiles.blocks
    _run(kernel, lambda _: programs(blocks), device, args, {**constants, **blocks}, tiles.options)


def _launch_matrix(
    kernel, programs: Callable[[Mapping[str, int]], int], device: torch.device, args: tuple, constants: dict,
    tiles: plan.Tiles, rows: int,
) -> None:  # fmt: skip
    """Like _launch; with plan.tune, autotunes over a few tile sizes at the first call for a key.

    Not while a graph is captured: a measurement waits for the device.
    """
    if plan.tune and not (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        constants = {**constants, "BUCKET": triton.next_power_of_2(rows)}
        _run(_tuner(kernel, plan.candidates(tiles)), programs, device, args, constants, {})
    else:
        _launch(kernel, programs, device, args, {**constants, "BUCKET": 0}, tiles)


def _run(kernel, programs: Callable, device: torch.device, args: tuple, constants: dict, options: dict) -> None:
    guard = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    options = {} if INTERPRETED else {"enable_fp_fusion": True, **options}
    with guard:
        kernel[lambda blocks: (programs(blocks),)](*args, **constants, **options)


@functools.cache
def _tuner(kernel, candidates: tuple[plan.Tiles, ...]):
    """The kernel wrapped in Triton's autotuner, which caches its results on disk."""
    configs = [triton.Config(t.blocks, num_warps=t.num_warps, num_stages=t.num_stages) for t in candidates]
    key = [name for name in _TUNED_BY if name in kernel.arg_names]
    return triton.autotune(configs, key, cache_results=not INTERPRETED)(kernel)


def kan_out(
    x: Tensor, s: Tensor | None, coef: Tensor, base_weight: Tensor | None, bias: Tensor | None, grid: Tensor,
    degree: int, base: int, outside: int, uniform: bool, family: int, order: int,
) -> Tensor:  # fmt: skip
    rows, (inputs, functions, outputs) = x.shape[0], coef.shape
    y = coef.new_empty(rows, outputs)
    if 0 in (rows, inputs, outputs):
        return y.zero_() if bias is None else y.copy_(bias.expand_as(y))
    spec = Spec(degree, base, outside, uniform, family)
    c = Contraction.of(spec, order, grid, s, x, base_weight, bias, y, coef)
    knots = knots_of(grid, spec, c.accumulator)
    args = (
        x, s, coef, base_weight, bias, knots, y, rows, inputs, outputs, functions, *x.stride(), *_strides(s, 2),
        *coef.stride(), *_strides(base_weight, 2), *_strides(bias, 1), knots.stride(0),
    )  # fmt: skip

    def programs(blocks):
        return plan.cdiv(rows, blocks["BN"]) * plan.cdiv(outputs, blocks["BO"])

    if c.gathers:
        _launch(out_kernels.gather, programs, x.device, args, c.constants(order), c.gathered("out", x, outputs))
    else:
        constants = {**c.constants(order), **c.products()}
        _launch_matrix(out_kernels.matrix, programs, x.device, args, constants, c.tiles("out", x, outputs), rows)
    return y


def kan_in(
    x: Tensor, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, degree: int, base: int,
    outside: int, uniform: bool, family: int, order: int,
) -> Tensor:  # fmt: skip
    return _in(x, None, u, coef, base_weight, grid, Spec(degree, base, outside, uniform, family), order)


def kan_coef(
    x: Tensor, s: Tensor | None, u: Tensor, grid: Tensor, degree: int, base: int, outside: int, uniform: bool,
    family: int, order: int, with_base: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _coef(x, s, u, u.dtype, grid, Spec(degree, base, outside, uniform, family), order, with_base)


def kan_backward(
    x: Tensor, s: Tensor | None, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, degree: int,
    base: int, outside: int, uniform: bool, family: int, order: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    spec = Spec(degree, base, outside, uniform, family)
    grad_x = _in(x, s, u, coef, base_weight, grid, spec, order + 1)
    return grad_x, *_coef(x, s, u, coef.dtype, grid, spec, order, base_weight is not None)


def _in(
    x: Tensor, s: Tensor | None, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec,
    order: int,
) -> Tensor:  # fmt: skip
    """kan_in, times s."""
    rows, (inputs, functions, outputs) = x.shape[0], coef.shape
    grad_x = x.new_empty(x.shape)
    if 0 in (rows, inputs, outputs):
        return grad_x.zero_()
    c = Contraction.of(spec, order, grid, s, x, base_weight, u, coef)
    knots = knots_of(grid, spec, c.accumulator)
    args = (
        x, s, u, coef, base_weight, knots, grad_x, rows, inputs, outputs, functions, *x.stride(), *_strides(s, 2),
        *u.stride(), *coef.stride(), *_strides(base_weight, 2), knots.stride(0),
    )  # fmt: skip

    def programs(blocks):
        return plan.cdiv(rows, blocks["BN"]) * plan.cdiv(inputs, blocks["BI"])

    if c.gathers:
        _launch(in_kernels.gather, programs, x.device, args, c.constants(order), c.gathered("in", x, outputs))
    else:
        constants = {**c.constants(order), **c.products()}
        _launch_matrix(in_kernels.matrix, programs, x.device, args, constants, c.tiles("in", x, outputs), rows)
    return grad_x


def _coef(
    x: Tensor, s: Tensor | None, u: Tensor, dtype: torch.dtype, grid: Tensor, spec: Spec, order: int, with_base: bool
) -> tuple[Tensor, Tensor]:
    """kan_coef in that dtype: both results in one launch, or where coefficients are gathered in two."""
    rows, inputs, outputs = *x.shape, u.shape[1]
    functions = grid.shape[1] - spec.degree - 1
    grad_coef = u.new_empty(inputs, functions, outputs, dtype=dtype)
    grad_base = u.new_empty(inputs if with_base else 0, outputs, dtype=dtype)
    if 0 in (rows, inputs, outputs):
        return grad_coef.zero_(), grad_base.zero_()
    c = Contraction.of(spec, order, grid, s, x, u, grad_coef)
    knots = knots_of(grid, spec, c.accumulator)
    if c.gathers:
        _windowed(x, s, u, knots, grad_coef, c, order)
        if not with_base:
            return grad_coef, grad_base
    by_function = with_base if c.gathers else functions + with_base
    tiles = c.tiles("coef", x, outputs)

    def programs(blocks):
        return plan.cdiv(inputs, blocks["BI"]) * by_function * plan.cdiv(outputs, blocks["BO"])

    splits = plan.splits(x.device, programs(tiles.blocks), plan.cdiv(rows, tiles.BN))
    parts = [None if c.gathers else grad_coef, grad_base if with_base else None]
    if splits > 1:
        parts = [None if t is None else t.new_empty(splits, *t.shape, dtype=c.accumulator) for t in parts]
        c = c.reaching(*parts)
    args = (
        x, s, u, knots, *parts, rows, inputs, outputs, functions, splits, *x.stride(), *_strides(s, 2), *u.stride(),
        knots.stride(0),
    )  # fmt: skip
    constants = {**c.constants(order), **c.products()}
    _launch_matrix(
        coef_kernels.matrix, lambda blocks: programs(blocks) * splits, x.device, args, constants, tiles, rows
    )
    if splits > 1:
        # In a fixed order, so that results repeat bit for bit.
        of_coef, of_base = (None if part is None else part.sum(0).to(dtype) for part in parts)
        return grad_coef if of_coef is None else of_coef, grad_base if of_base is None else of_base
    return grad_coef, grad_base


def _windowed(x: Tensor, s: Tensor | None, u: Tensor, knots: Tensor, grad_coef: Tensor, c: Contraction, order: int):
    """Fill grad_coef, by rows sorted by window."""
    (rows, inputs), (_, functions, outputs) = x.shape, grad_coef.shape
    tiles = c.gathered("windowed", x, outputs)
    assert tiles.BF is not None
    chunks, blocks = plan.cdiv(rows, plan.CHUNK), plan.cdiv(functions, tiles.BF)
    keys = x.new_empty(inputs, chunks, plan.CHUNK, dtype=torch.int32)
    ranges = x.new_empty(inputs, chunks, blocks, 2, dtype=torch.int32)
    c = c.reaching(keys, ranges)
    constants = {**c.constants(), "CHUNK": plan.CHUNK}
    del constants["BASE"]
    args = (x, knots, keys, ranges, rows, inputs, functions, *x.stride(), knots.stride(0))
    _run(order_kernel, lambda _: inputs * chunks, x.device, args, {**constants, "BF": tiles.BF}, {"num_warps": 8})
    args = (
        x, s, u, knots, grad_coef, keys, ranges, rows, outputs, functions, *x.stride(), *_strides(s, 2),
        *u.stride(), knots.stride(0),
    )  # fmt: skip
    constants |= {**c.products(), "ORDER": order}
    programs = inputs * blocks * plan.cdiv(outputs, tiles.BO)
    _launch(coef_kernels.windowed, lambda _: programs, x.device, args, constants, tiles)


def edge_moments(
    x: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, degree: int, base: int, outside: int,
    uniform: bool, family: int,
) -> Tensor:  # fmt: skip
    rows, (inputs, functions, outputs) = x.shape[0], coef.shape
    dtype = torch.float64 if torch.float64 in (x.dtype, coef.dtype) else torch.float32
    if 0 in (rows, inputs, outputs):
        return coef.new_full((3, inputs, outputs), torch.nan, dtype=dtype)
    spec = Spec(degree, base, outside, uniform, family)
    c = Contraction.of(spec, 0, grid, None, x, base_weight, coef)
    knots = knots_of(grid, spec, c.accumulator)
    tiles = c.gathered("moments", x, outputs)
    programs = inputs * plan.cdiv(outputs, tiles.BO)
    steps = plan.cdiv(rows, tiles.BN)
    splits = plan.splits(x.device, programs, steps)
    parts = x.new_empty(splits, 3, inputs, outputs, dtype=dtype)
    c = c.reaching(parts)
    args = (
        x, coef, base_weight, knots, parts, rows, inputs, outputs, functions, splits, *x.stride(), *coef.stride(),
        *_strides(base_weight, 2), knots.stride(0),
    )  # fmt: skip
    _launch(edge_kernels.moments, lambda _: programs * splits, x.device, args, c.constants(), tiles)
    share = plan.cdiv(steps, splits) * tiles.BN
    counts = (rows - share * torch.arange(splits, device=x.device)).clamp(0, share).to(dtype)[:, None, None]
    size, means, squares = parts.unbind(1)
    mean = means[0] + (counts * (means - means[0])).sum(0) / rows
    return torch.stack([size.sum(0), mean, (squares + counts * (means - mean).square()).sum(0) / rows])


def edge_backward(
    x: Tensor, u: Tensor | None, terms: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, degree: int,
    base: int, outside: int, uniform: bool, family: int, with_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    rows, (inputs, functions, outputs) = x.shape[0], coef.shape
    grad_x, grad_coef = x.new_empty(rows if with_x else 0, inputs), coef.new_empty(coef.shape)
    grad_base = coef.new_empty(0 if base_weight is None else inputs, outputs)
    if 0 in (rows, inputs, outputs):
        return grad_x.zero_(), grad_coef.zero_(), grad_base.zero_()
    spec = Spec(degree, base, outside, uniform, family)
    c = Contraction.of(spec, 0, grid, None, x, base_weight, u, terms, grad_coef, coef)
    if c.operand.itemsize == 2:  # a cotangent is as small as 1 / N
        c = c._replace(operand=torch.float32, precision=plan.precision(torch.float32, plan.architecture(x.device)))
    knots = knots_of(grid, spec, c.accumulator)
    read = (x, u, terms, coef, base_weight, knots)
    sizes = (
        rows, inputs, outputs, functions, *x.stride(), *_strides(u, 2), *terms.stride(), *coef.stride(),
        *_strides(base_weight, 2), knots.stride(0),
    )  # fmt: skip
    if with_x:
        tiles = c.gathered("grad_x", x, outputs)
        programs = inputs * plan.cdiv(rows, tiles.BN)
        args = (*read, grad_x, *sizes)
        _launch(
            edge_kernels.grad_x,
            lambda blocks: inputs * plan.cdiv(rows, blocks["BN"]),
            x.device,
            args,
            c.constants(),
            tiles,
        )
    tiles = c.gathered("grad_coef", x, outputs)
    assert tiles.BF is not None
    programs = inputs * plan.cdiv(functions, tiles.BF) * plan.cdiv(outputs, tiles.BO)
    args = (*read, grad_coef, grad_base, *sizes)
    _launch(edge_kernels.grad_coef, lambda _: programs, x.device, args, {**c.constants(), **c.products()}, tiles)
    return grad_x, grad_coef, grad_base
