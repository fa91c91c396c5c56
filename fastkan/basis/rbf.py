"""Gaussian radial basis functions, FastKAN's family: exp(-((x - c_f) / h)^2), one per interval of width h.

Source: Li, Kolmogorov-Arnold Networks are Radial Basis Function Networks (arXiv 2405.06721).
"""

import torch
from torch import Tensor

# Beyond this t, exp(-t^2) is 0 in float32, and its derivatives must not be infinity times 0.
REACH = 30.0


def rbf_features(x: Tensor, grid: Tensor, order: int = 0) -> Tensor:
    """d^order/dx^order of all F functions: x [N, I] and grid [I, F + 1], equidistant, in one dtype -> [N, I, F].

    FastKAN's centres linspace(a, b, F) are midpoints of the knots linspace(a - h/2, b + h/2, F + 1), h = (b-a)/(F-1).
    """
    functions = grid.shape[-1] - 1
    first, last = grid[:, :1], grid[:, -1:]
    over_h = functions / (last - first)  # I 1
    centres = torch.arange(functions, dtype=x.dtype, device=x.device) + 0.5
    t = (((x[..., None] - first) * over_h) - centres).clamp(-REACH, REACH)
    return hermite(order, t) * torch.exp(-t * t) * (-over_h) ** order


def hermite(order: int, t: Tensor) -> Tensor:
    """H_n: d^n/dt^n exp(-t^2) = (-1)^n H_n(t) exp(-t^2); H_{n+1} = 2 t H_n - 2 n H_{n-1}."""
    below, here = torch.zeros_like(t), torch.ones_like(t)
    for n in range(order):
        below, here = here, 2 * t * here - 2 * n * below
    return here
