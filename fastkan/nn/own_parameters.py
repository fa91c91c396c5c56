"""Layers whose functions have parameters of their own, so that they are no sums of fixed functions: plain PyTorch.

All take x [..., I] to [..., O] in the parameters' dtype, have derivatives of every order by autograd, and stay finite
at saturation.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import functional
from ..arguments import integer
from ..basis.series import Series, bounded
from ..basis.wavelets import WAVELETS

# Inputs beyond this count as this, so that their fifth power is finite in float32.
LARGE = 1e6
# The narrowest wavelet.
LEAST_SCALE = 1e-4
STARTS = ("identity", "silu")


class _Layer(nn.Module):
    """What these layers share: their sizes and the check of their input."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.in_features = integer("in_features", in_features, 1)
        self.out_features = integer("out_features", out_features, 1)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def checked(self, x: Tensor) -> Tensor:
        """x within +-LARGE, in float32 or better; ValueError or TypeError for another shape or type."""
        functional.check_input(x, self.in_features)
        return x.to(torch.promote_types(x.dtype, torch.float32)).clamp(-LARGE, LARGE)  # products overflow in 16 bits

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class WavKANLayer(_Layer):
    """y[o] = sum_i (weight[i,o] psi((x[i] - translation[i,o]) / scale[i,o]) + base_weight[i,o] silu(x[i])).

    wavelet: psi, "mexican_hat", "morlet" or "dog". Of a scale its absolute value counts, at least 1e-4. A call makes
    tensors [N, I, O], since every edge has a function of its own; `KANLinear(family=...)` has wavelets at fixed places
    without them. No batch normalisation, which the paper's code ends with: add nn.BatchNorm1d.

    Source: Bozorgasl and Chen, Wav-KAN (arXiv 2405.12832).
    """

    def __init__(self, in_features: int, out_features: int, wavelet: str = "mexican_hat"):
        super().__init__(in_features, out_features)
        if wavelet not in WAVELETS:
            raise ValueError(f"wavelet={wavelet!r}: expected one of {', '.join(map(repr, WAVELETS))}")
        self.wavelet, shape = wavelet, (self.in_features, self.out_features)
        self.scale, self.translation = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        bound = 1 / math.sqrt(self.in_features)
        self.weight, self.base_weight = (nn.Parameter(torch.empty(shape).uniform_(-bound, bound)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]."""
        x = self.checked(x)
        t = (x[..., None] - self.translation) / self.scale.abs().clamp_min(LEAST_SCALE)
        (psi,) = WAVELETS[self.wavelet](bounded(Series([t], 0))).terms
        dtype = self.base_weight.dtype
        return (psi * self.weight).sum(-2).to(dtype) + F.silu(x).to(dtype) @ self.base_weight

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, wavelet={self.wavelet!r}"


class ReLUKANLayer(_Layer):
    """y[o] = sum_{i,f} coef[i,f,o] (r max(x[i] - low[i,f], 0) max(high[i,f] - x[i], 0))^2 + bias[o].

    grid_size, k: G intervals on [0, 1] and k more on the left give F = G + k functions, whose ends are at first
    low = f / G - k / G and high = low + (k + 1) / G; r = 4 G^2 / (k + 1)^2. train_ends: train low and high.

    Source: Qiu et al., ReLU-KAN (arXiv 2406.02075), eq. 6.
    """

    def __init__(self, in_features: int, out_features: int, grid_size: int = 5, k: int = 3, train_ends: bool = True):
        super().__init__(in_features, out_features)
        g, k = integer("grid_size", grid_size, 1), integer("k", k, 0)
        self.r = 4 * g * g / (k + 1) ** 2
        low = (torch.arange(-k, g) / g).expand(self.in_features, -1)
        self.low = nn.Parameter(low.clone(), requires_grad=train_ends)
        self.high = nn.Parameter(low + (k + 1) / g, requires_grad=train_ends)
        bound = 1 / math.sqrt(self.in_features * (g + k))
        self.coef = nn.Parameter(torch.empty(self.in_features, g + k, self.out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(self.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]."""
        x = self.checked(x)[..., None]
        root = self.r * torch.relu(x - self.low) * torch.relu(self.high - x)  # ... I F
        return root.square().flatten(-2).to(self.coef.dtype) @ self.coef.flatten(0, 1) + self.bias


class RationalKANLayer(_Layer):
    """y = linear(R(x)), R = P_5(x) / (1 + |b_1 x + ... + b_4 x^4|) for every input: KAT's grouped rational layer.

    The numerator [6], a_0 first, is one for all inputs, the denominator [groups, 4] one for each of `groups` equal
    groups of neighbouring inputs. start: the function that R is at first, "identity" or, to 0.003 on [-4, 4], "silu".
    The weights of `linear` start normal with the variance 1 / (I E[R(x)^2]) for standard normal x, so that variances
    are kept.

    Source: Yang and Wang, Kolmogorov-Arnold Transformer (arXiv 2409.10594), section 4.
    """

    def __init__(self, in_features: int, out_features: int, groups: int = 8, start: str = "identity"):
        super().__init__(in_features, out_features)
        self.groups = integer("groups", groups, 1)
        if self.in_features % groups:
            raise ValueError(f"groups={groups!r}: expected a divisor of in_features={self.in_features}")
        if start not in STARTS:
            raise ValueError(f"start={start!r}: expected one of {', '.join(map(repr, STARTS))}")
        with torch.device("cpu"):  # numbers of the start, also where the layer is made on "meta"
            numerator, denominator = _starting(start)
            middles = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
            size = rational(torch.special.ndtri(middles), numerator, denominator).square().mean()
        self.numerator = nn.Parameter(torch.tensor(numerator.tolist()))
        self.denominator = nn.Parameter(torch.tensor(denominator.tolist()).repeat(groups, 1))
        self.linear = nn.Linear(self.in_features, self.out_features)
        nn.init.normal_(self.linear.weight, std=float(1 / (self.in_features * size).sqrt()))
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]."""
        x = self.checked(x)
        grouped = x.unflatten(-1, (self.groups, -1))
        y = rational(grouped, self.numerator.to(x.dtype), self.denominator.to(x.dtype)[:, None])
        return self.linear(y.flatten(-2).to(self.linear.weight.dtype))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, groups={self.groups}"


def rational(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """P(x) / (1 + |x Q(x)|): numerator [6] and denominator [..., 4], lowest powers first, which broadcast with x."""
    return _horner(x, numerator) / (1 + (x * _horner(x, denominator)).abs())


def _horner(x: Tensor, coefficients: Tensor) -> Tensor:
    y = coefficients[..., -1]
    for c in reversed(coefficients.unbind(-1)[:-1]):
        y = y * x + c
    return y


def _starting(start: str) -> tuple[Tensor, Tensor]:
    """numerator [6] and denominator [4] of a function, in float64; of SiLU by least squares on [-4, 4], to 0.003."""
    if start == "identity":
        return torch.eye(6, dtype=torch.float64)[1], torch.zeros(4, dtype=torch.float64)
    denominator = torch.tensor([0.0, 0.2, 0.0, 0.005], dtype=torch.float64)
    x = torch.linspace(-4, 4, 401, dtype=torch.float64)
    powers = torch.stack([x**p for p in range(6)], 1) / (1 + 0.2 * x**2 + 0.005 * x**4)[:, None]
    return torch.linalg.lstsq(powers, F.silu(x)[:, None]).solution[:, 0], denominator
