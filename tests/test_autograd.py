"""Derivatives of every order and every torch.func transform, on every backend, without leaving the fused kernels."""

import itertools

import pytest
import torch
from scipy.interpolate import BSpline
from torch import func
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from fastkan import KANLinear, autograd, reference
from fastkan.basis.bspline import OUTSIDE, uniform_knots
from fastkan.functional import edge_mean, kan_linear
from fastkan.testing import CONTRACTIONS, KNOTS, Problem
from support.calculus import TRANSFORMS, arguments, derivatives, layer, plain, small_problem

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.sweep
@pytest.mark.parametrize("base", ["silu", "identity", None])
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [0, 1, 3, 5])
def test_gradcheck(backend, degree, outside, base):
    scaled = base == "silu"
    p = small_problem(degree=degree, outside=outside, base=base, with_bias=scaled)
    tensors = arguments(p, scaled)
    run, values = layer(p, tensors, backend), tuple(tensors.values())
    assert gradcheck(run, values, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [2, 3])
def test_gradgradcheck(backend, degree, outside):
    p = small_problem(degree=degree, outside=outside, knots="promised")
    tensors = arguments(p, scaled=degree == 3)
    run = layer(p, tensors, backend)
    assert gradgradcheck(run, tuple(tensors.values()), check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("frozen", ["x", "coef", "base_weight", "bias", "scale"])
def test_gradients_with_frozen_arguments(backend, frozen):
    p = small_problem()
    tensors = arguments(p, scaled=True)
    tensors[frozen].requires_grad_(False)
    run = layer(p, tensors, backend)
    assert gradcheck(run, tuple(tensors.values()), check_forward_ad=True)
    assert gradgradcheck(run, tuple(tensors.values()), fast_mode=True)


@pytest.mark.sweep
@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", range(6))
def test_three_orders_match_autograd(backend, degree, outside, scaled):
    for knots in KNOTS:
        p = small_problem(degree=degree, outside=outside, knots=knots)
        tensors = arguments(p, scaled)
        found = derivatives(layer(p, tensors, backend), tensors, 3)
        expected = derivatives(plain(p, tensors), tensors, 3)
        for got, want in zip(found, expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * float(want.abs().max() + 1))


def test_the_third_derivative_is_the_difference_of_the_second(backend):
    p = small_problem(degree=5, base="silu")
    tensors = arguments(p)
    run = layer(p, tensors, backend)
    x, rest = tensors["x"].detach(), [t.detach() for t in list(tensors.values())[1:]]

    def total(v):
        return run(v, *rest).sum()

    def second(v):
        return func.grad(lambda w: func.grad(total)(w).sum())(v)

    third = func.grad(lambda v: second(v).sum())(x)
    step = 1e-5
    difference = (second(x + step) - second(x - step)) / (2 * step)
    torch.testing.assert_close(third, difference, rtol=1e-5, atol=1e-5 * float(third.abs().max()))


# Each Function alone, with every order and weight, against the reference's function by ordinary autograd.


def as_function(name: str, p: Problem, backend: str | None):
    """A contraction and its differentiable arguments; on a backend through its Function, or (None) plainly."""
    where, last = (reference, ()) if backend is None else (autograd, (backend,))
    op, spec, order = getattr(where, name), p.spec, p.order
    with_base = p.base_weight is not None
    return {
        "kan_out": (
            lambda x, s, coef, base, bias: op(x, s, coef, base, bias, p.grid, spec, order, *last),
            (p.x, p.s, p.coef, p.base_weight, p.bias),
        ),
        "kan_in": (
            lambda x, u, coef, base: op(x, u, coef, base, p.grid, spec, order, *last),
            (p.x, p.u, p.coef, p.base_weight),
        ),
        "kan_coef": (lambda x, s, u: op(x, s, u, p.grid, spec, order, with_base, *last), (p.x, p.s, p.u)),
        "kan_backward": (
            lambda x, s, u, coef, base: op(x, s, u, coef, base, p.grid, spec, order, *last),
            (p.x, p.s, p.u, p.coef, p.base_weight),
        ),
        "edge_moments": (lambda x, coef, base: op(x, coef, base, p.grid, spec, *last), (p.x, p.coef, p.base_weight)),
    }[name]


def flat(run, fixed):
    """The function of the tensors alone, with a tuple of tensors for result; the absent arguments go in between."""

    def call(*tensors):
        given = iter(tensors)
        result = run(*(None if t is None else next(given) for t in fixed))
        return (result,) if isinstance(result, torch.Tensor) else tuple(t for t in result if t is not None)

    return call


def zeros_for_none(grads, tensors):
    return [torch.zeros_like(t) if g is None else g for g, t in zip(grads, tensors, strict=True)]


@pytest.mark.parametrize("weighted", [False, True], ids=["ones", "weighted"])
@pytest.mark.parametrize("base", ["silu", None])
@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("name", CONTRACTIONS[:-2])
def test_derivatives_of_each_function_match_autograd(backend, name, order, base, weighted):
    results = []
    for where in (backend, None):
        run, fixed = as_function(name, small_problem(order=order, base=base, weighted=weighted, degree=5), where)
        tensors = [t.clone().requires_grad_() for t in fixed if t is not None]
        outputs = flat(run, fixed)(*tensors)
        cotangents = [torch.cos(torch.arange(y.numel()).double()).view_as(y).requires_grad_() for y in outputs]
        grads = torch.autograd.grad(outputs, tensors, cotangents, create_graph=True, allow_unused=True)
        grads = zeros_for_none(grads, tensors)
        twice = torch.autograd.grad(
            sum((g * torch.sin(g)).sum() for g in grads), tensors + cotangents, allow_unused=True
        )
        results.append([*outputs, *grads, *zeros_for_none(twice, tensors + cotangents)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * float(want.detach().abs().max() + 1))


@pytest.mark.sweep
@pytest.mark.parametrize("weighted", [False, True], ids=["ones", "weighted"])
@pytest.mark.parametrize("base", ["silu", None])
@pytest.mark.parametrize("name", CONTRACTIONS[:-2])
def test_jvp_of_each_function_in_every_argument(backend, name, base, weighted):
    p = small_problem(base=base, weighted=weighted, degree=4)
    run, fixed = as_function(name, p, backend)
    plainly = flat(as_function(name, p, None)[0], fixed)
    tensors = [t for t in fixed if t is not None]
    directions = [torch.sin(1 + torch.arange(t.numel()).double()).view_as(t) for t in tensors]
    for chosen in itertools.product((False, True), repeat=len(tensors)):
        if not any(chosen):
            continue
        moving = [d if c else torch.zeros_like(d) for c, d in zip(chosen, directions, strict=True)]
        _, want = func.jvp(plainly, tuple(tensors), tuple(moving))
        with forward_ad.dual_level():
            duals = [
                forward_ad.make_dual(t, d) if c else t for c, t, d in zip(chosen, tensors, directions, strict=True)
            ]
            found = [forward_ad.unpack_dual(y).tangent for y in flat(run, fixed)(*duals)]
        for got, expected in zip(found, want, strict=True):
            torch.testing.assert_close(torch.zeros_like(expected) if got is None else got, expected, **CLOSE)


@pytest.mark.parametrize("name", CONTRACTIONS[:-1])
def test_vmap_of_each_function_in_every_argument(backend, name):
    p = small_problem(weighted=True)
    run, fixed = as_function(name, p, backend)
    call, plainly = flat(run, fixed), flat(as_function(name, p, None)[0], fixed)
    batched = [torch.stack([t, 0.5 * t, t.flip(0)]) for t in fixed]
    for chosen in itertools.product((None, 0, 1), repeat=len(fixed)):
        if all(c is None for c in chosen):
            continue
        args = [t if c is None else b.movedim(0, c) for c, t, b in zip(chosen, fixed, batched, strict=True)]
        found = func.vmap(call, in_dims=chosen)(*args)
        for k in range(3):
            one = [a if c is None else a.select(c, k) for c, a in zip(chosen, args, strict=True)]
            for got, want in zip(found, plainly(*one), strict=True):
                torch.testing.assert_close(got[k], want, **CLOSE)


# torch.func on the layer.


def same(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_by_x(backend, transform):
    p = small_problem(degree=4)
    tensors = {name: t.detach() for name, t in arguments(p, scaled=True).items()}
    rest = list(tensors.values())[1:]
    run, plainly = layer(p, tensors, backend), plain(p, tensors)
    same(TRANSFORMS[transform](lambda v: run(v, *rest), p.x), TRANSFORMS[transform](lambda v: plainly(v, *rest), p.x))


@pytest.mark.parametrize("name", ["coef", "scale", "base_weight", "bias"])
@pytest.mark.parametrize("transform", ["grad", "vjp", "jvp", "jacrev", "jacfwd", "hessian"])
def test_transforms_by_parameters(backend, transform, name):
    p = small_problem()
    tensors = {name: t.detach() for name, t in arguments(p, scaled=True).items()}
    run, plainly = layer(p, tensors, backend), plain(p, tensors)

    def of(function):
        return lambda v: function(*{**tensors, name: v}.values())

    same(TRANSFORMS[transform](of(run), tensors[name]), TRANSFORMS[transform](of(plainly), tensors[name]))


def test_gradients_of_each_sample(backend):
    p = small_problem()
    tensors = {name: t.detach() for name, t in arguments(p, scaled=True).items()}

    def per_sample(function):
        def loss(row, params):
            return function(row, *params).square().sum()

        return func.vmap(func.grad(loss, argnums=1), in_dims=(0, None))(p.x, tuple(tensors.values())[1:])

    same(per_sample(layer(p, tensors, backend)), per_sample(plain(p, tensors)))


def test_ensembles(backend):
    p = small_problem()
    tensors = {name: t.detach() for name, t in arguments(p, scaled=True).items()}
    members = [torch.stack([t, 0.3 * t, -t]) for t in list(tensors.values())[1:]]

    def of(function):
        return func.vmap(func.grad(lambda *v: function(p.x, *v).square().sum(), argnums=(0, 1, 2, 3)))(*members)

    same(of(layer(p, tensors, backend)), of(plain(p, tensors)))


def test_the_reference_is_never_called_for_native(native, monkeypatch):
    """Everything above once more with the reference broken."""
    p = small_problem(degree=4)
    tensors = {name: t.detach() for name, t in arguments(p, scaled=True).items()}
    rest = list(tensors.values())[1:]

    def broken(*args):
        raise AssertionError("left the fused path")

    for name in (*CONTRACTIONS, "features"):
        monkeypatch.setattr(reference, name, broken)
    run = layer(p, tensors, "native")
    for transform in TRANSFORMS.values():
        transform(lambda v: run(v, *rest), p.x)
    leaves = arguments(p, scaled=True)
    derivatives(layer(p, leaves, "native"), leaves, 3)


# Losses that hold derivatives.


def test_loss_of_u_and_u_xx_matches_scipy(backend):
    """mean (u'' - f)^2 + mean (u - g)^2 for u = B c: its value and gradient by c from scipy's B and B''."""
    degree, grid_size = 5, 8
    grid = uniform_knots(-1.0, 1.0, grid_size, degree)
    x = torch.linspace(-1, 1, 37, dtype=torch.float64)[:, None]
    coef = torch.randn(grid_size + degree, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    f, g = torch.sin(3 * x), torch.cos(2 * x)

    leaf, point = coef[None, :, None].clone().requires_grad_(), x.clone().requires_grad_()
    u = kan_linear(point, leaf, grid, degree=degree, base="zero", backend=backend)
    (u_x,) = torch.autograd.grad(u.sum(), point, create_graph=True)
    (u_xx,) = torch.autograd.grad(u_x.sum(), point, create_graph=True)
    loss = (u_xx - f).square().mean() + (u - g).square().mean()
    loss.backward()

    spline = BSpline(grid.numpy(), torch.eye(grid_size + degree).double().numpy(), degree)
    b, b_xx = (torch.as_tensor(spline(x[:, 0].numpy(), nu=order)) for order in (0, 2))
    r_xx, r = b_xx @ coef - f[:, 0], b @ coef - g[:, 0]
    torch.testing.assert_close(loss.detach(), r_xx.square().mean() + r.square().mean(), **CLOSE)
    torch.testing.assert_close(leaf.grad[0, :, 0], 2 / len(x) * (b_xx.T @ r_xx + b.T @ r), rtol=1e-9, atol=1e-7)


def test_a_training_step_of_a_network_on_a_pde(backend):
    """Two layers, u_xx + u_yy and u in one loss: the gradient of every parameter is the plain formula's."""
    first = Problem.random(20, 2, 5, 4, dtype=torch.float64, seed=1)
    second = Problem.random(20, 5, 1, 4, dtype=torch.float64, seed=2)

    def step(make):
        inner, outer = arguments(first), arguments(second)
        x = inner.pop("x")
        del outer["x"]
        hidden = make(first, ("x", *inner))(x, *inner.values())
        u = make(second, ("x", *outer))(torch.tanh(hidden), *outer.values())
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        laplacian = sum(torch.autograd.grad(slope[:, k].sum(), x, create_graph=True)[0][:, k] for k in range(2))
        ((laplacian + 1).square().mean() + u.square().mean()).backward()
        return [t.grad for t in (*inner.values(), *outer.values())]

    for got, want in zip(step(lambda p, names: layer(p, names, backend)), step(plain), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))


# Edge statistics.


@pytest.mark.parametrize("base", ["silu", None])
@pytest.mark.parametrize("degree", [0, 3])
def test_edge_mean_gradients(backend, degree, base):
    p = small_problem(degree=degree, base=base)
    tensors = [t.clone().requires_grad_() for t in (p.x, p.coef, p.base_weight) if t is not None]

    def run(x, coef, base_weight=None):
        return edge_mean(x, coef, p.grid, base_weight, degree=degree, backend=backend)

    assert gradcheck(run, tensors, check_forward_ad=True)
    assert gradgradcheck(run, tensors, fast_mode=True, check_fwd_over_rev=True)


def test_edge_mean_under_transforms(backend):
    p = small_problem()

    def penalty(mean, coef):
        return mean(coef).square().sum()

    def mean(coef):
        return edge_mean(p.x, coef, p.grid, p.base_weight, degree=3, backend=backend)

    def same_mean(coef):
        return reference.edge_moments(p.x, coef, p.base_weight, p.grid, p.spec)[0]

    for transform in (func.hessian, func.jacfwd, func.jacrev):
        found, truth = (transform(lambda coef, of=of: penalty(of, coef))(p.coef) for of in (mean, same_mean))
        same(found, truth)


@pytest.mark.parametrize("base", ["silu", None])
def test_gradients_of_all_moments(backend, base):
    p = small_problem(base=base)
    tensors = [t.clone().requires_grad_() for t in (p.x, p.coef, p.base_weight) if t is not None]

    def run(x, coef, base_weight=None):
        return autograd.edge_moments(x, coef, base_weight, p.grid, p.spec, backend)

    assert gradcheck(run, tensors, check_forward_ad=True)
    assert gradgradcheck(run, tensors, fast_mode=True, check_fwd_over_rev=True)


def test_edge_mean_gradients_under_vmap(backend):
    p = small_problem()
    x = torch.stack([p.x, -p.x])

    def of(function):
        return func.vmap(func.grad(lambda v: function(v).square().sum()))(x)

    found = of(lambda v: edge_mean(v, p.coef, p.grid, p.base_weight, degree=3, backend=backend))
    same(found, of(lambda v: reference.edge_moments(v, p.coef, p.base_weight, p.grid, p.spec)[0]))


# Tensors saved for the backward.


@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
def test_saved_for_backward_are_x_and_the_parameters(backend, scaled):
    p = Problem.random(50, 7, 9, 5, dtype=torch.float64)
    tensors = arguments(p, scaled)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = layer(p, tensors, backend)(*tensors.values())
    y.sum().backward()
    given = {t.untyped_storage().data_ptr() for t in (*tensors.values(), p.grid)}
    assert saved
    assert {t.untyped_storage().data_ptr() for t in saved} <= given


def test_edge_mean_saves_x_the_parameters_and_the_moments(backend):
    p = Problem.random(50, 7, 9, 5, dtype=torch.float64)
    tensors = [t.requires_grad_() for t in (p.x, p.coef, p.base_weight)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        edge_mean(p.x, p.coef, p.grid, p.base_weight, degree=3, backend=backend)
    given = {t.untyped_storage().data_ptr() for t in (*tensors, p.grid)}
    assert [list(t.shape) for t in saved if t.untyped_storage().data_ptr() not in given] == [[3, 7, 9]]


def test_everyday_backward_is_one_call(by_python, backend, calls):
    p = small_problem()
    tensors = arguments(p)
    layer(p, tensors, backend)(*tensors.values()).sum().backward()
    assert dict(calls[backend]) == {"kan_out": 1, "kan_backward": 1}


def test_backward_computes_only_needed_gradients(by_python, backend, calls):
    p = small_problem()
    tensors = {name: t.detach() for name, t in arguments(p).items()}
    run = layer(p, tensors, backend)
    for name, contraction in (("x", "kan_in"), ("coef", "kan_coef"), ("base_weight", "kan_coef"), ("bias", None)):
        calls[backend].clear()
        leaf = tensors[name].clone().requires_grad_()
        run(*{**tensors, name: leaf}.values()).sum().backward()
        assert dict(calls[backend]) == {"kan_out": 1, **({contraction: 1} if contraction else {})}, name


def test_changing_x_in_place_before_backward_is_an_error(backend):
    p = small_problem()
    tensors = arguments(p)
    x = tensors["x"].detach()
    y = layer(p, tensors, backend)(x, *list(tensors.values())[1:])
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_inference_and_no_grad_need_no_function(backend):
    p = small_problem()
    tensors = {name: t.detach() for name, t in arguments(p).items()}
    expected = plain(p, tensors)(*tensors.values())
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(layer(p, tensors, backend)(*tensors.values()), expected, **CLOSE)


def test_a_vectorized_hessian_can_be_differentiated(backend):
    p = small_problem()
    tensors = {"x": p.x, "coef": p.coef, "base_weight": p.base_weight}
    run = layer(p, tensors, backend)

    def hessian(vectorize):
        leaves = [t.detach().requires_grad_() for t in tensors.values()]
        found = torch.autograd.functional.hessian(
            lambda x: run(x, *leaves[1:]).sin().sum(), leaves[0], create_graph=True, vectorize=vectorize
        )
        return [found, *torch.autograd.grad(found.square().sum(), leaves)]

    for found, expected in zip(hessian(True), hessian(False), strict=True):
        same(found, expected)


@pytest.mark.parametrize("backend", ["native", "dense", "reference"])
def test_forward_modes_nest_through_compositions(backend):
    """PyTorch loses derivatives of a third forward mode through torch.autograd.Function, without an error."""
    first, last = (KANLinear(2, 2, 4, 5, backend=backend, dtype=torch.float64, bias=True) for _ in range(2))
    x = torch.tensor([0.3, -0.4], dtype=torch.float64)

    def forward(x):
        return last(first(x.sin()[None]))[0]

    found = expected = forward
    for _ in range(4):
        found, expected = torch.func.jacfwd(found), torch.func.jacrev(expected)
        torch.testing.assert_close(found(x), expected(x))
