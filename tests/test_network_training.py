"""fit: convergence by every optimizer and from every kind of data; the model stays usable after failures."""

import math
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fastkan import KAN
from fastkan.compat.pykan.model import MultKAN
from support.models import inputs


def target(x: torch.Tensor) -> torch.Tensor:
    return torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:2] ** 2)


def dataset(rows: int = 200, dtype=torch.float32) -> dict[str, torch.Tensor]:
    x, test = inputs(rows, 2, scale=1.0).to(dtype), inputs(rows, 2, seed=2, scale=1.0).to(dtype)
    return {"train_input": x, "train_label": target(x), "test_input": test, "test_label": target(test)}


def run(model: KAN, data=None, **options) -> dict:
    return model.fit(dataset() if data is None else data, progress=False, **options)


def state(model: KAN) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_reports_the_rms_that_it_reaches():
    model = KAN([2, 4, 1], grid=5, dtype=torch.float64)
    data = dataset(500, torch.float64)
    results = run(model, data, steps=30)
    assert results["stopped"] is None and len(results["train_loss"]) == len(results["test_loss"]) == 30
    rmse = (model(data["test_input"]) - data["test_label"]).square().mean().sqrt().item()
    assert results["test_loss"][-1] == pytest.approx(rmse, rel=1e-12) and rmse < 2e-2
    assert model.cache_data is data["train_input"] and all(p.grad is None for p in model.parameters())
    assert results["reg"] == [0.0] * 30


def test_continues_at_small_curvatures():
    """torch's LBFGS drops pairs with y s < 1e-10, which a loss of 1e-12 never has."""
    x = inputs(100, 1, scale=0.9)
    model = KAN([1, 1], grid=4, dtype=torch.float64)
    truth = KAN([1, 1], grid=4, seed=3, dtype=torch.float64)(x).detach()
    losses = run(model, (x, truth), steps=40, update_grid=False)["train_loss"]
    assert losses[-1] < 0.5 * losses[9] < 1e-5


@pytest.mark.parametrize(
    "opt",
    ["LBFGS", "Adam", torch.optim.AdamW, lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9)],
    ids=["LBFGS", "Adam", "class", "factory"],
)
def test_every_optimizer(opt):
    model = KAN([2, 3, 1])
    results = run(model, opt=opt, steps=15, lr=1.0 if opt == "LBFGS" else 0.02)
    assert results["train_loss"][-1] < 0.8 * results["train_loss"][0]


def test_an_optimizer_goes_on_where_it_was():
    one, two = KAN([2, 3, 1]), KAN([2, 3, 1])
    run(one, opt="Adam", lr=0.01, steps=6, update_grid=False)
    optimizer = torch.optim.Adam([p for p in two.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):
        run(two, opt=optimizer, steps=3, update_grid=False)
    assert same(state(one), state(two))


@pytest.mark.parametrize("kind", ["dictionary", "no test", "pair", "four", "loader", "loaders", "list"])
def test_every_dataset_type(kind):
    data = dataset(60)
    x, y, a, b = data.values()
    loader = DataLoader(TensorDataset(x, y), batch_size=25)
    given = {
        "dictionary": data, "no test": {"train_input": x, "train_label": y}, "pair": (x, y), "four": (x, y, a, b),
        "loader": loader, "loaders": (loader, DataLoader(TensorDataset(a, b), batch_size=60)), "list": [x, y],
    }[kind]  # fmt: skip
    model = KAN([2, 2, 1])
    results = run(model, given, opt="Adam", lr=0.01, steps=7)
    assert len(results["train_loss"]) == 7
    x, y = (a, b) if kind in ("dictionary", "four", "loaders") else (x, y)
    rmse = (model(x) - y).square().mean().sqrt().item()
    assert results["test_loss"][-1] == pytest.approx(rmse, rel=1e-5)


class Batches:
    """Neither a DataLoader nor a list: what gives batches anew whenever it is asked."""

    def __init__(self, *tensors: torch.Tensor, rows: int = 8):
        self.parts = [t.split(rows) for t in tensors]

    def __iter__(self):
        return zip(*self.parts, strict=True)


@pytest.mark.parametrize("kind", ["loader", "shuffled", "iterable", "batch", "pykan"])
def test_attribution_after_training_sees_all_rows(kind, tmp_path):
    """Not the last batch, of one row here, by which every score is 0."""
    x = inputs(97, 2, scale=1.0).float()
    y = target(x)
    data = {
        "loader": DataLoader(TensorDataset(x, y), batch_size=8), "iterable": Batches(x, y),
        "shuffled": DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True),
        "batch": {"train_input": x, "train_label": y},
    }.get(kind, DataLoader(TensorDataset(x, y), batch_size=8))  # fmt: skip
    model = KAN([2, 4, 1])
    if kind == "pykan":
        model = MultKAN([2, 4, 1], auto_save=False)
    model.fit(data, opt="Adam", lr=0.02, steps=13 * 3 + 5, batch=8 if kind == "batch" else -1, progress=False)
    assert sorted(model.cache_data.tolist()) == sorted(x.tolist())
    if kind != "shuffled":
        assert torch.equal(model.cache_data, x)
    score = model.feature_score
    model.get_act(x)
    torch.testing.assert_close(score, model.feature_score)
    assert model.prune().width[1][0] >= 1


