"""Kernel launches: plans with kernels and tiles, made once for all calls of a kind, and results, allocated in each.

The functions are the contractions of fastkan/reference.py. Kernels run on the current stream of the tensors' device.
Nothing here synchronises, or allocates more than the results and, for split-K gradients of the coefficients, their
partial sums.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...basis.bspline import num_functions
from ...spec import FAMILIES, Spec
from . import direct, plan
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
from .knots import knots_of, width_of

_TYPES = {
    torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16,
}  # fmt: skip
# Autotuning key: arguments, beside dtypes, on which the fastest tiles may depend.
_TUNED_BY = ("BUCKET", "I", "O", "F", "SPEC", "ORDER", "PRECISION")
FAMILY_OF = {"bspline": BSPLINE, "rbf": RBF, "chebyshev": CHEBYSHEV}
_PLANS = 4096


class Layout(NamedTuple):
    """What a plan depends on of a tensor; an empty stride stands for a contiguous one."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...] = ()


def planned(plan_of: Callable[..., Any], spec: Spec, order: int, tensors: Sequence[Any], *options: Any) -> Any:
    """plan_of(spec, order, settings, layouts of the tensors, options), made once; the device is the first tensor's."""
    layouts = tuple([None if t is None else (t.dtype, t.shape, t.stride()) for t in tensors])
    return made(plan_of, spec, order, plan.settings(tensors[0].device), layouts, options)


@functools.lru_cache(_PLANS)
def made(
    plan_of: Callable[..., Any], spec: Spec, order: int, settings: tuple[Any, ...], layouts: tuple[Any, ...],
    options: tuple[Any, ...],
) -> Any:  # fmt: skip
    """The plan of `planned`."""
    given = [None if t is None else Layout(*t) for t in layouts]
    return plan_of(spec, order, plan.Settings(*settings), *given, *options)


@dataclass(frozen=True)
class Contraction:
    """What all kernels of a kind of call have in common."""

    order: int
    settings: plan.Settings
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
    def of(
        cls, spec: Spec, order: int, settings: plan.Settings, functions: int, s: Layout | None, *tensors: Layout | None
    ) -> "Contraction":
        check_order(order)
        present = [t for t in (s, *tensors) if t is not None]
        double = any(t.dtype == torch.float64 for t in present)
        narrow = present[-1].dtype
        # Derivatives may overflow in float16: they have the magnitude of h^-order.
        operand = torch.float64 if double else torch.float32 if order > 0 and narrow == torch.float16 else narrow
        family = FAMILY_OF[FAMILIES[spec.family]]
        return cls(
            order=order,
            settings=settings,
            family=family,
            shape=shape_of(spec, functions),
            base=spec.base,
            index=index_type(*present),
            accumulator=torch.float64 if double else torch.float32,
            operand=operand,
            precision=plan.precision(operand, settings.architecture),
            gathers=plan.gathers(family, spec, functions, operand),
            light=s is None and (family is RBF or is_closed(order, spec.degree, spec.uniform)),
        )

    def reaching(self, *tensors: Layout | None) -> "Contraction":
        """With indices that are wide enough for these tensors too."""
        return self if self.index == tl.int64 else replace(self, index=index_type(*tensors))

    def tiles(self, kernel: str, x: Layout, outputs: int) -> plan.Tiles:
        """Tiles of a matrix product."""
        (rows, inputs), of_device = x.shape, (self.settings.architecture, self.settings.processors)
        return plan.matrix(kernel, *of_device, self.operand, self.light, rows, inputs, outputs)

    def gathered(self, kernel: str, x: Layout, outputs: int) -> plan.Tiles:
        return plan.gathered(kernel, self.accumulator, x.shape[1], outputs)

    def launch(
        self, kernel: Any, programs: Callable[[Mapping[str, int]], int], tiles: plan.Tiles, numbers: tuple[int, ...]
    ) -> direct.Launch:
        constants = {**self._constants, **tiles.blocks, "CHUNK": self.settings.chunk, "BUCKET": 0}
        device, accumulator = self.settings.device, self.accumulator
        return direct.Launch(kernel, programs(tiles.blocks), numbers, constants, tiles.options, device, accumulator)

    def matrix(
        self, kernel: Any, programs: Callable[[Mapping[str, int]], int], tiles: plan.Tiles, numbers: tuple[int, ...]
    ) -> direct.Launch:
        """As `launch`; with plan.tune, autotuned over a few tile sizes at the first call for a key.

        `numbers` begin with the rows.
        """
        launch = self.launch(kernel, programs, tiles, numbers)
        if self.settings.tune:
            constants = {**self._constants, "BUCKET": triton.next_power_of_2(numbers[0])}
            constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
            tuner = _tuner(kernel, plan.candidates(tiles))[lambda blocks: (programs(blocks),)]
            launch.tuned = lambda *tensors: tuner(*tensors, *numbers, **constants)
        return launch

    @property
    def _constants(self) -> dict[str, object]:
        return {
            "FAMILY": self.family, "SPEC": self.shape, "BASE": self.base, "INDEX": self.index,
            "ACCUMULATOR": _TYPES[self.accumulator], "OPERAND": _TYPES[self.operand], "PRECISION": self.precision,
            "ORDER": self.order,
        }  # fmt: skip


