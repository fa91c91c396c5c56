"""Gaussians and Chebyshev polynomials in csrc/cuda on the emulated GPU, against the reference: several windows per x,
one after the other in the forward, in passes in the row walk.
"""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastkan import reference
from fastkan.functional import kan_linear
from fastkan.testing import CONTRACTIONS, assert_matches_reference, call
from support.calculus import derivatives
from support.emulated import BACKEND, FEW, MANY, native, processors, serve_native  # noqa: F401
from support.families import FEATURES, OUTSIDE_OF, drawn, family_problem  # noqa: F401
from support.family_tests import (  # noqa: F401
    test_gaussians_have_the_error_of_their_argument,
    test_native_far_from_the_grid,
    test_native_reads_any_strides_and_empty_batches,
)
from support.problems import BF16, DOUBLE, HALF, SINGLE

# Functions in one window, in several, more than are non-zero at an x in float32, and in float64.
FUNCTIONS = {"rbf": (1, 2, 6, 7, 20, 21, 56), "chebyshev": (1, 2, 6, 7, 13)}
SHAPES = ((1, 1, 1), (33, 5, 9), (40, 2, 136), (120, 3, 4))


@pytest.mark.parametrize("order", [0, 1, 2, 5])
@pytest.mark.parametrize("family", FEATURES)
def test_every_contraction_matches_the_reference(family, order):
    for p in drawn(family, order, FUNCTIONS[family], SHAPES):
        for contraction in CONTRACTIONS:
            assert_matches_reference(BACKEND, contraction, p)


@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_any_tiling(contraction, processors):  # noqa: F811
    @settings(
        max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        rows=st.integers(1, 300), inputs=st.integers(1, 9), outputs=st.integers(1, 40), functions=st.integers(1, 60),
        family=st.sampled_from(["rbf", "rbf", "chebyshev"]), per_input=st.booleans(),
        dtype=st.sampled_from([SINGLE, DOUBLE, BF16, HALF]), count=st.sampled_from([1, 2, 7, 40, 300]),
    )  # fmt: skip
    def check(rows, inputs, outputs, functions, family, per_input, dtype, count):
        processors(count)
        functions = functions if family == "rbf" else 1 + functions % 12  # few polynomials, as in practice
        p = family_problem(
            family, rows, inputs, outputs, functions=functions, per_input=per_input, weighted=True, dtype=dtype
        )
        assert_matches_reference(BACKEND, contraction, p)

    check()


# More rows than are sorted together, outputs than a warp has, functions than sort keys.
LARGE = {"rows": (600, 2, 8, 30), "outputs": (40, 2, 300, 24), "functions": (150, 1, 4, 270)}


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", [SINGLE, BF16], ids=str)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("shape", LARGE)
def test_large_in_one_direction(contraction, shape, dtype, processors):  # noqa: F811
    *shape, functions = LARGE[shape]
    p = family_problem("rbf", *shape, functions=functions, weighted=True, base="identity", dtype=dtype)
    for count in (FEW, MANY):
        processors(count)
        assert_matches_reference(BACKEND, contraction, p)


@pytest.mark.parametrize("family,functions", [("rbf", 40), ("chebyshev", 8)])
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_repeats_bit_for_bit(contraction, family, functions, processors):  # noqa: F811
    """The order in which threads run differs from run to run."""
    for count in (FEW, MANY):
        processors(count)
        p = family_problem(family, 130, 2, 33, functions=functions, weighted=True, dtype=SINGLE)
        first, again = call(BACKEND, contraction, p), call(BACKEND, contraction, p)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_rows_far_from_a_window_are_skipped():
    """Gaussians that are zero are not multiplied, not even by infinity."""
    p = family_problem("rbf", 64, 1, 3, functions=60, base=None, dtype=SINGLE)
    low = replace(p, x=p.x.clamp(max=-0.9), u=torch.full_like(p.u, torch.inf))
    (grad,) = call(BACKEND, "kan_coef", low)
    assert not grad[:, :20].isfinite().any() and not grad[:, 20:].any()


