"""Tests of a compiled backend against the reference; a file that imports them defines the fixture `native`."""

import itertools

import pytest
import torch
from hypothesis import given

from fastkan import reference
from fastkan.basis.bspline import OUTSIDE
from fastkan.testing import CONTRACTIONS, KNOTS, Problem, assert_matches_reference, call
from support.problems import (
    BF16,
    CASES,
    DOUBLE,
    EMPTY,
    FACTORS,
    HALF,
    SINGLE,
    empty_problems,
    label,
    on_knots,
    problem_of,
)
from support.strides import QUICK, problems
from support.tiers import tiers


@pytest.mark.sweep
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("case", tiers(CASES, "degree", "order"), ids=label)
def test_native_matches_the_reference(native, contraction, case):
    assert_matches_reference(native, contraction, problem_of(case))


@pytest.mark.sweep
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", FACTORS["degree"])
def test_native_on_the_knots(native, contraction, degree, outside):
    """Knots exact in every dtype, x on each of them and beyond: this tests the knot span, not rounding."""
    for order in range(degree + 1):
        for dtype in (DOUBLE, SINGLE, BF16, HALF)[order % 2 :: 2]:
            for knots in ("promised", "even"):
                assert_matches_reference(native, contraction, on_knots(degree, order, outside, knots, dtype))


@pytest.mark.sweep
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", FACTORS["degree"])
def test_native_on_repeated_knots(native, contraction, degree, outside):
    for order in range(degree + 2):
        p = Problem.random(40, 3, 5, 6, degree, order=order, outside=outside, knots="uneven", dtype=DOUBLE)
        grid = p.grid.clone()
        grid[:, degree + 2] = grid[:, degree + 3]
        grid[:, :degree], grid[:, grid.shape[1] - degree :] = grid[:, degree, None], grid[:, -degree - 1, None]
        x = torch.cat([p.x, grid[:, degree : grid.shape[1] - degree].T])
        u, s = torch.randn(len(x), 5, dtype=DOUBLE), torch.randn(len(x), 3, dtype=DOUBLE)
        assert_matches_reference(native, contraction, Problem(**{**vars(p), "grid": grid, "x": x, "u": u, "s": s}))


@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_native_on_empty_tensors(native, contraction, shape):
    for p in empty_problems(shape):
        found, expected = call(native, contraction, p), call(reference, contraction, p)
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_native_nans_match_the_reference(native, contraction, outside):
    for order, knots, dtype in itertools.product((0, 1, 4), KNOTS, (DOUBLE, SINGLE, BF16)):
        p = Problem.random(9, 4, 5, 6, order=order, knots=knots, outside=outside, dtype=dtype, weighted=True)
        p.x[3, 2] = torch.nan
        for got, expected in zip(call(native, contraction, p), call(reference, contraction, p), strict=True):
            assert got.isnan().any()
            if contraction == "edge_backward" and got.dim() == 3:  # dense: 0 times the NaN of the sign
                got, expected = got[:, : p.spec.degree + 1], expected[:, : p.spec.degree + 1]
            assert torch.equal(got.isnan(), expected.isnan())


@pytest.mark.parametrize("outside", ["zero", "clamp"])
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_native_at_infinity_matches_the_reference(native, contraction, outside):
    for order, knots, dtype in itertools.product((0, 1, 4), KNOTS, (DOUBLE, SINGLE)):
        p = Problem.random(9, 4, 5, 6, order=order, knots=knots, outside=outside, dtype=dtype, base=None)
        p.x[3, 2], p.x[5, 1] = torch.inf, -torch.inf
        for got, expected in zip(call(native, contraction, p), call(reference, contraction, p), strict=True):
            assert expected.isfinite().all()
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("contraction", ["kan_out", "kan_coef"])
@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=str)
def test_native_silu_far_below_zero(native, contraction, dtype):
    """It is 0 there: x times a sigmoid that is 0, not the least number that the type holds."""
    p = Problem.random(9, 4, 5, 6, dtype=dtype)
    p.x[3, 2] = torch.finfo(dtype).min / 1000
    assert_matches_reference(native, contraction, p)


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=str)
@pytest.mark.parametrize("outputs", [2, 20])
def test_native_moments_of_nearly_constant_edges(native, outputs, dtype):
    """A large mean costs no digits of the variance, which is not computed as a difference of squares."""
    p = Problem.random(600, 3, outputs, 5, base=None, outside="clamp", dtype=dtype)
    p.coef.mul_(1e-2).add_(100.0)
    assert_matches_reference(native, "edge_moments", p)
    p.x[:] = 0.3
    assert not native.edge_moments(p.x, p.coef, None, p.grid, p.spec)[2].any()


@pytest.mark.parametrize("shape", [(40, 3, 2), (40, 3, 33)], ids=str)
@pytest.mark.parametrize("base", [None, "silu"])
def test_native_edge_backward_with_absent_arguments(native, shape, base):
    """No u means zeros; the gradient of x can be left out."""
    p = Problem.random(*shape, 5, base=base, dtype=DOUBLE)
    rest = (p.terms, p.coef, p.base_weight, p.grid, p.spec)
    whole = native.edge_backward(p.x, torch.zeros_like(p.u), *rest, True)
    torch.testing.assert_close(native.edge_backward(p.x, None, *rest, True), whole, rtol=0, atol=0)
    torch.testing.assert_close(reference.edge_backward(p.x, None, *rest, True), whole)
    for found in (native.edge_backward(p.x, None, *rest, False), reference.edge_backward(p.x, None, *rest, False)):
        assert found[0] is None
        torch.testing.assert_close(found[1:], whole[1:])


@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_native_takes_any_layout(native, contraction):
    @QUICK
    @given(problems())
    def check(p):
        if contraction == "edge_moments" and p.x.shape[0] == 0:
            assert all(t.isnan().all() for t in call(native, contraction, p))
        else:
            assert_matches_reference(native, contraction, p)

    check()
