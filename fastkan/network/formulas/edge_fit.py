"""Least-squares fits of y = c f(a x + b) + d, for all edges of a layer and all functions of the library at once.

fit_symbolic searches starts on a grid (edge_fit_starts), refines the best of them (edge_fit_refine) and converts the
results to the units of x and y.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...devices import HOST
from ..layers import rounding
from ..layers.library import SymbolicFunction, get_symbolic, select_symbolic, without_threshold
from .edge_fit_refine import ALIVE, best_points
from .edge_fit_starts import Data, centred, find_starts, standardise
from .redundant_parameters import Symmetry, symmetry

STARTS = 4  # of every edge and function
SHRINK = 1e-12  # relative change of a that brings arguments back into a domain
MAX_BYTES = 1 << 26


class Fit(NamedTuple):
    """affine [E, n_functions, 4] (a, b, c, d) and r2 [E, n_functions] in float64 on the host, and the functions.

    rounding_error [E, n_functions]: of computing in the dtype, relative, see rounding.rounding_error.
    """

    affine: Tensor
    r2: Tensor
    functions: list[SymbolicFunction]
    rounding_error: Tensor

    def is_representable(self, dtype: torch.dtype) -> Tensor:
        """Whether the formulas can be computed in the dtype, [E, n_functions]: their rounding error is accepted."""
        return self.rounding_error <= rounding.allowed(dtype)


def fit_symbolic(
    x: Tensor,
    y: Tensor,
    lib: Iterable[str | SymbolicFunction] | None = None,
    *,
    mask: Tensor | None = None,
    a_range: tuple[float, float] = (-10, 10),
    b_range: tuple[float, float] = (-10, 10),
    singularity_avoiding: bool = False,
    y_th: float = 10.0,
    dtype: torch.dtype = torch.float64,
    max_bytes: int = MAX_BYTES,
) -> Fit:
    """Least-squares a, b, c, d of y = c f(a x + b) + d for every edge and every function, in float64 on the host.

    Args:
        x: [N] for all edges, or [N, E].
        y: [N, E], or [N] for one edge.
        lib: the functions, by default the whole library.
        mask: samples to use, bool, [N] or [N, E]; all by default.
        a_range, b_range: initial search range of a and b, in units in which x ranges from -1 to 1; the result may lie
            outside. They matter for functions for which neither a nor b is redundant: sin, tanh, gaussian, ...
        singularity_avoiding: fit the form that is finite everywhere, with threshold y_th. Otherwise (a, b) are rejected
            if f is not finite on all samples.
        dtype: in which the formula will be computed. The results are float64; among fits that are about as good,
            rounding to dtype included, the one with the least cancellation is chosen.
        max_bytes: bound on temporaries, apart from a few of the size of y; one problem at a time needs no less.

    Returns:
        Fit. r2 is 1 - (sum of squared errors) / (that of the mean of y), of the returned formula; 1 for any function on
        an edge that is constant; -inf, and affine NaN, for a function that was finite nowhere. Among equal solutions
        the simplest: a = +-1 for powers, b = 0 for exp, b within +-pi/2 for sin and cos, a > 0 where the sign is free.
        Deterministic, and equivariant under scaling and shifting x or y.

    For powers, poles within the data are found; for other functions (tan) the search may miss them.

    Raises:
        KeyError, TypeError, ValueError: a wrong argument; the message names it.
    """
    functions = select_symbolic(lib)
    x, y, weight = _check(x, y, mask)
    _check_ranges(a_range, b_range, y_th, max_bytes)
    threshold = float(y_th) if singularity_avoiding else None
    funs, symmetries = zip(*(_form(function, threshold) for function in functions), strict=True)
    data = standardise(x, y, weight)
    starts = find_starts(funs, symmetries, data, a_range, b_range, STARTS, max_bytes)
    points = best_points(funs, symmetries, data, starts, dtype, max_bytes)
    affine, r2 = (t.transpose(0, 1).contiguous() for t in _choose(x, y, data, funs, symmetries, points, max_bytes))
    error = torch.zeros_like(r2)
    if dtype != torch.float64:
        for n, fun in enumerate(funs):
            error[:, n] = rounding.rounding_error(fun, x, affine[:, n], dtype)
    return Fit(affine, r2, functions, error)


def fit_params(
    x: Tensor,
    y: Tensor,
    fun: str | SymbolicFunction | Callable[[Tensor], Tensor],
    a_range: tuple[float, float] = (-10, 10),
    b_range: tuple[float, float] = (-10, 10),
    *,
    singularity_avoiding: bool = False,
    y_th: float = 10.0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """fit_symbolic for one edge and one function: x [N], y [N] -> (a, b, c, d) [4] and r2 [], float64. pykan's name.

    fun is a name in the library, or any elementwise function of a tensor. Other arguments and errors: fit_symbolic;
    and ValueError where dtype is too narrow for the best fit.
    """
    if not isinstance(fun, str | SymbolicFunction):
        if not callable(fun):
            raise TypeError(f"fun={fun!r}: expected a function of a tensor, or the name of one")
        if singularity_avoiding:
            raise ValueError("singularity_avoiding=True: expected the name of a function in the library as fun")
        fun = SymbolicFunction("fun", fun, fun, 1, partial(without_threshold, fun))
    function = get_symbolic(fun)
    fit = fit_symbolic(
        x, y, [function], a_range=a_range, b_range=b_range, singularity_avoiding=singularity_avoiding, y_th=y_th,
        dtype=dtype,
    )  # fmt: skip
    if fit.r2.shape[0] != 1:
        raise ValueError(f"y has shape {list(y.shape)}: expected [N], one edge")
    if bool(fit.r2.isfinite()) and not bool(fit.is_representable(dtype)):
        a, b, c, d = fit.affine[0, 0].tolist()
        raise ValueError(
            f"{function.name}: {c:.3g} {function.name}({a:.3g} x + {b:.3g}) + {d:.3g} is the best fit, and {dtype} "
            f"loses {fit.rounding_error.item():.1%} of it: expected a simpler function or a wider dtype "
            "(model.double())"
        )
    return fit.affine[0, 0], fit.r2[0, 0]


def _form(function: SymbolicFunction, y_th: float | None) -> tuple[Callable[[Tensor], Tensor], Symmetry]:
    """The function to fit, with the threshold y_th if there is one, and its symmetries."""
    if y_th is None:
        return function.torch_fn, symmetry(function.torch_fn)
    return _with_threshold(function.singular_torch_fn, y_th)


@lru_cache(maxsize=512)
def _with_threshold(fun: Callable[..., Tensor], y_th: float) -> tuple[Callable[[Tensor], Tensor], Symmetry]:
    bound = partial(fun, y_th=y_th)
    return bound, symmetry(bound)


def _choose(
    x: Tensor,
    y: Tensor,
    data: Data,
    funs: Sequence[Callable],
    symmetries: Sequence[Symmetry],
    points: Tensor,
    max_bytes: int,
) -> tuple[Tensor, Tensor]:
    """affine and r2 [n_functions, E] in the units of x and y, for points (a, b) [n_functions, E, 2] of u.

    Takes the normal form of (a, b) where it fits as well. Where rounding moves both beyond the end of the function's
    domain, a is reduced slightly.
    """
    affine = torch.empty(*points.shape[:2], 4, dtype=torch.float64, device=x.device)
    r2 = torch.empty(points.shape[:2], dtype=torch.float64, device=x.device)
    rows = max(1, max_bytes // (8 * ALIVE * x.shape[1]))
    for e in range(0, len(x), rows):
        part = slice(e, e + rows)
        w = None if data.weight is None else data.weight[part]
        for i, (fun, kind) in enumerate(zip(funs, symmetries, strict=True)):
            a = points[i, part, 0] / data.x_scale[part]
            b = points[i, part, 1] - a * data.x_shift[part]
            best, error, total = _regress(fun, x[part], y[part], w, a, b)
            normal, normal_error, _ = _regress(fun, x[part], y[part], w, *_normal_form(kind, a, b))
            use = normal_error.sqrt() <= error.sqrt() * (1 + 1e-7) + 1e-13 * total.sqrt()
            best, error = torch.where(use[:, None], normal, best), torch.where(use, normal_error, error)
            if not bool(error.isfinite().all()):
                a = a * (1 - SHRINK)
                b = points[i, part, 1] - a * data.x_shift[part]
                other, other_error, _ = _regress(fun, x[part], y[part], w, a, b)
                use = error.isfinite()
                best, error = torch.where(use[:, None], best, other), torch.where(use, error, other_error)
            affine[i, part] = best
            r2[i, part] = torch.where(total > 0, 1 - error / total, 1.0).masked_fill(~error.isfinite(), -math.inf)
    affine[~r2.isfinite()] = math.nan
    return affine, r2


def _normal_form(kind: Symmetry, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The simplest of the (a, b) that are equivalent by the function's symmetries."""
    if kind.scale and kind.shift:
        return torch.ones_like(a), torch.zeros_like(b)
    if kind.scale:
        size = torch.where(a == 0, 1.0, a.abs())
        a, b = a / size, b / size
    if kind.shift:
        b = torch.zeros_like(b)
    if kind.mirror:
        sign = torch.where(a < 0, -1.0, 1.0)
        a, b = sign * a, sign * b
    if kind.period and not kind.shift:
        b = b - math.pi * torch.ceil(b / math.pi - 0.5)
    return a, b