def check_order(order: int) -> None:
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"order={order}: expected 0 to {MAX_ORDER}")


def shape_of(spec: Spec, functions: int) -> Shape:
    search = 0 if spec.uniform else (functions + spec.degree).bit_length()
    return Shape(spec.degree, spec.outside, spec.uniform, search)


def index_type(*tensors: Layout | None) -> tl.dtype:
    """int64 if an offset into one of the tensors, or into a contiguous tensor of its shape, exceeds 31 bits."""
    for t in tensors:
        if t is None:
            continue
        reach = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride, strict=False))
        if max(math.prod(t.shape), reach) >= 2**31:
            return tl.int64
    return tl.int32


def _strides(t: Layout | None, dimensions: int) -> tuple[int, ...]:
    return (0,) * dimensions if t is None else t.stride


@functools.cache
def _tuner(kernel, candidates: tuple[plan.Tiles, ...]):
    """The kernel wrapped in Triton's autotuner, which caches its results on disk."""
    configs = [triton.Config(t.blocks, num_warps=t.num_warps, num_stages=t.num_stages) for t in candidates]
    key = [name for name in _TUNED_BY if name in kernel.arg_names]
    return triton.autotune(configs, key, cache_results=not direct.INTERPRETED)(kernel)


def kan_out(
    x: Tensor, s: Tensor | None, coef: Tensor, base_weight: Tensor | None, bias: Tensor | None, grid: Tensor,
    spec: Spec, order: int,
) -> Tensor:  # fmt: skip
    y = coef.new_empty(x.shape[0], coef.shape[2])
    launch = planned(_plan_out, spec, order, (x, s, coef, base_weight, bias))
    if launch is None:
        return y.zero_() if bias is None else y.copy_(bias.expand_as(y))
    direct.run(launch, x, s, coef, base_weight, bias, knots_of(grid, spec, launch.accumulator), y)
    return y


def _plan_out(spec, order, settings, x, s, coef, base_weight, bias) -> direct.Launch | None:
    rows, (inputs, functions, outputs) = x.shape[0], coef.shape
    if 0 in (rows, inputs, outputs):
        return None
    y = Layout(coef.dtype, (rows, outputs))
    c = Contraction.of(spec, order, settings, functions, s, x, base_weight, bias, y, coef)
    numbers = (
        rows, inputs, outputs, functions, *x.stride, *_strides(s, 2), *coef.stride, *_strides(base_weight, 2),
        *_strides(bias, 1), width_of(functions, spec),
    )  # fmt: skip

    def programs(blocks):
        return plan.cdiv(rows, blocks["BN"]) * plan.cdiv(outputs, blocks["BO"])

    if c.gathers:
        return c.launch(out_kernels.gather, programs, c.gathered("out", x, outputs), numbers)
    return c.matrix(out_kernels.matrix, programs, c.tiles("out", x, outputs), numbers)