def test_large_loader_is_sampled(monkeypatch):
    from fastkan.nn import data_sample

    monkeypatch.setattr(data_sample, "SAMPLE_ROWS", 50)
    x = torch.linspace(-1, 1, 1000)[:, None]
    model = KAN([1, 1])
    model.fit(Batches(x, x), opt="Adam", lr=0.01, steps=130, progress=False)
    assert model.cache_data.shape == (50, 1) and model.cache_data.diff(dim=0).max() < 0.15


def test_batches_make_epochs():
    from fastkan.network.train.data import Data

    x = torch.arange(10.0)[:, None]
    batches = Data((x, x), 5, 0, torch.device("cpu")).batches()
    first, second = ([next(batches)[0] for _ in range(2)] for _ in range(2))
    for epoch in (first, second):
        assert sorted(torch.cat(epoch).flatten().tolist()) == x.flatten().tolist()
    assert not torch.equal(torch.cat(first), torch.cat(second))


@pytest.mark.parametrize("opt", ["LBFGS", "Adam"])
def test_the_same_again_to_the_bit(opt):
    models = [KAN([2, 3, 1]) for _ in range(2)]
    results = [run(m, opt=opt, lr=0.1, steps=6, batch=50, lamb=0.01, seed=4) for m in models]
    assert same(*map(state, models)) and results[0] == results[1]
    other = KAN([2, 3, 1])
    run(other, opt=opt, lr=0.1, steps=6, batch=50, lamb=0.01, seed=5)
    assert not same(state(models[0]), state(other))


def test_grids_are_updated_on_schedule(monkeypatch):
    from fastkan.network.train import fit as training

    steps = []
    monkeypatch.setattr(training, "_update_grid", lambda model, x, inwards: steps.append(len(x)))
    run(KAN([2, 1]), opt="Adam", lr=0.01, steps=12, grid_update_num=5, stop_grid_update_step=10, batch=20)
    assert steps == [20] * 5
    steps.clear()
    run(
        KAN([2, 1]), opt="Adam", lr=0.01, steps=12, grid_update_num=50, stop_grid_update_step=4
    )  # divides by 0 in pykan
    assert len(steps) == 4
    steps.clear()
    run(KAN([2, 1]), opt="Adam", lr=0.01, steps=12, start_grid_update_step=8)
    assert len(steps) == 1
    steps.clear()
    run(KAN([2, 1]), opt="Adam", lr=0.01, steps=3, update_grid=False)
    assert not steps


def test_grids_are_refined_on_the_way():
    model, seen = KAN([2, 3, 1], dtype=torch.float64), []
    results = run(model, dataset(dtype=torch.float64), steps=12, grid_sizes=[3, 6, [12, 6]], update_grid=False,
                  callback=lambda step, r: seen.append(model.grid))  # fmt: skip
    assert seen == [3] * 4 + [6] * 4 + [[12, 6]] * 4
    losses = results["train_loss"]
    assert losses[-1] < losses[7] < losses[3]
    with pytest.raises(ValueError, match="with grid_sizes"):
        run(model, opt=torch.optim.Adam(model.parameters()), grid_sizes=[3, 6])


