"""Every kernel of csrc/cuda against the reference, thread by thread: arithmetic, tiling, order of sums, barriers.

No GPU is needed. The tests of support/contraction_tests.py run here as they do for the CPU's kernels.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from fastkan import select
from fastkan.basis.bspline import OUTSIDE
from fastkan.testing import CONTRACTIONS, KNOTS, Problem, assert_matches_reference, call
from support.calculus import arguments, derivatives, layer, plain, small_problem
from support.contraction_tests import (  # noqa: F401
    test_native_at_infinity_matches_the_reference,
    test_native_edge_backward_with_absent_arguments,
    test_native_matches_the_reference,
    test_native_moments_of_nearly_constant_edges,
    test_native_nans_match_the_reference,
    test_native_on_empty_tensors,
    test_native_on_repeated_knots,
    test_native_on_the_knots,
    test_native_silu_far_below_zero,
)
from support.contraction_tests import test_native_takes_any_layout as test_any_layout  # noqa: F401
from support.emulated import BACKEND, FEW, MANY, NAMESPACE, native, processors  # noqa: F401
from support.problems import BF16, DOUBLE, HALF, SINGLE  # noqa: F401


def test_native_is_the_emulated_gpu(native):  # noqa: F811
    assert native is BACKEND


@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_any_tiling(contraction, processors):  # noqa: F811
    """Random shapes and GPU sizes: every output is written exactly once."""

    @settings(
        max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        rows=st.integers(1, 300), inputs=st.integers(1, 9), outputs=st.integers(1, 70), grid_size=st.integers(1, 60),
        degree=st.integers(0, 5), knots=st.sampled_from(KNOTS), per_input=st.booleans(),
        dtype=st.sampled_from([SINGLE, DOUBLE, BF16, HALF]), count=st.sampled_from([1, 2, 7, 40, 300]),
    )  # fmt: skip
    def check(rows, inputs, outputs, grid_size, degree, knots, per_input, dtype, count):
        processors(count)
        p = Problem.random(
            rows, inputs, outputs, grid_size, degree, knots=knots, per_input=per_input, weighted=True, dtype=dtype
        )
        assert_matches_reference(BACKEND, contraction, p)

    check()


# More rows than are sorted together, outputs than a warp has, functions than a range, inputs than a block.
LARGE = {"rows": (1500, 3, 8, 5), "outputs": (40, 2, 530, 6), "functions": (700, 2, 4, 600), "inputs": (9, 150, 12, 5)}


@pytest.mark.parametrize("dtype", [SINGLE, BF16, DOUBLE], ids=str)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("shape", LARGE)
def test_large_in_one_direction(contraction, shape, dtype, processors):  # noqa: F811
    base = "identity" if shape == "functions" else "silu"  # in 16 bits that grid is wide, and silu's tail below 1e-38
    for count in (FEW, MANY):
        processors(count)
        p = Problem.random(*LARGE[shape], weighted=True, base=base, dtype=dtype)
        assert_matches_reference(BACKEND, contraction, p)


@pytest.mark.parametrize("dtype", [SINGLE, BF16, DOUBLE], ids=str)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_all_rows_in_one_window(contraction, dtype, processors):  # noqa: F811
    """All rows in one window; the gradients of the others are written, too."""
    for count in (FEW, MANY):
        processors(count)
        p = Problem.random(700, 2, 9, 40, dtype=dtype)
        p = replace(p, x=torch.full_like(p.x, 0.303) + 1e-3 * torch.rand(p.x.shape).to(p.x.dtype))
        assert_matches_reference(BACKEND, contraction, p)


@pytest.mark.parametrize("dtype", [SINGLE, BF16, DOUBLE], ids=str)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_repeats_bit_for_bit(contraction, dtype, processors):  # noqa: F811
    """The order in which threads run differs from run to run."""
    for count in (FEW, MANY):
        processors(count)
        p = Problem.random(300, 3, 33, 50, weighted=True, dtype=dtype)
        first, again = call(BACKEND, contraction, p), call(BACKEND, contraction, p)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("outputs", [1, 4, 8])
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_unaligned_rows(contraction, outputs):
    """16 bytes at a time and one by one: the order of sums is the same."""
    p = Problem.random(90, 5, outputs, 6, weighted=True)
    unaligned = {
        name: torch.empty(t.numel() + 1)[1:].view(t.shape).copy_(t)
        for name, t in vars(p).items()
        if isinstance(t, torch.Tensor) and name != "grid"
    }
    for got, want in zip(
        call(BACKEND, contraction, replace(p, **unaligned)), call(BACKEND, contraction, p), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("knots", KNOTS)
def test_derivatives_and_gradcheck(monkeypatch, outside, knots):
    monkeypatch.setitem(select.BACKENDS, "native", BACKEND)
    p = small_problem(outside=outside, knots=knots)
    tensors = arguments(p, scaled=True)
    run = layer(p, tensors, "native")
    assert gradcheck(run, tuple(tensors.values()), check_forward_ad=True)
    expected = derivatives(plain(p, tensors), tensors, 3)
    for got, want in zip(derivatives(run, tensors, 3), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * float(want.abs().max() + 1))


@pytest.mark.parametrize("grid_size", [5, 1000, 20000])
def test_the_coordinate_is_exact_at_any_grid_size(grid_size):
    """The error of a float32 layer does not grow with the grid."""
    p = Problem.random(300, 2, 4, grid_size, knots="promised", base=None)
    p = replace(p, coef=torch.rand_like(p.coef) - 0.5)
    (found,), (expected,) = call(BACKEND, "kan_out", p), call(BACKEND, "kan_out", p.to(DOUBLE))
    assert float((found - expected).abs().max()) < 4e-6


@pytest.mark.parametrize("contraction", ["kan_in", "kan_coef", "kan_backward"])
@pytest.mark.parametrize("layout", ["expanded", "transposed", "unaligned"])
def test_cotangents_in_any_layout_take_the_fast_kernels(monkeypatch, contraction, layout):
    """They are copied once. That of a sum, `y.sum().backward()`, is one number in all places."""
    monkeypatch.setenv("FASTKAN_CUDA_ALGORITHM", "")
    p = Problem.random(64, 3, 64, 5, knots="promised", dtype=BF16)
    u = {
        "expanded": p.u[:1, :1].expand(p.u.shape),
        "transposed": p.u.t().contiguous().t(),
        "unaligned": torch.empty(p.u.numel() + 1, dtype=BF16)[1:].view(p.u.shape).copy_(p.u),
    }[layout]
    assert_matches_reference(BACKEND, contraction, replace(p, u=u))
    assert BACKEND.cuda_algorithm() == "matrix"


def test_a_launch_that_fails_leaves_no_error_behind(monkeypatch):
    """Torch would report it for the next kernel that it launches itself; the emulator does for ours."""
    p = Problem.random(5, 3, 4, 6)
    monkeypatch.setenv("FASTKAN_EMULATED_REFUSES", "1")
    with pytest.raises(RuntimeError, match="kan_out: emulated"):
        call(BACKEND, "kan_out", p)
    monkeypatch.delenv("FASTKAN_EMULATED_REFUSES")
    assert_matches_reference(BACKEND, "kan_out", p)


def test_argument_errors():
    op = getattr(torch.ops, NAMESPACE).kan_out
    x, coef, grid = torch.zeros(4, 3), torch.zeros(3, 8, 2), torch.zeros(3, 12, dtype=DOUBLE)
    spec = (3, 0, 0, True, 0, 0)
    with pytest.raises(RuntimeError, match=r"s has shape \[4, 2\]: expected \[4, 3\]"):
        op(x, torch.zeros(4, 2), coef, None, None, grid, *spec)
    with pytest.raises(RuntimeError, match="coef has an unsupported dtype"):
        op(x, None, coef.to(torch.int32), None, None, grid, *spec)
    with pytest.raises(RuntimeError, match="degree=6: expected 0 to 5"):
        op(x, None, coef, None, None, grid, 6, *spec[1:])
