"""The forward with wgmma on the emulated GPU: left operand in registers, right operand by descriptor."""

import pytest
import torch

from fastkan.testing import Problem
from support.emulated import FEW, MAJOR, MANY, algorithm, on_hopper
from support.matrix_product_tests import ALGORITHM, CASES, LARGE, Products
from support.problems import BF16, label, problem_of
from support.tiers import tiers


@pytest.fixture
def products(monkeypatch) -> Products:
    return on_hopper(monkeypatch, "wgmma")


@pytest.mark.parametrize("case", tiers(CASES, "grid_size", "shape"), ids=label)
def test_matches_the_reference(products, case):
    products.processors(FEW)
    products.check("kan_out", problem_of(case))


def test_repeats_bit_for_bit(products):
    """Also if inputs are split."""
    for processors in (FEW, MANY):
        products.processors(processors)
        p = Problem.random(70, 300, 24, 5, knots="promised", dtype=BF16)
        products.check("kan_out", p)
        (first,), (again,) = products.call("kan_out", p), products.call("kan_out", p)
        assert torch.equal(first, again)


@pytest.mark.parametrize(("major", "expected"), [("8", "matrix"), ("9", "wgmma"), ("10", "matrix"), ("12", "matrix")])
def test_when_it_is_chosen(products, monkeypatch, major, expected):
    monkeypatch.setenv(MAJOR, major)
    if expected == "matrix":
        with pytest.raises(RuntimeError, match="they take a GPU of sm_90"):
            products.call("kan_out", Problem.random(**LARGE))
    monkeypatch.delenv(ALGORITHM)
    products.call("kan_out", Problem.random(**LARGE))
    assert algorithm() == expected
    products.call("kan_backward", Problem.random(**LARGE))
    assert algorithm() == "matrix"
