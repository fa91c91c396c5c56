"""Layers and stacks in C++ (fastkan.direct) against the same calls by Python: values, gradients, which are served."""

import itertools
import threading

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastkan import KANLinear, direct, functional
from fastkan.nn import KANSequential
from support.networks import data, sequence

LAYERS = {
    "plain": {},
    "bias": {"bias": True},
    "edge scales": {"enable_standalone_scale_spline": True, "bias": True},
    "no base function": {"base_activation": None, "spline_order": 2},
    "uneven knots": {"grid_size": 7, "outside": "linear", "spline_order": 1},
    "gaussians": {"family": "rbf"},
}


@pytest.fixture(autouse=True)
def in_cpp(native) -> None:
    if direct.ABSENT:
        pytest.skip(direct.ABSENT)


def layer(name: str, dtype: torch.dtype = torch.float64) -> KANLinear:
    torch.manual_seed(0)
    made = KANLinear(3, 4, **LAYERS[name], dtype=dtype)
    if name == "uneven knots":
        made.update_grid(torch.randn(50, 3))
    return made


def counted(monkeypatch) -> list[bool]:
    """Whether each call was served in C++."""
    served = []
    for name in ("kan_out", "stack_out"):
        run = getattr(direct, name)

        def call(*args, run=run):
            y = run(*args)
            served.append(y is not None)
            return y

        monkeypatch.setattr(direct, name, call)
    return served


def results(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The value, and the gradients by x and the parameters that require one."""
    y = model(x)
    by = [t for t in (x, *model.parameters()) if t.requires_grad]
    return [y, *torch.autograd.grad(y.square().sum(), by)] if by else [y]


def by_python(monkeypatch, run, *args):
    with monkeypatch.context() as patched:
        patched.setattr(direct, "kan_out", None)
        patched.setattr(direct, "stack_out", None)
        return run(*args)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_is_the_same_as_by_python(name, dtype, monkeypatch):
    model = layer(name, dtype)
    for shape in (3,), (6, 3), (2, 5, 3), (0, 3):
        x = torch.randn(shape).to(dtype).requires_grad_()
        expected = by_python(monkeypatch, results, model, x)
        with monkeypatch.context() as patched:
            served = counted(patched)
            found = results(model, x)
        assert served == [True]
        for got, want in zip(found, expected, strict=True):
            assert torch.equal(got, want) and got.stride() == want.stride()


def test_every_choice_of_gradients(monkeypatch):
    model = layer("edge scales")
    tensors = list(model.parameters())
    x = torch.randn(5, 3, dtype=torch.float64)
    for wanted in itertools.product([False, True], repeat=5):
        for t, flag in zip((x, *tensors), wanted, strict=True):
            t.requires_grad_(flag)
        expected = by_python(monkeypatch, results, model, x)
        for got, want in zip(results(model, x), expected, strict=True):
            assert torch.equal(got, want)
        assert model(x).requires_grad is any(wanted)


def test_derivatives_of_the_gradients():
    model = layer("edge scales")
    tensors = [t.detach().requires_grad_() for t in (torch.randn(4, 3, dtype=torch.float64), *model.parameters())]
    names = [name for name, _ in model.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), x)

    assert torch.autograd.gradcheck(run, tensors) and torch.autograd.gradgradcheck(run, tensors)
    stacked = sequence({"bias": True}, {"enable_standalone_scale_spline": True}, {})
    x = data(4).requires_grad_()
    assert torch.autograd.gradgradcheck(stacked, x)


def test_stacks(monkeypatch):
    model = sequence({"bias": True}, {"base_activation": None}, {"enable_standalone_scale_spline": True})
    parameters = list(model.parameters())
    for frozen in ((), parameters[:2], parameters):
        for t in parameters:
            t.requires_grad_(all(t is not f for f in frozen))
        for x in data(), data()[0], data().view(5, 8, 3).requires_grad_(), data()[:0].requires_grad_():
            expected = by_python(monkeypatch, results, model, x)
            with monkeypatch.context() as patched:
                served = counted(patched)
                found = results(model, x)
            assert served == [True]
            for got, want in zip(found, expected, strict=True):
                assert torch.equal(got, want)


class Marked(torch.Tensor):
    pass


@pytest.mark.parametrize("model", [layer("plain"), KANSequential(*sequence()[:2])], ids=["layer", "stack"])
def test_other_calls_are_by_python(model, monkeypatch):
    """Transforms, tracers, modes, subclasses and lazy tensors, in the forward and in the backward alone."""
    served = counted(monkeypatch)
    x = data(4).requires_grad_()
    torch.func.vmap(model)(x)
    torch.func.jvp(model, (x,), (x,))
    torch.func.grad(lambda x: model(x).sum())(x)
    with torch.autograd.forward_ad.dual_level():
        model(torch.autograd.forward_ad.make_dual(x.detach(), x.detach()))
    with torch.autograd.profiler.profile():
        model(x)
    with torch.device("cpu"):  # a mode of torch functions
        model(x)
    with FlopCounterMode(display=False):
        model(x)
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
    model(x.detach().as_subclass(Marked))
    model(torch.imag(torch.randn(4, 3, dtype=torch.complex128).conj()))
    assert not any(served)
    y = model(x)
    assert served[-1]
    u = torch.randn(3, *y.shape, dtype=y.dtype)
    (batch,) = torch.autograd.grad(y, x, u, is_grads_batched=True, retain_graph=True)
    assert torch.equal(batch[1], *torch.autograd.grad(y, x, u[1], retain_graph=True))
    (jvp,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
    assert jvp.requires_grad


def test_autograd_s_other_tools():
    model, x = layer("bias"), data(4)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        y = model(x)
    assert sorted(map(len, saved)) == [2, 2, 2, 3]  # x, grid, base_weight and coef
    y.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()
    y = model(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
    expected = torch.autograd.grad(model(x).sum(), model.coef)
    assert torch.equal(*torch.autograd.grad(y.sum(), model.coef), *expected)
    with torch.inference_mode():
        assert model(x).is_inference()


def test_errors_are_those_of_python():
    model = layer("plain")
    with pytest.raises(ValueError, match=r"x has shape \[4, 2\]: expected \[\.\.\., 3\]"):
        model(torch.zeros(4, 2, dtype=torch.float64))
    with pytest.raises(TypeError, match="x is a list"):
        model([[1.0, 2.0, 3.0]])
    model.grid.copy_(model.grid.flip(-1))
    with pytest.raises(RuntimeError, match="grid does not ascend in row 0"):
        model(torch.zeros(4, 3, dtype=torch.float64))


def test_arguments_of_the_wrong_kind_are_not_served():
    for wrong in ((), (1,) * 7, (None,) * 7, (torch.zeros(2),) * 7):
        assert direct.kan_out(*wrong) is None
    for wrong in ((), (1,) * 4, (torch.zeros(2, 3), [], 1, 1), (torch.zeros(2, 3), [(1,)] * 2, 9, 9)):
        assert direct.stack_out(*wrong) is None


def test_from_many_threads():
    model, x = layer("edge scales"), data(64)
    expected = results(model, x)
    found: list[bool] = []

    def run():
        for _ in range(20):
            found.append(all(map(torch.equal, results(model, x), expected)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 80


def test_another_backend_is_never_served_here(monkeypatch):
    served = counted(monkeypatch)
    layer("plain")(data(4))
    assert served.pop()
    functional.kan_linear(data(4), layer("plain").coef, layer("plain").grid, degree=3, backend="dense")
    assert not served
