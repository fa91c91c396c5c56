"""Hermite polynomials H_f(tanh z) / sqrt(2^f f!), z in [-1, 1] on the grid range: of about the same size for all f.

Source: Seydi, Exploring the Potential of Polynomial Basis Functions in KANs (arXiv 2406.02583); DLMF 18.9.
"""

import math

from torch import Tensor

from .series import Series, by_series, orthogonal, squashed


@by_series
def hermite_features(x: Series, grid: Tensor) -> list[Series]:
    """H_{n+1} = 2 z H_n - 2 n H_{n-1}, each over its norm."""
    z = squashed(x, grid)
    return orthogonal(z, grid.shape[-1] - 1, lambda n: (math.sqrt(2 / (n + 1)), 0.0, math.sqrt(n / (n + 1))))
