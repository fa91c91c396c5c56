"""Spec: degree, base function, extrapolation and basis family of a layer, as integers."""

import functools
from typing import NamedTuple

from .basis.base import BASES
from .basis.bspline import OUTSIDE
from .basis.families import FAMILIES as ROWS

MAX_DEGREE = 5
FAMILIES = ("bspline", *ROWS)
# The only extrapolation of the families that are not B-splines; None where the formula holds for every x.
OUTSIDE_OF = {name: row.outside for name, row in ROWS.items()}
# The families that there are compiled and Triton kernels for.
WITH_KERNELS = ("bspline", *(name for name, row in ROWS.items() if row.kernels))


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
    def of(cls, degree: int, base: str, outside: str | None, uniform: bool, family: str = "bspline") -> "Spec":
        """The Spec of these names; ValueError or TypeError names the argument, its value and what was expected.

        outside None stands for the family's own, of B-splines "zero".
        """
        if isinstance(degree, bool) or not isinstance(degree, int):
            raise TypeError(f"degree={degree!r}: expected an int from 0 to {MAX_DEGREE}")
        if not 0 <= degree <= MAX_DEGREE:
            raise ValueError(f"degree={degree}: expected 0 to {MAX_DEGREE}")
        kind = index_of("family", family, FAMILIES)
        own = OUTSIDE_OF[family] if kind else "zero"
        if kind and outside not in (None, own):
            raise ValueError(f"outside={outside!r}: expected {own!r} with family={family!r}")
        outside = outside or own or "zero"
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
