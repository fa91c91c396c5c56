"""On a GPU: the matrix products of the CUDA backend, where the emulated GPU's tests left off."""

from dataclasses import replace

import pytest

from fastkan import select
from fastkan.testing import TF32, Problem, assert_matches_reference
from support.gpu import DEVICE, HAS_WGMMA, IS_GPU, at_precision, on_cuda
from support.matrix_product_tests import (  # noqa: F401
    ALGORITHM,
    CASES,
    CONTRACTIONS,
    MANY,
    Products,
    test_asking_never_falls_back,
    test_automatic_choice_of_matrix_products,
    test_infinities_match_the_reference,
    test_many_rows_or_inputs,
    test_nans_match_the_reference,
    test_on_the_knots,
    test_repeats_bit_for_bit,
    test_slopes_match_the_reference,
    test_the_cases_hold_every_value,
)
from support.problems import BF16, DOUBLE, HALF, label, problem_of

pytestmark = [pytest.mark.gpu, on_cuda]


@pytest.fixture(params=["matrix", "wgmma"])
def products(monkeypatch, request) -> Products:
    """The number of processors is fixed here: large tiles need large problems."""
    native, case = select.BACKENDS["native"], request.node.callspec.params
    if request.param == "wgmma" and not HAS_WGMMA:
        pytest.skip("wgmma needs sm_90")
    if request.param == "wgmma" and case.get("contraction") != "kan_out":
        pytest.skip("wgmma has kan_out alone")
    if case.get("processors") == MANY:
        pytest.skip("a GPU has as many processors as it has")
    monkeypatch.setenv(ALGORITHM, request.param)
    best = "wgmma" if HAS_WGMMA else "matrix"
    return Products(native, DEVICE, native.cuda_algorithm, asked=request.param, best=best)


# Rows and outputs: part of a tile, and many tiles.
SHAPES = ((70, 72), (4200, 1000) if IS_GPU else (140, 136))

# wgmma is for kan_out alone.
RUNS = [("wgmma", "kan_out"), *(("matrix", contraction) for contraction in CONTRACTIONS)]


@pytest.mark.parametrize(("products", "contraction"), RUNS, indirect=["products"])
@pytest.mark.parametrize("case", CASES, ids=label)
def test_matches_the_reference(products, contraction, case):
    products.check(contraction, problem_of(case))


@pytest.mark.parametrize("dtype", [BF16, HALF], ids=str)
@pytest.mark.parametrize("contraction", ["kan_out", "kan_backward"])
@pytest.mark.parametrize("case", [{}, {"per_input": True, "grid_size": 10}, {"degree": 2, "base": None}], ids=str)
def test_large_tiles(products, contraction, case, dtype):
    """Enough of them for 200 processors, none of them whole."""
    p = Problem.random(**{"rows": SHAPES[-1][0], "inputs": 72, "outputs": SHAPES[-1][1], "grid_size": 5,
                          "knots": "promised", **case, "dtype": dtype})  # fmt: skip
    products.check(contraction, p)


@pytest.mark.parametrize("dtype", [BF16, DOUBLE], ids=str)
@pytest.mark.parametrize("contraction", ["kan_out", "kan_backward"])
def test_tall(products, contraction, dtype):
    """Many rows for few coefficients: the sums over them are split."""
    if dtype == DOUBLE and products.asked == "wgmma":
        pytest.skip("wgmma has 16 bits alone")
    rows, inputs = (65536, 64) if IS_GPU else (300, 3)
    products.check(contraction, Problem.random(rows, inputs, 64, 5, knots="promised", dtype=dtype))


@pytest.mark.parametrize("case", [{}, {"per_input": True, "grid_size": 9}, {"degree": 2, "grid_size": 18}], ids=str)
def test_wgmma(monkeypatch, case):
    """Chunks that fill a step and that do not; persistent blocks with several tiles."""
    if not HAS_WGMMA:
        pytest.skip("wgmma needs sm_90")
    native = select.BACKENDS["native"]
    monkeypatch.setenv(ALGORITHM, "wgmma")
    for rows, outputs in SHAPES:
        p = Problem.random(**{"rows": rows, "inputs": 72, "outputs": outputs, "grid_size": 5, "knots": "promised",
                              "weighted": True, "dtype": BF16, **case})  # fmt: skip
        assert_matches_reference(native, "kan_out", p.on(DEVICE))
        assert native.cuda_algorithm() == "wgmma"


@pytest.mark.parametrize("contraction", ["kan_out", "kan_backward"])
@pytest.mark.parametrize("case", [{}, {"per_input": True, "grid_size": 9}, {"degree": 2, "grid_size": 18}], ids=str)
def test_tf32(contraction, case):
    backend = at_precision(select.BACKENDS["native"], "high")
    for rows, outputs in (70, 68), SHAPES[1]:
        p = Problem.random(**{"rows": rows, "inputs": 72, "outputs": outputs, "grid_size": 5, "knots": "promised",
                              "weighted": True, **case})  # fmt: skip
        assert_matches_reference(backend, contraction, replace(p.on(DEVICE), operand_epsilon=TF32))
        assert select.BACKENDS["native"].cuda_algorithm() == "matrix"


@pytest.mark.parametrize("contraction", ["kan_out", "kan_backward"])
@pytest.mark.parametrize("case", [{}, {"per_input": True, "grid_size": 13}, {"degree": 2, "grid_size": 9}], ids=str)
def test_float64(contraction, case, monkeypatch):
    monkeypatch.setenv(ALGORITHM, "matrix")
    for rows, outputs in (70, 66), SHAPES[1]:
        p = Problem.random(**{"rows": rows, "inputs": 72, "outputs": outputs, "grid_size": 5, "knots": "promised",
                              "weighted": True, "dtype": DOUBLE, **case})  # fmt: skip
        assert_matches_reference(select.BACKENDS["native"], contraction, p.on(DEVICE))
        assert select.BACKENDS["native"].cuda_algorithm() == "matrix"
