"""On a GPU: every contraction of every backend against the reference on the same device; tolerances are derived."""

from dataclasses import replace

import pytest
import torch

from fastkan import reference, select
from fastkan.basis.bspline import OUTSIDE
from fastkan.testing import CONTRACTIONS, KNOTS, TF32, Problem, assert_matches_reference, call
from support.families import family_problem
from support.gpu import (
    BACKENDS,
    DEVICE,
    IS_GPU,
    OPERATORS,
    at_precision,
    each_algorithm,
    each_backend,
    on_gpu,
    pairwise,
)
from support.problems import BF16, DOUBLE, HALF, SINGLE, label, on_knots, operator_arguments, problem_of
from support.problems import FACTORS as FACTORS_OF_A_CPU
from support.strides import LAYOUTS, with_space_between_rows

pytestmark = pytest.mark.gpu

SHAPES = ((1, 1, 1), (3, 5, 7), (33, 17, 65), (70, 9, 130), (257, 3, 300), (300, 130, 270), (1500, 20, 40))
FACTORS = {
    **FACTORS_OF_A_CPU,
    "order": (0, 1, 2, 3),
    "shape": SHAPES if IS_GPU else SHAPES[:3],
    "grid_size": (1, 2, 5, 37, 200) if IS_GPU else (1, 2, 5, 20),
    "large": (False, True),
}
CASES = pairwise(FACTORS)
DTYPES = [DOUBLE, SINGLE, BF16, HALF]


def test_some_backend_serves_this_device():
    assert BACKENDS, {name: select.missing(name, DEVICE.type, (SINGLE,)) for name in OPERATORS}


def test_uninitialised_memory_is_poisoned():
    assert torch.empty(1000, device=DEVICE).isnan().all()
    assert torch.empty_strided((10, 10), (1, 10), dtype=DOUBLE, device=DEVICE).isnan().all()


@each_algorithm
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("case", CASES, ids=label)
def test_parity(backend, gather, contraction, case, plan):
    case = dict(case)
    plan(gather, case.pop("large"))
    assert_matches_reference(select.BACKENDS[backend], contraction, problem_of(case).on(DEVICE))


@each_algorithm
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("case", [c for c in CASES if c["dtypes"] == (SINGLE, SINGLE)], ids=label)
def test_parity_in_tf32(backend, gather, contraction, case, plan):
    case = dict(case)
    plan(gather, case.pop("large"))
    p = replace(problem_of(case).on(DEVICE), operand_epsilon=TF32)
    assert_matches_reference(at_precision(select.BACKENDS[backend], "high"), contraction, p)


@each_algorithm
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(4096, 1024, 512), (8192, 64, 512)] if IS_GPU else [(130, 20, 70)], ids=str)
@pytest.mark.parametrize("contraction", ["kan_out", "kan_backward"])
def test_parity_at_benchmark_sizes(backend, gather, contraction, shape, dtype, plan):
    plan(gather)
    p = Problem.random(*shape, 5, knots="promised", dtype=dtype).on(DEVICE)
    assert_matches_reference(select.BACKENDS[backend], contraction, p)


@each_algorithm
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("outside", OUTSIDE)
def test_on_the_knots(backend, gather, contraction, outside, plan):
    """Knots that every dtype holds, x on each of them and beyond: the interval, not the rounding, is tested."""
    plan(gather)
    for degree, dtype in zip((0, 1, 2, 3, 3, 5), (DOUBLE, SINGLE, BF16, HALF, SINGLE, SINGLE), strict=True):
        p = on_knots(degree, degree // 2, outside, KNOTS[degree % 2], dtype).on(DEVICE)
        assert_matches_reference(select.BACKENDS[backend], contraction, p)


@each_backend
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize(("family", "functions"), [("rbf", 8), ("rbf", 60), ("chebyshev", 6)])
def test_parity_of_other_families(backend, contraction, family, functions):
    shape = (700, 20, 72) if IS_GPU else (33, 3, 8)
    for order, dtype in ((0, SINGLE), (1, BF16), (2, DOUBLE)):
        p = family_problem(family, *shape, functions=functions, order=order, dtype=dtype, weighted=True, per_input=True)
        assert_matches_reference(select.BACKENDS[backend], contraction, p.on(DEVICE))


@each_backend
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4), (5, 3, 0), (0, 0, 0)], ids=str)
def test_empty_tensors(backend, contraction, shape):
    for base in (None, "silu"):
        p = Problem.random(*shape, 5, base=base, weighted=True).on(DEVICE)
        found, expected = call(select.BACKENDS[backend], contraction, p), call(reference, contraction, p)
        torch.testing.assert_close(found, expected, equal_nan=True)


