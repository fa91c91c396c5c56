"""What a contraction needs to know beside its tensors."""

from typing import NamedTuple

from .basis.base import BASES
from .basis.bspline import OUTSIDE

MAX_DEGREE = 5


class Spec(NamedTuple):
    """The family of features of a layer, as it travels through autograd to every backend.

    Integers, because they cross the operator boundary of PyTorch: `base` counts in BASES, `outside` in OUTSIDE.
    `uniform` promises equidistant knots: then only the first and the last knot of a grid row are read.
    """

    degree: int
    base: int
    outside: int
    uniform: bool

    @classmethod
    def of(cls, degree: int, base: str, outside: str, uniform: bool) -> "Spec":
        """Check names and ranges; ValueError or TypeError names the argument, its value and what was expected."""
        if isinstance(degree, bool) or not isinstance(degree, int):
            raise TypeError(f"degree={degree!r}: expected an int from 0 to {MAX_DEGREE}")
        if not 0 <= degree <= MAX_DEGREE:
            raise ValueError(f"degree={degree}: expected 0 to {MAX_DEGREE}")
        return cls(degree, _index("base", base, BASES), _index("outside", outside, OUTSIDE), bool(uniform))


def _index(argument: str, value: str, names: tuple[str, ...]) -> int:
    if value not in names:
        raise ValueError(f"{argument}={value!r}: expected one of {', '.join(map(repr, names))}")
    return names.index(value)
