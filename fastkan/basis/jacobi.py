"""Jacobi polynomials P_f^(1,1)(tanh z), z in [-1, 1] on the grid range: JacobiKAN's defaults.

Source: SpaceLearner's JacobiKAN, its formula; DLMF 18.9.
"""

from torch import Tensor

from .series import Series, by_series, orthogonal, squashed

A, B = 1.0, 1.0


def step(n: int, a: float = A, b: float = B) -> tuple[float, float, float]:
    """The recurrence of P^(a,b), see orthogonal."""
    if n == 0:
        return (a + b + 2) / 2, (a - b) / 2, 0.0
    s = 2 * n + a + b
    over = 2 * (n + 1) * (n + 1 + a + b) * s
    return (s + 1) * (s + 2) * s / over, (s + 1) * (a * a - b * b) / over, 2 * (n + a) * (n + b) * (s + 2) / over


@by_series
def jacobi_features(x: Series, grid: Tensor) -> list[Series]:
    return orthogonal(squashed(x, grid), grid.shape[-1] - 1, step)
