"""The stack kernels of csrc/cuda on the emulated GPU, against the reference layer by layer."""

import pytest
import torch

from fastkan import stack
from fastkan.stack import layered, parts
from support.emulated import FEW, MANY, NAMESPACE, PROCESSORS
from support.stacks import layers, leaves, rows, weights

OPS = getattr(torch.ops, NAMESPACE)
DOUBLE = torch.float64


@pytest.fixture
def processors(monkeypatch):
    return lambda count: monkeypatch.setenv(PROCESSORS, str(count))


def operands(widths, number, tangents, seed, dtype=DOUBLE, **fixed):
    made = leaves(layers(widths, seed, dtype=dtype, **fixed))
    x, *along = (rows(number, widths[0], k, dtype).requires_grad_() for k in range(tangents + 1))
    u = torch.randn(number, widths[-1], generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)
    return made, x, along, u


def assert_is_the_reference(widths, number, tangents, seed, **fixed):
    made, x, along, u = operands(widths, number, tangents, seed, **fixed)
    expected = layered(x, along, made, "reference")
    by = [x, *along, *weights(made)]
    grads = torch.autograd.grad(expected, by, u, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        found = OPS.stack_out(x, along, *parts(made))
        found_grads = OPS.stack_backward(x, along, u, *parts(made), True, True, True)
    for got, want in zip([found, *found_grads], [expected, *grads], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10 * max(1.0, want.abs().max().item()))


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("tangents", [0, 1, 2])
@pytest.mark.parametrize("widths", [(1, 1, 1), (2, 5, 1), (4, 3, 7, 2), (2,) * 9], ids=str)
def test_matches_the_reference(widths, tangents, count, processors):
    """Mixed degrees, grids and bases; full and partial blocks, one block for all tiles or one per tile."""
    processors(count)
    for seed, number in enumerate((1, 37, 300)):
        assert_is_the_reference(widths, number, tangents, seed + 10 * tangents)


def test_one_input_at_a_time_where_no_more_fit(processors):
    """The widest network of its kind, and one of half its width."""
    processors(FEW)
    kind = {"degree": 3, "knots": "promised", "base": "silu", "with_bias": True}
    widest = max(n for n in range(1, 60) if stack.fits("cuda", layers((3, n, 1), **kind), 1))
    assert stack.block_bytes(layers((3, widest, 1), **kind)) > 0.95 * stack.BLOCK_BYTES
    for width in (widest, widest // 2):
        assert_is_the_reference((3, width, 1), 70, 2, 5, **kind)


def test_float32(processors):
    made, x, along, u = operands((3, 6, 2), 100, 1, 3, torch.float32, degree=3, knots="promised")
    exact, z, towards, v = operands((3, 6, 2), 100, 1, 3, degree=3, knots="promised")
    with torch.no_grad():
        for wide, thin in zip([z, *towards, v, *weights(exact)], [x, *along, u, *weights(made)], strict=True):
            wide.copy_(thin)
        found = OPS.stack_backward(x, along, u, *parts(made), True, True, True)
        truth = OPS.stack_backward(z, towards, v, *parts(exact), True, True, True)
    for got, want in zip(found, truth, strict=True):  # a node near a knot may be seen on either side of it
        off = (got.double() - want).abs() > 3000 * torch.finfo(torch.float32).eps * want.abs().max()
        assert off.double().mean() < 0.02


def test_repeats_bit_for_bit(processors):
    for count in (FEW, MANY):
        processors(count)
        made, x, along, u = operands((3, 6, 2), 300, 1, 0, torch.float32)
        with torch.no_grad():
            first, again = (OPS.stack_backward(x, along, u, *parts(made), True, True, True) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_requested_gradients_only():
    made, x, along, u = operands((3, 6, 2), 40, 2, 0)
    with torch.no_grad():
        every = OPS.stack_backward(x, along, u, *parts(made), True, True, True)
        inputs = OPS.stack_backward(x, along, u, *parts(made), True, False, False)
        own = OPS.stack_backward(x, along, u, *parts(made), False, False, True)
    for got, want in zip([*inputs, *own], [every[0], *every[3:]], strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_a_nan_stays_in_its_row():
    made, x, _, u = operands((3, 4, 2), 10, 0, 0)
    with torch.no_grad():
        x[4, 1] = torch.nan
        y = OPS.stack_out(x, [], *parts(made))
    assert y.isnan().any(1).tolist() == [n == 4 for n in range(10)]


def test_no_rows():
    made, x, _, u = operands((3, 4, 2), 0, 0, 0)
    with torch.no_grad():
        grads = OPS.stack_backward(x, [], u, *parts(made), True, True, True)
    assert all(not g.any() for g in grads)


def test_errors():
    made, x, along, _ = operands((3, 4, 2), 5, 3, 0)
    with torch.no_grad(), pytest.raises(RuntimeError, match="tangents: expected at most 2 on a GPU"):
        OPS.stack_out(x, along, *parts(made))
    made, x, *_ = operands((3, 200, 200), 5, 0, 0)
    with torch.no_grad(), pytest.raises(RuntimeError, match="the layers take .* shared memory of a GPU's block"):
        OPS.stack_out(x, [], *parts(made))
