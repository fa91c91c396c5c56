"""Optimizers of fit, torch's included: the model that they see, and the reported losses."""

import copy

import pytest
import torch

from fastkan import KAN, science
from fastkan.network.layers.library import add_symbolic
from fastkan.network.train.lbfgs import LBFGS
from support.models import inputs


def made_of(what: str) -> KAN:
    """A model [3, [2, 1], 4, 1] that has been through a public operation."""
    model, x = KAN([3, [2, 1], 4, 1], grid=5), inputs(40, 3).float()
    if what == "refine":
        return model.refine(10)
    if what == "sizes":
        return model.refine([3, 7, 4]).copy()
    if what == "prune":
        return model.refine(6).prune(0.0, 0.05, x=x)
    if what == "rearranged":
        model.expand_width(1, 2)
        model.expand_depth()
    elif what == "another":
        model.initialize_from_another_model(KAN([3, [2, 1], 4, 1], grid=7))
    elif what == "fit":
        model.fit((x, x[:, :1]), steps=2, grid_sizes=[4, 8], progress=False)
    elif what in ("load", "assign"):
        model.load_state_dict(model.refine(9).state_dict(), assign=what == "assign")
    return model


MADE = ["start", "refine", "sizes", "prune", "rearranged", "another", "fit", "load", "assign"]


@pytest.mark.parametrize("what", MADE)
def test_parameters_and_gradients_lie_in_the_order_of_their_dimensions(what):
    """torch.optim.LBFGS and others flatten them by view."""
    model, x = made_of(what), inputs(40, 3).float()
    assert all(p.is_contiguous() for p in model.parameters())
    curvature = science.batch_hessian(model, x, create_graph=True).diagonal(dim1=1, dim2=2).sum(1)
    for value in (model(x).square().mean(), curvature.square().mean(), model.reg("edge_forward_sum", x=x)):
        model.zero_grad()
        value.backward()
        assert all(p.grad is None or p.grad.is_contiguous() for p in model.parameters())
    for lamb in (0.0, 0.01):
        results = model.fit((x, x[:, :1]), opt=stock, steps=2, lamb=lamb, lamb_coefdiff=0.1, progress=False)
        assert results["stopped"] is None


def name_of(opt) -> str:
    return opt if isinstance(opt, str) else opt.__name__


def stock(parameters) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(parameters, max_iter=4, line_search_fn="strong_wolfe")


def test_a_layer_keeps_no_tensor_of_the_caller():
    linear = copy.deepcopy(KAN([2, 3]).act_fun[0].linear)
    grid = torch.linspace(-1, 1, 2 * 3 + 8, dtype=torch.float64).repeat(2, 1)
    coef = torch.ones(2, 3, 10).transpose(1, 2)
    linear.set_grid(grid, coef)
    with torch.no_grad():
        linear.coef.zero_()
        linear.grid.zero_()
    assert coef.min() == 1 and grid.max() == 1


# What is reported is where a step has ended


class Probing(torch.optim.Optimizer):
    """Looks around before and after it has gone down the gradient, as some do."""

    def __init__(self, parameters, lr: float = 0.01):
        super().__init__(parameters, {"lr": lr})

    def step(self, closure):
        parameters = [p for p in self.param_groups[0]["params"] if p.requires_grad]
        loss = closure()
        with torch.no_grad():
            for p in parameters:
                p.sub_(self.param_groups[0]["lr"] * p.grad)
            for offset in (0.3, -0.3):
                for p in parameters:
                    p.add_(offset)
                with torch.enable_grad():
                    closure()
                for p in parameters:
                    p.sub_(offset)
        return loss


@pytest.mark.parametrize("lamb", [0.0, 0.01])
@pytest.mark.parametrize("opt", ["LBFGS", "LM", stock, torch.optim.LBFGS, Probing], ids=name_of)
def test_the_loss_and_the_penalty_of_where_a_step_has_ended(opt, lamb):
    x = inputs(60, 2)
    y = torch.sin(3 * x[:, :1]) + x[:, 1:] ** 2
    model = KAN([2, 3, 1], dtype=torch.float64)

    def here(step, results):
        loss = (model(x) - y).square().mean().sqrt().item()
        assert results["train_loss"][-1] == pytest.approx(loss, rel=1e-9)
        assert results["test_loss"][-1] == pytest.approx(loss, rel=1e-9)
        assert results["reg"][-1] == pytest.approx(model.reg(x=x).item() if lamb else 0.0, rel=1e-9)

    lr = 0.01 if isinstance(opt, type) else 1.0
    results = model.fit((x, y), opt=opt, lr=lr, steps=6, lamb=lamb, callback=here, progress=False)
    assert results["stopped"] is None and len(results["train_loss"]) == 6


