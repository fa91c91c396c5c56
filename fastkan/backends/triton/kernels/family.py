"""The interface between basis families and kernels: device functions and their compile-time constants."""

from collections.abc import Callable
from typing import NamedTuple

import triton
import triton.language as tl


class Shape(NamedTuple):
    """Fields of a Spec that are compile-time constants; 2^search is at least the number of knots."""

    degree: int
    outside: int
    uniform: bool
    search: int


class Family(NamedTuple):
    """Device functions of one family of features Phi_f(x); SPEC is a Shape.

    prepare(x, knots, F, ORDER, SPEC) -> state: depends on x alone; knots points to a row of knots_of in ../knots.py.
    feature(state, f, ORDER, SPEC): d^ORDER/dx^ORDER of function f.
    window(x, knots, F, ORDER, SPEC) -> start, values...: the degree + 1 neighbours that may be non-zero at x, or None
        where a family has no local support.

    All are elementwise. A NaN in x makes the window's values NaN; `feature` may lose it. `version` invalidates Triton's
    disk cache when one of the functions changes.
    """

    prepare: Callable
    feature: Callable
    window: Callable | None
    version: str

    @classmethod
    def of(cls, prepare: Callable, feature: Callable, window: Callable | None = None) -> "Family":
        functions = [f for f in (prepare, feature, window) if f is not None]
        return cls(prepare, feature, window, "".join(getattr(f, "cache_key", "") for f in functions))


@triton.jit
def coordinate(x, knots):
    """(x - first knot) in units of the grid's scale, and the inverse of that scale; uniform knots."""
    inv_h = tl.load(knots + 2)
    return ((x - tl.load(knots)) - tl.load(knots + 1)) * inv_h, inv_h