def test_bad_step_on_a_finer_grid_is_undone():
    model, calls = KAN([2, 1]), []

    def loss_fn(prediction, label):
        return (prediction - label).square().mean() * (torch.nan if model.grid == 6 else 1.0)

    with pytest.warns(RuntimeWarning, match="the loss is nan at step 2"):
        run(model, steps=4, grid_sizes=[3, 6], loss_fn=loss_fn, callback=lambda step, r: calls.append(state(model)))
    assert model.grid == 3 and len(calls) == 2


def test_grids_reach_data_far_away():
    x = 50 + 20 * inputs(200, 2, scale=1.0).float()
    y = torch.sin(x[:, :1] / 10) + x[:, 1:] / 50
    model = KAN([2, 3, 1], grid=8)
    assert run(model, (x, y), steps=20)["train_loss"][-1] < 0.1


@pytest.mark.parametrize("metric", ["edge_forward_spline_n", "edge_forward_mean", "edge_backward", "node_backward"])
def test_penalties_make_sparse(metric):
    free, sparse = KAN([2, 4, 1]), KAN([2, 4, 1])
    run(free, steps=8)
    results = run(sparse, steps=8, lamb=0.01, reg_metric=metric)
    x = dataset()["train_input"]
    assert results["reg"][-1] > 0
    assert sparse.reg(metric, x=x) < free.reg(metric, x=x)


def test_other_losses_are_reported_as_they_are():
    x = inputs(100, 2).float()
    label = (x[:, 0] > 0).long()
    model = KAN([2, 2])
    results = run(model, (x, label), steps=5, loss_fn=torch.nn.functional.cross_entropy)
    assert results["test_loss"][-1] == pytest.approx(torch.nn.functional.cross_entropy(model(x), label).item())


def test_metrics_and_callbacks():
    model, seen = KAN([2, 1]), []

    def edges():
        return torch.tensor(float(model.n_edge))

    def stop(step, results):
        seen.append((step, len(results["train_loss"])))
        return step == 3

    results = run(model, steps=10, metrics=(edges,), display_metrics=["edges"], callback=stop)
    assert results["edges"] == [2.0] * 4 and seen == [(n, n + 1) for n in range(4)]
    assert results["stopped"] == "by the callback at step 3"


def test_ends_early_and_keeps_the_best():
    x = inputs(30, 2, scale=1.0).float()
    noise = torch.randn(30, 1, generator=torch.Generator().manual_seed(0))
    test = inputs(100, 2, seed=3, scale=1.0).float()
    model = KAN([2, 5, 1], grid=10)
    results = run(model, (x, noise, test, torch.zeros(100, 1)), steps=30, patience=4, keep_best=True)
    assert "no better test loss" in results["stopped"] and len(results["test_loss"]) < 30
    found = model(test).square().mean().sqrt().item()
    assert found == pytest.approx(min(results["test_loss"]), rel=1e-5) and found < results["test_loss"][-1]


def test_test_losses_are_taken_when_logged():
    results = run(KAN([2, 1]), opt="Adam", lr=0.01, steps=7, log=3)
    losses = results["test_loss"]
    assert losses[0] == losses[1] == losses[2] != losses[3] == losses[4] == losses[5] != losses[6]


# What goes wrong


@pytest.mark.parametrize("opt", ["LBFGS", "Adam"])
def test_a_loss_that_is_not_finite_ends_in_the_last_good_state(opt):
    model, calls = KAN([2, 3, 1]), []

    def loss_fn(prediction, label):
        calls.append(state(model))
        loss = (prediction - label).square().mean()
        return loss * (torch.nan if len(results_so_far) >= 3 else 1.0)

    results_so_far = []
    with pytest.warns(RuntimeWarning, match="fit stopped: the loss is nan at step 3; the model is as it was"):
        results = run(model, opt=opt, lr=0.1, steps=10, loss_fn=loss_fn, update_grid=False,
                      callback=lambda step, r: results_so_far.append(step))  # fmt: skip
    assert len(results["train_loss"]) == 3 and "the loss is nan" in results["stopped"]
    assert all(p.isfinite().all() for p in model.parameters())
    assert any(same(state(model), earlier) for earlier in calls)
    assert run(model, steps=2)["stopped"] is None


