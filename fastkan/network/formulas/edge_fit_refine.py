"""Refinement of fits c f(a u + b) + d to rounding: many independent problems at once, two unknowns each.

For given (a, b) the best (c, d) are those of a linear regression, so only (a, b) are searched: variable projection
(Golub and Pereyra 1973) with Kaufman's Jacobian, damped after Levenberg and Marquardt. A problem is a row: an edge, a
function and a start. A step that makes the error larger, or not finite, is not taken.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .redundant_parameters import value_and_slope

# Tensors [problems, samples] of float64 that are alive at once, for the bound on memory.
ALIVE = 14
CACHED = 1 << 23  # bytes of temporaries with which a processor is fast
DAMPING = 1e-3
CONVERGED = 1e-11  # of the error, gained by a step; one of an exact fit gains nearly all of the error
GIVE_UP = 1e9  # of the damping: no step is small enough
# Of a and b. Beyond, a function is a line or a constant on the data but for rounding, with c and d that cancel.
LEAST_A, LARGEST = 1e-4, 1e3
LEAST_VARIATION = 1e-7  # of a function on the data, over its size


class Problems(NamedTuple):
    """P problems, sorted by function. function, edge [P] index functions and the rows of u, v, weight [E, N].

    v is centred; weight sums up to the number of samples that count; free [P, 2] tells which of (a, b) are unknown.
    ridge [P], where there is one: how much of (c f)^2, not centred, is added to the squared error. Where c f is much
    larger than v, and d takes it away again, that is what rounding makes of it.
    """

    functions: list[Callable[[Tensor], Tensor]]
    function: Tensor
    edge: Tensor
    free: Tensor
    u: Tensor
    v: Tensor
    weight: Tensor | None
    ridge: Tensor | None = None

    def __getitem__(self, which) -> "Problems":
        ridge = None if self.ridge is None else self.ridge[which]
        return self._replace(function=self.function[which], edge=self.edge[which], free=self.free[which], ridge=ridge)

    def values(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's function and its slope at z [P, N]."""
        functions, counts = torch.unique_consecutive(self.function, return_counts=True)
        parts = z.split(counts.tolist())
        pairs = [value_and_slope(self.functions[i], part) for i, part in zip(functions.tolist(), parts, strict=True)]
        return torch.cat([value for value, _ in pairs]), torch.cat([slope for _, slope in pairs])


class _State(NamedTuple):
    """What a point (a, b) [P, 2] is worth: error [P], and J^T J as (aa, ab, bb) and J^T r [P, 2] there."""

    error: Tensor
    normal: Tensor
    slope: Tensor


