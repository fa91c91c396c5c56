"""The base function in Triton: an additional feature of every input."""

import triton
import triton.language as tl

from ....basis.base import sigmoid_derivative

# BASES, as in fastkan/basis/base.py
ZERO = tl.constexpr(0)
_IDENTITY = tl.constexpr(1)
MAX_ORDER = 11  # of derivatives, as on every backend except the reference
# sigma^(d) as a polynomial in sigma, constant first, d = 0, 1, ...
_SIGMA = tuple(tuple(sigmoid_derivative(order)) for order in range(MAX_ORDER + 1))


@triton.constexpr_function
def _coefficient(order, k):
    return _SIGMA[order][k]


@triton.jit
def base(x, ORDER: tl.constexpr, BASE: tl.constexpr):
    """b^(ORDER)(x), elementwise; silu^(d) = x sigma^(d) + d sigma^(d-1)."""
    if BASE == ZERO:
        return x * 0
    elif BASE == _IDENTITY:
        return x if ORDER == 0 else x * 0 + (1 if ORDER == 1 else 0)
    else:
        sigma = 1 / (1 + tl.exp(-x))
        y = x * _sigmoid(sigma, ORDER)
        if ORDER > 0:
            y += ORDER * _sigmoid(sigma, ORDER - 1)
        return y


@triton.jit
def _sigmoid(sigma, ORDER: tl.constexpr):
    """The derivative as a function of sigma, by Horner's rule."""
    y = sigma * 0
    for k in tl.static_range(ORDER + 2):
        y = y * sigma + _coefficient(ORDER, ORDER + 1 - k)
    return y
