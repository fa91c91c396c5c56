"""Dropout and layer normalisation of hidden nodes."""

import pytest
import torch
from torch.nn import functional as F

from fastkan import KAN
from fastkan.network.train.objective import Objective


def network(**options) -> KAN:
    return KAN([2, 4, 3, 1], dtype=torch.float64, seed=0, **options)


def points(rows: int = 40) -> torch.Tensor:
    return torch.rand(rows, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def by_layers(model: KAN, x: torch.Tensor) -> torch.Tensor:
    """The network from its layers, hidden nodes normalised and dropped by PyTorch's functions."""
    for l, layer in enumerate(model.act_fun):
        x = layer(x)
        if l < model.depth - 1:
            x = F.layer_norm(x, x.shape[-1:]) if model.layer_norm else x
            x = F.dropout(x, model.dropout, model.training)
    return x


@pytest.mark.parametrize("options", [{"layer_norm": True}, {"dropout": 0.5}, {"layer_norm": True, "dropout": 0.5}])
@pytest.mark.parametrize("training", [True, False])
def test_hidden_nodes_are_normalised_and_dropped(options, training):
    model, x = network(**options).train(training), points()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        found = model(x)
        torch.manual_seed(3)
        assert torch.equal(found, by_layers(model, x))
        changed = not torch.allclose(found, network()(x))
    assert changed == (training or "layer_norm" in options)


@pytest.mark.parametrize("lamb", [0.0, 1e-2])
def test_the_gradients_of_a_step_are_autograds(lamb):
    model, x = network(layer_norm=True), points()
    lambdas = {"lamb_l1": 1.0, "lamb_entropy": 2.0, "lamb_coef": 0.0, "lamb_coefdiff": 0.0}
    objective = Objective(model, None, lamb, "edge_forward_spline_n", lambdas, {})
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(objective(x, x[:, :1])[0], parameters)
    assert objective.fused() is not None
    objective.step_function()(x, x[:, :1])
    for p, grad in zip(parameters, expected, strict=True):
        assert torch.allclose(p.grad, grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "opt", "lr"),
    [({"layer_norm": True}, "LBFGS", 1.0), ({"layer_norm": True}, "LM", 1.0), ({"dropout": 0.1}, "AdamW", 0.05)],
)
def test_training(options, opt, lr):
    model, x = network(**options), points()
    results = model.fit(x, x[:, 0] * x[:, 1], opt=opt, lr=lr, steps=30, progress=False)
    assert results["test_loss"][-1] < 0.8 * results["test_loss"][0]
    loss = (model.eval()(x)[:, 0] - x[:, 0] * x[:, 1]).square().mean().sqrt().item()
    assert results["test_loss"][-1] == pytest.approx(loss, rel=1e-9)  # tested without dropout


def test_they_are_kept_by_files_copies_and_refinement(tmp_path):
    model = network(layer_norm=True, dropout=0.2).eval()
    model.save(tmp_path / "model.pt")
    for other in (KAN.load(tmp_path / "model.pt").eval(), model.copy(), model.refine(6).eval()):
        assert (other.layer_norm, other.dropout) == (True, 0.2)
        assert torch.allclose(other(points()), model(points()), rtol=0, atol=1e-6)
    assert "dropout=0.2, layer_norm=True" in repr(model)


def test_what_does_not_know_of_them_says_so():
    model, x = network(layer_norm=True), points()
    actions = [
        lambda: model.symbolic_formula(numeric="function"), lambda: model.derivatives(x, 1), model.expand_depth,
        lambda: model.expand_width(1, 1),
    ]  # fmt: skip
    for action in actions:
        with pytest.raises(ValueError, match="layer_norm=True: expected False for"):
            action()
    model.swap(1, 0, 1)  # an order changes nothing
    with pytest.raises(ValueError, match="opt='LBFGS': expected another, such as 'Adam', with dropout"):
        network(dropout=0.1).fit(x, x[:, 0], progress=False)
    with pytest.raises(RuntimeError, match=r"dropout=0.1: expected eval\(\) before derivatives"):
        network(dropout=0.1).derivatives(x, 1)
    with pytest.raises(ValueError, match="dropout=2.0: expected a finite number"):
        network(dropout=2.0)
