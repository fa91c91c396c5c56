"""Gegenbauer polynomials C_f^(2)(tanh z), z in [-1, 1] on the grid range.

Parameter 1/2 would be Legendre's, 1 those of Chebyshev of the second kind, 3/2 Jacobi's (1, 1), each times a number.
Source: Seydi, Exploring the Potential of Polynomial Basis Functions in KANs (arXiv 2406.02583); DLMF 18.9.
"""

from torch import Tensor

from .series import Series, by_series, orthogonal, squashed

PARAMETER = 2.0


@by_series
def gegenbauer_features(x: Series, grid: Tensor) -> list[Series]:
    """(n + 1) C_{n+1} = 2 (n + p) z C_n - (n + 2p - 1) C_{n-1}, p = PARAMETER."""
    p = PARAMETER
    z = squashed(x, grid)
    return orthogonal(z, grid.shape[-1] - 1, lambda n: (2 * (n + p) / (n + 1), 0.0, (n + 2 * p - 1) / (n + 1)))
