"""Spec: degree, base function, extrapolation and basis family of a layer, as integers."""

import functools
from typing import NamedTuple

from .basis.base import BASES
from .basis.bspline import OUTSIDE

MAX_DEGREE = 5
FAMILIES = ("bspline", "rbf", "chebyshev")
# The only extrapolation of some families: Gaussians fall to zero, polynomials would grow.
OUTSIDE_OF = {"rbf": "zero", "chebyshev": "clamp"}


class Spec(NamedTuple):
    """The basis of a layer, passed through autograd to every backend.

    Integers, since they are arguments of PyTorch operators: `base` is an index of BASES, `outside` of OUTSIDE and
    `family` of FAMILIES. `uniform` promises equidistant knots: then only the first and the last of a grid row are read.
    Every family has F = M - degree - 1 functions on a row of M knots; families other than B-splines take degree 0.
    """

    degree: int
    base: int
    outside: int
    uniform: bool
    family: int = 0

    @classmethod
    def of(cls, degree: int, base: str, outside: str, uniform: bool, family: str = "bspline") -> "Spec":
        """The Spec of these names; ValueError or TypeError names the argument, its value and what was expected."""
        if isinstance(degree, bool) or not isinstance(degree, int):
            raise TypeError(f"degree={degree!r}: expected an int from 0 to {MAX_DEGREE}")
        if not 0 <= degree <= MAX_DEGREE:
            raise ValueError(f"degree={degree}: expected 0 to {MAX_DEGREE}")
        kind = index_of("family", family, FAMILIES)
        if kind and outside != OUTSIDE_OF[family]:
            raise ValueError(f"outside={outside!r}: expected {OUTSIDE_OF[family]!r} with family={family!r}")
        if kind and degree != 0:
            raise ValueError(f"degree={degree}: expected 0 with family={family!r}")
        if kind and not uniform:
            raise ValueError(f"uniform={uniform}: expected True with family={family!r}, whose knots are equidistant")
        return cls(degree, index_of("base", base, BASES), index_of("outside", outside, OUTSIDE), bool(uniform), kind)


@functools.cache
def with_uniform(spec: Spec, uniform: bool) -> Spec:
    """spec with that promise about its knots: made once, since a layer asks for it in every call."""
    return spec._replace(uniform=uniform)


def index_of(argument: str, value: str, names: tuple[str, ...]) -> int:
    """The index of value in names; ValueError lists the names."""
    if value not in names:
        raise ValueError(f"{argument}={value!r}: expected one of {', '.join(map(repr, names))}")
    return names.index(value)
