"""Gaussian radial functions in Triton; defined in fastkan/basis/rbf.py."""

import triton
import triton.language as tl

from .family import Family, coordinate


@triton.jit
def prepare(x, knots, F, ORDER: tl.constexpr, SPEC: tl.constexpr):
    """(x - c_0) / h, and 1 / h."""
    z, inv_h = coordinate(x, knots)
    return z - 0.5, inv_h


@triton.jit
def feature(state, f, ORDER: tl.constexpr, SPEC: tl.constexpr):
    """H_d(t) exp(-t^2) (-1/h)^d; 0 where exp(-t^2) underflows."""
    t = state[0] - f
    below = t * 0
    y = below + 1
    for n in tl.static_range(ORDER):
        above = 2 * t * y - 2 * n * below
        below = y
        y = above
    for _ in tl.static_range(ORDER):
        y *= -state[1]
    return tl.where(t * t > 900.0, 0.0, y * tl.exp(-t * t))


FAMILY = Family.of(prepare, feature)
