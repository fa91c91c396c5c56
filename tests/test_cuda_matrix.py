"""The matrix products of csrc/cuda on the emulated GPU, whose tensor cores follow the tables of the PTX ISA."""

import pytest
from emulated import BACKEND, PROCESSORS, algorithm
from products import (  # noqa: F401
    ALGORITHM,
    Products,
    test_a_nan_is_where_the_reference_has_it,
    test_asking_never_falls_back,
    test_at_infinity_is_the_reference,
    test_is_the_reference,
    test_many_rows_or_inputs,
    test_on_the_knots,
    test_repeats_bit_for_bit,
    test_the_cases_hold_every_value,
    test_the_slope_is_the_reference,
    test_what_takes_matrix_products,
)


@pytest.fixture
def products(monkeypatch) -> Products:
    monkeypatch.setenv(ALGORITHM, "matrix")
    return Products(BACKEND, "cpu", algorithm, processors=lambda n: monkeypatch.setenv(PROCESSORS, str(n)))