def edge(name: str, rows: int = 40) -> tuple[KAN, torch.Tensor, torch.Tensor]:
    """A formula of the library beside the edge of its domain, where the data end."""
    x = torch.linspace(0, 1, rows, dtype=torch.float64)[:, None]
    model = KAN([1, 1], dtype=torch.float64)
    model.fix_symbolic(0, 0, 0, name, fit_params_bool=False)
    return model, x, x.sqrt() + 0.1


@pytest.mark.parametrize("opt", ["LBFGS", "Adam", "LM", stock], ids=name_of)
@pytest.mark.parametrize("name", ["sqrt", "x^1.5", "arcsin"])
def test_a_formula_at_the_edge_of_its_domain_trains(name, opt):
    """Where a step leads out of the domain it is shorter."""
    model, x, y = edge(name)
    before = (model(x) - y).square().mean().sqrt()
    results = model.fit((x, y), opt=opt, lr=0.05 if opt == "Adam" else 1.0, steps=15, progress=False)
    assert results["stopped"] is None and torch.tensor(results["train_loss"]).isfinite().all()
    assert model(x).isfinite().all() and (model(x) - y).square().mean().sqrt() < 0.9 * before


def test_the_last_step_may_not_leave_the_domain():
    model, x, y = edge("sqrt")
    model.fit((x, y.neg()), opt="Adam", lr=0.1, steps=1, progress=False)
    assert model(x).isfinite().all()


@pytest.mark.parametrize("opt", ["LBFGS", "Adam", "LM"])
def test_non_finite_gradient_warns(opt):
    model, x, y = edge("sqrt")
    add_symbolic("root", lambda x: x.sqrt())
    model.fix_symbolic(0, 0, 0, "root", fit_params_bool=False)
    before = model.symbolic_fun[0].affine.detach().clone()
    with pytest.warns(RuntimeWarning, match="fit stopped: .* not finite at step 0; the model is as it was"):
        results = model.fit((x, y), opt=opt, lr=0.1, steps=3, progress=False)
    assert "not finite" in results["stopped"] and torch.equal(model.symbolic_fun[0].affine, before)


# Numbers of 16 bits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("opt", ["LBFGS", "Adam", "LM"])
def test_training_in_16_bits(opt, dtype):
    x = inputs(100, 2, scale=1.0)
    y = torch.exp(torch.sin(3 * x[:, :1]) + x[:, 1:] ** 2)
    for lamb in (0.0, 0.001):
        model = KAN([2, 3, 1], dtype=dtype)
        lr = 0.02 if opt == "Adam" else 1.0
        results = model.fit((x.to(dtype), y.to(dtype)), opt=opt, lr=lr, steps=8, lamb=lamb, progress=False)
        assert results["stopped"] is None and all(p.dtype == dtype for p in model.parameters())
        assert results["train_loss"][-1] < 0.9 * results["train_loss"][0]


def test_sixteen_bit_training_warns():
    x = inputs(100, 2, scale=1.0).half()
    with pytest.warns(RuntimeWarning, match="torch.float16 is coarse for training: expected model.float()"):
        KAN([2, 3, 1], dtype=torch.float16).fit((x, x[:, :1]), opt=torch.optim.AdamW, lr=0.01, progress=False)


# LBFGS


def test_values_on_a_line():
    """A cubic through two points of a line has no bend to divide by; nor has a step of 0 a length."""
    for lr in (1.0, 0.0):
        p = torch.zeros(2, requires_grad=True)
        optimizer = LBFGS([p], lr=lr)

        def closure(p=p, optimizer=optimizer):
            optimizer.zero_grad()
            value = (p * torch.tensor([1.0, -0.5])).sum()
            value.backward()
            return value

        first = optimizer.step(closure)
        assert isinstance(first, torch.Tensor) and first.item() == 0
        assert p.isfinite().all() and (p.abs().max() > 1) == (lr > 0)


def test_pykans_lbfgs_returns_the_loss_and_hears_of_changes():
    from fastkan.compat.pykan.kan.LBFGS import LBFGS as PykansLBFGS

    p = torch.ones(3, requires_grad=True)
    options = {"tolerance_grad": 1e-32, "tolerance_change": 1e-32, "line_search_fn": "strong_wolfe"}
    optimizer = PykansLBFGS([p], lr=1, history_size=10, **options)

    def closure():
        optimizer.zero_grad()
        loss = (p.square() * torch.tensor([1.0, 2.0, 3.0])).sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert isinstance(loss, torch.Tensor) and loss.detach().item() == 6
    optimizer.param_groups[0]["lr"] = 0.0
    before = p.detach().clone()
    optimizer.step(closure)
    assert torch.equal(p, before)
