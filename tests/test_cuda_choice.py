"""When a network on a GPU runs as one fused call: decided by shapes, never by values, and only for proven architectures
or by request. The kernels run on the emulated GPU.
"""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastkan import functional, select, stack
from fastkan.backends import native
from fastkan.network import stacked
from fastkan.spec import Spec
from fastkan.stack import Layer, layered, parts, stack_out
from support.backends import proven
from support.emulated import BACKEND, NAMESPACE
from support.networks import assert_same, data, in_turn, network, sequence
from support.stacks import burgers, layers, leaves, nested, rows, smooth, weights

OPS = getattr(torch.ops, NAMESPACE)


@pytest.fixture
def calls(by_python, monkeypatch) -> dict[str, int]:
    """Runs the emulated GPU's operators in place of the CPU's, and counts their calls."""
    counted = dict.fromkeys(("stack_out", "stack_backward", "kan_out", "kan_in", "kan_coef", "kan_backward"), 0)

    def counting(name, operator):
        def call(*args):
            counted[name] += 1
            return operator(*args)

        return call

    for name in counted:
        operator = getattr(OPS if name.startswith("stack") else BACKEND, name)
        monkeypatch.setattr(BACKEND, name, counting(name, operator), raising=False)
    fits = stack.fits
    monkeypatch.setattr(stack, "fits", lambda device, *args: fits("cuda", *args))
    monkeypatch.setattr(stack, "MAX_TANGENTS", stack.MAX_GPU_TANGENTS)
    monkeypatch.setattr(stacked, "_on_cpu", lambda model: False)
    monkeypatch.setitem(select.BACKENDS, "native", BACKEND)
    return counted


def ran_layer_by_layer(calls: dict[str, int]) -> bool:
    return any(count for name, count in calls.items() if name.startswith("kan"))


def test_networks_run_in_one_call(calls):
    """Same values, and gradients of a loss of values and slopes, as layer by layer."""
    for model, apart in (
        (m := sequence(), lambda x: nn.Sequential.forward(m, x)),
        (k := network(), lambda x: in_turn(k, x)),
    ):
        model(data())
        assert calls["stack_out"] and not ran_layer_by_layer(calls)
        assert_same(model, apart, data(), rtol=1e-9, atol=1e-9)
        calls.update(dict.fromkeys(calls, 0))


def test_second_derivatives_in_a_loss_stay_fused(calls):
    made = leaves(smooth((2, 6, 1)))
    x = rows(40, 2).requires_grad_()
    found = torch.autograd.grad(burgers(lambda x: stack_out(x, made, "native"), x), [x, *weights(made)])
    assert calls["stack_backward"] and not ran_layer_by_layer(calls)
    expected = torch.autograd.grad(burgers(lambda x: layered(x, (), made, "reference"), x), [x, *weights(made)])
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("depth", [3, 4])
def test_higher_derivatives_go_layer_by_layer(calls, depth):
    made = leaves(smooth((2, 4, 1)))
    x = rows(10, 2).requires_grad_()
    found = nested(lambda x: stack_out(x, made, "native"), x, weights(made), depth, by_weights=False)
    assert ran_layer_by_layer(calls) == (depth > stack.MAX_GPU_TANGENTS + 1)
    expected = nested(lambda x: layered(x, (), made, "reference"), x, weights(made), depth, by_weights=False)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10 * max(1.0, want.abs().max().item()))


# By shapes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("widths", [(4, 400, 3), (3, 40, 40, 2), (30, 30, 30), (1, 1, 900)], ids=str)
def test_size_limit_matches_the_kernels(widths, dtype, monkeypatch):
    """The size in Python is the size in the kernels' error message."""
    made = layers(widths, dtype=dtype, degree=3)
    x = rows(1, widths[0], dtype=dtype)
    u, needed = rows(1, widths[-1], dtype=dtype), stack.block_bytes(made)
    args = x, [x, x], u, *parts(made), True, True, True
    assert stack.fits("cuda", made, 1) == (needed <= stack.BLOCK_BYTES)
    if needed <= stack.BLOCK_BYTES:
        OPS.stack_backward(*args)
    else:
        with pytest.raises(RuntimeError, match=f"the layers take {needed} bytes of .*: expected at most 98304"):
            OPS.stack_backward(*args)


