"""fit(refine_to=): finer and finer grids, until the loss is low enough or no longer falls."""

from typing import Any

import pytest
import torch

from fastkan import KAN

OPTIONS = {"opt": "LM", "steps": 8, "progress": False}


def data(noise=0.0, rows=800):
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(2 * rows, 1, dtype=torch.float64, generator=generator) - 1
    y = torch.sin(6 * x) + noise * torch.randn(2 * rows, 1, dtype=torch.float64, generator=generator)
    return x[:rows], y[:rows], x[rows:], y[rows:]


def network(grid=3):
    return KAN([1, 1], grid=grid, seed=0, dtype=torch.float64)


def test_refines_until_the_loss_is_reached():
    model, steps = network(), []
    result = model.fit(data(), refine_to=1e-5, callback=lambda n, r: steps.append((n, len(r["grid"]))), **OPTIONS)
    assert result["stopped"] is None and result["test_loss"][-1] <= 1e-5
    assert result["grid"] == [3 * 2 ** (n // 8) for n in range(len(result["grid"]))]
    assert steps == [(n, n + 1) for n in range(len(result["grid"]))] and model.grid == result["grid"][-1] > 12
    assert result["test_loss"][-9] > 1e-5


def test_does_nothing_further_where_it_is_reached_at_once():
    expected = network().fit(data(), **OPTIONS)
    assert network().fit(data(), refine_to=1.0, **OPTIONS) == expected


def test_ends_where_noise_is_left_and_keeps_the_better_model():
    model, sets = network(), data(noise=0.1, rows=60)
    result = model.fit(sets, refine_to=1e-6, **OPTIONS)
    assert "no longer lower the loss" in result["stopped"]
    with torch.no_grad():
        reached = (model(sets[2]) - sets[3]).square().mean().sqrt().item()
    last = {size: loss for size, loss in zip(result["grid"], result["test_loss"], strict=True)}
    assert reached == pytest.approx(min(list(last.values())[-2:]))


def test_ends_where_an_interval_would_have_too_few_rows():
    x, y, *_ = data(rows=40)
    model = network()
    result = model.fit((x, y), refine_to=1e-9, **OPTIONS)
    assert "fewer than 2 rows an interval" in result["stopped"] and model.grid == 12


def test_with_residuals_and_a_callback_that_ends_it():
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]

    def residuals(model):
        _, first = model.derivatives(x, 1)
        return [first[..., 0] - torch.cos(x), model(torch.zeros(1, 1, dtype=torch.float64))]

    model = network()
    assert model.fit(residuals=residuals, refine_to=1e-6, **OPTIONS)["train_loss"][-1] <= 1e-6
    assert (model(x) - torch.sin(x)).abs().max() < 1e-5
    ended = network().fit(residuals=residuals, refine_to=0, callback=lambda step, r: step == 10, **OPTIONS)
    assert ended["stopped"] == "by the callback at step 10" and len(ended["train_loss"]) == 11


@pytest.mark.parametrize("refine_to", [-1e-6, float("nan"), "low", True])
def test_a_wrong_target(refine_to):
    with pytest.raises((TypeError, ValueError), match="refine_to=.*expected a finite number, at least 0"):
        network().fit(data(), refine_to=refine_to, **OPTIONS)


def test_no_optimizer_made_before_and_no_training_without_steps():
    model = network()
    optimizer: Any = torch.optim.Adam(model.parameters())
    with pytest.raises(ValueError, match="opt is an optimizer.*refine_to"):
        model.fit(data(), opt=optimizer, refine_to=1e-3, progress=False)
    with pytest.raises(ValueError, match="steps=0"):
        model.fit(data(), steps=0, refine_to=1e-3, progress=False)
