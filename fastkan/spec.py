"""What a contraction needs to know beside its tensors."""

from typing import NamedTuple

from .basis.base import BASES
from .basis.bspline import OUTSIDE

MAX_DEGREE = 5
FAMILIES = ("bspline", "rbf", "chebyshev")
# What is outside the grid range, where the family leaves no choice: Gaussians fall to zero, polynomials would grow.
_OUTSIDE_OF = {"rbf": "zero", "chebyshev": "clamp"}


class Spec(NamedTuple):
    """The family of features of a layer, as it travels through autograd to every backend.

    Integers, because they cross the operator boundary of PyTorch: `base` counts in BASES, `outside` in OUTSIDE and
    `family` in FAMILIES. `uniform` promises equidistant knots: then only the first and the last of a grid row are read.
    Every family has F = M - degree - 1 functions on a row of M knots; those without knots of their own take degree 0.
    """

    degree: int
    base: int
    outside: int
    uniform: bool
    family: int = 0

    @classmethod
    def of(cls, degree: int, base: str, outside: str, uniform: bool, family: str = "bspline") -> "Spec":
        """Check names and ranges; ValueError or TypeError names the argument, its value and what was expected."""
        if isinstance(degree, bool) or not isinstance(degree, int):
            raise TypeError(f"degree={degree!r}: expected an int from 0 to {MAX_DEGREE}")
        if not 0 <= degree <= MAX_DEGREE:
            raise ValueError(f"degree={degree}: expected 0 to {MAX_DEGREE}")
        kind = index_of("family", family, FAMILIES)
        if kind and outside != _OUTSIDE_OF[family]:
            raise ValueError(f"outside={outside!r}: expected {_OUTSIDE_OF[family]!r} with family={family!r}")
        if kind and degree != 0:
            raise ValueError(f"degree={degree}: expected 0 with family={family!r}")
        if kind and not uniform:
            raise ValueError(f"uniform={uniform}: expected True with family={family!r}, whose knots are equidistant")
        return cls(degree, index_of("base", base, BASES), index_of("outside", outside, OUTSIDE), bool(uniform), kind)


def index_of(argument: str, value: str, names: tuple[str, ...]) -> int:
    if value not in names:
        raise ValueError(f"{argument}={value!r}: expected one of {', '.join(map(repr, names))}")
    return names.index(value)
