"""Fits of y = c f(a x + b) + d, for all edges of a layer and all functions of the library at once."""

import math
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..layers import rounding
from ..layers.library import SymbolicFunction, get_symbolic, select_symbolic
from .edge_fit_refine import ALIVE, Problems, amplified, refine, zoom
from .edge_fit_starts import at_nodes, count_nodes, find_starts
from .redundant_parameters import Symmetry, symmetry

STARTS = 4  # of each edge and function that are tried out
SAMPLE = 128  # rows on which they are
DRAWN_IN = 1e-12
SPIKE = 4.0  # standard deviations
MODERATE = (30.0, 300.0, 3000.0)  # times its change on the data that c f may be, the first that is as good
EQUAL = 1.02  # times the error that is about as good
MAX_BYTES = 1 << 26


class Fit(NamedTuple):
    """affine [E, n_functions, 4] (a, b, c, d) and r2 [E, n_functions] in float64, and the functions.

    lost [E, n_functions]: what computing in the dtype changes, see carried.
    """

    affine: Tensor
    r2: Tensor
    functions: list[SymbolicFunction]
    lost: Tensor

    def carried(self, dtype: torch.dtype) -> Tensor:
        """Whether the dtype carries the formulas, [E, n_functions]: by what of them is lost."""
        return self.lost <= rounding.allowed(dtype)


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
    """The least-squares a, b, c, d of y = c f(a x + b) + d for every edge and every function, in float64.

    Args:
        x: [N] for all edges, or [N, E].
        y: [N, E], or [N] for one edge.
        lib: the functions, by default the whole library.
        mask: samples that count, bool, [N] or [N, E]; all by default.
        a_range, b_range: where the search for a and b starts, in units in which x ranges from -1 to 1; the result may
            lie outside. They matter for functions for which neither a nor b is redundant: sin, tanh, gaussian, ...
        singularity_avoiding: fit the form that is finite everywhere, with threshold y_th. Otherwise an (a, b) at which
            f is not finite on all samples is out.
        dtype: the type that the formula will be computed in. The numbers are float64, and of fits that are about as
            good (EQUAL), rounding to dtype included, those that cancel least.
        max_bytes: bound on temporaries, apart from a few of the size of y; one problem at a time is worked on at least.

    Returns:
        Fit. r2 is 1 - (sum of squared errors) / (that of the mean of y), of the formula with these numbers; 1 for any
        function on an edge that is constant; -inf, and affine NaN, for a function that was finite nowhere. Of equal
        answers the plainest: a = +-1 for powers, b = 0 for exp, b within +-pi/2 for sin and cos, a > 0 where the sign
        is free. The result depends on the data alone; where x or y are scaled and shifted it follows.

    Poles within the data are found for powers; for other functions (tan) the search may miss them.

    Raises:
        KeyError, TypeError, ValueError: a wrong argument; the message names it.
    """
    functions = select_symbolic(lib)
    x, y, weight = _check(x, y, mask)
    _check_ranges(a_range, b_range, y_th, max_bytes)
    funs = [partial(f.singular_torch_fn, y_th=float(y_th)) if singularity_avoiding else f.torch_fn for f in functions]
    keys = [(f.singular_torch_fn, float(y_th)) if singularity_avoiding else (f.torch_fn, None) for f in functions]
    kinds = [_kind(*key) for key in keys]
    data = _standardise(x, y, weight)
    nodes = torch.linspace(-1, 1, count_nodes(max(map(abs, a_range))), dtype=torch.float64, device=x.device)
    starts = find_starts(funs, kinds, at_nodes(data.u, data.v, nodes), nodes, a_range, b_range, STARTS, max_bytes)
    _start_at_poles(starts, data, kinds)
    points = _refined(data, funs, kinds, starts, dtype, max_bytes)
    affine, r2 = (t.transpose(0, 1).contiguous() for t in _choose(x, y, data, funs, kinds, points, max_bytes))
    lost = torch.zeros_like(r2)
    if dtype != torch.float64:
        for n, fun in enumerate(funs):
            lost[:, n] = rounding.lost(fun, x, affine[:, n], dtype)
    return Fit(affine, r2, functions, lost)


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
    """One edge and one function: x [N], y [N] -> (a, b, c, d) [4] and r2 [], in float64. pykan's name for it.

    fun is a name in the library, or any elementwise function of a tensor. Other arguments and errors: fit_symbolic;
    and ValueError where no fit is found that dtype can carry.
    """
    if not isinstance(fun, str | SymbolicFunction):
        if not callable(fun):
            raise TypeError(f"fun={fun!r}: expected a function of a tensor, or the name of one")
        if singularity_avoiding:
            raise ValueError("singularity_avoiding=True: expected the name of a function in the library as fun")
        fun = SymbolicFunction("fun", fun, fun, 1, fun)
    function = get_symbolic(fun)
    fit = fit_symbolic(
        x, y, [function], a_range=a_range, b_range=b_range, singularity_avoiding=singularity_avoiding, y_th=y_th,
        dtype=dtype,
    )  # fmt: skip
    if fit.r2.shape[0] != 1:
        raise ValueError(f"y has shape {list(y.shape)}: expected [N], one edge")
    if bool(fit.r2.isfinite()) and not bool(fit.carried(dtype)):
        a, b, c, d = fit.affine[0, 0].tolist()
        raise ValueError(
            f"{function.name}: {c:.3g} {function.name}({a:.3g} x + {b:.3g}) + {d:.3g} is what fits, and {dtype} loses "
            f"{fit.lost.item():.1%} of it: expected a simpler function, or a wider type (model.double())"
        )
    return fit.affine[0, 0], fit.r2[0, 0]