def refine(problems: Problems, point: Tensor, iterations: int, max_bytes: int) -> tuple[Tensor, Tensor]:
    """The best (a, b) [P, 2] that are found downhill of point [P, 2], and their sums of squared errors [P].

    The error is infinite where f is not finite on all samples at the start. At most max_bytes of temporaries are used,
    or what a single problem needs.
    """
    budget = min(max_bytes, CACHED) if point.device.type == "cpu" else max_bytes
    rows = max(1, budget // (8 * ALIVE * problems.u.shape[1]))
    parts = [_descend(problems[i : i + rows], point[i : i + rows], iterations) for i in range(0, len(point), rows)]
    return torch.cat([p for p, _ in parts]), torch.cat([e for _, e in parts])


def _descend(problems: Problems, point: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    best, state = point.clone(), _look(problems, point)
    error = state.error.clone()
    damping = torch.full_like(error, DAMPING)
    growth = torch.full_like(error, 2.0)
    row = torch.arange(len(point), device=point.device)
    enough = 1e-31 * _total(problems)
    limit = max(LARGEST, 4 * float(point.abs().max()))
    active = error.isfinite() & (problems.free.sum(1) > 0) & (error > enough)
    for _ in range(iterations):
        if not bool(active.all()):
            keep = active.nonzero()[:, 0]
            problems, point, row, enough = problems[keep], point[keep], row[keep], enough[keep]
            damping, growth = damping[keep], growth[keep]
            state = _State(*(part[keep] for part in state))
        if not len(row):
            break
        step = _solve(state, damping, problems.free)
        trial = point + step
        hopeless = (step * state.slope).sum(1) <= CONVERGED / 100 * state.error
        there = _look(problems, trial)
        within = (trial[:, 0].abs() >= LEAST_A) & (trial.abs().amax(1) <= limit)
        better = (there.error < state.error) & within
        gained = state.error - there.error
        stalled = hopeless | (better & (gained <= CONVERGED * state.error))
        point = torch.where(better[:, None], trial, point)
        state = _State(*(torch.where(better if t.dim() == 1 else better[:, None], t, s)
                         for t, s in zip(there, state, strict=True)))  # fmt: skip
        damping = torch.where(better, damping / 8, damping * growth).clamp_min(1e-14)
        growth = torch.where(better, 2.0, growth * 2)
        best[row], error[row] = point, state.error
        active = ~stalled & (damping < GIVE_UP) & (state.error > enough)
    return best, error


def _look(problems: Problems, point: Tensor) -> _State:
    u, v = problems.u[problems.edge], problems.v[problems.edge]
    weight = None if problems.weight is None else problems.weight[problems.edge]
    count = u.shape[1] if weight is None else weight.sum(1, keepdim=True)

    def total(t: Tensor) -> Tensor:
        return (t if weight is None else t * weight).sum(1, keepdim=True)

    def centred(t: Tensor) -> Tensor:
        return t - total(t) / count

    value, slope = problems.values(torch.addcmul(point[:, 1:], point[:, :1], u))
    largest = value.abs().amax(1, keepdim=True)
    raw, value = value, centred(value)
    size = total(value * value)
    # A function that hardly varies on the data explains nothing: c and d would cancel, and amplify its rounding.
    size = torch.where(size > count * (LEAST_VARIATION * largest) ** 2, size, torch.inf)
    ridge = None if problems.ridge is None else problems.ridge[:, None]
    if ridge is not None:
        size = size + ridge * total(raw * raw)
    c = total(value * v) / size
    residual = v - c * value
    error = total(residual * residual)
    if ridge is not None:
        error = error + ridge * c.square() * total(raw * raw)
    by_b = (c * slope).nan_to_num_(0.0, 0.0, 0.0)

    def project(j: Tensor) -> tuple[Tensor, Tensor | None]:
        """Centred and, for the ridge, raw: without what c takes."""
        part = total(centred(j) * value)
        if ridge is None:
            return centred(j) - value * (part / size), None
        part = (part + ridge * total(j * raw)) / size
        return centred(j) - value * part, j - raw * part

    def inner(p: tuple[Tensor, Tensor | None], q: tuple[Tensor, Tensor | None]) -> Tensor:
        return total(p[0] * q[0]) if ridge is None else total(p[0] * q[0]) + ridge * total(p[1] * q[1])

    by_a, by_b = project(by_b * u), project(by_b)
    left = residual, None if ridge is None else -c * raw
    normal = torch.cat([inner(by_a, by_a), inner(by_a, by_b), inner(by_b, by_b)], 1)
    slope = torch.cat([inner(by_a, left), inner(by_b, left)], 1)
    error = error[:, 0]
    finite = error.isfinite() & normal.isfinite().all(1) & slope.isfinite().all(1)
    return _State(error.masked_fill(~finite, torch.inf), normal, slope)


def amplified(problems: Problems, point: Tensor, max_bytes: int) -> Tensor:
    """The mean square of f on the data over its variance, for points [P, 2]: [P], what a ridge is multiplied by."""
    rows = max(1, max_bytes // (8 * ALIVE * problems.u.shape[1]))
    found = []
    for start in range(0, len(point), rows):
        some, at = problems[start : start + rows], point[start : start + rows]
        value, _ = some.values(torch.addcmul(at[:, 1:], at[:, :1], some.u[some.edge]))
        weight = torch.ones_like(value) if some.weight is None else some.weight[some.edge]
        mean = (value * weight).sum(1) / weight.sum(1)
        square = (value.square() * weight).sum(1) / weight.sum(1)
        variance = ((value - mean[:, None]).square() * weight).sum(1) / weight.sum(1)
        found.append(square / variance.clamp_min(1e-300))
    return torch.cat(found)


def _total(problems: Problems) -> Tensor:
    v = problems.v if problems.weight is None else problems.v * problems.weight
    return (v * problems.v).sum(1)[problems.edge]


def _solve(state: _State, damping: Tensor, free: Tensor) -> Tensor:
    """(J^T J + damping diag(J^T J)) step = J^T r, for what is free of two unknowns."""
    aa, ab, bb = state.normal.unbind(1)
    tiny = 1e-300
    aa, bb = aa * (1 + damping) + tiny, bb * (1 + damping) + tiny
    ab = ab * free.prod(1)
    determinant = aa * bb - ab * ab
    ga, gb = (state.slope * free).unbind(1)
    step = torch.stack(((bb * ga - ab * gb), (aa * gb - ab * ga)), 1) / determinant.clamp_min(tiny)[:, None]
    return step.nan_to_num(0.0, 0.0, 0.0) * free


def zoom(problems: Problems, point: Tensor, width: float, rounds: int, max_bytes: int) -> tuple[Tensor, Tensor]:
    """As refine, for functions of slope 0: tries b on ever finer grids of 21 within +-width of the best so far."""
    offsets = torch.linspace(-1, 1, 21, dtype=torch.float64, device=point.device)
    error = None
    for _ in range(rounds):
        tried = point[:, None, :].repeat(1, len(offsets), 1)
        tried[:, :, 1] += width * offsets
        spread = torch.arange(len(point), device=point.device).repeat_interleave(len(offsets))
        _, error = refine(problems[spread], tried.flatten(0, 1), 0, max_bytes)
        error, which = error.view(len(point), -1).min(1)
        point = tried[torch.arange(len(point), device=point.device), which]
        width /= 8
    return point, error
