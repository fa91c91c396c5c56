"""What a layer of another library is while it is accelerated: the same object, of a class with another forward.

Parameters, buffers, hooks and attributes stay where they are, so an optimizer made before, state dicts and the layer's
own methods go on working. Only the class changes, to one that is made of the layer's own and of a mix-in from the file
of its library. Where the kernels do not compute what the layer does, its own forward runs.
"""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import functional, select
from ..network.layers.numeric import safe_sqrt
from ..nn.grid import is_uniform, snapped
from ..snapshot import Snapshot, readable
from ..spec import FAMILIES, Spec


class Knots(NamedTuple):
    """A grid as the kernels take it, and what it was made from."""

    source: Snapshot
    key: tuple
    grid: Tensor | None  # [I, M] float64; None where the kernels would compute something else
    uniform: bool


class Kernels:
    """How a layer with a grid gets at the kernels. Names begin with fastkan_, to hide none of the layer's own."""

    fastkan_backend: str | None = None  # the backend that has to be used
    fastkan_knots: Knots | None = None

    def fastkan_choose(self, x: Tensor, coef: Tensor, family: str = "bspline") -> str | None:
        """The backend that computes this; None where that is the reference and nobody asked for it."""
        asked = self.fastkan_backend
        name = select.choose(asked, x.device, (x.dtype, coef.dtype), FAMILIES.index(family))
        return None if name == "reference" and asked is None else name

    def fastkan_read(
        self, grid: Tensor, read: Callable[..., tuple[Tensor | None, bool]], *key
    ) -> tuple[Tensor, bool] | None:
        """What read(grid, *key) makes of grid: knots in float64 and whether they are uniform. None for "not with the
        kernels".

        It is read again after a change, see Snapshot. A grid that has no values to look at, because it is traced, many
        at once in vmap or the like, or that is to be trained, is not read.
        """
        if grid.requires_grad or not readable(grid) or (grid.is_inference() and not grid.is_cpu):
            return None
        knots = self.fastkan_knots
        if knots is None or knots.key != key or not knots.source.holds(grid):
            with torch.no_grad():
                knots = self.fastkan_knots = Knots(Snapshot(grid), key, *read(grid.detach(), *key))
        return None if knots.grid is None else (knots.grid, knots.uniform)


class Accelerated(Kernels):
    """Mixed in before a library's class, which is `fastkan_own`."""

    fastkan_own: type[nn.Module]

    def __reduce_ex__(self, protocol):
        """Copies and files know the mix-in and the library's class; the class made of both has no name to import."""
        _, _, *state = super().__reduce_ex__(protocol)
        return _empty, (type(self).__bases__[0], self.fastkan_own), *state

    @classmethod
    def fastkan_unlike(cls, layer: nn.Module) -> str | None:
        """What of a layer, of a class with the right name, is not as in that library; None where nothing is."""
        raise NotImplementedError

    @classmethod
    def fastkan_sample(cls, layer: nn.Module) -> Tensor:
        """Some rows on and around the grid of a layer in float64, which becomes one that the kernels take."""
        raise NotImplementedError


def put_on(layer: nn.Module, mixin: type[Accelerated], backend: str | None) -> None:
    """Make the layer an accelerated one, in place."""
    if not isinstance(layer, Accelerated):
        layer.__class__ = _made(mixin, type(layer))
    layer.fastkan_backend = backend


def take_off(layer: Accelerated) -> None:
    """Undo put_on."""
    for name in [name for name in layer.__dict__ if name.startswith("fastkan_")]:
        del layer.__dict__[name]
    layer.__class__ = layer.fastkan_own


def missing_of(layer: nn.Module, names: Iterable[str]) -> str | None:
    """Which of the attributes a layer does not have, as a reason."""
    missing = [name for name in names if not hasattr(layer, name)]
    return f"it has no {', '.join(missing)}" if missing else None


def misshapen(layer: nn.Module, shapes: dict[str, tuple[int, ...]]) -> str | None:
    """Which of the tensors has another shape, as a reason."""
    for name, shape in shapes.items():
        found = list(getattr(layer, name).shape)
        if found != list(shape):
            return f"{name} has shape {found}: expected {list(shape)}"
    return None


def spline_knots(layer: Kernels, grid: Tensor, degree: int) -> tuple[Tensor, bool] | None:
    """Of a grid [I, M] of splines: float32 knots lose their rounding; knots that do not ascend are not for kernels."""
    if torch.compiler.is_compiling() and not grid.requires_grad:
        return grid.double(), False
    return layer.fastkan_read(grid, _read_splines, degree)


def ends(grid: Tensor, degree: int) -> tuple[float, float]:
    """Of the grid range of the first input."""
    return float(grid[0, degree]), float(grid[0, -degree - 1])


def kan_sum(
    x: Tensor, coef: Tensor, knots: tuple[Tensor, bool], degree: int, base_fun: Callable, base_weight: Tensor,
    scale: Tensor | None, backend: str,
) -> Tensor:  # fmt: skip
    """functional.kan_linear of views: coef [I, F, O], base_weight and scale [I, O] of any strides."""
    functional.check_input(x, coef.shape[0])
    base = _base_name(base_fun)
    spec = Spec.of(degree, base or "zero", "zero", knots[1])
    y = functional.apply(x, coef, knots[0], base_weight if base else None, None, scale, spec, backend)
    return y if base else y + torch.matmul(base_fun(x), base_weight)


def kan_std(
    x: Tensor, coef: Tensor, knots: tuple[Tensor, bool], degree: int, base_fun: Callable, base_weight: Tensor,
    scale: Tensor, backend: str,
) -> Tensor:  # fmt: skip
    """torch.std over the rows of the values on every edge that kan_sum adds up, [O, I]; the base function is one that
    is_fused."""
    spec = Spec.of(degree, _base_name(base_fun), "zero", knots[1])
    moments = functional.apply_edge_moments(x, coef * scale[:, None], knots[0], base_weight, spec, backend)
    rows = len(x)
    return safe_sqrt(moments[2].T * (rows / (rows - 1) if rows > 1 else torch.nan)).to(coef.dtype)


def is_fused(base_fun: Callable) -> bool:
    """Whether the kernels compute the base function."""
    return _base_name(base_fun) is not None


def spread(grid: Tensor) -> Tensor:
    """41 rows over the knots [I, M] and some of the space beside them: [41, I]."""
    first, last = grid[:, 0], grid[:, -1]
    return torch.lerp(first, last, torch.linspace(-0.107, 1.113, 41, dtype=grid.dtype, device=grid.device)[:, None])


def _read_splines(grid: Tensor, degree: int) -> tuple[Tensor | None, bool]:
    exact = grid.double()
    if not bool(exact.isfinite().all() & (exact.diff(dim=-1) > 0).all()):
        return None, False
    if grid.dtype != torch.float64:
        exact = snapped(exact, *ends(exact, degree), degree)
    return exact, is_uniform(exact)


def _base_name(base_fun: Callable) -> str | None:
    """The name of a base function that is computed with the splines."""
    if base_fun is nn.functional.silu:
        return "silu"
    return {nn.SiLU: "silu", nn.Identity: "identity"}.get(type(base_fun))


@functools.cache
def _made(mixin: type[Accelerated], own: type[nn.Module]) -> type[nn.Module]:
    return type(f"Accelerated{own.__name__}", (mixin, own), {"fastkan_own": own, "__module__": mixin.__module__})


def _empty(mixin: type[Accelerated], own: type[nn.Module]) -> nn.Module:
    made = _made(mixin, own)
    return made.__new__(made)
