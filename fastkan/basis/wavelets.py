"""Wavelets, t = (x - c_f) / h, one centred in each interval of width h: Mexican hat, Morlet, derivative of Gaussian.

Wav-KAN trains one scale and translation per edge instead, see fastkan.nn.WavKANLayer.
Source: Bozorgasl and Chen, Wav-KAN (arXiv 2405.12832), table 1.
"""

import math

from torch import Tensor

from .series import Series, by_series, centred

# Of the Morlet wavelet, in radians per unit of t.
FREQUENCY = 5.0


def mexican_hat(t: Series) -> Series:
    """2 / (sqrt(3) pi^(1/4)) (1 - t^2) exp(-t^2 / 2)."""
    square = t * t
    return (1.0 - square) * (square * -0.5).exp() * (2 / (math.sqrt(3) * math.pi**0.25))


def morlet(t: Series) -> Series:
    """cos(5 t) exp(-t^2 / 2)."""
    return (t * FREQUENCY).cos() * (t * t * -0.5).exp()


def dog(t: Series) -> Series:
    """-t exp(-t^2 / 2)."""
    return -t * (t * t * -0.5).exp()


WAVELETS = {"mexican_hat": mexican_hat, "morlet": morlet, "dog": dog}


@by_series
def mexican_hat_features(x: Series, grid: Tensor) -> Series:
    return mexican_hat(centred(x, grid))


@by_series
def morlet_features(x: Series, grid: Tensor) -> Series:
    return morlet(centred(x, grid))


@by_series
def dog_features(x: Series, grid: Tensor) -> Series:
    return dog(centred(x, grid))
