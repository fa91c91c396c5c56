"""The dense backend: every contraction against the reference, in blocks of rows, without float64, and compiled."""

from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastkan import KANLinear, reference
from fastkan.backends import dense
from fastkan.basis.bspline import OUTSIDE
from fastkan.spec import Spec
from fastkan.testing import CONTRACTIONS, KNOTS, Problem, assert_matches_reference, call
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
    test_native_takes_any_layout,
)
from support.families import family_problem
from support.problems import BF16, DOUBLE, SINGLE


@pytest.fixture
def native():
    return dense


@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("family", ["rbf", "chebyshev"])
def test_other_families(family, contraction):
    for dtype in (DOUBLE, SINGLE, BF16):
        p = family_problem(family, 40, 3, 5, functions=9, weighted=True, dtype=dtype)
        assert_matches_reference(dense, contraction, p)


@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("grid_size", [5, 40])  # in closed form, and by windows
def test_blocks_of_rows(monkeypatch, contraction, grid_size):
    monkeypatch.setattr(dense, "CPU_BLOCK", 200)
    p = Problem.random(67, 3, 5, grid_size, knots="promised", weighted=True)
    assert_matches_reference(dense, contraction, p)


@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("grid_size", [5, 40])
def test_results_repeat_bit_for_bit(contraction, grid_size):
    p = Problem.random(300, 7, 5, grid_size, weighted=True)
    first = call(dense, contraction, p)
    for _ in range(5):
        assert all(map(torch.equal, first, call(dense, contraction, p)))


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("update", [False, True])
def test_derivatives(outside, update):
    layer = KANLinear(3, 2, dtype=DOUBLE, outside=outside, backend="dense")
    if update:
        layer.update_grid(torch.rand(50, 3, dtype=DOUBLE))
    x = (torch.rand(6, 3, dtype=DOUBLE) * 2.6 - 1.3).requires_grad_()
    assert gradcheck(layer, x) and gradgradcheck(layer, x)


class NoFloat64(TorchDispatchMode):
    """Raises where an operator reads or makes a float64 tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves((args, kwargs, result)):
            assert not isinstance(t, torch.Tensor) or t.dtype != DOUBLE, f"{func} has a float64 tensor"
        return result


@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("knots", KNOTS)
@pytest.mark.parametrize("grid_size", [5, 40])
def test_nothing_is_float64_if_no_operand_is(contraction, knots, grid_size):
    for dtype in (SINGLE, BF16):
        p = Problem.random(30, 3, 5, grid_size, knots=knots, weighted=True, dtype=dtype)
        p = replace(p, grid=p.grid.float())
        with NoFloat64():
            call(dense, contraction, p)
    p = Problem.random(30, 3, 5, grid_size, knots=knots)
    with pytest.raises(AssertionError, match="float64"), NoFloat64():
        call(reference, contraction, p)


def test_nothing_is_kept_for_the_backward_but_x_and_parameters():
    layer, x = KANLinear(8, 8, backend="dense"), torch.rand(2000, 8, requires_grad=True)
    known = {t.untyped_storage().data_ptr() for t in (x, layer.grid, *layer.parameters())}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    others = [t for t in kept if t.untyped_storage().data_ptr() not in known]
    assert kept and all(t.numel() <= layer.grid.numel() for t in others)


@pytest.mark.parametrize("knots", ["promised", "uneven"])
def test_compiled_it_is_one_graph(knots):
    torch._dynamo.reset()
    p = Problem.random(50, 3, 5, 5, knots=knots, weighted=False)
    spec = Spec(*p.spec)

    def forward(x):
        return dense.kan_out(x, None, p.coef, p.base_weight, p.bias, p.grid, spec, 0)

    compiled = torch.compile(forward, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (50, 20):
        torch.testing.assert_close(compiled(p.x[:rows]), forward(p.x[:rows]), rtol=1e-5, atol=1e-5)
