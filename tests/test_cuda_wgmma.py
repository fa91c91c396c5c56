"""The forward with wgmma on the emulated GPU: left operand in registers, right operand by descriptor."""

import pytest
import torch
from emulated import BACKEND, FEW, MANY, PROCESSORS, algorithm
from products import ALGORITHM, CASES, LARGE, Products
from test_ops import BRAIN, label, problem

from fastkan.testing import Problem

MAJOR = "FASTKAN_EMULATED_MAJOR"  # of the compute capability


def on_hopper(monkeypatch, requested: str) -> Products:
    monkeypatch.setenv(ALGORITHM, requested)
    monkeypatch.setenv(MAJOR, "9")
    return Products(
        BACKEND, "cpu", algorithm, asked=requested, best="wgmma",
        processors=lambda n: monkeypatch.setenv(PROCESSORS, str(n)),
    )  # fmt: skip


@pytest.fixture
def products(monkeypatch) -> Products:
    return on_hopper(monkeypatch, "wgmma")


@pytest.mark.parametrize("case", CASES, ids=label)
def test_is_the_reference(products, case):
    products.processors(FEW)
    products.check("kan_out", problem(case))


def test_repeats_bit_for_bit(products):
    """Also if inputs are split."""
    for processors in (FEW, MANY):
        products.processors(processors)
        p = Problem.random(70, 300, 24, 5, knots="promised", dtype=BRAIN)
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
