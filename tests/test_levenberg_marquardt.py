"""LevenbergMarquardt: against hand-made solutions, on networks of KANLinear, and with steps that fail."""

import copy
import math

import pytest
import torch
from torch import nn

from fastkan import KAN, KANLinear
from fastkan.network.activations import Activations
from fastkan.network.train import jacobian as jacobian_module
from fastkan.network.train import levenberg_marquardt as module
from fastkan.network.train.jacobian import Products, Residuals
from fastkan.network.train.levenberg_marquardt import LevenbergMarquardt
from fastkan.network.train.penalties import METRICS
from support.least_squares import NETWORKS, kan, pruned_and_symbolic, random


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
    assert promised_free == pytest.approx(float(promised), rel=1e-7)
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
    optimizer = LevenbergMarquardt(net.parameters(), solver=solver, cg_tolerance=1e-2)
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
    state = optimizer.state[optimizer.param_groups[0]["params"][0]]
    damping, _ = state["trial"]
    calls.clear()
    optimizer.step(closure)
    assert state["trial"][0] > damping and "damping" not in state


def test_a_step_that_failed_does_not_spoil_the_next_problem():
    """At a minimum the damping of the trials grows without an end; other data begin where the last step was taken."""
    net, (x, y) = network(2, 1), problem(20)
    net.double()
    optimizer, data = LevenbergMarquardt(net.parameters()), [x.double(), y.double()]
    state = optimizer.state[optimizer.param_groups[0]["params"][0]]
    for _ in range(200):
        if "failed" in state:
            break
        optimizer.step(lambda: net(data[0]) - data[1])
    taken = state["damping"]
    assert state["trial"][0] > taken
    before = copy.deepcopy(net.state_dict())
    data[1] = data[1] + 0.1
    optimizer.step(lambda: net(data[0]) - data[1])
    assert any(not torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert state["damping"] < 10 * taken


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


# The Jacobian of a KAN from its structure


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("penalty", [False, True])
def test_the_jacobian_of_a_kan(name, penalty):
    """Equal to torch.func.jacrev, inside the grids and outside, by blocks of a few rows."""
    model = NETWORKS[name]()
    x, y = 1.4 * random(13, model.in_features, seed=5), random(13, model.width_in[-1], seed=6)

    def extra(record):
        return torch.stack([record.acts[1].square().sum(), model.act_fun[0].weights().exp().sum()])

    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    residuals = Residuals(model, x, y, extra if penalty else None)

    def func(values: dict) -> torch.Tensor:
        out = torch.func.functional_call(model, values, (x,)) - y
        if not penalty:
            return out.flatten()
        record = [torch.func.functional_call(_Extra(model, extra), {f"model.{n}": v for n, v in values.items()}, (x,))]
        return torch.cat([out.flatten(), *record])

    parts = torch.func.jacrev(func)(named)
    expected = torch.cat([parts[n].flatten(1) for n in named], 1)
    linear = residuals.linearised(list(named.values()))
    found = torch.zeros_like(expected)
    found[:, linear.places] = linear.jacobian(1 << 12)
    close = {"rtol": 1e-11, "atol": 1e-11}
    torch.testing.assert_close(found, expected, **close)
    torch.testing.assert_close(linear.residuals, func(named).detach(), **close)
    mine = expected[:, linear.places]
    for dense_is_faster in (1e9, 0):  # which has the dense products, and the sparse ones
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jacobian_module, "DENSE_IS_FASTER", dense_is_faster)
            torch.testing.assert_close(linear.gram(1 << 14), mine.T @ mine, **close)
    torch.testing.assert_close(linear.diagonal(1 << 12), mine.square().sum(0), **close)
    u, v = random(len(expected), seed=7), random(linear.count, seed=8)
    torch.testing.assert_close(linear.forward(v), mine @ v, **close)
    torch.testing.assert_close(linear.transposed(u), mine.T @ u, **close)
    torch.testing.assert_close(linear.expanded(linear.transposed(u)), expected.T @ u, **close)


