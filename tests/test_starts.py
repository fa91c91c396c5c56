"""fit: several starts, and the optimizer that it chooses."""

import pytest
import torch

from fastkan import KAN
from fastkan.network.train import stepper

X = torch.rand(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = (X[:, :1] * X[:, 1:]).sin()
OPTIONS = {"steps": 4, "progress": False}


def kan(seed: int = 3, **options) -> KAN:
    return KAN([2, 2, 1], grid=3, seed=seed, dtype=torch.float64, **options)


def test_the_best_of_several_starts():
    """The starts are models of the seeds 3, 4 and 5; the result is that of the best, and the model is it."""
    alone = [kan(seed) for seed in (3, 4, 5)]
    losses = [model.fit((X, Y), **OPTIONS)["test_loss"][-1] for model in alone]
    model = kan()
    results = model.fit((X, Y), starts=3, **OPTIONS)
    best = min(range(3), key=losses.__getitem__)
    assert [float(loss) for loss in results["starts"]] == pytest.approx([float(loss) for loss in losses], rel=1e-9)
    assert results["test_loss"][-1] == results["starts"][best] and best > 0
    torch.testing.assert_close(model(X), alone[best](X), rtol=1e-9, atol=1e-12)


def test_starts_on_finer_grids_begin_on_the_first():
    model = kan()
    results = model.fit((X, Y), starts=2, grid_sizes=[3, 6], **OPTIONS)
    assert len(results["starts"]) == 2 and results["grid"] == [3, 3, 6, 6] and model.grid == 6


def test_the_best_start_is_refined():
    model = kan()
    results = model.fit((X, Y), opt="LM", starts=3, refine_to=1e-5, steps=20, progress=False)
    assert len(results["starts"]) == 3 and float(results["test_loss"][-1]) < min(map(float, results["starts"]))


def test_wrong_starts():
    with pytest.raises(ValueError, match="starts=0: expected"):
        kan().fit((X, Y), starts=0, **OPTIONS)
    model = kan()
    with pytest.raises(ValueError, match="an optimizer: expected its class"):
        model.fit((X, Y), opt=torch.optim.Adam(model.parameters()), starts=2, **OPTIONS)
    model.remove_edge(0, 0, 0)
    with pytest.raises(ValueError, match="layer 0 has pruned or symbolic edges: expected starts=1"):
        model.fit((X, Y), starts=2, **OPTIONS)


def test_starts_of_a_sparse_model():
    assert len(kan(sparse_init=True).fit((X, Y), starts=2, **OPTIONS)["starts"]) == 2


@pytest.fixture
def optimizers(monkeypatch) -> list:
    """opt of every optimizer that fit makes."""
    made, make = [], stepper.Stepper._make

    def recorded(self, parameters):
        made.append(self.opt)
        return make(self, parameters)

    monkeypatch.setattr(stepper.Stepper, "_make", recorded)
    return made


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "LM"),
        ({"lamb": 0.01}, "LBFGS"),
        ({"batch": 20}, "LBFGS"),
        ({"loss_fn": torch.nn.functional.l1_loss}, "LBFGS"),
        ({"loss_fn": torch.nn.functional.mse_loss}, "LM"),
    ],
)
def test_chosen_optimizer(optimizers, changed, expected):
    kan().fit((X, Y), opt="auto", **OPTIONS, **changed)
    assert optimizers == [expected]


def test_chosen_optimizer_of_residuals_large_and_half_precision_models(optimizers):
    kan().fit(opt="auto", residuals=lambda model: [model(X) - Y], update_grid=False, **OPTIONS)
    KAN([2, 300, 1], grid=5).fit((X.float(), Y.float()), opt="auto", steps=1, progress=False)
    kan().bfloat16().fit((X.bfloat16(), Y.bfloat16()), opt="auto", steps=1, progress=False)
    assert optimizers == ["LM", "LBFGS", "LBFGS"]
