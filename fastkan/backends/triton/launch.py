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
from .kernels import kan_backward as backward_kernels
from .kernels import kan_out as out_kernels
from .kernels.base import MAX_ORDER
from .kernels.bspline import FAMILY as BSPLINE
from .kernels.chebyshev import FAMILY as CHEBYSHEV
from .kernels.family import Family, Shape
from .kernels.order import order as order_kernel
from .kernels.rbf import FAMILY as RBF
from .knots import knots_of

_TYPES = {
    torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16,
}  # fmt: skip
# Autotuning key: arguments, beside dtypes, on which the fastest tiles may depend.
_TUNED_BY = ("BUCKET", "I", "O", "F", "SPEC", "ORDER", "X_ORDER", "PRECISION", "SPLITS")
_FAMILIES = {"bspline": BSPLINE, "rbf": RBF, "chebyshev": CHEBYSHEV}
INTERPRETED = knobs.runtime.interpret


class Contraction(NamedTuple):
    """Compile-time constants common to all kernels of a call."""

    family: Family
    shape: Shape
    base: int
    index: tl.dtype
    accumulator: tl.dtype
    knots: Tensor
    operand: tl.dtype
    precision: str

    @classmethod
    def of(cls, spec: Spec, order: int, grid: Tensor, *tensors: Tensor | None) -> "Contraction":
        if not 0 <= order <= MAX_ORDER:
            raise ValueError(f"order={order}: expected 0 to {MAX_ORDER}")
        present = [t for t in tensors if t is not None]
        double = any(t.dtype == torch.float64 for t in present)
        narrow = present[-1].dtype
        # Derivatives may overflow in float16: they have the magnitude of h^-order.
        operand = torch.float64 if double else torch.float32 if order > 0 and narrow == torch.float16 else narrow
        return cls(
            family=_FAMILIES[FAMILIES[spec.family]],
            shape=Shape(
                spec.degree, spec.outside, spec.uniform, 0 if spec.uniform else (grid.shape[1] - 1).bit_length()
            ),
            base=spec.base,
            index=index_type(*present),
            accumulator=tl.float64 if double else tl.float32,
            knots=knots_of(grid, spec, torch.float64 if double else torch.float32),
            operand=_TYPES[operand],
            precision=plan.precision(operand),
        )

    def constants(self) -> dict:
        return {
            "FAMILY": self.family, "SPEC": self.shape, "BASE": self.base, "INDEX": self.index,
            "COORDINATE": self.accumulator, "ACCUMULATOR": self.accumulator,
        }  # fmt: skip

    def matrix_constants(self) -> dict:
        return {"OPERAND": self.operand, "PRECISION": self.precision}


def index_type(*tensors: Tensor) -> tl.dtype:
    """int64 if an offset into one of the tensors, or into a contiguous tensor of its shape, exceeds 31 bits."""
    for t in tensors:
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
    """Like _launch; with plan.tune, autotunes over a few tile sizes at the first call for a key."""
    if plan.tune:
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
    c = Contraction.of(spec, order, grid, x, s, base_weight, bias, y, coef)
    grid = c.knots
    args = (
        x, s, coef, base_weight, bias, grid, y, rows, inputs, outputs, functions, *x.stride(), *_strides(s, 2),
        *coef.stride(), *_strides(base_weight, 2), *_strides(bias, 1), grid.stride(0),
    )  # fmt: skip

    def programs(blocks):
        return plan.cdiv(rows, blocks["BN"]) * plan.cdiv(outputs, blocks["BO"])

    if plan.gathers(c.family, spec, functions, c.operand):
        tiles = plan.gather_out(c.accumulator, rows, outputs)
        _launch(out_kernels.gather, programs, x.device, args, {**c.constants(), "ORDER": order}, tiles)
    else:
        tiles = plan.matrix_out(x.device, c.operand, rows, inputs, outputs)
        constants = {**c.constants(), **c.matrix_constants(), "ORDER": order}
        _launch_matrix(out_kernels.matrix, programs, x.device, args, constants, tiles, rows)
    return y


