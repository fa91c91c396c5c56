"""On a GPU: derivatives of every order, torch.func and torch.compile, by the kernels of every backend."""

from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from fastkan import KANLinear, reference, select
from fastkan.basis.bspline import OUTSIDE
from fastkan.functional import edge_mean
from fastkan.testing import KNOTS, Problem
from support.backends import proven
from support.calculus import TRANSFORMS, arguments, derivatives, layer, plain, small_problem
from support.gpu import DEVICE, IS_GPU, each_backend

pytestmark = pytest.mark.gpu


def close(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@each_backend
@pytest.mark.parametrize("outside", OUTSIDE)
def test_gradcheck(backend, outside):
    p = small_problem(outside=outside).on(DEVICE)
    tensors = arguments(p, scaled=True)
    assert gradcheck(layer(p, tensors, backend), tuple(tensors.values()), check_forward_ad=True)


@each_backend
@pytest.mark.parametrize("knots", ["promised", "uneven"])
def test_gradgradcheck(backend, knots):
    p = small_problem(knots=knots).on(DEVICE)
    tensors = arguments(p, scaled=True)
    assert gradgradcheck(layer(p, tensors, backend), tuple(tensors.values()), check_fwd_over_rev=True)


@each_backend
@pytest.mark.parametrize("degree", [3, 5])
def test_three_orders_match_autograd(backend, degree):
    for knots in KNOTS:
        p = small_problem(degree=degree, knots=knots).on(DEVICE)
        tensors = arguments(p, scaled=True)
        found = derivatives(layer(p, tensors, backend), tensors, 3)
        expected = derivatives(plain(p, tensors), tensors, 3)
        for got, want in zip(found, expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * float(want.abs().max() + 1))


@each_backend
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms(backend, transform):
    p = small_problem(degree=4).on(DEVICE)
    tensors = {name: t.detach() for name, t in arguments(p, scaled=True).items()}
    rest = list(tensors.values())[1:]
    run, plainly, apply = layer(p, tensors, backend), plain(p, tensors), TRANSFORMS[transform]
    close(apply(lambda v: run(v, *rest), p.x), apply(lambda v: plainly(v, *rest), p.x))


@each_backend
def test_edge_mean_gradients(backend):
    p = small_problem().on(DEVICE)
    tensors = [t.clone().requires_grad_() for t in (p.x, p.coef, p.base_weight)]

    def run(x, coef, base_weight):
        return edge_mean(x, coef, p.grid, base_weight, degree=3, backend=backend)

    assert gradcheck(run, tensors)
    assert gradgradcheck(run, tensors, fast_mode=True)


@each_backend
def test_every_derivative_stays_in_the_kernels(backend, monkeypatch):
    p = small_problem(degree=4).on(DEVICE)
    leaves = arguments(p, scaled=True)

    def broken(*args):
        raise AssertionError("left the kernels")

    for name in ("kan_out", "kan_in", "kan_coef", "kan_backward", "features"):
        monkeypatch.setattr(reference, name, broken)
    derivatives(layer(p, leaves, backend), leaves, 3)


# torch.compile.


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def forward_and_backward(run, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    values = list(tensors.values())
    y = run(*values)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), values)]


@each_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_compiled_forward_and_backward_in_one_graph_each(backend, dtype, fresh_compiler):
    p = Problem.random(33, 5, 18, 6, dtype=dtype).on(DEVICE)
    tensors = arguments(p)
    run = layer(p, tensors, backend)
    compiled = torch.compile(run, fullgraph=True, backend="inductor" if IS_GPU else "aot_eager")
    for got, want in zip(forward_and_backward(compiled, tensors), forward_and_backward(run, tensors), strict=True):
        torch.testing.assert_close(got, want)


@each_backend
def test_a_compiled_network_takes_any_batch(backend, fresh_compiler):
    torch.manual_seed(0)
    net = torch.nn.Sequential(*(KANLinear(*io, backend=backend, bias=True, device=DEVICE) for io in ((5, 9), (9, 2))))
    compiled = torch.compile(net, fullgraph=True, dynamic=True, backend="inductor" if IS_GPU else "aot_eager")
    for rows in (16, 33, 7):
        x = torch.randn(rows, 5, device=DEVICE)
        torch.testing.assert_close(compiled(x), net(x))


@each_backend
def test_the_automatic_choice_takes_what_is_proven_compiled_too(backend, fresh_compiler):
    name = "triton:fused" if backend == "triton" else backend
    with proven(name, on=DEVICE.type):
        p = small_problem().on(DEVICE)
        tensors = arguments(p)
        assert select.choose(None, p.x.device, (p.x.dtype, p.coef.dtype), p.spec) == f"{name}+dense"
        run = layer(p, tensors, None)
        expected = forward_and_backward(run, tensors)
        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        for got, want in zip(forward_and_backward(compiled, tensors), expected, strict=True):
            close(got, want)


@each_backend
def test_autocast(backend):
    p = replace(Problem.random(33, 5, 18, 6).on(DEVICE), bias=None)
    tensors = arguments(p)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        y = layer(p, tensors, backend)(*tensors.values())
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in tensors.values())
