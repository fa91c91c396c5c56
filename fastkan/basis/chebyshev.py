"""Chebyshev polynomials T_f of the first kind on the grid range, clamped outside: ChebyKAN's family."""

import math

import torch
from torch import Tensor


def chebyshev_features(x: Tensor, grid: Tensor, order: int = 0) -> Tensor:
    """d^order/dx^order of T_0..T_{F-1}: x [N, I] and grid [I, F + 1], whose ends are -1 and 1 of z, -> [N, I, F].

    T_f^(d) = 2^(d-1) (d-1)! f C_{f-d}^(d), the ultraspherical polynomials of DLMF 18.9.21 and 18.9.19; by recurrence.
    """
    functions = grid.shape[-1] - 1
    first, last = grid[:, 0], grid[:, -1]
    over = 2 / (last - first)  # I
    z = (x - first) * over - 1
    inside = z.abs() <= 1
    z = z.clamp(-1, 1)
    one = torch.ones_like(z) + 0 * z  # NaN for NaN
    if order == 0:
        values = [one, z]
        for _ in range(2, functions):
            values.append(2 * z * values[-1] - values[-2])
        return torch.stack(values[:functions], -1)
    below, here = torch.zeros_like(z), one  # C_{n-1}, C_n
    factor = 2 ** (order - 1) * math.factorial(order - 1) * over**order * (inside | z.isnan())
    values = [one * 0] * min(order, functions)
    for n in range(functions - order):
        values.append((n + order) * factor * here)
        below, here = here, (2 * z * (n + order) * here - (n + 2 * order - 1) * below) / (n + 1)
    return torch.stack(values, -1)
