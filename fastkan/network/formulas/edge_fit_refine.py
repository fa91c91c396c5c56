"""Refinement of fits c f(a u + b) + d to rounding: many independent problems at once, two unknowns each.

For given (a, b) the best (c, d) follow from linear regression, so only (a, b) are searched: variable projection (Golub
and Pereyra 1973) with Kaufman's Jacobian and Levenberg-Marquardt damping. A problem is a row: an edge, a function and a
start. Steps to a larger or infinite error are rejected.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .edge_fit_starts import Data, centred
from .redundant_parameters import Symmetry, value_and_slope

ALIVE = 14  # float64 tensors [problems, samples] alive at once, for the bound on memory
CACHED = 1 << 23  # bytes of temporaries that fit the caches of the host
SAMPLE = 128  # samples of an edge on which its starts are compared
MODERATE = (30.0, 300.0, 3000.0)  # limits on the size of c f over its variation, tried in turn
EQUAL = 1.02  # ratio of errors that are about as good
DAMPING, MAX_DAMPING = 1e-3, 1e9
CONVERGED = 1e-11  # relative decrease of the error in the last step; on the way to an exact fit it is nearly 1
# Bounds on |a| and on |a|, |b|. Beyond, f is a line or a constant on the data up to rounding, and c f and d cancel.
MIN_A, MAX_POINT = 1e-4, 1e3
MIN_VARIATION = 1e-7  # of f on the data, over its size


class Problems(NamedTuple):
    """P problems, sorted by function. function, edge [P] index functions and the rows of u, v, weight [E, N].

    v is centred; weight is 1 for a sample in use, else 0; free [P, 2]: 1 where a or b is unknown, 0 where it is fixed.
    ridge [P], optional: factor of (c f)^2, not centred, in the squared error. It stands for the rounding error of a
    large c f that d cancels.
    """

    functions: Sequence[Callable[[Tensor], Tensor]]
    function: Tensor
    edge: Tensor
    free: Tensor
    u: Tensor
    v: Tensor
    weight: Tensor | None
    ridge: Tensor | None = None

    def rows(self, which: Tensor | slice | list[int]) -> "Problems":
        ridge = None if self.ridge is None else self.ridge[which]
        return self._replace(function=self.function[which], edge=self.edge[which], free=self.free[which], ridge=ridge)

    def values(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's function and its slope at z [P, N]."""
        functions, counts = torch.unique_consecutive(self.function, return_counts=True)
        parts = z.split(counts.tolist())
        pairs = [value_and_slope(self.functions[i], part) for i, part in zip(functions.tolist(), parts, strict=True)]
        return torch.cat([value for value, _ in pairs]), torch.cat([slope for _, slope in pairs])


class _State(NamedTuple):
    """At a point (a, b) [P, 2]: error [P], J^T J [P, 3] as (aa, ab, bb), and J^T r [P, 2]."""

    error: Tensor
    normal: Tensor
    slope: Tensor


def best_points(
    funs: Sequence[Callable],
    symmetries: Sequence[Symmetry],
    data: Data,
    starts: Tensor,
    dtype: torch.dtype,
    max_bytes: int,
) -> Tensor:
    """The best (a, b) of every function and edge, [n_functions, E, 2], from starts [n_functions, E, count, 2].

    dtype: in which the formula will be computed; its rounding errors are taken into account.
    """
    n, edges, count, _ = starts.shape
    device = starts.device
    flat = torch.tensor([kind.flat for kind in symmetries], device=device)
    free = [[not (kind.scale or kind.flat), not (kind.shift or kind.flat)] for kind in symmetries]
    free = torch.tensor(free, device=device).double()

    def problems(sample: Data, each: int) -> Problems:
        function = torch.arange(n, device=device).repeat_interleave(edges * each)
        edge = torch.arange(edges, device=device).repeat_interleave(each).repeat(n)
        return Problems(funs, function, edge, free[function], sample.u, sample.v, sample.weight)

    sampled = problems(_sample(data), count)
    point, error = refine(sampled, starts.flatten(0, 2), 14, max_bytes)
    which = error.view(n, edges, count).argmin(2)
    point = point.view(n, edges, count, 2).gather(2, which[:, :, None, None].expand(-1, -1, 1, 2)).flatten(0, 2)
    every = problems(data, 1)
    point, error = refine(every, point, 60, max_bytes)
    point = _reduce_cancellation(sampled, every, starts.flatten(0, 2), point, error, dtype, max_bytes)
    if steps := flat[every.function].nonzero()[:, 0].tolist():
        point[steps] = zoom(every.rows(steps), point[steps], 0.04, 5, max_bytes)
    return point.view(n, edges, 2)


