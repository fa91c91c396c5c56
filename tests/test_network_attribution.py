"""Scores of nodes, edges and inputs when few rows, or an input with few values, dominate the standard deviation."""

import pytest
import torch

from fastkan import KAN
from fastkan.network.scores.attribution import from_outputs

ROWS = 1000


def table(rare: int, seed: int = 0) -> torch.Tensor:
    """Three columns of numbers, and one that is 1 in `rare` rows, all of mean 0 and standard deviation 1."""
    x = 2 * torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    x[:, 3] = 0.0
    x[3 : 3 + rare, 3] = 1.0
    return (x - x.mean(0)) / x.std(0)


def network(width=(4, 5, 1), follows: bool = False, x: torch.Tensor | None = None, **options) -> KAN:
    """A network whose hidden nodes the last input moves as far as its values; what comes after follows, or ends."""
    options = {"base_fun": "identity", "outside": "zero", "dtype": torch.float64} | options
    model = KAN(list(width), grid=5, seed=2, **options)
    with torch.no_grad():
        model.act_fun[0].scale_base[3] = torch.linspace(0.5, 1.0, model.act_fun[0].out_dim)
        for layer in model.act_fun[1:]:
            layer.scale_base.fill_(0.3 if follows else 0.0)
            layer.coef *= 20
    model.get_act(x)
    return model


def plain(model: KAN) -> list[torch.Tensor]:
    """The inputs' scores by standard deviations alone, as pykan has them."""
    return from_outputs(model, model.last_activations, rows=False).nodes[0].mean(0).tolist()


@torch.no_grad()
def measured(model: KAN, i: int) -> float:
    """The standard deviation of what the input does, beside its usual value, over that of the output."""
    x = model.cache_data.clone()
    x[:, i] = x[:, i].median()
    y = model(model.cache_data)
    return float((y - model(x)).std() / y.std())


@pytest.mark.parametrize("width", [(4, 5, 1), (4, 4, 3, 1), (4, [3, 1], 1)])
@pytest.mark.parametrize("rare", [2, 10, 30])
def test_an_input_that_is_rare_and_does_not_matter(width, rare):
    model = network(width, x=table(rare))
    scores, before = model.feature_score.tolist(), plain(model)
    assert before[3] > 0.3 and before[3] > 3 * measured(model, 3)
    assert scores[3] <= 1.05 * measured(model, 3)
    without = network(width, x=table(rare)[3 + rare :]).feature_score.tolist()
    for i in range(3):
        assert scores[i] == pytest.approx(without[i], rel=0.25), "the other inputs' scores are those without these rows"
    assert sum(model.edge_scores[0][:, 3]).item() == pytest.approx(scores[3])


@pytest.mark.parametrize("rare", [2, 10, 300])
def test_an_input_that_is_rare_and_matters(rare):
    model = network(follows=True, x=table(rare))
    assert model.feature_score[3] == pytest.approx(measured(model, 3), rel=0.05)
    assert measured(model, 3) > 0.5
    assert 3 in model.prune_input(threshold=0.1).input_id.tolist()
    assert all(score > 0.01 for score in model.node_scores[1])


def test_ordinary_data_are_scored_as_ever():
    x = table(2)
    x[:, 3] = x[:, 0].roll(1)
    model = network((4, [3, 2], 3, 2), x=x)
    for mine, expected in zip(
        from_outputs(model, model.last_activations), from_outputs(model, model.last_activations, False), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))


def test_a_rare_input_after_training():
    x = table(2, seed=1)
    y = torch.sin(3 * x[:, :1] / 1.7) + x[:, 1:2] ** 2 / 3 + 0.06 * x[:, 2:3]
    y = y + 0.1 * torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = KAN([4, 5, 1], seed=1, grid=5, outside="zero", dtype=torch.float64)
    model.fit((x, y), steps=20, inwards=1.0, progress=False)
    scores = model.feature_score.tolist()
    assert sorted(scores, reverse=True) == scores and scores[3] < 0.02
    assert model.prune_input(threshold=0.05).input_id.tolist() == [0, 1, 2]
    pruned = model.prune()
    assert (pruned(x) - model(x)).std() < 0.2 * y.std()


@pytest.mark.parametrize("scale", [1e-9, 1e-5, 1e6])
def test_units_of_the_output_do_not_matter(scale):
    x = table(2)[10:]
    expected = network(x=x).feature_score
    model = network(x=x)
    with torch.no_grad():
        model.act_fun[1].scale_base *= scale
        model.act_fun[1].scale_sp *= scale
    model.get_act(x)
    torch.testing.assert_close(model.feature_score, expected, rtol=0.011, atol=0)
    assert model.prune_input(threshold=0.1).width[0] == network(x=x).prune_input(threshold=0.1).width[0]


def test_columns_without_values_and_far_beyond():
    x = table(2)
    x[:, 2] = 7.0
    x[:, 3] = 0.0
    model = network(follows=True, x=x)
    assert model.feature_score[2:].tolist() == [0, 0] and (model.feature_score[:2] > 0.1).all()
    assert not model.edge_scores[0][:, 2:].any()
    x[5, 3] = 1e9
    model = network(x=x)
    assert model.feature_score.isfinite().all() and model.feature_score[3] < 1.5
    assert len(x[:1]) == 1 and network(x=x[:1]).feature_score.isfinite().all()


def test_a_binary_input_among_many_is_bounded_on_some_rows():
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(3000, 40, generator=generator, dtype=torch.float64) < 0.3).double()
    model = KAN([40, 3, 2], seed=1, dtype=torch.float64)
    model.get_act(x)
    scores, before = model.feature_score, plain(model)
    for i in range(0, 40, 8):
        changed = x.clone()
        changed[:, i] = 0.0
        effect = ((model(x) - model(changed)).std(0) / model(x).std(0)).mean().item()
        assert scores[i].item() == pytest.approx(min(before[i], effect), rel=0.1)
