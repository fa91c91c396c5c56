"""Base functions b(x), the residual connection of an edge: one more feature of every input, with all derivatives."""

import torch
from torch import Tensor

BASES = ("zero", "identity", "silu")


def base_feature(x: Tensor, base: str, order: int = 0) -> Tensor:
    """b^(order)(x), elementwise, in the dtype of x."""
    if base == "silu":
        return _silu(x, order)
    if base == "identity":
        return x if order == 0 else torch.full_like(x, float(order == 1))
    if base == "zero":
        return torch.zeros_like(x)
    raise ValueError(f"base={base!r}: expected one of {BASES}")


def _silu(x: Tensor, order: int) -> Tensor:
    # silu = x sigma, so silu^(n) = x sigma^(n) + n sigma^(n-1)
    sigma = torch.sigmoid(x)
    top = x * _polynomial(sigmoid_derivative(order), sigma)
    return top if order == 0 else top + order * _polynomial(sigmoid_derivative(order - 1), sigma)


def sigmoid_derivative(order: int) -> list[int]:
    """Coefficients, constant first, of P_n with sigma^(n) = P_n(sigma): P_0 = s, P_{n+1} = P_n' (s - s^2)."""
    p = [0, 1]
    for _ in range(order):
        slope = [k * c for k, c in enumerate(p)][1:]
        p = [0] + [a - b for a, b in zip(slope + [0], [0] + slope, strict=True)]
    return p


def _polynomial(coefficients: list[int], s: Tensor) -> Tensor:
    y = torch.zeros_like(s)
    for c in reversed(coefficients):
        y = y * s + c
    return y