def _reduce_cancellation(
    sampled: Problems, every: Problems, starts: Tensor, point: Tensor, error: Tensor, dtype: torch.dtype, max_bytes: int
) -> Tensor:
    """The points [P, 2], replaced where c f and d cancel by points that fit as well (EQUAL) and cancel less, if any.

    Many functions look like a line or a parabola at some distance, better with growing distance, and in the limit c is
    infinite. A ridge keeps c moderate: it adds 1 % to the error where c f is `limit` times its variation, and at least
    the rounding error of the dtype.
    """
    size = cancellation(every, point, max_bytes)
    samples = every.u.shape[1]
    rounding = torch.finfo(dtype).eps ** 2 * samples  # v has the mean square 1
    exact = 1e-20 * samples
    count = len(starts) // len(point)
    point = point.clone()
    left = size.isfinite() & (every.free.sum(1) > 0) & ((error > exact) | (rounding * size > exact))
    for limit in MODERATE:
        which = (left & (size > limit**2)).nonzero()[:, 0]
        if not len(which):
            break
        ridge = (0.01 * error[which] / limit**2).clamp_min(rounding) / samples
        rows = (which[:, None] * count + torch.arange(count, device=which.device)).flatten()
        with_ridge = sampled.rows(rows)._replace(ridge=ridge.repeat_interleave(count))
        other, other_error = refine(with_ridge, starts[rows], 14, max_bytes)
        best = other_error.view(-1, count).argmin(1)
        other = other.view(-1, count, 2)[torch.arange(len(which), device=which.device), best]
        rest = every.rows(which)
        other, _ = refine(rest._replace(ridge=ridge), other, 60, max_bytes)
        _, other_error = refine(rest, other, 0, max_bytes)
        other_error = other_error + rounding * cancellation(rest, other, max_bytes)
        better = other_error <= EQUAL * (error[which] + rounding * size[which])
        point[which] = torch.where(better[:, None], other, point[which])
        left[which] &= ~better
    return point


def _sample(data: Data) -> Data:
    """At most SAMPLE samples of every edge, evenly spaced in the order of u; v centred on them."""
    if data.u.shape[1] <= SAMPLE:
        return data
    rank = torch.linspace(0, data.u.shape[1] - 1, SAMPLE, dtype=torch.float64, device=data.u.device).round().long()
    order = data.u.argsort(dim=1, stable=True)[:, rank]
    u, v = data.u.gather(1, order), data.v.gather(1, order)
    weight = None if data.weight is None else data.weight.gather(1, order)
    return data._replace(u=u, v=centred(v, weight)[0], weight=weight)


