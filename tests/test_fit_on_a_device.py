"""fit and symbolic fits on a device give what they give on a CPU, also where something is not finite."""

import math
import warnings

import pytest
import torch

from fastkan import KAN
from fastkan.network.train.lbfgs import LBFGS
from fastkan.network.train.lbfgs_on_device import DeviceLBFGS
from support.single import register

DEVICE = register()
LIBRARY = ["x", "x^2", "sin", "exp"]
PLACES = [torch.device("cpu"), DEVICE]


def data(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x.to(device), (torch.sin(3 * x[:, :1]) + x[:, 1:] ** 2).to(device)


def fitted(device: torch.device, **options) -> tuple[KAN, dict]:
    model = KAN([2, 3, 1], grid=4, seed=1, device=device)
    return model, model.fit(data(device), progress=False, **options)


def state(model: KAN) -> list[torch.Tensor]:
    return [p.detach().cpu().clone() for p in model.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize("lamb", [0.0, 1e-2])
@pytest.mark.parametrize("opt", ["Adam", "LM", torch.optim.SGD])
def test_a_training_as_on_a_cpu(opt, lamb):
    lr = 1.0 if opt == "LM" else 0.01
    (model, here), (_, there) = (fitted(place, opt=opt, lamb=lamb, lr=lr, steps=5) for place in PLACES)
    for name in ("train_loss", "test_loss", "reg"):
        assert there[name] == pytest.approx(here[name], rel=2e-3)
    assert there["stopped"] is None and there["grid"] == here["grid"] and model.cache_data is not None


@pytest.mark.parametrize("lamb", [0.0, 1e-2])
def test_lbfgs_descends_as_on_a_cpu(lamb):
    losses = []
    for place in PLACES:
        make = {"cpu": LBFGS}.get(place.type, DeviceLBFGS)
        _, results = fitted(place, opt=lambda p, make=make: make(p, history=10), lamb=lamb, steps=2)
        losses.append(results["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.5)
    assert losses[1][-1] < losses[1][0]


@pytest.mark.parametrize("start", [[-1.2, 1.0], [3.0, -2.0], [0.0, 0.0]])
def test_lbfgs_of_devices_takes_the_steps_of_lbfgs(start):
    """On Rosenbrock's function, in float64."""
    points, counts = [], []
    for kind in (LBFGS, DeviceLBFGS):
        p = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = kind([p], history=10, max_iter=30, max_eval=40)

        def value(p=p, optimizer=optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2
            loss.backward()
            return loss.detach()

        optimizer.step(value)
        points.append(p.detach())
        counts.append(optimizer.evaluations)
    torch.testing.assert_close(points[1], points[0], rtol=1e-6, atol=1e-6)
    assert counts[0] == counts[1]


def test_lbfgs_of_devices_starts_again_where_the_history_leads_up():
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    optimizer = DeviceLBFGS([p], max_iter=4)

    def value() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (torch.tensor([1.0, 5.0]) * (p - 3) ** 2).sum()
        loss.backward()
        return loss.detach()

    optimizer.step(value)
    assert optimizer.inverse
    optimizer.inverse, optimizer.scale = [-one for one in optimizer.inverse], -1.0
    optimizer._remember = lambda *args: None
    before = value().item()
    optimizer.step(value)
    assert value().item() < before


def not_a_number(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return (prediction - label).square().mean() * math.nan


def steep(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """A finite loss without a finite gradient."""
    return (prediction - label).square().mean() + (0 * prediction).abs().sqrt().sum()


@pytest.mark.parametrize("opt", ["Adam", "LBFGS", torch.optim.LBFGS, torch.optim.SGD])
@pytest.mark.parametrize("loss_fn", [not_a_number, steep])
def test_a_start_that_is_not_finite_changes_nothing(opt, loss_fn):
    reasons = []
    for place in PLACES:
        model = KAN([2, 3, 1], grid=4, seed=1, device=place)
        before = state(model)
        with pytest.warns(RuntimeWarning, match="fit stopped"):
            results = model.fit(data(place), opt=opt, loss_fn=loss_fn, steps=3, update_grid=False, progress=False)
        assert same(before, state(model)) and results["train_loss"] == []
        reasons.append(results["stopped"])
    assert reasons[0] == reasons[1]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_that_is_not_finite_is_undone(steps):
    for place in PLACES:
        model = KAN([2, 3, 1], grid=4, seed=1, device=place)
        before = state(model)
        with pytest.warns(RuntimeWarning, match="not finite|is (nan|inf)"):
            results = model.fit(
                data(place), opt=torch.optim.SGD, lr=1e38, steps=steps, update_grid=False, progress=False
            )
        assert results["stopped"] is not None and same(before, state(model))


def test_an_interruption_leaves_a_finite_model():
    model, calls = KAN([2, 3, 1], grid=4, seed=1, device=DEVICE), []

    def interrupted(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 6:
            with torch.no_grad():
                for p in model.parameters():
                    p.fill_(math.nan)
            raise KeyboardInterrupt
        return (prediction - label).square().mean()

    with pytest.raises(KeyboardInterrupt):
        model.fit(data(DEVICE), opt="Adam", loss_fn=interrupted, steps=9, update_grid=False, progress=False)
    assert all(p.isfinite().all() for p in state(model))


def test_a_loss_that_is_not_finite_once_is_passed():
    """The step before it is shortened, and the optimizer's moments stay finite."""
    model, calls = KAN([2, 3, 1], grid=4, seed=1, device=DEVICE), []

    def once(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return (prediction - label).square().mean() * (math.nan if len(calls) == 5 else 1.0)

    options = {"steps": 8, "lr": 0.01, "log": 100, "update_grid": False, "progress": False}
    results = model.fit(data(DEVICE), opt="Adam", loss_fn=once, **options)
    assert results["stopped"] is None and all(map(math.isfinite, results["train_loss"]))
    assert results["train_loss"][-1] < results["train_loss"][0]


def test_lbfgs_turns_back_at_the_edge_of_a_domain():
    for place in PLACES:
        x = torch.linspace(0.05, 1, 40)[:, None].to(place)
        model = KAN([1, 1], device=place)
        model.fix_symbolic(0, 0, 0, "log", fit_params_bool=False)
        results = model.fit((x, 2 * torch.log(1.1 * x - 0.05) + 1), steps=8, update_grid=False, progress=False)
        assert results["stopped"] is None and results["train_loss"][-1] < 0.2


def test_symbolic_fits_as_on_a_cpu():
    found = []
    for place in PLACES:
        model, _ = fitted(place, opt="Adam", lr=0.01, steps=3)
        name, _, r2, _ = model.suggest_symbolic(0, 0, 0, verbose=False, lib=LIBRARY)
        fixed = model.fix_symbolic(0, 1, 0, "x^2", verbose=False)
        assert fixed is not None and fixed.dtype == torch.float64 and name in LIBRARY
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of low r2
            report = model.auto_symbolic(verbose=0, lib=LIBRARY, r2_threshold=0.0)
        assert model(data(place)[0]).isfinite().all() and math.isfinite(report.change)
        report.undo()
        found.append((r2, float(fixed)))
    assert found[1] == pytest.approx(found[0], abs=0.02)
