"""The warp-specialised forward with wgmma on the emulated GPU: ring buffer, barrier phases, tensor layouts, clusters.

Copies complete late and in random order; shared memory starts as NaN.
"""

import itertools
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastkan import reference
from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.testing import Problem, call
from support.emulated import FEW, MAJOR, MANY, algorithm, on_hopper
from support.matrix_product_tests import ALGORITHM, CASES, LARGE, Products
from support.problems import BF16, HALF, SINGLE, label, problem_of
from support.tiers import tiers


@pytest.fixture
def products(monkeypatch) -> Products:
    return on_hopper(monkeypatch)


@pytest.mark.parametrize("case", tiers(CASES, "grid_size", "shape"), ids=label)
def test_matches_the_reference(products, case):
    """Most of them with a number of functions that is no multiple of 4: without TMA."""
    products.processors(FEW)
    products.check("kan_out", problem_of(case))


# Chunks that fill a step and that do not; a part of a tile, half a tile, several tiles.
CROSSED = {
    "functions": (8, 12, 20, 28, 56), "degree": (2, 3), "shape": ((1, 1, 8), (140, 9, 72), (300, 21, 264)),
}  # fmt: skip
FACTORS = {
    "outside": OUTSIDE, "dtypes": ((BF16, BF16), (HALF, HALF), (SINGLE, BF16), (SINGLE, HALF)),
    "base": (None, *BASES), "per_input": (False, True), "weighted": (False, True), "with_bias": (False, True),
}  # fmt: skip


def cases() -> list[dict]:
    draw = random.Random(3)
    return [
        {"order": 0, "knots": "promised", "degree": degree, "grid_size": functions - degree, "shape": shape,
         **{name: draw.choice(values) for name, values in FACTORS.items()}}
        for functions, degree, shape in itertools.product(*CROSSED.values())
    ]  # fmt: skip


@pytest.mark.sweep
@pytest.mark.parametrize("case", cases(), ids=label)
@pytest.mark.parametrize("processors", [FEW, 2])
def test_matches_the_reference_by_tma(products, case, processors):
    """One block for all tiles, or a cluster of two: the ring buffer wraps around many times."""
    products.processors(processors)
    products.check("kan_out", problem_of(case))


def test_any_tiling(products):
    """Random shapes and GPU sizes: every output is written exactly once."""

    @settings(
        max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        rows=st.integers(1, 400), inputs=st.integers(1, 40), octets=st.integers(1, 66),
        grid_size=st.integers(3, 22), usual=st.booleans(), count=st.sampled_from([1, 2, 3]),
    )  # fmt: skip
    def check(rows, inputs, octets, grid_size, usual, count):
        products.processors(count)
        p = Problem.random(
            rows, inputs, 8 * octets, grid_size, knots="promised", outside="zero" if usual else "linear", dtype=BF16
        )
        products.check("kan_out", p)

    check()


@pytest.mark.parametrize("grid_size", [5, 6])
def test_repeats_bit_for_bit(products, grid_size):
    """In any order of arrival, also if inputs are split."""
    for processors in (FEW, 40, MANY):
        products.processors(processors)
        p = Problem.random(70, 300, 24, grid_size, knots="promised", dtype=BF16)
        products.check("kan_out", p)
        (first,), (again,) = products.call("kan_out", p), products.call("kan_out", p)
        assert torch.equal(first, again)


def test_strided_coefficients(products):
    """A view into a larger tensor, whose strides are in the tensor map; and one that TMA cannot copy."""
    p = Problem.random(70, 5, 64, 5, knots="promised", dtype=BF16)
    wide = torch.full((10, 12, 80), torch.nan, dtype=BF16)
    wide[::2, 2:10, 8:72] = p.coef
    products.check("kan_out", replace(p, coef=wide[::2, 2:10, 8:72]))
    products.check("kan_out", replace(p, coef=p.coef[:1].expand(5, -1, -1)))


@pytest.mark.parametrize("stride", [8, 9])
def test_strided_x(products, stride):
    """Rows of x that lie apart, in whole 16 bytes and not."""
    p = Problem.random(200, 40, 64, 5, knots="promised", dtype=BF16)
    wide = torch.full((200, 40 + stride), torch.nan, dtype=BF16)
    wide[:, :40] = p.x
    products.check("kan_out", replace(p, x=wide[:, :40]))


def test_nans_match_the_reference(products):
    for outside in OUTSIDE:
        p = Problem.random(270, 4, 8, 5, knots="promised", outside=outside, dtype=BF16)
        p.x[33, 2] = p.x[200, 0] = torch.nan
        (got,), (expected,) = products.call("kan_out", p), call(reference, "kan_out", p)
        assert torch.equal(got.isnan(), expected.isnan())


CHANGES = [
    ({"dtype": SINGLE}, "they take float32 that may be rounded to tf32, float64 or 16 bits"),
    ({"outputs": 68}, "they take outputs in whole 16 bytes"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=str)
def test_requests_never_fall_back(products, change, message):
    with pytest.raises(RuntimeError, match=message):
        products.call("kan_out", Problem.random(**{**LARGE, **change}))


@pytest.mark.parametrize(("major", "expected"), [("8", "matrix"), ("9", "wgmma"), ("10", "matrix"), ("12", "matrix")])
def test_when_it_is_chosen(products, monkeypatch, major, expected):
    monkeypatch.setenv(MAJOR, major)
    if expected == "matrix":
        with pytest.raises(RuntimeError, match="they take a GPU of sm_90"):
            products.call("kan_out", Problem.random(**LARGE))
    monkeypatch.delenv(ALGORITHM)
    for change in ({}, {"rows": 64}, {"outputs": 128}):  # where its tiles would be half empty, those of mma
        products.call("kan_out", Problem.random(**{**LARGE, **change}))
        assert algorithm() == ("matrix" if change else expected)
    products.call("kan_backward", Problem.random(**LARGE))
    assert algorithm() == "matrix"
