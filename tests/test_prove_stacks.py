"""The proof of stacks of layers: its bounds hold, bind, and follow from the layers'."""

import pytest
import torch

from fastkan import reference, stack
from fastkan.backends import native
from fastkan.kinds import ALL, matching
from fastkan.prove import accelerator, stacks
from fastkan.prove.stack_bounds import apart, bounds
from fastkan.stack import Layer
from fastkan.testing import Problem, absolute_errors, call

DTYPES = (torch.float32, torch.float64)
KINDS = [kind for kind in ALL if kind.family == "bspline" and kind.x == kind.coef in DTYPES and not kind.tf32]
(CUBIC,) = matching(["bspline-3-zero-uniform-float32"])
(CUBIC_DOUBLE,) = matching(["bspline-3-zero-uniform-float64"])


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k == CUBIC else pytest.mark.long) for k in KINDS], ids=str
)
def test_right_kernels_pass(kind):
    if native.ABSENT["cpu"]:
        pytest.skip(f"no compiled kernels: {native.ABSENT['cpu']}")
    for case in stacks.cases(kind):
        case.check(case.run(native, case.operands))
        case.check(tuple(stacks._by_layers(case.operands)), "layer by layer")


@pytest.mark.parametrize(("kind", "share"), [(CUBIC, 0.01), (CUBIC_DOUBLE, 1e-9)], ids=str)
def test_bounds_bind(kind, share):
    """Most bounds are a small part of the largest element, all of them a part."""
    pairs = [pair for case in stacks.cases(kind) for pair in zip(case.truth, case.allowed, strict=True)]
    parts = sorted(float(allowed.median() / true.abs().max()) for true, allowed in pairs if true.any())
    assert parts[len(parts) * 4 // 5] < share and parts[-1] < 10 * share


@pytest.mark.parametrize("result", range(4))
def test_an_error_in_one_element_is_found(result):
    case = stacks.cases(CUBIC_DOUBLE)[1]
    results = list(t.clone() for t in case.truth)
    case.check(tuple(results))
    results[result].view(-1)[-1] += 1e-6
    with pytest.raises(AssertionError, match=rf"^widths \(3, 6, 2\), 70 rows, 0 tangents: result {result}: 1 of "):
        case.check(tuple(results))


def test_of_one_layer_they_are_the_layers_own():
    p = Problem.random(40, 3, 5, 4, 3, knots="promised", with_bias=False)
    layer = Layer(p.coef, None, p.base_weight, None, p.grid, p.spec)
    found = bounds(p.x, (), p.u, (layer,))
    exact = p.to(torch.float64)
    expected = [
        band
        for contraction in ("kan_out", "kan_backward")
        for band in absolute_errors(contraction, p, call(reference, contraction, exact))
    ]
    for ours, of_layer in zip(found, expected, strict=True):
        assert ((0.5 < ours / of_layer) & (ours / of_layer < 2)).all(), (ours / of_layer).aminmax()


def test_the_error_of_a_node_moves_what_is_behind_it():
    """A node around 1000, so with a large error, on the steep splines of the next layer."""
    p = Problem.random(1, 1, 1, 1, 5, knots="promised", base=None, with_bias=False, dtype=torch.float64)
    steep = p.coef * torch.tensor([1e6, -1e6, 1e6, -1e6, 1e6, -1e6], dtype=torch.float64)[None, :, None]
    first = Layer(p.coef, None, None, torch.tensor([1000.0], dtype=torch.float64), p.grid, p.spec)
    back = Layer(steep, None, None, None, p.grid + 1000, p.spec)
    x = torch.zeros(1, 1, dtype=torch.float64)
    h = stack.layered(x, (), (first,), "reference")
    slope = float(reference.kan_out(h, None, back.coef, None, None, back.grid, back.spec, 1).abs())
    error = float(bounds(x, (), torch.ones_like(h), (first,))[0])
    assert float(bounds(x, (), torch.ones_like(h), (first, back))[0]) > 0.9 * slope * error


def test_nodes_on_knots_are_left_out():
    p = Problem.random(1, 1, 1, 4, 1, knots="promised", base=None, with_bias=False, dtype=torch.float64)
    x = torch.tensor([[0.1], [0.3]], dtype=torch.float64)
    h = stack.layered(x, (), (Layer(p.coef, None, None, None, p.grid, p.spec),), "reference")
    first = Layer(p.coef, None, None, p.grid[0, 2] - h[0], p.grid, p.spec)
    assert apart(x, (first, first)).tolist() == [False, True]
    assert apart(x, (first,)).tolist() == [True, True]


def test_every_stack_fits_a_block_of_a_gpu():
    """At the highest degree in float64."""
    largest = matching(["bspline-5-zero-knots-float64"])[0]
    for widths, rows, tangents, grid_size in (*stacks.SHAPES, (stacks.WIDTHS, accelerator.Cuda.load[0], 0, 5)):
        layers = stacks.random(largest, widths, 1, tangents, grid_size).layers
        assert stack.block_bytes(layers, tangents=tangents) <= stack.BLOCK_BYTES, widths
        assert rows <= stack.GPU_ROWS and tangents <= stack.MAX_GPU_TANGENTS


def test_every_result_has_a_bound():
    for case in stacks.cases(CUBIC):
        assert [t.shape for t in case.allowed] == [t.shape for t in case.truth]
        assert all((t > 0).all() and t.isfinite().all() for t in case.allowed)
