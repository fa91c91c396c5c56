"""Chebyshev polynomials of the second kind U_f(tanh z), z in [-1, 1] on the grid range.

Source: Seydi, Exploring the Potential of Polynomial Basis Functions in KANs (arXiv 2406.02583); DLMF 18.9.
"""

from torch import Tensor

from .series import Series, by_series, orthogonal, squashed


@by_series
def chebyshev2_features(x: Series, grid: Tensor) -> list[Series]:
    """U_{n+1} = 2 z U_n - U_{n-1}."""
    return orthogonal(squashed(x, grid), grid.shape[-1] - 1, lambda n: (2.0, 0.0, 1.0))
