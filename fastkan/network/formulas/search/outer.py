"""Outer functions: y = g(z) for a z that is a sum or a product of simple terms."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Outer(NamedTuple):
    """y = g(z). form: g as SymPy reads it; inverse(y): z; slope(y): |dz / dy|; applies(y): whether z is defined."""

    form: str
    inverse: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    applies: Callable[[Tensor], bool]


def _positive(y: Tensor) -> bool:
    return bool((y > 0).all())


def _not_negative(y: Tensor) -> bool:
    return bool((y >= 0).all())


def _within(low: float, high: float) -> Callable[[Tensor], bool]:
    return lambda y: bool(((y >= low) & (y <= high)).all())


def _nonzero(y: Tensor) -> bool:
    return float(y.abs().min()) > 1e-6 * float(y.abs().max())


IDENTITY = Outer("z", lambda y: y, torch.ones_like, lambda y: True)
# A product of powers is one under these powers as well; a sum is not.
POWERS = (
    Outer("1/z", lambda y: 1 / y, lambda y: y**-2, _nonzero),
    Outer("sqrt(z)", lambda y: y**2, lambda y: 2 * y, _not_negative),
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


def outer_functions(y: Tensor, powers: bool) -> list[Outer]:
    """Those that have the values y, with or without the powers."""
    return [outer for outer in (IDENTITY, *(POWERS if powers else ()), *OTHERS) if outer.applies(y)]
