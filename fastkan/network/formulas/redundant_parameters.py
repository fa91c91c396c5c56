"""What an affine map of the argument does to a function that one of its value does too: fewer parameters to fit.

In c f(a x + b) + d two of the four parameters are redundant for a power, one for exp, and signs and periods for others.
The fit then searches fewer dimensions, and of the many equal answers gives the plainest.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-11  # of a correlation, between rounding (1e-15, times what 1/x^5 makes of it) and a chance likeness


class Symmetry(NamedTuple):
    """Each holds up to an affine map of the values.

    scale: f(s z) is f(z) for s > 0 (powers, abs, sign, log); shift: f(z + s) is (exp, x); mirror: f(-z) is;
    period: f(z + pi) is (sin, cos, tan); flat: the slope is 0 everywhere (sign, 0).
    """

    scale: bool
    shift: bool
    mirror: bool
    period: bool
    flat: bool


@lru_cache(maxsize=512)
def symmetry(fun: Callable[[Tensor], Tensor]) -> Symmetry:
    """The symmetries of an elementwise function, found from its values at a few points in float64."""
    # Points of no pattern, within (-1, 1) for functions that end there and beyond.
    steps = torch.arange(1, 19, dtype=torch.float64)
    near = 0.12 + 0.8 * (steps * 0.6180339887498949) % 0.8
    z = torch.cat((near, -(near * 0.9 + 0.013), near * 3.1 + 0.7, -(near * 2.7 + 0.9)))

    def kept(*others: Tensor) -> bool:
        return all(_affine(fun(z), fun(other)) for other in others)

    value, slope = value_and_slope(fun, z)
    return Symmetry(
        scale=kept(z * 0.37, z * 0.81),
        shift=kept(z + 0.23, z - 0.71),
        mirror=kept(-z),
        period=kept(z + math.pi),
        flat=not bool(slope.nan_to_num(0.0, 0.0, 0.0).any()),
    )


def value_and_slope(fun: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """fun(z) and fun'(z), elementwise; by central differences where autograd can't see through fun."""
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


def _affine(f: Tensor, g: Tensor) -> bool:
    """Whether g is an affine map of f, where both are finite: at 8 points or more."""
    both = f.isfinite() & g.isfinite()
    if int(both.sum()) < 8 or bool((f.isfinite() != g.isfinite()).all()):
        return False
    f, g = f[both] - f[both].mean(), g[both] - g[both].mean()
    size = f.norm() * g.norm()
    if not bool(size > 0):
        return bool(f.norm() == g.norm())
    slope = (f @ g) / (f @ f)
    return bool((g - slope * f).norm() <= TOLERANCE * g.norm())
