"""Legendre polynomials P_f(tanh z), z in [-1, 1] on the grid range.

Source: Seydi, Exploring the Potential of Polynomial Basis Functions in KANs (arXiv 2406.02583); DLMF 18.9.
"""

from torch import Tensor

from .series import Series, by_series, orthogonal, squashed


@by_series
def legendre_features(x: Series, grid: Tensor) -> list[Series]:
    """(n + 1) P_{n+1} = (2n + 1) z P_n - n P_{n-1}."""
    return orthogonal(squashed(x, grid), grid.shape[-1] - 1, lambda n: ((2 * n + 1) / (n + 1), 0.0, n / (n + 1)))