def test_largest_stack_that_fits_a_block():
    """The largest network that fits runs; the next larger one does not."""
    sizes = [n for n in range(1, 400) if stack.fits("cuda", layers((3, n, 1), dtype=torch.float32, **SAME), 1)]
    assert sizes == list(range(1, len(sizes) + 1)) and len(sizes) > 40
    for n in (len(sizes), len(sizes) + 1):
        made = layers((3, n, 1), dtype=torch.float32, **SAME)
        x = rows(1, 3, dtype=torch.float32)
        run = lambda m=made, x=x: OPS.stack_backward(x, [x, x], x[:, :1], *parts(m), True, True, True)  # noqa: E731
        if n == len(sizes):
            run()
        else:
            with pytest.raises(RuntimeError, match="the layers take"):
                run()


SAME = {"degree": 3, "knots": "promised", "base": "silu", "with_bias": True}


def test_many_rows_run_layer_by_layer(calls):
    made = layers((3, 4, 2))
    assert functional.stack_backend(rows(stack.GPU_ROWS, 3), made, None) == "native"
    assert functional.stack_backend(rows(stack.GPU_ROWS + 1, 3), made, None) is None


# By what is proven

SPEC = Spec.of(3, "silu", "zero", True)


@pytest.fixture
def gpu(monkeypatch):
    """Fake tensors on a GPU, with compiled kernels reported as available."""
    monkeypatch.setattr(native, "missing", lambda *args: None)
    shapes = [[None if t is None else t.shape for t in m[:5]] for m in layers((3, 4, 2))]
    with FakeTensorMode():
        there = [[None if shape is None else torch.empty(shape, device="cuda") for shape in own] for own in shapes]
        yield torch.empty(20, 3, device="cuda"), [Layer(*own, SPEC) for own in there]


def test_unproven_kernels_run_only_by_name(gpu):
    x, made = gpu
    assert functional.stack_backend(x, made, None) is None
    assert functional.stack_backend(x, made, "native") == "native"
    with select.use_backend("native"):
        assert functional.stack_backend(x, made, None) == "native"
    with proven("native:stack"):
        assert functional.stack_backend(x, made, None) is not None
    assert functional.stack_backend(x, made, "reference") is None


# Without values


@pytest.fixture
def looks(calls, monkeypatch) -> list:
    """Records each time the values of the nodes' affine maps are read."""
    seen, read = [], stacked._are_identities

    def identities(modules):
        seen.append(modules)
        return read(modules)

    monkeypatch.setattr(stacked, "_are_identities", identities)
    return seen


def test_nodes_are_read_once(looks, calls):
    model = network()
    for _ in range(3):
        model(data()).sum().backward()
    assert len(looks) == 1 and calls["stack_out"] == 3


def changes():
    def in_place(model):
        with torch.no_grad():
            model._modules["node_scale"][0][0] = 2.0

    def behind_the_version(model):
        model.node_bias[1].data[0] = 1.0

    def replaced(model):
        model._modules["subnode_bias"][0] = nn.Parameter(torch.ones(5, dtype=torch.float64), requires_grad=False)

    def loaded(model):
        state = model.state_dict()
        model.load_state_dict({**state, "subnode_scale.1": state["subnode_scale.1"] * 2})

    def trained(model):
        model._modules["node_scale"][0].requires_grad_()

    return [in_place, behind_the_version, replaced, loaded, trained]


@pytest.mark.parametrize("change", changes(), ids=lambda f: f.__name__)
def test_changed_nodes_take_effect(looks, calls, change):
    model = network()
    model(data())
    change(model)
    calls.update(dict.fromkeys(calls, 0))
    torch.testing.assert_close(model(data()), in_turn(model, data()), rtol=0, atol=0)
    assert not calls["stack_out"]


def test_nodes_are_read_once_layer_by_layer_too(looks):
    model = network()
    with torch.no_grad():
        model.node_scale[0][0] = 2.0
    for _ in range(3):
        model(data())
    assert len(looks) == 1


def test_copy_reads_its_own_nodes(looks, calls):
    """A copy's parameters have version counters of their own."""
    model = network()
    model(data())
    with torch.no_grad():
        scale = model._modules["node_scale"][0]
        scale[0] = 2.0
    for made in (copy.deepcopy(model), model.copy()):
        torch.testing.assert_close(made(data()), in_turn(model, data()), rtol=0, atol=0)