def kan_in(
    x: Tensor, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec, order: int
) -> Tensor:
    grad_x = x.new_empty(*x.shape)
    launch = planned(_plan_in, spec, order, (x, None, u, coef, base_weight))
    if launch is None:
        return grad_x.zero_()
    direct.run(launch, x, None, u, coef, base_weight, knots_of(grid, spec, launch.accumulator), grad_x)
    return grad_x


def _plan_in(spec, order, settings, x, s, u, coef, base_weight) -> direct.Launch | None:
    """kan_in, times s."""
    rows, (inputs, functions, outputs) = x.shape[0], coef.shape
    if 0 in (rows, inputs, outputs):
        return None
    c = Contraction.of(spec, order, settings, functions, s, x, base_weight, u, coef)
    numbers = (
        rows, inputs, outputs, functions, *x.stride, *_strides(s, 2), *u.stride, *coef.stride,
        *_strides(base_weight, 2), width_of(functions, spec),
    )  # fmt: skip

    def programs(blocks):
        return plan.cdiv(rows, blocks["BN"]) * plan.cdiv(inputs, blocks["BI"])

    if c.gathers:
        return c.launch(in_kernels.gather, programs, c.gathered("in", x, outputs), numbers)
    return c.matrix(in_kernels.matrix, programs, c.tiles("in", x, outputs), numbers)


def kan_coef(
    x: Tensor, s: Tensor | None, u: Tensor, grid: Tensor, spec: Spec, order: int, with_base: bool
) -> tuple[Tensor, Tensor | None]:
    gradients = planned(_plan_coef, spec, order, (x, s, u), num_functions(grid, spec.degree), with_base)
    return gradients(x, s, u, knots_of(grid, spec, gradients.accumulator))


def _plan_coef(spec, order, settings, x, s, u, functions, with_base) -> "Gradients":
    base = Layout(u.dtype, (x.shape[1], u.shape[1])) if with_base else None
    return Gradients(spec, order, settings, x, s, u, functions, base, u.dtype)


