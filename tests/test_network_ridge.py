"""Base weights stay moderate in training, where splines could cancel the base function."""

import pytest
import torch

from fastkan import KAN
from fastkan.network.checkpoint import State
from fastkan.network.train.lm_residuals import ObjectiveResiduals
from fastkan.network.train.objective import Objective
from support.least_squares import NETWORKS, random

SHARE = 1e-2
LAMBDAS = {"lamb_l1": 1.0, "lamb_entropy": 2.0, "lamb_coef": 0.1, "lamb_coefdiff": 0.0}


def objective(model: KAN, lamb: float = 0.0) -> Objective:
    return Objective(model, None, lamb, "edge_forward_spline_n", LAMBDAS, {}, SHARE)


def ridge(model: KAN, loss: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """By its formula, differentiable by the base weights."""
    weights = [(layer.linear.base_weight, layer.edge_mask != 0) for layer in model.act_fun]
    return SHARE * loss / y.square().mean() * sum((w.square() * on).sum() for w, on in weights if w is not None)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_added_to_the_objective_and_its_gradient(name):
    model = NETWORKS[name]()
    x, y = random(20, model.in_features), 3 * random(20, model.width_in[-1], seed=1)
    evaluate = objective(model).step_function()
    total, value = evaluate(x, y)
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = (model(x) - y).square().mean()
    expected = loss + ridge(model, loss.detach(), y)
    expected.backward()
    torch.testing.assert_close(total, expected.detach(), rtol=1e-12, atol=0)
    for n, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(found[n], p.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(value.loss, loss.detach())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    assert evaluate(x, y)[0] == pytest.approx(
        ((model(x) - y).square().mean() + ridge(model, loss.detach(), y)).item(), rel=1e-12
    ), "the ridge takes the loss at the start of the step"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("lamb", [0.0, 0.01])
def test_it_is_residuals_of_levenberg_marquardt(name, lamb):
    model = NETWORKS[name]()
    x, y = random(20, model.in_features), 3 * random(20, model.width_in[-1], seed=1)
    batch, params = (
        ObjectiveResiduals(objective(model, lamb), x, y, State(model)),
        [p for p in model.parameters() if p.requires_grad],
    )
    linear = batch.linearised(params)
    rows = [torch.autograd.grad(r, params, allow_unused=True, retain_graph=True) for r in batch()]
    expected = torch.stack(
        [
            torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(row, params, strict=True)])
            for row in rows
        ]
    )[:, linear.places]
    close = {"rtol": 1e-9, "atol": 1e-10}
    jacobian = linear.jacobian(1 << 20)
    torch.testing.assert_close(jacobian, expected, **close)
    u, v = random(len(expected), seed=7), random(linear.count, seed=8)
    torch.testing.assert_close(linear.forward(v), expected @ v, **close)
    torch.testing.assert_close(linear.transposed(u), expected.T @ u, **close)
    gram = linear.gram(1 << 20)
    torch.testing.assert_close(linear.product(v), gram @ v, **close)
    torch.testing.assert_close(linear.diagonal(1 << 20), gram.diagonal(), **close)
    if not lamb:
        torch.testing.assert_close(gram, expected.T @ expected, **close)
        loss = (model(x) - y).square().mean()
        total = linear.residuals.square().sum() / y.numel()
        torch.testing.assert_close(total, (loss + ridge(model, loss, y)).detach(), **close)


@pytest.mark.parametrize("opt", ["LBFGS", "LM"])
@pytest.mark.parametrize("outside", ["zero", "linear", "clamp"])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_base_weights_and_splines_do_not_cancel(opt, outside, scale):
    """Coarse splines leave a rest of SiLU that is like nothing in the data: least squares want 1e4 of it."""
    x = random(1000, 1)
    beyond = torch.tensor([[-1.01], [1.01]], dtype=torch.float64)
    model = KAN([1, 1], grid=3, seed=0, outside=outside, dtype=torch.float64)
    for size in (3, 5, 10, 20, 50):
        model = model.refine(size)
        results = model.fit((x, scale * torch.special.bessel_j0(20 * x)), opt=opt, steps=10, progress=False)
        assert model.act_fun[0].scale_base.abs().max() < 10 * scale
    assert results["train_loss"][-1] < 4e-4 * scale
    assert (model(beyond) - scale * torch.special.bessel_j0(20 * beyond)).abs().max() < 0.1 * scale


def test_large_base_weights_come_back():
    x = random(500, 1)
    y = torch.special.bessel_j0(20 * x)
    model = KAN([1, 1], grid=50, dtype=torch.float64)
    linear = model.act_fun[0].linear
    silu = linear.curve2coeff(x, torch.nn.functional.silu(x)[..., None]).permute(1, 2, 0)
    with torch.no_grad():
        linear.base_weight += 3e4
        linear.coef -= 3e4 * silu / linear.spline_scale
    model.fit((x, y), opt="LM", steps=20, update_grid=False, progress=False)
    assert linear.base_weight.abs().max() < 10


@pytest.mark.parametrize(("opt", "grid", "least"), [("LM", 1, 1e-12), ("LBFGS", 5, 1e-10), ("LM", 50, 1e-5)])
def test_an_exact_fit_stays_exact(opt, grid, least):
    """Where the base function is what the labels are, many times over; fine splines are the same to 1e-9 of it."""
    x = random(300, 1)
    y = 40 * torch.nn.functional.silu(x)
    model = KAN([1, 1], grid=grid, dtype=torch.float64)
    assert model.fit((x, y), opt=opt, steps=30, progress=False)["train_loss"][-1] < least


def test_frozen_and_switched_off_weights_stay():
    x, y = random(50, 2), random(50, 1, seed=1)
    model = KAN([2, 2, 1], dtype=torch.float64)
    model.act_fun[0].mask[0, 1] = 0
    model.act_fun[1].linear.base_weight.requires_grad_(False)
    before = [layer.scale_base.clone() for layer in model.act_fun]
    for opt in ("LBFGS", "LM"):
        model.fit((x, y), opt=opt, steps=3, progress=False)
    assert torch.equal(model.act_fun[1].scale_base, before[1])
    assert model.act_fun[0].scale_base[0, 1] == before[0][0, 1] and model.act_fun[0].scale_base[1, 0] != before[0][1, 0]
