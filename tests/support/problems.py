"""Inputs of the contractions: cases of every factor, knots, empty tensors."""

import itertools
import random
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import torch
from scipy.interpolate import BSpline

from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.testing import (
    KNOTS,
    Problem,
    call,
    on_knots,  # noqa: F401  for the tests that take problems from here
)


def scipy_features(x: np.ndarray, t: np.ndarray, degree: int, order: int) -> np.ndarray:
    """[N, F] by scipy: the tail on the extended knots, zero beyond them, [t_K, t_F] closed at both ends."""
    count = len(t) - degree - 1
    inner = BSpline(t, np.eye(count), degree, extrapolate=False)(x, nu=order)
    steps = np.arange(1, degree + 1)
    padded = np.concatenate([t[0] - steps[::-1], t, t[-1] + steps])
    tail = BSpline(padded, np.eye(count + 2 * degree), degree, extrapolate=False)(x, nu=order)
    tail = np.where(((x >= t[0]) & (x < t[-1]))[:, None], tail[:, degree : degree + count], 0.0)
    inside = (x >= t[degree]) & (x <= t[count])
    return np.where(inside[:, None], inner, tail)


HALF, BF16, SINGLE, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64


FACTORS = {
    "degree": (0, 1, 2, 3, 4, 5),
    "order": (0, 1, 2, 3, 4),
    "outside": OUTSIDE,
    "knots": KNOTS,
    "dtypes": ((DOUBLE, DOUBLE), (SINGLE, SINGLE), (BF16, BF16), (HALF, HALF), (SINGLE, BF16), (BF16, SINGLE)),
    "shape": ((1, 1, 1), (3, 5, 7), (33, 17, 65), (70, 9, 130), (257, 3, 300)),
    "grid_size": (1, 2, 5, 37, 200),
    "base": (None, *BASES),
    "per_input": (False, True),
    "weighted": (False, True),
    "with_bias": (False, True),
}


def cases() -> list[dict]:
    """Every (degree, order, outside) twice, other factors at random from a fixed seed."""
    draw = random.Random(2)
    full = itertools.product(*(FACTORS[name] for name in ("degree", "order", "outside")))
    rest = {name: values for name, values in FACTORS.items() if name not in ("degree", "order", "outside")}
    return [
        {"degree": d, "order": k, "outside": o, **{name: draw.choice(values) for name, values in rest.items()}}
        for d, k, o in full
        for _ in range(2)
    ]


def problem_of(case: dict, seed: int = 0) -> Problem:
    case = dict(case)
    x_dtype, dtype = case.pop("dtypes")
    return Problem.random(*case.pop("shape"), case.pop("grid_size"), x_dtype=x_dtype, dtype=dtype, seed=seed, **case)


def label(case: dict) -> str:
    short = {torch.float64: "f64", torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
    shape, dtypes = "x".join(map(str, case["shape"])), "/".join(short[t] for t in case["dtypes"])
    flags = "".join("-" + f for f in ("per_input", "weighted", "with_bias") if case[f])
    return (
        f"K{case['degree']}-d{case['order']}-{case['outside']}-{case['knots']}-G{case['grid_size']}-{shape}"
        f"-{dtypes}-{case['base']}{flags}"
    )


CASES = cases()


EMPTY = [(0, 3, 4), (5, 0, 4), (5, 3, 0), (0, 0, 0), (300, 0, 100)]


def empty_problems(shape: tuple[int, int, int]) -> Iterator[Problem]:
    """Problems of that shape in every dtype, with and without the optional tensors."""
    for dtype, knots, base in itertools.product((SINGLE, DOUBLE, BF16, HALF), ("even", "promised"), (None, "silu")):
        yield Problem.random(*shape, 5, base=base, knots=knots, weighted=True, with_bias=True, dtype=dtype)
        yield Problem.random(*shape, 5, base=base, knots=knots, weighted=False, with_bias=False, dtype=dtype)


def operator_arguments(contraction: str, p: Problem) -> tuple:
    """Arguments of an operator: those of a backend's function, with the fields of its Spec one by one."""
    seen = []
    catcher = SimpleNamespace(**{contraction: lambda *args: seen.extend(args) or p.x})
    call(catcher, contraction, p)
    return tuple(item for a in seen for item in (a if a is p.spec else (a,)))
