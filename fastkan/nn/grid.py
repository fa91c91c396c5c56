"""Knots of a KAN layer: adapted to data, refined, freed of rounding; in float64 on the device of the arguments."""

import torch
from torch import Tensor

from ..basis.bspline import off_uniform, uniform_knots

# A knot interval is never narrower than this share of the mean one: its ends must differ in float32 coordinates.
MIN_INTERVAL = 0.01
# A grid range is never narrower than this share of its largest end: a few float32 steps, for the same reason.
MIN_RANGE = 2.0**-20


def is_uniform(grid: Tensor) -> bool:
    """Whether the knots of every row of grid [I, M] are equidistant to float64 rounding."""
    gather = getattr(grid, "full_tensor", None)
    if gather is not None:  # a DTensor, of which all processes must give the same answer
        grid = gather()
    return bool((off_uniform(grid) <= 8 * torch.finfo(torch.float64).eps).all())


def snapped(grid: Tensor, low: float, high: float, degree: int) -> Tensor:
    """grid [I, M] in float64, without float32 rounding: rows that are uniform except for it become exactly uniform.

    Other software stores knots in float32. Float32 knots within a few float32 steps of uniform ones are replaced by
    these: on [low, high] if that is their range, else on their own range.
    """
    grid = grid.double()
    if hasattr(grid, "full_tensor"):  # a DTensor, which only fastkan itself makes
        return grid
    grid_size = grid.shape[-1] - 2 * degree - 1
    few_steps = 4 * torch.finfo(torch.float32).eps
    if not torch.equal(grid, grid.float().double()) or (off_uniform(grid) > few_steps).any():
        return grid
    expected = uniform_knots(low, high, grid_size, degree, device=grid.device).expand_as(grid)
    if (_relative(grid - expected, grid) <= few_steps).all():
        return expected.contiguous()
    return uniform_knots(grid[:, degree], grid[:, -degree - 1], grid_size, degree)


def adaptive_knots(quantiles: Tensor, low: Tensor, high: Tensor, degree: int, grid_eps: float) -> Tensor:
    """Knots grid_eps * uniform + (1 - grid_eps) * quantiles, extended by `degree` knots on each side.

    quantiles [I, G+1] of the data; low and high [I], the ends of the grid range, replace the first and the last.
    Returns [I, G+2*degree+1], always strictly increasing: where many data are equal, the share of the uniform grid is
    increased as needed. The step of the extension is the uniform one, or the end interval if that is narrower: wide
    functions that barely reach into a narrow interval would need huge coefficients there, visible in the tail outside
    the range. Source: Liu et al., KAN (arXiv 2404.19756), section 2.2.
    """
    grid_size = quantiles.shape[-1] - 1
    low, high = _widened(low.double(), high.double())
    knots = uniform_knots(low, high, grid_size, degree)
    inner = slice(degree, degree + grid_size + 1)
    uniform = knots[:, inner]
    followed = quantiles.double().clamp(low[:, None], high[:, None])
    followed = torch.cat([low[:, None], followed[:, 1:-1], high[:, None]], -1)
    uniform[:, -1] = high  # an end that is rounded down would put the largest x outside
    step = (high - low) / grid_size
    narrowest = followed.diff(dim=-1).amin(-1)
    # e step + (1 - e) narrowest >= MIN_INTERVAL step
    needed = ((MIN_INTERVAL * step - narrowest) / (step - narrowest)).nan_to_num(0.0).clamp(0.0, 1.0)
    share = needed.clamp_min(grid_eps)[:, None]
    knots[:, inner] = torch.lerp(followed, uniform, share)
    if degree:
        steps = torch.arange(1, degree + 1, device=knots.device)
        first = torch.minimum(step, knots[:, degree + 1] - low)[:, None]
        last = torch.minimum(step, high - knots[:, -degree - 2])[:, None]
        knots[:, :degree] = low[:, None] - steps.flip(0) * first
        knots[:, -degree:] = high[:, None] + steps * last
    return knots


def resized_knots(grid: Tensor, degree: int, grid_size: int) -> Tensor:
    """Knots with another number of intervals, with the same ranges and density: grid [I, M] -> [I, M'].

    A multiple of the present number splits each interval into equal parts: the new splines contain the old ones.
    """
    inner = grid[:, degree : grid.shape[-1] - degree]
    old_size = inner.shape[-1] - 1
    knots = uniform_knots(inner[:, 0], inner[:, -1], grid_size, degree)
    knots[:, degree + grid_size] = inner[:, -1]
    if is_uniform(grid):
        return knots
    position = torch.arange(grid_size + 1, device=grid.device) * old_size  # in units of 1 / grid_size of an interval
    left = position.div(grid_size, rounding_mode="floor").clamp_max(old_size - 1)
    part = (position - left * grid_size).double() / grid_size
    knots[:, degree : degree + grid_size + 1] = torch.lerp(inner[:, left], inner[:, left + 1], part)
    return knots


def _widened(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The range, widened to the least width for its magnitude; [0, 0] becomes [-1/2, 1/2]."""
    least = MIN_RANGE * torch.maximum(low.abs(), high.abs())
    least = torch.where((high == low) & (least == 0), 1.0, least)
    short = (least - (high - low)).clamp_min(0.0) / 2
    return low - short, high + short


def _relative(difference: Tensor, grid: Tensor) -> Tensor:
    return difference.abs().amax(-1) / grid.abs().amax(-1)
