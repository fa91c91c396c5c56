"""Optimizers of fit, torch's too: what they find of a model, and what is reported of where they end."""

import copy

import pytest
import torch
from test_network_model import inputs

from fastkan import KAN, science


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
