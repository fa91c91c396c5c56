"""Chebyshev polynomials in Triton; defined in fastkan/basis/chebyshev.py."""

import triton
import triton.language as tl

from .family import Family, coordinate


@triton.constexpr_function
def _factorial(n):
    product = 1
    for k in range(2, n + 1):
        product *= k
    return product


@triton.jit
def prepare(x, knots, F, ORDER: tl.constexpr, SPEC: tl.constexpr):
    """z clamped to [-1, 1], the factor of the derivative, and the number of functions."""
    z, over = coordinate(x, knots)
    z -= 1
    factor = z * 0 + 1
    if ORDER > 0:
        factor = tl.where(tl.abs(z) > 1, 0.0, 2.0 ** (ORDER - 1) * _factorial(ORDER - 1))
        for _ in tl.static_range(ORDER):
            factor *= over
    return tl.where(z > 1, 1.0, tl.where(z < -1, -1.0, z)), factor, F


@triton.jit
def feature(state, f, ORDER: tl.constexpr, SPEC: tl.constexpr):
    """T_f^(ORDER): runs the recurrence over all functions and selects the value at f."""
    z = state[0]
    y = z * 0 + f * 0.0
    below = z * 0
    here = below + 1
    if ORDER == 0:
        above = z
        for n in range(state[2]):
            y = tl.where(f == n, here, y)
            next_one = 2 * z * above - here
            here = above
            above = next_one
        return y
    else:
        for n in range(state[2]):
            y = tl.where(f == n + ORDER, (n + ORDER) * here, y)
            next_one = (2 * z * (n + ORDER) * here - (n + 2 * ORDER - 1) * below) / (n + 1)
            below = here
            here = next_one
        return y * state[1]


FAMILY = Family.of(prepare, feature)