def kan_backward(
    x: Tensor, s: Tensor | None, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec,
    order: int,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    launch, gradients = planned(_plan_backward, spec, order, (x, s, u, coef, base_weight))
    grad_x = x.new_empty(*x.shape)
    knots = knots_of(grid, spec, gradients.accumulator)
    if launch is None:
        grad_x.zero_()
    else:
        direct.run(launch, x, s, u, coef, base_weight, knots, grad_x)
    return grad_x, *gradients(x, s, u, knots)


def _plan_backward(spec, order, settings, x, s, u, coef, base_weight) -> tuple[Any, "Gradients"]:
    launch = _plan_in(spec, order + 1, settings, x, s, u, coef, base_weight)
    return launch, Gradients(spec, order, settings, x, s, u, coef.shape[1], base_weight, coef.dtype)


class Gradients:
    """Plan and call of kan_coef: both results in one launch, or where coefficients are gathered in two.

    base: of the base function's weights, or None without their gradient. The results have that dtype.
    """

    def __init__(
        self, spec: Spec, order: int, settings: plan.Settings, x: Layout, s: Layout | None, u: Layout,
        functions: int, base: Layout | None, dtype: torch.dtype,
    ):  # fmt: skip
        (rows, inputs), outputs = x.shape, u.shape[1]
        self.shape, self.dtype, self.with_base = (inputs, functions, outputs), dtype, base is not None
        self.windowed = self.product = None
        self.splits = 1
        c = Contraction.of(spec, order, settings, functions, s, x, u, base, Layout(dtype, self.shape))
        self.accumulator, knots = c.accumulator, width_of(functions, spec)
        if 0 in (rows, inputs, outputs):
            return
        if c.gathers:
            self.windowed = Windowed(c, x, s, u, self.shape, knots)
        if c.gathers and base is None:
            return
        by_function = 1 if c.gathers else functions + self.with_base
        tiles = c.tiles("coef", x, outputs)

        def programs(blocks):
            return plan.cdiv(inputs, blocks["BI"]) * by_function * plan.cdiv(outputs, blocks["BO"])

        self.splits = plan.splits(settings.processors, programs(tiles.blocks), plan.cdiv(rows, tiles.BN))
        if self.splits > 1:
            parts = Layout(c.accumulator, (self.splits, inputs, 1 if c.gathers else functions, outputs))
            c = c.reaching(parts)
        numbers = rows, inputs, outputs, functions, self.splits, *x.stride, *_strides(s, 2), *u.stride, knots
        self.product = c.matrix(coef_kernels.matrix, lambda blocks: programs(blocks) * self.splits, tiles, numbers)

    def __call__(self, x: Tensor, s: Tensor | None, u: Tensor, knots: Tensor) -> tuple[Tensor, Tensor | None]:
        (inputs, functions, outputs), dtype = self.shape, self.dtype
        grad_coef = u.new_empty(inputs, functions, outputs, dtype=dtype)
        grad_base = u.new_empty(inputs, outputs, dtype=dtype) if self.with_base else None
        if self.windowed is not None:
            self.windowed(x, s, u, knots, grad_coef)
        elif self.product is None:
            return grad_coef.zero_(), None if grad_base is None else grad_base.zero_()
        if self.product is None:
            return grad_coef, grad_base
        parts = [None if self.windowed else grad_coef, grad_base]
        if self.splits > 1:
            parts = [None if t is None else t.new_empty(self.splits, *t.shape, dtype=self.accumulator) for t in parts]
        direct.run(self.product, x, s, u, knots, *parts)
        if self.splits > 1:
            # In a fixed order, so that results repeat bit for bit.
            of_coef, of_base = (None if part is None else part.sum(0).to(dtype) for part in parts)
            return grad_coef if of_coef is None else of_coef, of_base
        return grad_coef, grad_base


class Windowed:
    """Plan and call of the gradient of the coefficients by rows sorted by window."""

    def __init__(self, c: Contraction, x: Layout, s: Layout | None, u: Layout, shape: tuple[int, ...], knots: int):
        (rows, _), (inputs, functions, outputs) = x.shape, shape
        tiles = c.gathered("windowed", x, outputs)
        assert tiles.BF is not None
        chunks, blocks = plan.cdiv(rows, c.settings.chunk), plan.cdiv(functions, tiles.BF)
        self.keys, self.ranges = (inputs, chunks, c.settings.chunk), (inputs, chunks, blocks, 2)
        c = c.reaching(Layout(torch.int32, self.keys), Layout(torch.int32, self.ranges))
        sorting = replace(tiles, num_warps=8)
        numbers = rows, inputs, functions, *x.stride, knots
        self.order = c.launch(order_kernel, lambda _: inputs * chunks, sorting, numbers)
        numbers = rows, outputs, functions, *x.stride, *_strides(s, 2), *u.stride, knots
        programs = inputs * blocks * plan.cdiv(outputs, tiles.BO)
        self.product = c.launch(coef_kernels.windowed, lambda _: programs, tiles, numbers)

    def __call__(self, x: Tensor, s: Tensor | None, u: Tensor, knots: Tensor, grad_coef: Tensor) -> None:
        keys = x.new_empty(*self.keys, dtype=torch.int32)
        ranges = x.new_empty(*self.ranges, dtype=torch.int32)
        direct.run(self.order, x, knots, keys, ranges)
        direct.run(self.product, x, s, u, knots, grad_coef, keys, ranges)


def edge_moments(x: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec) -> Tensor:
    rows, (inputs, _, outputs) = x.shape[0], coef.shape
    dtype = torch.float64 if torch.float64 in (x.dtype, coef.dtype) else torch.float32
    if 0 in (rows, inputs, outputs):
        return coef.new_full((3, inputs, outputs), torch.nan, dtype=dtype)
    launch, splits, share = planned(_plan_moments, spec, 0, (x, coef, base_weight))
    parts = x.new_empty(splits, 3, inputs, outputs, dtype=dtype)
    direct.run(launch, x, coef, base_weight, knots_of(grid, spec, launch.accumulator), parts)
    counts = (rows - share * torch.arange(splits, device=x.device)).clamp(0, share).to(dtype)[:, None, None]
    size, means, squares = parts.unbind(1)
    mean = means[0] + (counts * (means - means[0])).sum(0) / rows
    return torch.stack([size.sum(0), mean, (squares + counts * (means - mean).square()).sum(0) / rows])


def _plan_moments(spec, order, settings, x, coef, base_weight) -> tuple[direct.Launch, int, int]:
    """The kernel, the number of splits of the rows, and the rows of each."""
    rows, (inputs, functions, outputs) = x.shape[0], coef.shape
    c = Contraction.of(spec, order, settings, functions, None, x, base_weight, coef)
    tiles = c.gathered("moments", x, outputs)
    programs, steps = inputs * plan.cdiv(outputs, tiles.BO), plan.cdiv(rows, tiles.BN)
    splits = plan.splits(settings.processors, programs, steps)
    c = c.reaching(Layout(c.accumulator, (splits, 3, inputs, outputs)))
    numbers = (
        rows, inputs, outputs, functions, splits, *x.stride, *coef.stride, *_strides(base_weight, 2),
        width_of(functions, spec),
    )  # fmt: skip
    launch = c.launch(edge_kernels.moments, lambda _: programs * splits, tiles, numbers)
    return launch, splits, plan.cdiv(steps, splits) * tiles.BN


def edge_backward(
    x: Tensor, u: Tensor | None, terms: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec,
    with_x: bool,
) -> tuple[Tensor | None, Tensor, Tensor | None]:  # fmt: skip
    (rows, inputs), outputs = x.shape, coef.shape[2]
    grad_x, grad_coef = x.new_empty(rows, inputs) if with_x else None, coef.new_empty(*coef.shape)
    grad_base = None if base_weight is None else coef.new_empty(inputs, outputs)
    if 0 in (rows, inputs, outputs):
        grad_x, grad_base = (None if t is None else t.zero_() for t in (grad_x, grad_base))
        return grad_x, grad_coef.zero_(), grad_base
    of_x, of_coef = planned(_plan_edge_backward, spec, 0, (x, u, terms, coef, base_weight))
    read = x, u, terms, coef, base_weight, knots_of(grid, spec, of_x.accumulator)
    if grad_x is not None:
        direct.run(of_x, *read, grad_x)
    direct.run(of_coef, *read, grad_coef, grad_base)
    return grad_x, grad_coef, grad_base


def _plan_edge_backward(spec, order, settings, x, u, terms, coef, base_weight) -> tuple[direct.Launch, ...]:
    """The kernels of the gradients by x, and by the coefficients."""
    rows, (inputs, functions, outputs) = x.shape[0], coef.shape
    c = Contraction.of(spec, order, settings, functions, None, x, base_weight, u, terms, coef)
    if c.operand.itemsize == 2:  # a cotangent is as small as 1 / N
        precision = plan.precision(torch.float32, settings.architecture)
        c = replace(c, operand=torch.float32, precision=precision)
    numbers = (
        rows, inputs, outputs, functions, *x.stride, *_strides(u, 2), *terms.stride, *coef.stride,
        *_strides(base_weight, 2), width_of(functions, spec),
    )  # fmt: skip
    tiles = c.gathered("grad_x", x, outputs)
    of_x = c.launch(edge_kernels.grad_x, lambda _: inputs * plan.cdiv(rows, tiles.BN), tiles, numbers)
    tiles = c.gathered("grad_coef", x, outputs)
    assert tiles.BF is not None
    programs = inputs * plan.cdiv(functions, tiles.BF) * plan.cdiv(outputs, tiles.BO)
    return of_x, c.launch(edge_kernels.grad_coef, lambda _: programs, tiles, numbers)
