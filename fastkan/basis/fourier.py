"""Fourier series 1, cos(pi z), sin(pi z), cos(2 pi z), ...: z in [-1, 1] on the grid range, their period.

FourierKAN's functions of period 2 pi have the grid range [-pi, pi]. An odd number of functions has as many sines as
cosines. Source: Xu et al., FourierKAN-GCF (arXiv 2406.01034), eq. 5.
"""

import math

import torch
from torch import Tensor

from .series import Series, by_series, constant, each, scaled


@by_series
def fourier_features(x: Series, grid: Tensor) -> Series:
    """sin(k pi z), and cos(k pi z) as sin(k pi z + pi / 2), the constant among them."""
    f = torch.arange(grid.shape[-1] - 1, dtype=grid.dtype, device=grid.device)
    frequency = ((f + 1) / 2).floor()
    phase = ((f % 2 == 1) | (f == 0)).to(grid.dtype) * (math.pi / 2)
    return (each(scaled(x, grid)) * constant(math.pi * frequency) + constant(phase)).sin()