class _Extra(nn.Module):
    def __init__(self, model, extra):
        super().__init__()
        self.model, self.extra = model, extra

    def forward(self, x):
        return self.extra(Activations(self.model, x))


def test_pruned_edges_have_no_columns():
    model = pruned_and_symbolic()
    params = [p for p in model.parameters() if p.requires_grad]
    linear = Residuals(model, random(9, 3), random(9, 2)).linearised(params)
    kept = sum(int((layer.edge_mask != 0).sum()) * (layer.num + layer.k + 2) for layer in model.act_fun)
    assert linear.count == kept + model.symbolic_fun[0].affine.numel() < sum(p.numel() for p in params)


@pytest.mark.parametrize("solver", ["dense", "cg"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_of_a_kan(solver, dtype):
    """As by autograd, where rounding has not yet grown; and parameters of others are left as they are."""
    x, y = problem(150)
    x, y, losses = x.to(dtype), y.to(dtype), []
    for structured in (True, False):
        model, spare = KAN([2, 3, 1], grid=5, dtype=dtype), nn.Parameter(torch.ones(2))
        optimizer = LevenbergMarquardt([*(p for p in model.parameters() if p.requires_grad), spare], solver=solver)
        closure = Residuals(model, x, y) if structured else lambda model=model: model(x) - y
        losses.append([float(optimizer.step(closure)) for _ in range(6)])
        assert torch.equal(spare.detach(), torch.ones(2))
    assert losses[0][-1] < 0.2 * losses[0][0]
    if solver == "dense":
        assert losses[0] == pytest.approx(losses[1], rel=1e-6 if dtype == torch.float64 else 0.2)


def test_goes_on_after_a_grid_extension():
    model, (x, y) = KAN([2, 2, 1], dtype=torch.float64), problem()
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = LevenbergMarquardt(params)
    for _ in range(5):
        optimizer.step(Residuals(model, x, y))
    damping = optimizer.state[params[0]]["damping"]
    model.act_fun[0].linear.extend_grid(6)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer.follow(params)
    assert optimizer.state[params[0]]["damping"] == damping and len(optimizer.state) == 1
    before = float(optimizer.step(Residuals(model, x, y)))
    assert float(optimizer.step(Residuals(model, x, y))) < before


def test_labels_of_another_shape():
    with pytest.raises(ValueError, match=r"labels have shape \[5\]: expected .* \[5, 1\]"):
        Residuals(KAN([2, 1]), torch.zeros(5, 2), torch.zeros(5))()


# In fit


def fitted(model: KAN, **options) -> dict:
    return model.fit(options.pop("data", problem()), opt="LM", progress=False, **options)


def test_fit():
    model, (x, y) = KAN([2, 5, 1], grid=5, dtype=torch.float64), problem()
    results = fitted(model, steps=30)
    losses = results["train_loss"]
    assert losses[-1] < 3e-3 and len(losses) == 30 and results["reg"] == [0.0] * 30 and results["stopped"] is None
    assert losses[-1] == pytest.approx((model(x) - y).square().mean().sqrt().item(), rel=1e-12)
    assert all(p.grad is None for p in model.parameters())


def test_fit_through_grid_sizes_keeps_the_damping():
    model, seen = KAN([2, 5, 1], dtype=torch.float64), []
    losses = fitted(model, steps=24, grid_sizes=[3, 6, 12], callback=lambda n, r: seen.append(model.grid))["train_loss"]
    assert seen == [3] * 8 + [6] * 8 + [12] * 8
    assert losses[-1] < losses[15] < losses[7]


def test_fit_with_a_penalty_descends_on_the_objective():
    model, free = KAN([2, 3, 1], dtype=torch.float64), KAN([2, 3, 1], dtype=torch.float64)
    results = fitted(model, steps=20, lamb=0.01, lamb_coef=0.1, update_grid=False)
    x, y = problem()
    reg = model.reg(lamb_coef=0.1, x=x).item()
    assert results["reg"][-1] == pytest.approx(reg, rel=1e-9)
    values = [t**2 + 0.01 * r for t, r in zip(results["train_loss"], results["reg"], strict=True)]
    assert all(b <= a * (1 + 1e-12) for a, b in zip(values, values[1:], strict=False)) and values[-1] < 0.3 * values[0]
    fitted(free, steps=20, update_grid=False)
    assert reg < free.reg(lamb_coef=0.1, x=x).item()


def test_fit_with_a_penalty_ends_below_lbfgs():
    """From most starts, in fewer evaluations of the objective: LBFGS has up to 25 in a step."""
    lower, (x, y) = 0, (t.float() for t in problem())
    for seed in (0, 3, 6):
        ends = []
        for opt, steps in (("LM", 50), ("LBFGS", 20)):
            model = KAN([2, 5, 1], grid=5, seed=seed)
            model.fit((x, y), opt=opt, steps=steps, lamb=1e-3, update_grid=False, progress=False)
            ends.append((model(x) - y).square().mean().item() + 1e-3 * model.reg(x=x).item())
        lower += ends[0] < ends[1]
    assert lower >= 2


@pytest.mark.parametrize("metric", METRICS)
def test_fit_with_every_metric(metric):
    model, x = pruned_and_symbolic(), random(80, 3)
    y = torch.stack([x[:, 0] * x[:, 2], torch.sin(3 * x[:, 2])], 1)
    first = (model(x) - y).square().mean() + 0.01 * model.reg(metric, x=x)
    fitted(model, data=(x, y), steps=10, lamb=0.01, reg_metric=metric, update_grid=False)
    last = (model(x) - y).square().mean() + 0.01 * model.reg(metric, x=x)
    assert last < 0.6 * first


@pytest.mark.parametrize("frozen", ["", "coef", "base_weight"])
def test_the_curvature_of_edges(frozen):
    """That of sum w size / (2 S0^2) S^2, whose gradient is that of sum w size where the size is S times a number."""
    model, x = kan([3, 4], grid=4, base_fun="silu" if frozen else torch.tanh), random(30, 3)
    model.act_fun[0].mask[1] = 0
    model.act_fun[0].mask[0, 0] = 0.5
    linear, parameters = model.act_fun[0].linear, dict(model.named_parameters())
    if frozen:
        getattr(linear, frozen).requires_grad_(False)
    size, weight = 2 * model.act_fun[0].edge_std(x).detach(), random(4, 3, seed=1) + 0.5

    class Weighted(Residuals):
        def weights(self):
            return [(size, weight)]

    def penalty(values: dict) -> torch.Tensor:
        spread = torch.func.functional_call(_Spread(model), {f"model.{n}": v for n, v in values.items()}, (x,))
        return (2 * weight.clamp_min(0) * spread**2 / size).nan_to_num(0).sum()

    named = {n: p for n, p in parameters.items() if p.requires_grad and p is not linear.spline_scale}
    plain, curved = (c(model, x, random(30, 4)).linearised([*named.values()]) for c in (Residuals, Weighted))
    found = curved.gram(1 << 20) - plain.gram(1 << 20)
    blocks = torch.func.hessian(penalty)(named)
    sizes = {n: p.numel() for n, p in named.items()}
    expected = torch.cat([torch.cat([blocks[a][b].reshape(sizes[a], -1) for b in named], 1) for a in named])
    expected = expected[curved.places[:, None], curved.places]
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(found, expected, **close)
    assert curved.curved and not plain.curved and expected.abs().max() > 0.1
    v = random(curved.count)
    torch.testing.assert_close(curved.product(v), curved.gram(1 << 20) @ v, **close)
    torch.testing.assert_close(curved.diagonal(1 << 20), curved.gram(1 << 20).diagonal(), **close)


class _Spread(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        values = self.model.act_fun[0].postacts(x)
        return values.std(0)


def test_fit_by_class_factory_and_optimizer_and_in_batches():
    one, two, three = (KAN([2, 3, 1], dtype=torch.float64) for _ in range(3))
    one.fit(problem(), opt=LevenbergMarquardt, steps=6, update_grid=False, progress=False)
    for model in (two, three):
        for layer in model.act_fun:
            layer.linear.spline_scale.requires_grad_(False)  # as "LM" holds them
    two.fit(problem(), opt=lambda p: LevenbergMarquardt(p), steps=6, update_grid=False, progress=False)
    optimizer = LevenbergMarquardt([p for p in three.parameters() if p.requires_grad])
    for _ in range(2):  # resumed, it is the same
        three.fit(problem(), opt=optimizer, steps=3, update_grid=False, progress=False)
    for p, q, r in zip(one.parameters(), two.parameters(), three.parameters(), strict=True):
        assert torch.equal(p, q) and torch.equal(p, r)
    results = [fitted(KAN([2, 3, 1], dtype=torch.float64), steps=12, batch=100, seed=3) for _ in range(2)]
    assert results[0] == results[1] and results[0]["train_loss"][-1] < 0.3 * results[0]["train_loss"][0]


def test_fit_ends_in_the_last_good_state():
    model, (x, y) = KAN([2, 2, 1], dtype=torch.float64), problem()
    start = [p.detach().clone() for p in model.parameters()]
    y[3] = math.nan
    with pytest.warns(RuntimeWarning, match="the loss is nan at step 0"):
        fitted(model, data=(x, y), steps=3, update_grid=False)
    assert all(torch.equal(p, q) for p, q in zip(start, model.parameters(), strict=True))


def test_fit_interrupted(monkeypatch):
    model, calls, forward = KAN([2, 2, 1], dtype=torch.float64), [], Residuals.__call__

    def interrupted(self):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return forward(self)

    monkeypatch.setattr(Residuals, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted(model, steps=20)
    monkeypatch.undo()
    assert fitted(model, steps=2)["stopped"] is None


def test_fit_with_another_loss():
    with pytest.raises(ValueError, match="loss_fn=.*cross_entropy.*: expected None, the mean square error"):
        fitted(KAN([2, 1], dtype=torch.float64), loss_fn=nn.functional.cross_entropy)


def test_fit_of_one_layer_is_linear_least_squares():
    """Scales stay, unless one is 0."""
    x = random(500, 1)
    y = torch.special.bessel_j0(20 * x)
    model = KAN([1, 1], grid=10, base_fun="zero", dtype=torch.float64)
    model.update_grid(x)
    phi = model.act_fun[0].features(x)[:, 0]
    best = (phi @ torch.linalg.lstsq(phi, y).solution - y).square().mean().sqrt().item()
    scale = model.act_fun[0].scale_sp.clone()
    assert fitted(model, data=(x, y), steps=25, update_grid=False)["train_loss"][-1] == pytest.approx(best, rel=1e-6)
    assert torch.equal(model.act_fun[0].scale_sp, scale)
    model.act_fun[0].scale_sp = torch.zeros(1, 1)
    assert fitted(model, data=(x, y), steps=5)["train_loss"][-1] < 0.5
    assert model.act_fun[0].scale_sp.item() != 0


def test_many_short_fits_get_as_far_as_a_long_one():
    """The first step of each finds the damping that the last had come to."""
    data, start = problem(800), KAN([2, 1, 1], grid=4, seed=1, outside="zero", dtype=torch.float64)
    options = {"data": data, "update_grid": False}
    fitted(start, steps=20, **options)
    start = start.refine(40)
    ends = []
    for steps in (16, 4, 1):
        model = start.copy()
        for _ in range(16 // steps):
            losses = fitted(model, steps=steps, **options)["train_loss"]
        ends.append(losses[-1])
    assert ends[0] < 3e-5 and max(ends) < 3 * ends[0]


def test_refinement_by_hand_gets_as_far_as_grid_sizes():
    data, start = problem(800), KAN([2, 1, 1], grid=4, seed=1, outside="zero", dtype=torch.float64)
    options = {"data": data, "update_grid": False}
    fitted(start, steps=20, **options)
    model = start.copy()
    together = fitted(start, steps=18, grid_sizes=[8, 16, 32], **options)["train_loss"][-1]
    for size in (8, 16, 32):
        model = model.refine(size)
        by_hand = fitted(model, steps=6, **options)["train_loss"][-1]
    assert together < 2e-5 and by_hand < 20 * together
