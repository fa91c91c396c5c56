"""Tests of the CUDA backend's matrix products; a file that imports them defines the fixture `products`."""

import itertools
import random

import pytest
import torch

from fastkan import reference
from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.testing import Problem, assert_matches_reference, call
from support.problems import BF16, DOUBLE, HALF, SINGLE, label, on_knots, problem_of
from support.tiers import tiers

# Selects the kernels: "gather", "matrix" or "wgmma".
ALGORITHM = "FASTKAN_CUDA_ALGORITHM"

CONTRACTIONS = ("kan_out", "kan_in", "kan_coef", "kan_backward")
each_contraction = pytest.mark.parametrize("contraction", CONTRACTIONS)

FACTORS = {
    "degree": (2, 3),
    "outside": OUTSIDE,
    "dtypes": ((BF16, BF16), (HALF, HALF), (SINGLE, BF16), (SINGLE, HALF)),
    # less than a tile; no multiple of one; several tiles of both sizes
    "shape": ((1, 1, 8), (70, 9, 72), (130, 21, 136)),
    "grid_size": (3, 5, 8, 11, 30, 53),
    "base": (None, *BASES),
    "per_input": (False, True),
    "weighted": (False, True),
    "with_bias": (False, True),
}


def cases() -> list[dict]:
    """Every (degree, grid size, shape) once, other factors at random from a fixed seed."""
    draw = random.Random(1)
    crossed = ("degree", "grid_size", "shape")
    rest = {name: values for name, values in FACTORS.items() if name not in crossed}
    return [
        {"order": 0, "knots": "promised", **dict(zip(crossed, values, strict=True)),
         **{name: draw.choice(values) for name, values in rest.items()}}
        for values in itertools.product(*(FACTORS[name] for name in crossed))
    ]  # fmt: skip


CASES = cases()


class Products:
    """A backend on a device: requested kernels, automatically chosen kernels, and the last ones that ran."""

    def __init__(self, backend, device, algorithm, asked="matrix", best="matrix", processors=lambda count: None):
        self.backend, self.device, self.algorithm, self.processors = backend, device, algorithm, processors
        self.asked, self.best = asked, best

    def call(self, contraction: str, p: Problem) -> tuple[torch.Tensor, ...]:
        return call(self.backend, contraction, p.on(self.device))

    def check(self, contraction: str, p: Problem) -> None:
        assert_matches_reference(self.backend, contraction, p.on(self.device))
        assert self.algorithm() == (self.asked if contraction == "kan_out" else "matrix")


FEW, MANY = 1, 132  # processors: large tiles; small ones, and splits of the sums


def test_the_cases_hold_every_value():
    for name, values in FACTORS.items():
        assert {case[name] for case in CASES} == set(values)


@pytest.mark.sweep
@each_contraction
@pytest.mark.parametrize("processors", [FEW, MANY])
@pytest.mark.parametrize("case", tiers(CASES, "grid_size", "shape"), ids=label)
def test_matches_the_reference(products, contraction, case, processors):
    products.processors(processors)
    products.check(contraction, problem_of(case))


@pytest.mark.parametrize("processors", [FEW, MANY])
@pytest.mark.parametrize("degree", [2, 3])
def test_slopes_match_the_reference(products, degree, processors):
    products.processors(processors)
    for outside in OUTSIDE:
        p = Problem.random(70, 9, 72, 6, degree, order=1, knots="promised", outside=outside, dtype=BF16)
        products.check("kan_in", p)


@each_contraction
def test_many_rows_or_inputs(products, contraction):
    """Split sums."""
    for shape in (400, 3, 16), (20, 300, 16):
        products.processors(MANY)
        products.check(contraction, Problem.random(*shape, 5, knots="promised", weighted=True, dtype=BF16))


@each_contraction
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [2, 3])
def test_on_the_knots(products, contraction, degree, outside):
    for dtype in (BF16, HALF):
        p = on_knots(degree, 0, outside, "promised", dtype)
        whole = {name: t.repeat(*[1] * (t.dim() - 1), 2)[..., :8].contiguous() for name, t in vars(p).items()
                 if name in ("u", "coef", "base_weight", "bias", "terms")}  # fmt: skip
        products.check(contraction, Problem(**{**vars(p), **whole}))


@each_contraction
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [2, 3])
def test_nans_match_the_reference(products, contraction, degree, outside):
    for base in (None, "silu"):
        p = Problem.random(70, 4, 8, 6, degree, knots="promised", outside=outside, base=base, dtype=BF16)
        p.x[33, 2] = torch.nan
        for got, expected in zip(products.call(contraction, p), call(reference, contraction, p), strict=True):
            assert got.isnan().any()
            assert torch.equal(got.isnan().cpu(), expected.isnan())


@each_contraction
@pytest.mark.parametrize("outside", ["zero", "clamp"])
def test_infinities_match_the_reference(products, contraction, outside):
    p = Problem.random(9, 4, 8, 6, knots="promised", outside=outside, base=None, dtype=BF16)
    p.x[3, 2], p.x[5, 1] = torch.inf, -torch.inf
    for got, expected in zip(products.call(contraction, p), call(reference, contraction, p), strict=True):
        assert expected.isfinite().all()
        torch.testing.assert_close(got.cpu(), expected, rtol=2e-2, atol=2e-2)


@each_contraction
def test_repeats_bit_for_bit(products, contraction):
    for processors in (FEW, MANY):
        products.processors(processors)
        p = Problem.random(300, 40, 24, 5, knots="promised", dtype=BF16)
        first, again = products.call(contraction, p), products.call(contraction, p)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


# Automatic choice between matrix products and gathering.
LARGE = {"rows": 66, "inputs": 2, "outputs": 136, "grid_size": 5, "knots": "promised", "dtype": BF16}
CHANGES = [
    ({}, "matrix"), ({"degree": 2, "grid_size": 54}, "matrix"), ({"dtype": HALF, "per_input": True}, "matrix"),
    ({"rows": 63}, "gather"), ({"outputs": 56}, "gather"), ({"outputs": 68}, "gather"), ({"order": 2}, "gather"),
    ({"knots": "even"}, "gather"), ({"degree": 1}, "gather"), ({"degree": 4}, "gather"), ({"dtype": SINGLE}, "gather"),
    ({"grid_size": 1}, "gather"), ({"grid_size": 54}, "gather"), ({"x_dtype": DOUBLE}, "gather"),
]  # fmt: skip


@each_contraction
@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=str)
def test_automatic_choice_of_matrix_products(products, monkeypatch, contraction, change, expected):
    monkeypatch.delenv(ALGORITHM)
    products.call(contraction, Problem.random(**{**LARGE, **change}))
    if expected == "matrix" and contraction == "kan_out":
        expected = products.best
    assert products.algorithm() == expected


def test_asking_never_falls_back(products, monkeypatch):
    p = Problem.random(**{**LARGE, "dtype": SINGLE})
    with pytest.raises(RuntimeError, match="they take float32 that may be rounded to tf32, float64 or 16 bits"):
        products.call("kan_out", p)
    products.call("edge_moments", p)  # there is one way
    monkeypatch.setenv(ALGORITHM, "gather")
    products.call("kan_out", Problem.random(**LARGE))
    assert products.algorithm() == "gather"
    monkeypatch.setenv(ALGORITHM, "dense")
    with pytest.raises(RuntimeError, match="FASTKAN_CUDA_ALGORITHM='dense': expected gather, matrix or wgmma"):
        products.call("kan_out", p)