def kan_in(
    x: Tensor, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, degree: int, base: int,
    outside: int, uniform: bool, family: int, order: int,
) -> Tensor:  # fmt: skip
    spec = Spec(degree, base, outside, uniform, family)
    return _backward(x, None, u, coef, base_weight, grid, spec, order, order, True, False, False)[0]


def kan_coef(
    x: Tensor, s: Tensor | None, u: Tensor, grid: Tensor, degree: int, base: int, outside: int, uniform: bool,
    family: int, order: int, with_base: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    spec = Spec(degree, base, outside, uniform, family)
    return _backward(x, s, u, None, None, grid, spec, order, order, False, True, with_base)[1:]


def kan_backward(
    x: Tensor, s: Tensor | None, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, degree: int,
    base: int, outside: int, uniform: bool, family: int, order: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    spec = Spec(degree, base, outside, uniform, family)
    with_base = base_weight is not None
    return _backward(x, s, u, coef, base_weight, grid, spec, order + 1, order, True, True, with_base)


def _backward(
    x: Tensor, s: Tensor | None, u: Tensor, coef: Tensor | None, base_weight: Tensor | None, grid: Tensor,
    spec: Spec, x_order: int, order: int, with_x: bool, with_coef: bool, with_base: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    rows, inputs, outputs = *x.shape, u.shape[1]
    functions = grid.shape[1] - spec.degree - 1
    like = u if coef is None else coef
    grad_x = x.new_empty(x.shape) if with_x else x.new_empty(0)
    grad_coef = like.new_empty(inputs, functions, outputs) if with_coef else like.new_empty(0)
    grad_base = like.new_empty(inputs if with_base else 0, outputs)
    results = grad_x, grad_coef, grad_base
    if 0 in (rows, inputs, outputs):
        return grad_x.zero_(), grad_coef.zero_(), grad_base.zero_()
    c = Contraction.of(spec, order, grid, x, s, base_weight, u, grad_coef, like)
    grid = c.knots
    gather = plan.gathers(c.family, spec, functions, c.operand)
    is_sorted = with_coef and gather
    if gather:
        tiles = plan.gather_backward(c.accumulator, rows, inputs, outputs)
    else:
        tiles = plan.matrix_backward(x.device, c.operand, rows, inputs, outputs)

    def x_programs(blocks) -> int:
        return plan.cdiv(rows, blocks["XN"]) * plan.cdiv(inputs, blocks["XI"]) if with_x else 0

    def coef_programs(blocks) -> int:
        if not with_coef:
            return 0
        of_inputs = plan.cdiv(inputs, blocks["CI"])
        if is_sorted:
            tiles_of_inputs = inputs * plan.cdiv(functions, blocks["BF"]) + with_base * of_inputs
        else:
            tiles_of_inputs = of_inputs * (functions + with_base)
        return tiles_of_inputs * plan.cdiv(outputs, blocks["CO"])

    keys = ranges = parts = arrived = None
    splits = 1
    if is_sorted:
        keys, ranges = _order(x, grid, functions, c, tiles.BF)
    elif with_coef:
        splits = plan.splits(x.device, coef_programs(tiles.blocks), plan.cdiv(rows, tiles.CN))
    if splits > 1:
        dtype = torch.float64 if c.accumulator == tl.float64 else torch.float32
        parts = x.new_empty(splits * inputs * (functions + with_base) * outputs, dtype=dtype)
        most = max(coef_programs(t.blocks) for t in (plan.candidates(tiles) if plan.tune else (tiles,)))
        arrived = x.new_zeros(most, dtype=torch.int32)
        if parts.numel() >= 2**31:
            c = c._replace(index=tl.int64)
    args = (
        x, s, u, coef, base_weight, grid, grad_x if with_x else None, grad_coef if with_coef else None,
        grad_base if with_base else None, parts, arrived, keys, ranges, rows, inputs, outputs, functions, *x.stride(),
        *_strides(s, 2), *u.stride(), *_strides(coef, 3), *_strides(base_weight, 2), grid.stride(0),
    )  # fmt: skip
    constants = {
        **c.constants(), **c.matrix_constants(), "X_ORDER": x_order, "ORDER": order, "GATHER": gather,
        "SORTED": is_sorted, "SPLITS": splits, "CHUNK": plan.CHUNK,
    }  # fmt: skip

    def programs(blocks) -> int:
        return x_programs(blocks) + coef_programs(blocks) * splits

    if gather:
        _launch(backward_kernels.backward, programs, x.device, args, {**constants, "BUCKET": 0}, tiles)
    else:
        _launch_matrix(backward_kernels.backward, programs, x.device, args, constants, tiles, rows)
    return results


def _order(x: Tensor, grid: Tensor, functions: int, c: Contraction, block: int) -> tuple[Tensor, Tensor]:
    rows, inputs = x.shape
    chunks, blocks = plan.cdiv(rows, plan.CHUNK), plan.cdiv(functions, block)
    keys = x.new_empty(inputs, chunks, plan.CHUNK, dtype=torch.int32)
    ranges = x.new_empty(inputs, chunks, blocks, 2, dtype=torch.int32)
    args = (x, grid, keys, ranges, rows, inputs, functions, *x.stride(), grid.stride(0))
    constants = {
        "FAMILY": c.family, "SPEC": c.shape, "INDEX": c.index, "COORDINATE": c.accumulator, "CHUNK": plan.CHUNK,
    }  # fmt: skip
    _launch(order_kernel, lambda _: inputs * chunks, x.device, args, constants, plan.OrderTiles(8, 2, block))
    return keys, ranges


def edge_moments(
    x: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, degree: int, base: int, outside: int,
    uniform: bool, family: int,
) -> Tensor:  # fmt: skip
    rows, (inputs, functions, outputs) = x.shape[0], coef.shape
    dtype = torch.float64 if torch.float64 in (x.dtype, coef.dtype) else torch.float32
    if 0 in (rows, inputs, outputs):
        return coef.new_full((3, inputs, outputs), torch.nan, dtype=dtype)
    c = Contraction.of(Spec(degree, base, outside, uniform, family), 0, grid, x, base_weight, coef)
    grid = c.knots
    tiles = plan.edge(c.accumulator, rows, outputs)
    programs = inputs * plan.cdiv(outputs, tiles.BO)
    steps = plan.cdiv(rows, tiles.BN)
    splits = plan.splits(x.device, programs, steps)
    parts = x.new_empty(splits, 3, inputs, outputs, dtype=dtype)
    args = (
        x, coef, base_weight, grid, parts, rows, inputs, outputs, functions, splits, *x.stride(), *coef.stride(),
        *_strides(base_weight, 2), grid.stride(0),
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
    c = Contraction.of(spec, 0, grid, x, base_weight, u, terms, grad_coef, coef)
    grid = c.knots
    if c.operand in (tl.float16, tl.bfloat16):  # a cotangent is as small as 1 / N
        c = c._replace(operand=tl.float32, precision=plan.precision(torch.float32))
    tiles = plan.edge(c.accumulator, rows, outputs)
    x_tiles = inputs * plan.cdiv(rows, tiles.BN) if with_x else 0
    programs = x_tiles + inputs * plan.cdiv(functions, tiles.BF) * plan.cdiv(outputs, tiles.BO)
    args = (
        x, u, terms, coef, base_weight, grid, grad_x, grad_coef, grad_base, rows, inputs, outputs, functions, x_tiles,
        *x.stride(), *_strides(u, 2), *terms.stride(), *coef.stride(), *_strides(base_weight, 2), grid.stride(0),
    )  # fmt: skip
    constants = {**c.constants(), **c.matrix_constants()}
    _launch(edge_kernels.backward, lambda _: programs, x.device, args, constants, tiles)
    return grad_x, grad_coef, grad_base