def test_steps_to_infinity_are_taken_back():
    model = KAN([2, 3, 1])
    start = state(model)
    with pytest.warns(RuntimeWarning, match="fit stopped"):
        run(model, opt=torch.optim.SGD, lr=1e38, steps=5, update_grid=False)
    assert all(p.isfinite().all() for p in model.parameters()) and same(state(model), start)


def test_data_that_are_not_finite():
    data = dataset()
    data["train_input"][3, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        run(KAN([2, 1]), data)
    model = KAN([2, 1])
    start = state(model)
    with pytest.warns(RuntimeWarning, match="the loss is nan at step 0"):
        run(model, data, update_grid=False)
    assert same(state(model), start)


def test_an_interrupted_training_leaves_a_usable_model():
    model, calls = KAN([2, 3, 1]), []

    def loss_fn(prediction, label):
        calls.append(state(model))
        if len(calls) == 40:
            raise KeyboardInterrupt
        return (prediction - label).square().mean()

    with pytest.raises(KeyboardInterrupt):
        run(model, loss_fn=loss_fn)
    assert any(same(state(model), earlier) for earlier in calls[:-1])
    assert run(model, steps=2)["stopped"] is None


def test_symbolic_edges_are_trained():
    x = inputs(100, 2, scale=1.0)
    model = KAN([2, 1], dtype=torch.float64)
    model.act_fun[0].mask.zero_()
    model.symbolic_fun[0].set_edge(0, 0, "sin", (2.5, 0.1, 0.8, 0.0))
    model.symbolic_fun[0].set_edge(1, 0, "x^2", (1.1, 0.1, 1.0, 0.0))
    y = torch.sin(3 * x[:, :1]) + x[:, 1:] ** 2 - 0.5
    assert run(model, (x, y), steps=20)["train_loss"][-1] < 1e-8


def test_pruned_models_train_on():
    model = KAN([2, 4, 1])
    run(model, steps=5, lamb=0.01)
    pruned = model.prune_node(count=2)
    pruned.prune_edge(count=4)
    mask = [layer.mask.clone() for layer in pruned.act_fun]
    results = run(pruned, steps=5)
    assert math.isfinite(results["train_loss"][-1])
    assert all(torch.equal(a, layer.mask) for a, layer in zip(mask, pruned.act_fun, strict=True))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"opt": "Newton"}, ValueError, "opt='Newton': expected 'LBFGS', 'Adam'"),
        ({"opt": 3}, TypeError, "opt=3: expected"),
        ({"steps": -1}, ValueError, "steps=-1: expected an integer, at least 0"),
        ({"lamb": -1.0}, ValueError, r"lamb=-1.0: expected a finite number, at least 0"),
        ({"reg_metric": "size"}, ValueError, "reg_metric='size': expected one of"),
        ({"display_metrics": ["loss"]}, ValueError, "'loss' is not in the result"),
        ({"data": {"train_input": torch.zeros(3, 2)}}, ValueError, "dataset has no 'train_label'"),
        ({"data": 7}, TypeError, "dataset is a int: expected a dictionary"),
        ({"data": (torch.zeros(3, 2), torch.zeros(4, 1))}, ValueError, "have 3 and 4 rows"),
        ({"data": (torch.zeros(3, 2), torch.zeros(3, 2))}, ValueError, r"shape \[3, 2\]: expected .* \[3, 1\]"),
        ({"data": (torch.zeros(0, 2), torch.zeros(0, 1))}, ValueError, "gives no batches"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        run(KAN([2, 1]), update_grid=False, **options)


def test_no_steps():
    model = KAN([2, 1])
    start = state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(model, steps=0)["train_loss"] == []
    assert same(state(model), start)


def test_progress_is_shown(capsys):
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    KAN([2, 1]).fit(dataset(), opt="Adam", lr=0.01, steps=3)
    shown = capsys.readouterr().err
    assert "train_loss" in shown and "3/3" in shown


def test_leading_dimensions():
    x = inputs(20, 5, 2, scale=1.0).float()
    model = KAN([2, 2, 1])
    for lamb in (0.0, 0.01):
        results = run(model, (x, x.sum(-1, keepdim=True)), steps=3, lamb=lamb)
        assert results["train_loss"][-1] < results["train_loss"][0]
