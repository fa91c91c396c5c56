"""Bernstein polynomials C(n, f) t^f (1 - t)^(n-f) of degree n = F - 1, t = (1 + tanh z) / 2: a partition of unity.

z is in [-1, 1] on the grid range, t = sigmoid(2 z): on the range (-2, 2) sigmoid(x), BernsteinKAN's coordinate.
"""

import math

from torch import Tensor

from .series import Series, by_series, squashed


@by_series
def bernstein_features(x: Series, grid: Tensor) -> list[Series]:
    n, z = grid.shape[-1] - 2, squashed(x, grid)
    rise, fall = _powers((z + 1.0) * 0.5, n), _powers((1.0 - z) * 0.5, n)
    return [rise[f] * fall[n - f] * float(math.comb(n, f)) for f in range(n + 1)]


def _powers(t: Series, n: int) -> list[Series]:
    """t^0, ..., t^n."""
    powers = [t * 0.0 + 1.0]
    for _ in range(n):
        powers.append(powers[-1] * t)
    return powers