def _regress(
    fun: Callable, x: Tensor, y: Tensor, weight: Tensor | None, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(a, b, c, d) [E, 4] with the least-squares c and d, and the sums of squares [E] of the error and of y - mean."""
    w = torch.ones_like(x) if weight is None else weight
    value = fun(torch.addcmul(b[:, None], a[:, None], x))
    finite = value.isfinite().all(1)
    mean_f, mean_y = (value * w).sum(1) / w.sum(1), (y * w).sum(1) / w.sum(1)
    f, size = centred(value, w)
    v, total = centred(y, w)
    largest = f.abs().amax(1).clamp_min(1e-300)
    scaled = f / largest[:, None]
    c = (scaled * v * w).sum(1) / (scaled * scaled * w).sum(1) / largest
    c = torch.where((size > 0) & (total > 0), c, 0.0)
    d = torch.where(c == 0, mean_y, mean_y - c * mean_f)
    residual = y - torch.where(c == 0, 0.0, c)[:, None] * value - d[:, None]
    error = (residual * residual * w).sum(1)
    error = torch.where(finite & error.isfinite() & c.isfinite(), error, math.inf)
    return torch.stack((a, b, c, d), 1), error, total


def _check(x: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, y, weight as [E, N] in float64 on the host; masked samples repeat the first unmasked one, with weight 0."""
    for name, t in (("x", x), ("y", y)):
        if not isinstance(t, Tensor) or not t.is_floating_point():
            raise TypeError(f"{name} is a {getattr(t, 'dtype', type(t).__name__)}: expected a tensor of real numbers")
    shapes = f"x, y have shapes {list(x.shape)}, {list(y.shape)}"
    x, y = x.detach().to(HOST), y.detach().to(HOST)
    y = y[:, None] if y.dim() == 1 else y
    x = x[:, None] if x.dim() == 1 else x
    if y.dim() != 2 or x.dim() != 2 or len(x) != len(y) or x.shape[1] not in (1, y.shape[1]) or not len(y):
        raise ValueError(f"{shapes}: expected [N] or [N, E] and [N, E] with N at least 1")
    x, y = x.double().expand_as(y).T.contiguous(), y.double().T.contiguous()
    weight = None
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"mask is a {getattr(mask, 'dtype', type(mask).__name__)}: expected a tensor of bool")
        mask = mask.to(HOST)
        keep = mask[:, None] if mask.dim() == 1 else mask
        if keep.dim() != 2 or len(keep) != y.shape[1] or keep.shape[1] not in (1, len(y)):
            raise ValueError(f"mask has shape {list(mask.shape)}: expected {[y.shape[1]]} or {[y.shape[1], len(y)]}")
        keep = keep.expand(-1, len(y)).T.contiguous()
        if not bool(keep.any(1).all()):
            raise ValueError("mask: expected at least one unmasked sample of every edge")
        first = keep.to(torch.uint8).argmax(1, keepdim=True)
        x, y = torch.where(keep, x, x.gather(1, first)), torch.where(keep, y, y.gather(1, first))
        weight = keep.double()
    for name, t in (("x", x), ("y", y)):
        if not bool(t.isfinite().all()):
            raise ValueError(f"{name} has NaN or infinite values: expected finite ones where the mask is set")
    return x, y, weight


def _check_ranges(a_range: Sequence[float], b_range: Sequence[float], y_th: float, max_bytes: int) -> None:
    for name, bounds in (("a_range", a_range), ("b_range", b_range)):
        if len(bounds) != 2 or not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]):
            raise ValueError(f"{name}={bounds!r}: expected two finite numbers, ascending")
    if not (math.isfinite(y_th) and y_th > 0):
        raise ValueError(f"y_th={y_th!r}: expected a finite threshold above 0")
    if max_bytes <= 0:
        raise ValueError(f"max_bytes={max_bytes!r}: expected a number of bytes")
