"""Inputs of the basis families other than B-splines."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import torch

from fastkan.basis.chebyshev import chebyshev_features
from fastkan.basis.rbf import rbf_features
from fastkan.spec import FAMILIES
from fastkan.testing import Problem
from support.problems import BF16, DOUBLE, HALF, SINGLE

OUTSIDE_OF = {"rbf": "zero", "chebyshev": "clamp"}

FEATURES = {"rbf": rbf_features, "chebyshev": chebyshev_features}


def family_problem(family: str, *shape: int, functions: int = 6, dtype: torch.dtype = DOUBLE, **kwargs) -> Problem:
    """As Problem.random, its grid's F + 1 knots from about -1 to 1 and x reaching beyond them."""
    shape = shape or (9, 3, 4)
    p = Problem.random(*shape, functions, 0, knots="promised", outside=OUTSIDE_OF[family], dtype=dtype, **kwargs)
    return replace(p, spec=p.spec._replace(family=FAMILIES.index(family)))


def drawn(family: str, order: int, counts: tuple[int, ...], shapes: tuple) -> Iterator[Problem]:
    """One of each number of functions and dtype, the other factors drawn."""
    draw = random.Random(order)
    for functions, dtype in itertools.product(counts, (DOUBLE, SINGLE, BF16, HALF)):
        options = {name: draw.choice((False, True)) for name in ("weighted", "per_input", "with_bias")}
        options["base"] = draw.choice((None, "silu", "identity"))
        options["order"] = min(order, 1) if dtype.itemsize == 2 else order
        yield family_problem(family, *draw.choice(shapes), functions=functions, dtype=dtype, seed=functions, **options)
