"""Inputs of the basis families other than B-splines."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import torch

from fastkan.basis.families import FAMILIES as ROWS
from fastkan.spec import FAMILIES, OUTSIDE_OF
from fastkan.testing import Problem
from support.problems import BF16, DOUBLE, HALF, SINGLE

ALL = {name: row.features for name, row in ROWS.items()}
FEATURES = {name: row.features for name, row in ROWS.items() if row.kernels}  # those with kernels


def family_problem(family: str, *shape: int, functions: int = 6, dtype: torch.dtype = DOUBLE, **kwargs) -> Problem:
    """As Problem.random, its grid's F + 1 knots from about -1 to 1 and x reaching beyond them."""
    shape = shape or (9, 3, 4)
    outside = OUTSIDE_OF[family] or "zero"
    p = Problem.random(*shape, functions, 0, knots="promised", outside=outside, dtype=dtype, **kwargs)
    return replace(p, spec=p.spec._replace(family=FAMILIES.index(family)))


def drawn(family: str, order: int, counts: tuple[int, ...], shapes: tuple) -> Iterator[Problem]:
    """One of each number of functions and dtype, the other factors drawn."""
    draw = random.Random(order)
    for functions, dtype in itertools.product(counts, (DOUBLE, SINGLE, BF16, HALF)):
        options = {name: draw.choice((False, True)) for name in ("weighted", "per_input", "with_bias")}
        options["base"] = draw.choice((None, "silu", "identity"))
        options["order"] = min(order, 1) if dtype.itemsize == 2 else order
        yield family_problem(family, *draw.choice(shapes), functions=functions, dtype=dtype, seed=functions, **options)
