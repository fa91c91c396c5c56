"""Kinds of calls, each with verdicts of its own: a basis, the dtypes of x and coef, and whether tf32 is allowed."""

import itertools
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch

from .basis.bspline import OUTSIDE
from .spec import FAMILIES, MAX_DEGREE, OUTSIDE_OF, WITH_KERNELS, Spec


class Kind(NamedTuple):
    """The calls that one verdict is about. The base function is none of it: a proof tries all."""

    family: str
    degree: int
    outside: str
    uniform: bool
    x: torch.dtype
    coef: torch.dtype
    tf32: bool

    @classmethod
    def of(cls, spec: Spec, dtypes: tuple[torch.dtype, ...], tf32: bool) -> "Kind":
        x, coef = dtypes[0], dtypes[-1]
        tf32 = tf32 and coef == torch.float32 and x != torch.float64
        return cls(FAMILIES[spec.family], spec.degree, OUTSIDE[spec.outside], spec.uniform, x, coef, tf32)

    def __str__(self) -> str:
        dtypes = [str(t).removeprefix("torch.") for t in dict.fromkeys((self.x, self.coef))]
        basis = (self.family, str(self.degree), self.outside, "uniform" if self.uniform else "knots")
        return "-".join((*basis, *dtypes, *(["tf32"] if self.tf32 else [])))

    def spec(self, base: str = "silu") -> Spec:
        return Spec.of(self.degree, base, self.outside, self.uniform, self.family)


_SINGLE, _DOUBLE, _BF16, _HALF = torch.float32, torch.float64, torch.bfloat16, torch.float16
# x, coef, tf32; x keeps its dtype under autocast
_USUAL = (
    (_SINGLE, _SINGLE, False), (_SINGLE, _SINGLE, True), (_BF16, _BF16, False), (_SINGLE, _BF16, False),
    (_HALF, _HALF, False), (_SINGLE, _HALF, False),
)  # fmt: skip
_DTYPES = (*_USUAL, (_DOUBLE, _DOUBLE, False), (_BF16, _SINGLE, False), (_HALF, _SINGLE, False))
_OTHERS = tuple((family, 0, OUTSIDE_OF[family] or "zero", True) for family in WITH_KERNELS[1:])
_BASES = (
    *itertools.product(("bspline",), range(MAX_DEGREE + 1), OUTSIDE, (True, False)),
    *_OTHERS,
)

ALL = tuple(Kind(*basis, *dtypes) for basis in _BASES for dtypes in _DTYPES)
# What `fastkan prove` proves unless it is told more, most wanted first.
EVERYDAY = (
    *(Kind("bspline", 3, outside, True, *dtypes) for outside in ("zero", "linear") for dtypes in _USUAL),
    *(Kind("bspline", 3, "zero", False, *dtypes) for dtypes in _USUAL[:4]),
    *(Kind("bspline", degree, "zero", True, *_USUAL[0]) for degree in (2, 1)),
    *(Kind(*basis, *dtypes) for basis in _OTHERS for dtypes in _USUAL[:3:2]),
    *(Kind("bspline", 3, "zero", uniform, *_DTYPES[6]) for uniform in (True, False)),
)


def matching(patterns: Iterable[str]) -> list[Kind]:
    """The kinds with these names; * and ? stand for any characters. ValueError for a pattern without a kind."""
    found: dict[Kind, None] = {}
    for pattern in patterns:
        kinds = [kind for kind in ALL if fnmatchcase(str(kind), pattern)]
        if not kinds:
            raise ValueError(
                f"kind {pattern!r}: expected a name such as {EVERYDAY[0]}, or a pattern such as bspline-3-*"
            )
        found.update(dict.fromkeys(kinds))
    return list(found)
