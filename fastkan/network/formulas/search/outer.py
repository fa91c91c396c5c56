"""Outer functions: y = g(z) for a z that is a sum or a product of simple terms."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

NEARLY = 0.9  # share


class Outer(NamedTuple):
    """y = g(z). form: g as SymPy reads it; inverse(y): z; slope(y): |dz / dy|; defined(y): where z is a number."""

    form: str
    inverse: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    defined: Callable[[Tensor], Tensor]


def _within(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return lambda y: (y >= low) & (y <= high)


def _positive(y: Tensor) -> Tensor:
    return y > 1e-6 * y.abs().max()


def _nonzero(y: Tensor) -> Tensor:
    return y.abs() > 1e-6 * y.abs().max()


IDENTITY = Outer("z", lambda y: y, torch.ones_like, lambda y: y == y)
# A product of powers is one under these powers as well; a sum is not.
POWERS = (
    Outer("1/z", lambda y: 1 / y, lambda y: y**-2, _nonzero),
    Outer("sqrt(z)", lambda y: y**2, lambda y: 2 * y, _within(0, math.inf)),
    Outer("1/sqrt(z)", lambda y: y**-2, lambda y: 2 * y**-3, _positive),
    Outer("z**2", torch.sqrt, lambda y: 0.5 * y**-0.5, _positive),
)
OTHERS = (
    Outer("exp(z)", torch.log, lambda y: 1 / y, _positive),
    Outer("exp(z) - 1", torch.log1p, lambda y: 1 / (1 + y), _positive),
    Outer("log(z)", torch.exp, torch.exp, _within(-20, 20)),
    Outer("asin(z)", torch.sin, torch.cos, _within(-math.pi / 2, math.pi / 2)),
    Outer("acos(z)", torch.cos, torch.sin, _within(0, math.pi)),
    Outer("tanh(z)", torch.atanh, lambda y: 1 / (1 - y**2), _within(-1 + 1e-9, 1 - 1e-9)),
)


def outer_functions(y: Tensor) -> list[Outer]:
    """Those that have nearly all of the values y: noise may move some of them out of the range."""
    everywhere = [IDENTITY, *POWERS, *OTHERS]
    return [outer for outer in everywhere if float(outer.defined(y).double().mean()) > NEARLY]
