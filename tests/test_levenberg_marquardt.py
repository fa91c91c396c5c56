"""LevenbergMarquardt: exact where it can be checked by hand, on networks of KANLinear, and where steps go wrong."""

import copy
import math

import pytest
import torch
from torch import nn

from fastkan import KANLinear
from fastkan.network import levenberg_marquardt as module
from fastkan.network.jacobian import Products
from fastkan.network.levenberg_marquardt import LevenbergMarquardt


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def network(*width: int, seed: int = 0, grid_size: int = 5, dtype=torch.float64) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": dtype, "outside": "linear", "bias": True}
    return nn.Sequential(*(KANLinear(i, o, grid_size, **options) for i, o in zip(width, width[1:], strict=False)))


def problem(n: int = 200):
    x = random(n, 2, seed=1)
    return x, torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)


def jacobian(residuals: torch.Tensor, params: list) -> torch.Tensor:
    rows = [torch.autograd.grad(r, params, retain_graph=True, allow_unused=True) for r in residuals.flatten()]
    return torch.stack([
        torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(row, params, strict=True)])
        for row in rows
    ])  # fmt: skip


@pytest.mark.parametrize("n", [5, 40])  # fewer residuals than parameters, and more
def test_the_jacobian_and_the_step(n):
    net, (x, y) = network(2, 2, 1, grid_size=2), problem(n)
    params = list(net.parameters())
    r = (net(x) - y).flatten()
    j = jacobian(r, params)
    dense = module._Dense(Products(r, params), 1 << 14)
    assert dense.primal == (j.shape[0] >= j.shape[1])
    torch.testing.assert_close(dense.linear.jacobian(1 << 14), j, rtol=1e-12, atol=1e-12)
    grad = j.T @ r.detach()
    damping = 0.3
    expected = torch.linalg.solve(j.T @ j + damping * torch.eye(j.shape[1], dtype=j.dtype), -grad)
    step, promised = dense.solve(damping)
    torch.testing.assert_close(step, expected, rtol=1e-9, atol=1e-10)
    linear = (r.detach() + j @ step).square().sum() / 2
    assert promised == pytest.approx(float(r.detach().square().sum() / 2 - linear), rel=1e-9)
    free = module._MatrixFree(Products(r, params), 500, 1e-12, 1 << 14)
    step, promised_free = free.solve(damping)
    torch.testing.assert_close(step, expected, rtol=1e-7, atol=1e-9)
    assert promised_free == pytest.approx(promised, rel=1e-7)
    rough, gain = module._MatrixFree(Products(r, params), 3, 1e-12, 1 << 14).solve(damping)
    assert gain == pytest.approx(float((r.detach().square() - (r.detach() + j @ rough).square()).sum() / 2), rel=1e-9)
    assert 0 < gain < promised


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_linear_least_squares(solver):
    a, b = random(30, 4), random(30, seed=2)
    w = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = LevenbergMarquardt([w], damping=1e-6, solver=solver, cg_tolerance=1e-10)
    for _ in range(6):
        optimizer.step(lambda: a @ w - b)
    expected = torch.linalg.lstsq(a, b[:, None]).solution[:, 0]
    torch.testing.assert_close(w.detach(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_rosenbrock(solver):
    w = nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
    optimizer = LevenbergMarquardt([w], solver=solver, cg_tolerance=1e-8)
    for _ in range(60):
        optimizer.step(lambda: torch.stack((10 * (w[1] - w[0] ** 2), 1 - w[0])))
    torch.testing.assert_close(w.detach(), torch.ones(2, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver, steps, bound", [("dense", 40, 1e-6), ("cg", 40, 1e-4)])
def test_a_kan(solver, steps, bound):
    """exp(sin(pi x) + y^2): falls at each step, far below what a linear model leaves (0.9)."""
    net, (x, y) = network(2, 1, 1, grid_size=10), problem(400)
    optimizer = LevenbergMarquardt(net.parameters(), solver=solver)
    losses = [float(optimizer.step(lambda: net(x) - y)) for _ in range(steps)]
    assert all(b <= a for a, b in zip(losses, losses[1:], strict=False))
    assert (net(x) - y).square().mean() < bound


def test_float32():
    net, (x, y) = network(2, 1, 1, dtype=torch.float32), problem(100)
    optimizer = LevenbergMarquardt(net.parameters())
    losses = [optimizer.step(lambda: net(x.float()) - y.float()) for _ in range(15)]
    assert losses[-1].dtype == torch.float32 and losses[-1] < 0.02 * losses[0]
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_the_value_returned_is_the_mean_square_before_the_step():
    net, (x, y) = network(2, 1), problem(20)
    before = (net(x) - y).square().mean()
    assert torch.equal(LevenbergMarquardt(net.parameters()).step(lambda: net(x) - y), before)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_a_step_that_is_not_finite_is_undone(solver):
    """log(w) leaves its domain with a full step: the damping grows until it does not."""
    w = nn.Parameter(torch.tensor([1e-3], dtype=torch.float64))
    optimizer = LevenbergMarquardt([w], damping=1e-8, solver=solver, max_trials=1)
    undone = 0
    for _ in range(100):
        before = w.detach().clone()
        optimizer.step(lambda: torch.log(w) + 20)
        undone += torch.equal(w, before)
        assert w > 0 and (torch.log(w) + 20).abs() <= (torch.log(before) + 20).abs()
    assert undone > 2
    assert float(torch.log(w.detach()) + 20) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_no_better_step_leaves_the_parameters_as_they_are(solver):
    net, (x, y) = network(2, 1), problem(20)
    before = copy.deepcopy(net.state_dict())
    optimizer = LevenbergMarquardt(net.parameters(), solver=solver, max_trials=3)
    calls = []

    def closure():
        calls.append(1)
        return (net(x) - y) * (1.0 if len(calls) == 1 else math.nan)

    optimizer.step(closure)
    assert len(calls) == 4
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    damping = optimizer.state[optimizer.param_groups[0]["params"][0]]["damping"]
    calls.clear()
    optimizer.step(closure)
    assert optimizer.state[optimizer.param_groups[0]["params"][0]]["damping"] > damping


def test_residuals_that_are_not_finite_change_nothing():
    net, (x, y) = network(2, 1), problem(20)
    before = copy.deepcopy(net.state_dict())
    optimizer = LevenbergMarquardt(net.parameters())
    assert optimizer.step(lambda: (net(x) - y) / 0).isinf()
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not optimizer.state


def test_at_the_minimum():
    w = nn.Parameter(torch.ones(2, dtype=torch.float64))
    for solver in ("dense", "cg"):
        assert LevenbergMarquardt([w], solver=solver).step(lambda: w - 1) == 0
    assert torch.equal(w.detach(), torch.ones(2, dtype=torch.float64))


def test_unused_and_frozen_parameters():
    net, (x, y) = network(2, 2, 1), problem(30)
    net[0].coef.requires_grad_(False)
    spare = nn.Parameter(torch.ones(3))
    frozen = net[0].coef.clone()
    for solver in ("dense", "cg"):
        optimizer = LevenbergMarquardt([*net.parameters(), spare], solver=solver)
        first, second = (float(optimizer.step(lambda: net(x) - y)) for _ in range(2))
        assert second < first
    assert torch.equal(net[0].coef, frozen) and torch.equal(spare.detach(), torch.ones(3))


def test_state_dict_goes_on_where_it_was():
    net, (x, y) = network(2, 2, 1, grid_size=3), problem(60)
    optimizer = LevenbergMarquardt(net.parameters())
    for _ in range(4):
        optimizer.step(lambda: net(x) - y)
    twin = copy.deepcopy(net)
    other = LevenbergMarquardt(twin.parameters(), damping=7.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        optimizer.step(lambda: net(x) - y)
        other.step(lambda: twin(x) - y)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), twin.parameters(), strict=True))


def test_auto_takes_conjugate_gradients_above_a_size():
    net, (x, y) = network(2, 2, 1), problem(30)
    params = list(net.parameters())

    def chosen(max_bytes: int) -> type:
        group = LevenbergMarquardt(params, max_bytes=max_bytes).param_groups[0]
        return type(module._choose_solver(Products(net(x) - y, params), group))

    assert chosen(1 << 28) is module._Dense and chosen(1 << 12) is module._MatrixFree


@pytest.mark.parametrize(
    "options, message",
    [
        ({"damping": 0}, "damping=0: expected a finite number above 0"),
        ({"solver": "qr"}, "solver='qr': expected one of 'auto', 'dense', 'cg'"),
        ({"max_trials": 0}, "max_trials=0: expected an integer"),
        ({"cg_steps": 1.5}, "cg_steps=1.5: expected an integer"),
        ({"cg_tolerance": 1}, "cg_tolerance=1: expected a number between"),
        ({"max_bytes": 0}, "max_bytes=0: expected an integer"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        LevenbergMarquardt([nn.Parameter(torch.ones(1))], **options)


def test_wrong_use():
    w = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="params has 2 groups: expected one"):
        LevenbergMarquardt([{"params": [w]}, {"params": [nn.Parameter(torch.ones(1))]}])
    with pytest.raises(TypeError, match="params has a tensor of torch.complex64"):
        LevenbergMarquardt([nn.Parameter(torch.ones(1, dtype=torch.complex64))])
    optimizer = LevenbergMarquardt([w])
    with pytest.raises(TypeError, match="closure=None: expected a function"):
        optimizer.step(None)
    with pytest.raises(TypeError, match="closure returned None: expected a tensor"):
        optimizer.step(lambda: None)
    with pytest.raises(ValueError, match="without a graph"):
        optimizer.step(lambda: w.detach())
    with pytest.raises(ValueError, match="at least one tensor with requires_grad"):
        LevenbergMarquardt([torch.ones(1)]).step(lambda: w)