@pytest.mark.parametrize("family,functions", [("rbf", 6), ("rbf", 40), ("chebyshev", 8)])
def test_nans_match_the_reference(family, functions):
    for contraction, order in itertools.product(CONTRACTIONS, (0, 2)):
        p = family_problem(family, functions=functions, dtype=SINGLE, weighted=True, order=order)
        p.x[3, 2] = torch.nan
        for got, want in zip(call(BACKEND, contraction, p), call(reference, contraction, p), strict=True):
            assert got.isnan().any() and torch.equal(got.isnan(), want.isnan())


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE, BF16], ids=str)
def test_polynomials_at_the_ends_of_their_range(dtype):
    """Derivatives exist at the ends and are zero beyond."""
    p = family_problem("chebyshev", 6, 2, 3, functions=7, base=None, dtype=dtype)
    ends = torch.tensor([-1.0, 1.0, -1.0078125, 1.0078125, torch.inf, -torch.inf], dtype=dtype)
    grid = torch.linspace(-1, 1, 8, dtype=DOUBLE).expand(2, -1)
    p = replace(p, x=ends[:, None].expand(-1, 2).contiguous(), grid=grid)
    for order, contraction in itertools.product((0, 1, 3), CONTRACTIONS):
        for got, want in zip(
            call(BACKEND, contraction, replace(p, order=order)),
            call(reference, contraction, replace(p, order=order)),
            strict=True,
        ):
            assert want.isfinite().all()
            scale = float(want.abs().max() + 1)
            torch.testing.assert_close(got, want, rtol=0, atol=4 * scale * torch.finfo(dtype).eps)
    slopes = call(BACKEND, "kan_in", replace(p, order=1))[0]
    assert slopes[:2].all() and not slopes[2:].any()


@pytest.mark.parametrize("functions", [8, 1000, 20000])
def test_the_coordinate_is_exact_at_any_number_of_functions(functions):
    """The error of a float32 layer does not grow with it, nor with the distance of the grid from 0."""
    for far in (0.0, 100.0):
        p = family_problem("rbf", 300, 2, 4, functions=functions, base=None, with_bias=False, dtype=SINGLE)
        grid = torch.linspace(far - 1, far + 1, functions + 1, dtype=DOUBLE).expand(2, -1)
        p = replace(p, x=p.x + far, grid=grid, coef=torch.rand_like(p.coef) - 0.5)
        (found,), (expected,) = call(BACKEND, "kan_out", p), call(BACKEND, "kan_out", p.to(DOUBLE))
        assert float((found - expected).abs().max()) < 4e-6


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=str)
def test_edges_that_do_not_vary_have_no_variance(dtype):
    for family, functions in (("rbf", 8), ("rbf", 60), ("chebyshev", 5)):
        p = family_problem(family, 300, 3, 5, functions=functions, dtype=dtype)
        p.x[:] = 0.3
        assert_matches_reference(BACKEND, "edge_moments", p)
        assert not BACKEND.edge_moments(p.x, p.coef, p.base_weight, p.grid, p.spec)[2].any()


def test_edge_backward_with_optional_arguments():
    """Omitting u is the same as zeros; the gradient of x is optional."""
    p = family_problem("rbf", 40, 3, 5, functions=9)
    rest = (p.terms, p.coef, p.base_weight, p.grid, p.spec)
    whole = BACKEND.edge_backward(p.x, torch.zeros_like(p.u), *rest, True)
    torch.testing.assert_close(BACKEND.edge_backward(p.x, None, *rest, True), whole, rtol=0, atol=0)
    nothing, *found = BACKEND.edge_backward(p.x, None, *rest, False)
    assert nothing is None
    torch.testing.assert_close(found, list(whole[1:]), rtol=0, atol=0)


@pytest.mark.parametrize("family", FEATURES)
def test_derivatives_and_gradcheck(monkeypatch, family):
    """A layer's derivatives up to the third."""
    serve_native(monkeypatch)
    p = family_problem(family, 5, 2, 3, functions=8)
    tensors = {name: getattr(p, name).clone().requires_grad_() for name in ("x", "coef", "base_weight", "bias")}

    def layer(x, coef, base_weight, bias):
        return kan_linear(
            x, coef, p.grid, base_weight, bias, degree=0, outside=OUTSIDE_OF[family], uniform=True, family=family,
            backend="native",
        )  # fmt: skip

    def plain(x, coef, base_weight, bias):
        return reference.kan_out(x, None, coef, base_weight, bias, p.grid, p.spec, 0)

    for got, want in zip(derivatives(layer, tensors, 3), derivatives(plain, tensors, 3), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * float(want.abs().max() + 1))