def refine(problems: Problems, point: Tensor, iterations: int, max_bytes: int) -> tuple[Tensor, Tensor]:
    """Descend from point [P, 2]: the best (a, b) [P, 2] and their sums of squared errors [P].

    The error is infinite where f is not finite on all samples at the start. Uses at most max_bytes of temporaries, or
    the memory of a single problem.
    """
    rows = max(1, min(max_bytes, CACHED) // (8 * ALIVE * problems.u.shape[1]))
    parts = [
        _descend(problems.rows(slice(i, i + rows)), point[i : i + rows], iterations) for i in range(0, len(point), rows)
    ]
    return torch.cat([p for p, _ in parts]), torch.cat([e for _, e in parts])


def _descend(problems: Problems, point: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    best, state = point.clone(), _evaluate(problems, point)
    error = state.error.clone()
    damping = torch.full_like(error, DAMPING)
    growth = torch.full_like(error, 2.0)
    row = torch.arange(len(point), device=point.device)
    exact = 1e-31 * _total(problems)
    limit = max(MAX_POINT, 4 * float(point.abs().max()))
    active = error.isfinite() & (problems.free.sum(1) > 0) & (error > exact)
    for _ in range(iterations):
        if not bool(active.all()):
            keep = active.nonzero()[:, 0]
            problems, point, row, exact = problems.rows(keep), point[keep], row[keep], exact[keep]
            damping, growth = damping[keep], growth[keep]
            state = _State(*(part[keep] for part in state))
        if not len(row):
            break
        step = _solve(state, damping, problems.free)
        trial = point + step
        expected_decrease = (step * state.slope).sum(1)
        there = _evaluate(problems, trial)
        within = (trial[:, 0].abs() >= MIN_A) & (trial.abs().amax(1) <= limit)
        better = (there.error < state.error) & within
        converged = expected_decrease <= CONVERGED / 100 * state.error
        converged |= better & (state.error - there.error <= CONVERGED * state.error)
        point = torch.where(better[:, None], trial, point)
        state = _State(*(torch.where(better if t.dim() == 1 else better[:, None], t, s)
                         for t, s in zip(there, state, strict=True)))  # fmt: skip
        damping = torch.where(better, damping / 8, damping * growth).clamp_min(1e-14)
        growth = torch.where(better, 2.0, growth * 2)
        best[row], error[row] = point, state.error
        active = ~converged & (damping < MAX_DAMPING) & (state.error > exact)
    return best, error


def _evaluate(problems: Problems, point: Tensor) -> _State:
    u, v = problems.u[problems.edge], problems.v[problems.edge]
    weight = None if problems.weight is None else problems.weight[problems.edge]
    count = u.shape[1] if weight is None else weight.sum(1, keepdim=True)

    def total(t: Tensor) -> Tensor:
        return (t if weight is None else t * weight).sum(1, keepdim=True)

    def without_mean(t: Tensor) -> Tensor:
        return t - total(t) / count

    value, slope = problems.values(torch.addcmul(point[:, 1:], point[:, :1], u))
    largest = value.abs().amax(1, keepdim=True)
    raw, value = value, without_mean(value)
    size = total(value * value)
    # A function that hardly varies on the data can't explain it: c f and d would cancel, and amplify its rounding.
    size = torch.where(size > count * (MIN_VARIATION * largest) ** 2, size, torch.inf)
    ridge = None if problems.ridge is None else problems.ridge[:, None]
    if ridge is not None:
        size = size + ridge * total(raw * raw)
    c = total(value * v) / size
    residual = v - c * value
    error = total(residual * residual)
    if ridge is not None:
        error = error + ridge * c.square() * total(raw * raw)
    d_b = (c * slope).nan_to_num_(0.0, 0.0, 0.0)

    def project(j: Tensor) -> tuple[Tensor, ...]:
        """A column of the Jacobian, without the mean, and for the ridge with it; orthogonal to f."""
        part = total(without_mean(j) * value)
        if ridge is None:
            return (without_mean(j) - value * (part / size),)
        part = (part + ridge * total(j * raw)) / size
        return without_mean(j) - value * part, j - raw * part

    def inner(p: tuple[Tensor, ...], q: tuple[Tensor, ...]) -> Tensor:
        return total(p[0] * q[0]) if ridge is None else total(p[0] * q[0]) + ridge * total(p[1] * q[1])

    j_a, j_b = project(d_b * u), project(d_b)
    r = (residual,) if ridge is None else (residual, -c * raw)
    normal = torch.cat([inner(j_a, j_a), inner(j_a, j_b), inner(j_b, j_b)], 1)
    slope = torch.cat([inner(j_a, r), inner(j_b, r)], 1)
    error = error[:, 0]
    finite = error.isfinite() & normal.isfinite().all(1) & slope.isfinite().all(1)
    return _State(error.masked_fill(~finite, torch.inf), normal, slope)


def cancellation(problems: Problems, point: Tensor, max_bytes: int) -> Tensor:
    """Mean square of f on the data over its variance, [P], at points [P, 2]: the error of a ridge of 1."""
    rows = max(1, max_bytes // (8 * ALIVE * problems.u.shape[1]))
    ratios = []
    for start in range(0, len(point), rows):
        part, at = problems.rows(slice(start, start + rows)), point[start : start + rows]
        value, _ = part.values(torch.addcmul(at[:, 1:], at[:, :1], part.u[part.edge]))
        weight = torch.ones_like(value) if part.weight is None else part.weight[part.edge]
        mean = (value * weight).sum(1) / weight.sum(1)
        square = (value.square() * weight).sum(1) / weight.sum(1)
        variance = ((value - mean[:, None]).square() * weight).sum(1) / weight.sum(1)
        ratios.append(square / variance.clamp_min(1e-300))
    return torch.cat(ratios)


def _total(problems: Problems) -> Tensor:
    v = problems.v if problems.weight is None else problems.v * problems.weight
    return (v * problems.v).sum(1)[problems.edge]


def _solve(state: _State, damping: Tensor, free: Tensor) -> Tensor:
    """The step with (J^T J + damping diag(J^T J)) step = J^T r, 0 in unknowns that are not free."""
    aa, ab, bb = state.normal.unbind(1)
    tiny = 1e-300
    aa, bb = aa * (1 + damping) + tiny, bb * (1 + damping) + tiny
    ab = ab * free.prod(1)
    determinant = aa * bb - ab * ab
    ga, gb = (state.slope * free).unbind(1)
    step = torch.stack(((bb * ga - ab * gb), (aa * gb - ab * ga)), 1) / determinant.clamp_min(tiny)[:, None]
    return step.nan_to_num(0.0, 0.0, 0.0) * free


def zoom(problems: Problems, point: Tensor, width: float, rounds: int, max_bytes: int) -> Tensor:
    """refine for functions of slope 0: b from a grid of 21 points within +-width of the best, finer in every round."""
    offsets = torch.linspace(-1, 1, 21, dtype=torch.float64, device=point.device)
    for _ in range(rounds):
        tried = point[:, None, :].repeat(1, len(offsets), 1)
        tried[:, :, 1] += width * offsets
        spread = torch.arange(len(point), device=point.device).repeat_interleave(len(offsets))
        _, error = refine(problems.rows(spread), tried.flatten(0, 1), 0, max_bytes)
        which = error.view(len(point), -1).min(1).indices
        point = tried[torch.arange(len(point), device=point.device), which]
        width /= 8
    return point
