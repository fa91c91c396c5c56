"""fit, symbolic fits and hypotheses on a device give what they give on a CPU, also where something is not finite."""

import math
import warnings

import pytest
import torch

from fastkan import KAN, science
from fastkan.compat.pykan.kan.LBFGS import LBFGS as PykansLBFGS
from fastkan.network.formulas.edge_fit import fit_symbolic
from fastkan.network.train.lbfgs import LBFGS
from fastkan.network.train.lbfgs import reference as two_loops
from fastkan.network.train.lbfgs_on_device import DeviceLBFGS, lbfgs
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


def test_a_direction_on_a_device_is_that_of_the_two_loop_recursion():
    generator = torch.Generator().manual_seed(0)
    p = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    optimizer, factor = DeviceLBFGS([p], history=5), torch.randn(12, 12, dtype=torch.float64, generator=generator)
    for n in range(18):
        if n == 13:
            optimizer.forget()
        step, g = torch.randn(2, 12, dtype=torch.float64, generator=generator)
        change = factor @ (factor.T @ step) + step
        optimizer._remember(step, change, float(change @ step), float(change @ change))
        assert optimizer.changes is not None and len(optimizer.inverse) == min(n + 1 if n < 13 else n - 12, 5)
        expected = two_loops(g, *optimizer.changes, optimizer.inverse, optimizer.oldest, optimizer.scale)
        torch.testing.assert_close(optimizer._descent(g), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [3, 3000, 100_000])
def test_lbfgs_remembers_as_much_on_every_device(size):
    there, here = (lbfgs([torch.zeros(size, device=place, requires_grad=True)]) for place in (DEVICE, "cpu"))
    assert type(there) is DeviceLBFGS and type(here) is LBFGS
    assert there.history == here.history == {3: 100, 3000: 43, 100_000: 10}[size]


def test_pykans_lbfgs_on_a_device():
    p = torch.full((3,), 2.0).to(DEVICE).requires_grad_()
    optimizer = PykansLBFGS([p], history_size=7, line_search_fn="strong_wolfe")

    def value() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (p - 1).square().sum()
        loss.backward()
        return loss

    optimizer.step(value)
    assert type(optimizer._fast) is DeviceLBFGS and optimizer._fast.history == 7
    torch.testing.assert_close(p.detach().cpu(), torch.ones(3))


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
    optimizer.products[0].neg_()
    optimizer.scale *= -1
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


def training(device: torch.device, opt, not_finite) -> tuple[KAN, dict]:
    """With a loss that is NaN in the calls whose number is in not_finite; the test set has no calls in between."""
    model, calls = KAN([2, 3, 1], grid=4, seed=1, device=device), []

    def loss(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return (prediction - label).square().mean() * (math.nan if len(calls) in not_finite else 1.0)

    options = {"steps": 8, "lr": 0.05, "log": 100, "update_grid": False, "progress": False}
    return model, model.fit(data(device), opt=opt, loss_fn=loss, **options)


def decaying(parameters) -> torch.optim.Optimizer:
    """It moves the parameters also where the gradient is 0."""
    return torch.optim.SGD(parameters, lr=0.05, weight_decay=0.5)


@pytest.mark.parametrize("opt", ["Adam", decaying])
def test_a_loss_that_is_not_finite_once_is_passed(opt):
    """The step before it is shortened, and the optimizer's own state stays finite."""
    (_, here), (_, there) = (training(place, opt, [5]) for place in PLACES)
    assert there["stopped"] is None and there["train_loss"][-1] < there["train_loss"][0]
    # Moments have seen a gradient of 0.
    assert there["train_loss"] == pytest.approx(here["train_loss"], rel=1e-4 if opt is decaying else 0.2)


@pytest.mark.parametrize("opt", ["Adam", decaying])
def test_the_last_state_with_a_finite_loss_comes_back(opt):
    found = []
    for place in PLACES:
        with pytest.warns(RuntimeWarning, match="the loss is nan at step 3"):
            found.append(training(place, opt, range(5, 100)))
    for p, q in zip(*(state(model) for model, _ in found), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    start = state(KAN([2, 3, 1], grid=4, seed=1))
    assert len(found[1][1]["train_loss"]) == 3 and not same(start, state(found[1][0]))


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


def test_fit_symbolic_takes_tensors_of_a_device():
    x = torch.linspace(-1, 1, 50)
    y, mask = 2 * torch.sin(3 * x + 0.5) - 1, x < 0.9
    here, there = (fit_symbolic(x.to(p), y.to(p), LIBRARY, mask=mask.to(p)) for p in PLACES)
    assert there.r2.is_cpu and there.affine.dtype == torch.float64
    torch.testing.assert_close(there.r2, here.r2)


def test_hypotheses_about_a_function_on_a_device():
    def function(x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] * x[:, 1:2] + torch.sin(x[:, 2:])

    found = []
    for place in PLACES:
        x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).add(0.5).to(place)
        scores = (
            science.separability_scores(function, x).cpu(),
            science.separability_scores(function, x, local=True).cpu(),
        )
        found.append([
            *(score for matrix in scores for score in matrix.flatten().tolist()),
            science.symmetry_score(function, x, [0, 1]), science.symmetry_score(function, x, [0, 2], local=True),
            *science.detect_separability(function, x, y=function(x))["labels"],
        ])  # fmt: skip
    assert found[1] == pytest.approx(found[0], abs=1e-4)
