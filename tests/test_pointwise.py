"""fit with residuals of the network's derivatives: the Jacobian of Levenberg-Marquardt, and what is solved with it."""

import math

import pytest
import torch

from fastkan import KAN
from fastkan.network.checkpoint import State
from fastkan.network.train import pointwise
from fastkan.network.train.jacobian import Products
from fastkan.network.train.pointwise import PointwiseObjective, PointwiseResiduals
from support.least_squares import random

INSIDE, EDGE = random(30, 2, seed=0), random(12, 2, seed=1)


def poisson(model):
    u, first, second = model.derivatives(INSIDE, 2)
    return [second.sum(-1) - u * first[..., 0] - 1, 3 * (model(EDGE) - EDGE[:, :1])]


TERMS = {
    "of second order": poisson,
    "of fourth order": lambda model: model.derivatives(INSIDE, 4, torch.tensor([[1.0, 0.5]]))[4].squeeze(-1) - 1,
    "of two passes in one row": lambda model: model(INSIDE) - model(INSIDE.flip(1)),
    "of a constant": lambda model: [model(INSIDE), torch.ones(3, dtype=torch.float64)],
}


def products(model, terms):
    objective = PointwiseObjective(model, terms, 0.0, "edge_forward_spline_n", {}, {}, 1e-6)
    params = [p for name, p in model.named_parameters() if p.requires_grad and "spline_scale" not in name]
    closure = PointwiseResiduals(objective, None, None, State(model))
    return objective, closure.linearised(params)


@pytest.mark.parametrize("kind", TERMS)
@pytest.mark.parametrize("width", [[2, 3, 1], [2, [1, 1], 1]], ids=str)
def test_the_jacobian(kind, width):
    model = KAN(width, grid=3, k=5, seed=1, affine_trainable=True).double()
    model.act_fun[0].mask[1, 0] = 0
    objective, linear = products(model, TERMS[kind])
    torch.testing.assert_close(linear.jacobian(1 << 28), Products.jacobian(linear, 1 << 28))
    assert objective.pointwise


@pytest.mark.parametrize(
    "terms",
    [
        lambda model: model(INSIDE) - model(INSIDE).mean(),
        lambda model: model(INSIDE).mean(),
        lambda model: model(INSIDE)[1:] - model(INSIDE)[:-1],
    ],
)
def test_terms_of_several_rows_take_the_jacobian_of_autograd(terms):
    objective, linear = products(KAN([2, 2, 1], grid=3, seed=1).double(), terms)
    torch.testing.assert_close(linear.jacobian(1 << 28), Products.jacobian(linear, 1 << 28))
    assert not objective.pointwise


@pytest.mark.parametrize("opt", ["LM", "LBFGS", "Adam"])
def test_an_ordinary_differential_equation(opt):
    """u' = cos, u(0) = 0: u = sin."""
    x, zero = torch.linspace(-2, 2, 60, dtype=torch.float64)[:, None], torch.zeros(1, 1, dtype=torch.float64)

    def residuals(model):
        return [model.derivatives(x, 1)[1][..., 0] - x.cos(), model(zero)]

    model = KAN([1, 1], grid=5, seed=0).double()
    options = {"LM": {"steps": 10}, "LBFGS": {"steps": 20}, "Adam": {"steps": 300, "lr": 0.03}}[opt]
    results = model.fit(residuals=residuals, opt=opt, progress=False, **options)
    assert (model(x) - x.sin()).abs().max() < {"LM": 3e-3, "LBFGS": 3e-3, "Adam": 0.1}[opt]
    assert results["train_loss"][-1] < {"LM": 3e-3, "LBFGS": 3e-3, "Adam": 0.1}[opt] and model.cache_data is not None


def test_data_and_residuals_together():
    x = random(50, 1, seed=2)
    model = KAN([1, 1], grid=5, seed=0).double()
    data = (x[:5], x[:5].sin() + 1)
    model.fit(data, residuals=lambda m: m.derivatives(x, 1)[1][..., 0] - x.cos(), opt="LM", steps=10, progress=False)
    assert (model(x) - x.sin() - 1).abs().max() < 1e-3


def test_a_step_of_lm_makes_no_graph_of_graphs(monkeypatch):
    monkeypatch.setattr(pointwise.Products, "push", lambda *_: pytest.fail("the Jacobian came from autograd"))
    KAN([2, 2, 1], grid=3).double().fit(residuals=poisson, opt="LM", steps=2, progress=False)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"residuals": 1}, "residuals=1"),
        ({"residuals": lambda model: []}, "empty"),
        ({"residuals": lambda model: "u"}, "residuals returned 'u'"),
        ({"residuals": poisson, "loss_fn": torch.nn.functional.l1_loss}, "loss_fn"),
        ({"residuals": poisson, "lamb": 0.1, "opt": "LM"}, "lamb=0.1"),
        ({}, "dataset"),
    ],
)
def test_wrong_arguments(options, named):
    with pytest.raises((TypeError, ValueError), match=named):
        KAN([2, 1]).double().fit(**({"steps": 2, "progress": False} | options))


def test_a_penalty_beside_residuals():
    model = KAN([2, 2, 1], grid=3, seed=0).double()
    results = model.fit(residuals=poisson, lamb=1e-2, steps=5, progress=False)
    assert results["reg"][-1] > 0 and math.isfinite(results["train_loss"][-1])
