"""Accelerated layers of other libraries: the same objects, with a class whose forward calls fastkan's kernels.

Parameters, buffers, hooks and attributes stay in place, so existing optimizers, state dicts and the layer's own methods
keep working. Only the class changes, to one derived from the library's class and a mix-in from that library's file.
Where the kernels do not support the layer's configuration, its original forward runs.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import functional
from ..devices import exact, place, widest
from ..network.layers.numeric import safe_sqrt
from ..nn.grid import is_uniform, snapped
from ..snapshot import Snapshot, readable
from ..spec import Spec


class Knots(NamedTuple):
    """A grid converted for the kernels, and the values that it was converted from."""

    source: Snapshot
    key: tuple
    grid: Tensor | None  # [I, M] in the widest type of its device; None if the kernels do not support this grid
    uniform: bool


class KernelLayer(nn.Module):
    """Base of layers with a grid that call the kernels. Names start with fastkan_, to hide none of the layer's own."""

    fastkan_backend: str | None = None  # the required backend; None for the automatic choice
    fastkan_knots: Knots | None = None

    def fastkan_convert(
        self, grid: Tensor, convert: Callable[..., tuple[Tensor | None, bool]], *key
    ) -> tuple[Tensor, bool] | None:
        """convert(grid, *key), cached: knots and whether they are uniform; None without kernel support.

        Knots are of the widest type of their device. Repeated after a change of the grid, see Snapshot. A grid that is
        trained, or without readable values (traced, batched by vmap, ...), has no kernel support.
        """
        if grid.requires_grad or not readable(grid) or (grid.is_inference() and not grid.is_cpu):
            return None
        knots = self.fastkan_knots
        if knots is None or knots.key != key or not knots.source.holds(grid):
            with torch.no_grad():
                knots = self.fastkan_knots = Knots(Snapshot(grid), key, *convert(grid.detach(), *key))
        return None if knots.grid is None else (knots.grid, knots.uniform)


class Accelerated(KernelLayer):
    """Mix-in that precedes a library's class, fastkan_original, among the bases."""

    fastkan_original: type[nn.Module]

    def __reduce_ex__(self, protocol):
        """Copies and pickles refer to the mix-in and the library's class: the derived class has no importable name."""
        _, _, *state = super().__reduce_ex__(protocol)
        return _empty, (type(self).__bases__[0], self.fastkan_original), *state

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        """How the attributes of a layer, whose class has the right name, differ from the library's; None if equal."""
        raise NotImplementedError

    @classmethod
    def fastkan_test_rows(cls, layer: Any) -> Tensor:
        """Rows on and around the grid of a float64 layer, which is modified where the kernels require it."""
        raise NotImplementedError


def change_class(layer: nn.Module, mixin: type[Accelerated], backend: str | None) -> None:
    """Accelerate one layer, in place."""
    if not isinstance(layer, Accelerated):
        layer.__class__ = _derived_class(mixin, type(layer))
    object.__setattr__(layer, "fastkan_backend", backend)


def restore_class(layer: Accelerated) -> None:
    """Undo change_class."""
    for name in [name for name in layer.__dict__ if name.startswith("fastkan_")]:
        del layer.__dict__[name]
    object.__setattr__(layer, "__class__", layer.fastkan_original)


def missing_attributes(layer: nn.Module, names: Iterable[str]) -> str | None:
    """A message that names the attributes that a layer lacks, or None."""
    missing = [name for name in names if not hasattr(layer, name)]
    return f"it has no {', '.join(missing)}" if missing else None


def wrong_shape(layer: nn.Module, shapes: dict[str, tuple[int, ...]]) -> str | None:
    """A message about the first tensor with another shape, or None."""
    for name, expected in shapes.items():
        shape = list(getattr(layer, name).shape)
        if shape != list(expected):
            return f"{name} has shape {shape}: expected {list(expected)}"
    return None


def spline_knots(layer: KernelLayer, grid: Tensor, degree: int) -> tuple[Tensor, bool] | None:
    """Knots [I, M] of a spline grid for the kernels, float32 rounding removed; None unless they ascend."""
    if torch.compiler.is_compiling() and not grid.requires_grad:
        return grid.to(widest(grid.device)), False
    return layer.fastkan_convert(grid, _convert_splines, degree)


def grid_range(grid: Tensor, degree: int) -> tuple[float, float]:
    """The grid range of the first input."""
    return float(grid[0, degree]), float(grid[0, -degree - 1])


def kan_sum(
    x: Tensor, coef: Tensor, knots: tuple[Tensor, bool], degree: int, base_fun: Callable, base_weight: Tensor,
    scale: Tensor | None, backend: str | None,
) -> Tensor:  # fmt: skip
    """functional.kan_linear on views: coef [I, F, O], base_weight and scale [I, O] of any strides."""
    functional.check_input(x, coef.shape[0])
    base = _base_name(base_fun)
    spec = Spec.of(degree, base or "zero", "zero", knots[1])
    y = functional.apply(x, coef, knots[0], base_weight if base else None, None, scale, spec, backend)
    return y if base else y + torch.matmul(base_fun(x), base_weight)


def kan_std(
    x: Tensor, coef: Tensor, knots: tuple[Tensor, bool], degree: int, base_fun: Callable, base_weight: Tensor,
    scale: Tensor, backend: str | None,
) -> Tensor:  # fmt: skip
    """torch.std over the rows of every summand of kan_sum, [O, I]; needs is_fused(base_fun)."""
    spec = Spec.of(degree, _base_name(base_fun) or "zero", "zero", knots[1])
    moments = functional.apply_edge_moments(x, coef * scale[:, None], knots[0], base_weight, spec, backend)
    rows = len(x)
    return safe_sqrt(moments[2].T * (rows / (rows - 1) if rows > 1 else torch.nan)).to(coef.dtype)


def is_fused(base_fun: Callable) -> bool:
    """Whether the kernels compute this base function."""
    return _base_name(base_fun) is not None


def rows_around(grid: Tensor) -> Tensor:
    """41 rows, [41, I], that cover the knots [I, M] and a margin beside them."""
    first, last = grid[:, 0], grid[:, -1]
    return torch.lerp(first, last, torch.linspace(-0.107, 1.113, 41, dtype=grid.dtype, device=grid.device)[:, None])


def _convert_splines(grid: Tensor, degree: int) -> tuple[Tensor | None, bool]:
    knots = exact(grid)
    if not bool(knots.isfinite().all() & (knots.diff(dim=-1) > 0).all()):
        return None, False
    if grid.dtype != torch.float64:
        knots = snapped(knots, *grid_range(knots, degree), degree)
    return place(knots, grid.device), is_uniform(knots)


def _base_name(base_fun: Callable) -> str | None:
    """The kernels' name of a base function; None if they do not have it."""
    if base_fun is nn.functional.silu:
        return "silu"
    return {nn.SiLU: "silu", nn.Identity: "identity"}.get(type(base_fun))


@functools.cache
def _derived_class(mixin: type[Accelerated], original: type[nn.Module]) -> type[nn.Module]:
    attributes = {"fastkan_original": original, "__module__": mixin.__module__}
    return type(f"Accelerated{original.__name__}", (mixin, original), attributes)


def _empty(mixin: type[Accelerated], original: type[nn.Module]) -> nn.Module:
    derived = _derived_class(mixin, original)
    return derived.__new__(derived)
