"""Redundant parameters of c f(a x + b) + d for a function f: scale, shift, sign, period.

Two of the four parameters are redundant for a power, one for exp, signs and periods for other functions. A fit then
searches fewer dimensions and returns the simplest of many equal solutions.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ...devices import HOST

TOLERANCE = 1e-11  # of a correlation: above rounding errors (1e-15, amplified by 1/x^5), below chance similarity


class Symmetry(NamedTuple):
    """Maps of the argument z that equal an affine map of the value f(z).

    scale: s z for s > 0 (powers, abs, sign, log); shift: z + s (exp, x); mirror: -z; period: z + pi (sin, cos, tan).
    flat: the slope is 0 everywhere (sign, 0).
    """

    scale: bool
    shift: bool
    mirror: bool
    period: bool
    flat: bool


@lru_cache(maxsize=512)
def symmetry(fun: Callable[[Tensor], Tensor]) -> Symmetry:
    """The symmetries of an elementwise function, tested by its values at a few points in float64."""
    # Irregular points, inside (-1, 1), where some domains end, and outside.
    steps = torch.arange(1, 19, dtype=torch.float64, device=HOST)
    near = 0.12 + 0.8 * (steps * 0.6180339887498949) % 0.8
    z = torch.cat((near, -(near * 0.9 + 0.013), near * 3.1 + 0.7, -(near * 2.7 + 0.9)))

    def equivalent(*arguments: Tensor) -> bool:
        return all(_is_affine(fun(z), fun(argument)) for argument in arguments)

    _, slope = value_and_slope(fun, z)
    return Symmetry(
        scale=equivalent(z * 0.37, z * 0.81),
        shift=equivalent(z + 0.23, z - 0.71),
        mirror=equivalent(-z),
        period=equivalent(z + math.pi),
        flat=not bool(slope.nan_to_num(0.0, 0.0, 0.0).any()),
    )


def value_and_slope(fun: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """fun(z) and fun'(z), elementwise; by central differences where autograd can't differentiate fun."""
    with torch.inference_mode(False), torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        value = fun(z)
        try:
            (slope,) = torch.autograd.grad(value.sum(), z)
        except RuntimeError:  # no derivative is implemented, or fun left the graph
            with torch.no_grad():
                step = 1e-5 * z.abs().clamp_min(1.0)
                slope = (fun(z + step) - fun(z - step)) / (2 * step)
    return value.detach(), slope


def _is_affine(f: Tensor, g: Tensor) -> bool:
    """Whether g is an affine map of f where both are finite, at 8 points or more."""
    both = f.isfinite() & g.isfinite()
    if int(both.sum()) < 8 or bool((f.isfinite() != g.isfinite()).all()):
        return False
    f, g = f[both] - f[both].mean(), g[both] - g[both].mean()
    size = f.norm() * g.norm()
    if not bool(size > 0):
        return bool(f.norm() == g.norm())
    slope = (f @ g) / (f @ f)
    return bool((g - slope * f).norm() <= TOLERANCE * g.norm())
