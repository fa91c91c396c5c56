"""Points at which a differential equation is to hold: inside a box, on its sides, or where it is violated most."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..arguments import integer, number

POOL = 10  # points to choose from, for each one


def collocation_points(
    n: int, ranges: Sequence[tuple[float, float]], *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Points that fill a box evenly, a scrambled Sobol sequence: [n, inputs].

    Args:
        n: number of points.
        ranges: (low, high) of every input.
        seed: of the scrambling.

    Raises:
        ValueError: a range that is empty or not finite.
    """
    low, high = _bounds(ranges, dtype)
    sequence = torch.quasirandom.SobolEngine(len(low), scramble=True, seed=integer("seed", seed, 0))
    unit = sequence.draw(n, dtype=dtype) if integer("n", n, 0) else low.new_empty(0, len(low))
    return low + (high - low) * unit


def boundary_points(
    n: int, ranges: Sequence[tuple[float, float]], *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """n points [n, inputs] on each side of a box: the low one of the first input, its high one, and so on."""
    low, high = _bounds(ranges, dtype)
    sides = []
    for i in range(len(low)):
        others = [r for j, r in enumerate(ranges) if j != i]
        t = collocation_points(n, others, seed=seed, dtype=dtype) if others else torch.empty(n, 0, dtype=dtype)
        for end in (low[i], high[i]):
            sides.append(torch.cat([t[:, :i], end.expand(n, 1), t[:, i:]], 1))
    return sides


def adaptive_points(
    residual: Callable[[Tensor], Tensor], n: int, ranges: Sequence[tuple[float, float]], *, power: float = 1.0,
    uniform: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64,
) -> Tensor:  # fmt: skip
    """Points of a box where the residual of an equation is large, [n, inputs]: drawn from ten times as many, without
    repetition, in proportion to |residual|^power / its mean + uniform.

    Args:
        residual: function of points [N, inputs]: [N] or [N, r], of which the norm of each row counts.
        power, uniform: 1 and 1 as in the paper; 0 for power, or a large `uniform`, draws evenly.

    Raises:
        ValueError: residuals that are not finite, or of another number of rows.

    Source: Wu et al., residual-based adaptive distribution (arXiv 2207.10289).
    """
    pool = collocation_points(POOL * integer("n", n, 0), ranges, seed=seed, dtype=dtype)
    with torch.no_grad():
        values = residual(pool)
    if values.shape[:1] != pool.shape[:1] or not bool(values.isfinite().all()):
        raise ValueError(
            f"residual returns {list(values.shape)}: expected finite numbers, a row for {len(pool)} points"
        )
    size = values.view(len(pool), math.prod(values.shape[1:])).norm(dim=1).pow(number("power", power, 0.0))
    share = size + number("uniform", uniform, 0.0) * size.mean()
    if not n or not bool(share.any()):
        return pool[:n]
    return pool[torch.multinomial(share.cpu(), n, generator=torch.Generator("cpu").manual_seed(seed))]


def _bounds(ranges: Sequence[tuple[float, float]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    bounds = torch.tensor([list(r) for r in ranges], dtype=dtype)
    if bounds.ndim != 2 or bounds.shape[1] != 2 or not bool((bounds[:, 0] < bounds[:, 1]).all()):
        raise ValueError(f"ranges={ranges!r}: expected (low, high) of every input, low < high")
    return bounds[:, 0], bounds[:, 1]