@each_algorithm
@pytest.mark.parametrize("knots", KNOTS)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_nans_match_the_reference(backend, gather, contraction, knots, plan):
    plan(gather)
    for order, outside, dtype in ((0, "zero", SINGLE), (1, "linear", BF16), (0, "linear", DOUBLE), (3, "clamp", HALF)):
        p = Problem.random(9, 4, 5, 6, order=order, knots=knots, outside=outside, dtype=dtype, weighted=True)
        p.x[3, 2] = torch.nan
        p = p.on(DEVICE)
        for got, expected in zip(
            call(select.BACKENDS[backend], contraction, p), call(reference, contraction, p), strict=True
        ):
            assert got.isnan().any()
            if contraction == "edge_backward" and got.dim() == 3:  # dense: 0 times the NaN of the sign
                got, expected = got[:, : p.spec.degree + 1], expected[:, : p.spec.degree + 1]
            assert torch.equal(got.isnan(), expected.isnan())


@each_algorithm
@pytest.mark.parametrize("knots", KNOTS)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_infinities_match_the_reference(backend, gather, contraction, knots, plan):
    plan(gather)
    for order, outside in ((0, "zero"), (1, "clamp")):
        p = Problem.random(9, 4, 5, 6, order=order, knots=knots, outside=outside, base=None)
        p.x[3, 2], p.x[5, 1] = torch.inf, -torch.inf
        p = p.on(DEVICE)
        for got, expected in zip(
            call(select.BACKENDS[backend], contraction, p), call(reference, contraction, p), strict=True
        ):
            assert expected.isfinite().all()
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@each_algorithm
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: getattr(f, "__name__", str(f)))
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_any_layout(backend, gather, contraction, layout, plan):
    plan(gather)
    p = Problem.random(33, 5, 18, 6, per_input=True, weighted=True).on(DEVICE)
    # x keeps its values, which are away from the knots of its own column; a grid row's knots lie side by side
    kept = ("grid", *(("x",) if layout in LAYOUTS[4:] else ()))
    tensors = {k: layout(t) for k, t in vars(p).items() if isinstance(t, torch.Tensor) and k not in kept}
    p = replace(p, **tensors, grid=with_space_between_rows(p.grid))
    assert_matches_reference(select.BACKENDS[backend], contraction, p)


@each_algorithm
@pytest.mark.parametrize("dtype", [SINGLE, BF16, DOUBLE], ids=str)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_repeats_bit_for_bit(backend, gather, contraction, dtype, plan):
    """Few edges and many rows too, whose sums are split over the rows."""
    plan(gather)
    for shape in ((257, 3, 300), (5000, 2, 1), (3000, 40, 33)) if IS_GPU else ((70, 2, 1), (33, 5, 7)):
        for grid_size in (5, 50):
            p = Problem.random(*shape, grid_size, weighted=True, dtype=dtype).on(DEVICE)
            first, *others = (call(select.BACKENDS[backend], contraction, p) for _ in range(3))
            for other in others:
                assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@each_backend
@pytest.mark.parametrize("dtype", [DOUBLE, BF16], ids=str)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_opcheck(backend, contraction, dtype):
    op = getattr(getattr(torch.ops, OPERATORS[backend]), contraction).default
    for base, weighted in ((None, False), ("silu", True)):
        p = Problem.random(5, 3, 4, 6, base=base, weighted=weighted, dtype=dtype).on(DEVICE)
        torch.library.opcheck(op, operator_arguments(contraction, p))


@on_gpu
@pytest.mark.alone
@each_algorithm
def test_offsets_beyond_32_bits(backend, gather, plan):
    """The last rows of a problem with more than 2^31 elements equal a small problem."""
    if torch.cuda.mem_get_info(DEVICE)[0] < 60 << 30:
        pytest.skip("less than 60 GiB are free on this GPU")
    plan(gather)
    small = Problem.random(200, 64, 64, 5, knots="promised", dtype=BF16).on(DEVICE)
    rows = 2**31 // 64 + len(small.x)
    x, u = (torch.zeros(rows, 64, device=DEVICE, dtype=BF16) for _ in range(2))
    x[-200:], u[-200:] = small.x, small.u
    large = replace(small, x=x, u=u)
    for contraction in ("kan_out", "kan_in", "kan_coef"):
        found = call(select.BACKENDS[backend], contraction, large)
        expected = call(select.BACKENDS[backend], contraction, small)
        for got, want in zip(found, expected, strict=True):
            # u is zero in all other rows, which therefore add nothing to a gradient
            torch.testing.assert_close(got[-200:] if len(got) == rows else got, want, rtol=2e-2, atol=2e-2)