@lru_cache(maxsize=512)
def _kind(fun: Callable, y_th: float | None) -> Symmetry:
    return symmetry(fun if y_th is None else partial(fun, y_th=y_th))


class _Data(NamedTuple):
    """u = (x - x_shift) / x_scale in [-1, 1] and v = y, centred and of mean square 1, both [E, N]; weight or None."""

    u: Tensor
    v: Tensor
    weight: Tensor | None
    x_shift: Tensor
    x_scale: Tensor


def _standardise(x: Tensor, y: Tensor, weight: Tensor | None) -> _Data:
    low, high = x.amin(1), x.amax(1)
    shift, scale = low / 2 + high / 2, high / 2 - low / 2
    scale = torch.where(scale > 0, scale, 1.0)
    u = (x - shift[:, None]) / scale[:, None]
    v, square = _centred(y, weight)
    spread = (square / y.shape[1] if weight is None else square / weight.sum(1)).sqrt()
    v = v / torch.where(spread > 0, spread, 1.0)[:, None]
    return _Data(u, v, weight, shift, scale)


def _centred(y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """y - mean [E, N] and the sum of its squares [E]: exactly 0 for what is constant but for rounding."""
    w = torch.ones_like(y) if weight is None else weight
    largest = (y.abs() * w).amax(1, keepdim=True)
    safe = torch.where(largest > 0, largest, 1.0)
    v = y / safe
    v = v - (v * w).sum(1, keepdim=True) / w.sum(1, keepdim=True)
    v = torch.where((v.abs() * w).amax(1, keepdim=True) > 4e-16, v, 0.0) * safe
    return v, (v * v * w).sum(1)


def _start_at_poles(starts: Tensor, data: _Data, kinds: list[Symmetry]) -> None:
    """Where an edge has a spike, a power starts from there too: on either side of the largest |v|, up to the next u."""
    u, order = data.u.sort(dim=1, stable=True)
    size = data.v.abs().gather(1, order)
    largest, at = size.max(1, keepdim=True)
    for column, side in ((-1, -1), (-2, 1)):
        beside = (at + side).clamp(0, u.shape[1] - 1)
        root = -(u.gather(1, at) + u.gather(1, beside)) / 2
        pole = torch.cat((torch.ones_like(root), root), 1)
        for out, kind in zip(starts, kinds, strict=True):
            if kind.scale and not kind.shift:
                out[:, column] = torch.where(largest > SPIKE, pole, out[:, column])


def _refined(
    data: _Data, funs: list[Callable], kinds: list[Symmetry], starts: Tensor, dtype: torch.dtype, max_bytes: int
) -> Tensor:
    """starts [n_functions, E, count, 2] -> the best point of each function and edge, [n_functions, E, 2]."""
    n, edges, count, _ = starts.shape
    device = starts.device
    flat = torch.tensor([kind.flat for kind in kinds], device=device)
    free = torch.tensor([[not (k.scale or k.flat), not (k.shift or k.flat)] for k in kinds], device=device).double()

    def problems(sample: _Data, each: int) -> Problems:
        function = torch.arange(n, device=device).repeat_interleave(edges * each)
        edge = torch.arange(edges, device=device).repeat_interleave(each).repeat(n)
        return Problems(funs, function, edge, free[function], sample.u, sample.v, sample.weight)

    point, error = refine(problems(_sample(data), count), starts.flatten(0, 2), 14, max_bytes)
    which = error.view(n, edges, count).argmin(2)
    point = point.view(n, edges, count, 2).gather(2, which[:, :, None, None].expand(-1, -1, 1, 2)).flatten(0, 2)
    every = problems(data, 1)
    point, error = refine(every, point, 60, max_bytes)
    point = _moderate(problems(_sample(data), count), every, starts.flatten(0, 2), point, error, dtype, max_bytes)
    if steps := flat[every.function].nonzero()[:, 0].tolist():
        point[steps], _ = zoom(every[steps], point[steps], 0.04, 5, max_bytes)
    return point.view(n, edges, 2)


def _moderate(
    tried: Problems, every: Problems, starts: Tensor, point: Tensor, error: Tensor, dtype: torch.dtype, max_bytes: int
) -> Tensor:
    """The points [P, 2], and where c f and d cancel there, others that are as good and cancel less, if there are.

    Many a function looks like a line or a parabola from far away, the more the farther, and at the limit c is infinite.
    With a ridge that weighs as the hundredth part of the error where c f is `times` its change, or as what rounding to
    the dtype makes of it, the error has its least at moderate c. It may be EQUAL times as large.
    """
    size = amplified(every, point, max_bytes)
    samples = every.u.shape[1]
    rounding = torch.finfo(dtype).eps ** 2 * samples  # v has the mean square 1
    exact = 1e-20 * samples
    count = len(starts) // len(point)
    point = point.clone()
    left = size.isfinite() & (every.free.sum(1) > 0) & ((error > exact) | (rounding * size > exact))
    for times in MODERATE:
        which = (left & (size > times**2)).nonzero()[:, 0]
        if not len(which):
            break
        ridge = (0.01 * error[which] / times**2).clamp_min(rounding) / samples
        near = (which[:, None] * count + torch.arange(count, device=which.device)).flatten()
        some = tried[near]._replace(ridge=ridge.repeat_interleave(count))
        other, found = refine(some, starts[near], 14, max_bytes)
        best = found.view(-1, count).argmin(1)
        other = other.view(-1, count, 2)[torch.arange(len(which), device=which.device), best]
        other, _ = refine(every[which]._replace(ridge=ridge), other, 60, max_bytes)
        _, instead = refine(every[which], other, 0, max_bytes)
        with_rounding = instead + rounding * amplified(every[which], other, max_bytes)
        better = with_rounding <= EQUAL * (error[which] + rounding * size[which])
        point[which] = torch.where(better[:, None], other, point[which])
        left[which] &= ~better
    return point


def _sample(data: _Data) -> _Data:
    """At most SAMPLE samples of every edge, evenly in the order of u; v centred on them."""
    if data.u.shape[1] <= SAMPLE:
        return data
    rank = torch.linspace(0, data.u.shape[1] - 1, SAMPLE, dtype=torch.float64, device=data.u.device).round().long()
    order = data.u.argsort(dim=1, stable=True)[:, rank]
    u, v = data.u.gather(1, order), data.v.gather(1, order)
    weight = None if data.weight is None else data.weight.gather(1, order)
    return data._replace(u=u, v=_centred(v, weight)[0], weight=weight)


def _choose(
    x: Tensor, y: Tensor, data: _Data, funs: list[Callable], kinds: list[Symmetry], points: Tensor, max_bytes: int
) -> tuple[Tensor, Tensor]:
    """affine and r2 [n_functions, E] on x, y as they are, for points (a, b) [n_functions, E, 2] of u.

    Of plain and tidy (a, b) the tidy where it is as good. Where rounding has put both beyond the end of the function's
    domain, (a, b) drawn in by a little.
    """
    affine = torch.empty(*points.shape[:2], 4, dtype=torch.float64, device=x.device)
    r2 = torch.empty(points.shape[:2], dtype=torch.float64, device=x.device)
    rows = max(1, max_bytes // (8 * ALIVE * x.shape[1]))
    for e in range(0, len(x), rows):
        part = slice(e, e + rows)
        w = None if data.weight is None else data.weight[part]
        for i, (fun, kind) in enumerate(zip(funs, kinds, strict=True)):
            a = points[i, part, 0] / data.x_scale[part]
            b = points[i, part, 1] - a * data.x_shift[part]
            plain, error, total = _regress(fun, x[part], y[part], w, a, b)
            tidy, tidied, _ = _regress(fun, x[part], y[part], w, *_tidy(kind, a, b))
            use = tidied.sqrt() <= error.sqrt() * (1 + 1e-7) + 1e-13 * total.sqrt()
            best, error = torch.where(use[:, None], tidy, plain), torch.where(use, tidied, error)
            if not bool(error.isfinite().all()):
                a = a * (1 - DRAWN_IN)
                other, instead, _ = _regress(fun, x[part], y[part], w, a, points[i, part, 1] - a * data.x_shift[part])
                use = error.isfinite()
                best, error = torch.where(use[:, None], best, other), torch.where(use, error, instead)
            affine[i, part] = best
            r2[i, part] = torch.where(total > 0, 1 - error / total, 1.0).masked_fill(~error.isfinite(), -math.inf)
    affine[~r2.isfinite()] = math.nan
    return affine, r2


def _tidy(kind: Symmetry, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
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
    """(a, b, c, d) [E, 4] with the best c and d; the sums of squares [E] of the error that they leave and of y."""
    w = torch.ones_like(x) if weight is None else weight
    value = fun(torch.addcmul(b[:, None], a[:, None], x))
    finite = value.isfinite().all(1)
    mean_f, mean_y = (value * w).sum(1) / w.sum(1), (y * w).sum(1) / w.sum(1)
    f, size = _centred(value, w)
    v, total = _centred(y, w)
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
    """x, y, weight as [E, N] in float64; a sample that does not count repeats one that does."""
    for name, t in (("x", x), ("y", y)):
        if not isinstance(t, Tensor) or not t.is_floating_point():
            raise TypeError(f"{name} is a {getattr(t, 'dtype', type(t).__name__)}: expected a tensor of real numbers")
    shapes = f"x, y have shapes {list(x.shape)}, {list(y.shape)}"
    y = y.detach()[:, None] if y.dim() == 1 else y.detach()
    x = x.detach()[:, None] if x.dim() == 1 else x.detach()
    if y.dim() != 2 or x.dim() != 2 or len(x) != len(y) or x.shape[1] not in (1, y.shape[1]) or not len(y):
        raise ValueError(f"{shapes}: expected [N] or [N, E] and [N, E] with N at least 1")
    x, y = x.double().expand_as(y).T.contiguous(), y.double().T.contiguous()
    weight = None
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"mask is a {getattr(mask, 'dtype', type(mask).__name__)}: expected a tensor of bool")
        keep = mask[:, None] if mask.dim() == 1 else mask
        if keep.dim() != 2 or len(keep) != y.shape[1] or keep.shape[1] not in (1, len(y)):
            raise ValueError(f"mask has shape {list(mask.shape)}: expected {[y.shape[1]]} or {[y.shape[1], len(y)]}")
        keep = keep.expand(-1, len(y)).T.contiguous()
        if not bool(keep.any(1).all()):
            raise ValueError("mask: expected at least one sample of every edge that counts")
        first = keep.to(torch.uint8).argmax(1, keepdim=True)
        x, y = torch.where(keep, x, x.gather(1, first)), torch.where(keep, y, y.gather(1, first))
        weight = keep.double()
    for name, t in (("x", x), ("y", y)):
        if not bool(t.isfinite().all()):
            raise ValueError(f"{name} has NaN or infinite values: expected finite ones where the mask is set")
    return x, y, weight


def _check_ranges(a_range, b_range, y_th: float, max_bytes: int) -> None:
    for name, bounds in (("a_range", a_range), ("b_range", b_range)):
        if len(bounds) != 2 or not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]):
            raise ValueError(f"{name}={bounds!r}: expected two finite numbers, ascending")
    if not (math.isfinite(y_th) and y_th > 0):
        raise ValueError(f"y_th={y_th!r}: expected a finite threshold above 0")
    if max_bytes <= 0:
        raise ValueError(f"max_bytes={max_bytes!r}: expected a number of bytes")
