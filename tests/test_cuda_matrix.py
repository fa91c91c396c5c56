"""The matrix kernels of csrc/cuda on the emulated GPU, whose tensor cores follow the PTX ISA."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastkan.testing import Problem
from support.emulated import BACKEND, PROCESSORS, algorithm
from support.matrix_product_tests import (  # noqa: F401
    ALGORITHM,
    CONTRACTIONS,
    Products,
    test_asking_never_falls_back,
    test_automatic_choice_of_matrix_products,
    test_infinities_match_the_reference,
    test_many_rows_or_inputs,
    test_matches_the_reference,
    test_nans_match_the_reference,
    test_on_the_knots,
    test_repeats_bit_for_bit,
    test_slopes_match_the_reference,
    test_the_cases_hold_every_value,
)
from support.problems import BF16, HALF


@pytest.fixture
def products(monkeypatch) -> Products:
    monkeypatch.setenv(ALGORITHM, "matrix")
    return Products(BACKEND, "cpu", algorithm, processors=lambda n: monkeypatch.setenv(PROCESSORS, str(n)))


@pytest.mark.parametrize("name", ["coef", "base_weight"])
def test_inputs_too_far_apart(products, name):
    """Kernels count the distance between inputs of a step in 32 bits."""
    p = Problem.random(66, 2, 136, 5, knots="promised", dtype=BF16)
    weights = getattr(p, name)
    strides = 1 << 25, *weights.stride()[1:]
    far = torch.empty(strides[0] + weights[0].numel(), dtype=BF16).as_strided(weights.shape, strides)
    with pytest.raises(RuntimeError, match=r"they take inputs within 2\^25 elements"):
        products.call("kan_out", replace(p, **{name: far}))


@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_any_tiling(products, contraction):
    """Random shapes and GPU sizes: every output is written exactly once."""

    @settings(
        max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        rows=st.integers(1, 280), inputs=st.integers(1, 20), octets=st.integers(1, 18), grid_size=st.integers(3, 40),
        degree=st.integers(2, 3), per_input=st.booleans(), dtype=st.sampled_from([BF16, HALF]),
        count=st.sampled_from([1, 2, 7, 40, 300]),
    )  # fmt: skip
    def check(rows, inputs, octets, grid_size, degree, per_input, dtype, count):
        products.processors(count)
        p = Problem.random(
            rows,
            inputs,
            8 * octets,
            grid_size,
            degree,
            knots="promised",
            per_input=per_input,
            weighted=True,
            dtype=dtype,
        )
        products.check(contraction, p)

    check()
