"""Splines of one degree as splines of another: least squares over the grid range."""

import torch
from torch import Tensor

from ..basis.bspline import bspline_features, uniform_knots
from ..nn.grid import is_uniform

# Numbers that a fit may hold at a time.
BLOCK = 1 << 22


def padded(inner: Tensor, degree: int) -> Tensor:
    """Knots for splines of this degree: the ends of the intervals, [I, G + 1], and `degree` more on each side."""
    size = inner.shape[1] - 1
    if is_uniform(inner):
        knots = uniform_knots(inner[:, 0], inner[:, -1], size, degree)
        knots[:, degree + size] = inner[:, -1]
        return knots
    steps = torch.arange(1, degree + 1, device=inner.device)
    first, last = inner[:, 1:2] - inner[:, :1], inner[:, -1:] - inner[:, -2:-1]
    return torch.cat([inner[:, :1] - steps.flip(0) * first, inner, inner[:, -1:] + steps * last], 1)


def redegree(coef: Tensor, old_grid: Tensor, new_grid: Tensor, old: int, new: int) -> Tensor:
    """The coefficients for degree `new` on new_grid of the function that coef is for degree `old` on old_grid.

    They minimise the mean square of the difference, at Chebyshev points of every interval of the two grids together:
    there are more than enough of them in each for full rank, and the solution is by singular values.

    coef [I, F, O], old_grid [I, M], new_grid [I, M'] in float64 -> [I, F', O] in float64.
    """
    if all(bool((grid == grid[:1]).all()) for grid in (old_grid, new_grid)):  # one fit serves all inputs
        transfer = _transfer(old_grid[:1], new_grid[:1], old, new)
        return transfer @ coef.double()
    points = (max(old, new) + 2) * (old_grid.shape[1] + new_grid.shape[1])
    step = max(1, BLOCK // (points * (old_grid.shape[1] + new_grid.shape[1])))
    parts = zip(coef.split(step), old_grid.split(step), new_grid.split(step), strict=True)
    return torch.cat([_transfer(mine, other, old, new) @ c.double() for c, mine, other in parts])


def _transfer(old_grid: Tensor, new_grid: Tensor, old: int, new: int) -> Tensor:
    """[I, F', F]: new coefficients = transfer @ old ones."""
    points, weights = _points(old_grid, new_grid, old, new)
    target = weights * bspline_features(points, old_grid, old, "clamp").transpose(0, 1)  # I P F
    phi = weights * bspline_features(points, new_grid, new, "clamp").transpose(0, 1)  # I P F'
    solve = torch.linalg.pinv(phi)
    transfer = solve @ target
    return transfer + solve @ (target - phi @ transfer)


def _points(old_grid: Tensor, new_grid: Tensor, old: int, new: int) -> tuple[Tensor, Tensor]:
    """Chebyshev points of every interval of the two grids within the range of the new one, [P, I], weights [I, P, 1].

    A squared weight is the share of the interval in the range: slivers between knots that differ by rounding are none.
    """
    inner = new_grid[:, new : new_grid.shape[1] - new]
    within = old_grid[:, old : old_grid.shape[1] - old].clamp(inner[:, :1], inner[:, -1:])
    breaks = torch.cat([inner, within], 1).sort(1).values
    width = breaks.diff(dim=1)[..., None]  # I U 1
    count = max(old, new) + 2
    at = (torch.arange(count, device=inner.device, dtype=torch.float64) + 0.5) * (torch.pi / count)
    points = breaks[:, :-1, None] + width * (1 - at.cos()) / 2
    weights = (width / (inner[:, -1:] - inner[:, :1])[..., None]).sqrt().expand_as(points)
    return points.flatten(1).T.contiguous(), weights.flatten(1)[..., None]
