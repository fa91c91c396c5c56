"""How often the host waits for a device: once a training step, a few times a layer in symbolic fits, not in a pass."""

import contextlib

import pytest
import torch

from fastkan import KAN
from fastkan.network.train.lbfgs_on_device import DeviceLBFGS
from fastkan.network.train.levenberg_marquardt import LevenbergMarquardt
from support.single import register, synchronizations, with_float64
from support.waits import Waits

DEVICE = register()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(100, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:2] ** 2)
    return x.to(DEVICE), y.to(DEVICE)


def model(*width) -> KAN:
    return KAN(width or [2, 5, 1], grid=5, seed=1, device=DEVICE)


def waits_of_steps(steps: int, **options) -> Waits:
    """Of a whole fit."""
    network, pair = model(), data()
    with Waits() as waits:
        results = network.fit(pair, steps=steps, update_grid=False, progress=False, **options)
    assert results["stopped"] is None and len(results["test_loss"]) == steps
    return waits


def waits_of_a_step(**options) -> float:
    return (waits_of_steps(6, **options).count - waits_of_steps(2, **options).count) / 4


def test_what_counts_as_a_wait():
    x, here = torch.arange(6.0).view(2, 3).to(DEVICE), torch.ones(2)

    def count(function) -> int:
        before = synchronizations()
        with Waits() as waits:
            function()
        assert waits.count >= synchronizations() - before
        return waits.count

    reads = (
        lambda: x.sum().item(), lambda: bool(x.any()), lambda: float(x[0, 0]), lambda: x.tolist(), x.cpu, x.nonzero,
        lambda: torch.equal(x, x + 1), lambda: x[x > 2], lambda: torch.masked_select(x, x > 2), x.unique,
        lambda: here.to(DEVICE), lambda: torch.tensor([1.0], device=DEVICE),
    )  # fmt: skip
    assert [count(read) for read in reads] == [1] * len(reads)
    others = (
        lambda: x.sum(), lambda: x.clone().add_(1), lambda: x[torch.arange(2, device=DEVICE)], x.isfinite,
        lambda: torch.where(x > 2, x, 0.0), lambda: here.sum().item(), lambda: torch.zeros(3, device=DEVICE),
        lambda: here.to(DEVICE, non_blocking=True),
    )  # fmt: skip
    assert [count(other) for other in others] == [0] * len(others)


@pytest.mark.parametrize("opt", ["Adam", torch.optim.SGD, torch.optim.RMSprop])
@pytest.mark.parametrize("lamb", [0.0, 1e-3])
def test_a_step_of_fit_waits_once(opt, lamb):
    assert waits_of_a_step(opt=opt, lamb=lamb, lr=1e-3) == 1


def test_batches_and_a_test_set_wait_once_an_epoch():
    (x, y), network = data(), model()
    options = {"opt": "Adam", "lr": 1e-3, "update_grid": False, "progress": False}
    with Waits() as waits:
        network.fit((x, y, x[:40], y[:40]), steps=10, batch=20, **options)
    assert waits.count == waits_of_steps(10, opt="Adam", lr=1e-3).count + 2


def test_metrics_are_read_together():
    def mean() -> torch.Tensor:
        return network(x).mean()

    def largest() -> torch.Tensor:
        return network(x).max()

    network, (x, y) = model(), data()
    with Waits() as waits:
        results = network.fit(
            (x, y), opt="Adam", lr=1e-3, steps=4, update_grid=False, progress=False, metrics=[mean, largest]
        )
    assert waits.count == waits_of_steps(4, opt="Adam", lr=1e-3).count + 4
    assert results["mean"][-1] == pytest.approx(mean().item(), rel=1e-6)
    assert results["largest"][-1] == pytest.approx(largest().item(), rel=1e-6)


def test_an_evaluation_of_lbfgs_waits_once():
    made: list[DeviceLBFGS] = []

    def make(parameters) -> DeviceLBFGS:
        made.append(DeviceLBFGS(parameters))
        return made[-1]

    few, many = (waits_of_steps(steps, opt=make) for steps in (1, 3))
    evaluations = made[1].evaluations - made[0].evaluations
    assert 40 < evaluations <= many.count - few.count <= evaluations + 2


def test_a_penalty_in_lbfgs_reads_nothing_more():
    made: list[DeviceLBFGS] = []
    waits = waits_of_steps(2, opt=lambda p: made.append(DeviceLBFGS(p)) or made[0], lamb=1e-3)
    train = sum(count for place, count in waits.places.items() if place.startswith("network/train"))
    assert train <= made[0].evaluations + 2


KINDS = {"sums": [2, 5, 1], "products": [2, [3, 2], 1], "symbolic": [2, 5, 1]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lamb", [0.0, 1e-3])
@pytest.mark.parametrize("has_float64", [False, True])
def test_waits_of_a_levenberg_marquardt_step(monkeypatch, kind, lamb, has_float64):
    """One to begin a step and one for each trial. Without float64 the first copies the parts of the Jacobian to the
    host, which solves for the step; that is then copied to the device."""
    trials = []
    monkeypatch.setattr(LevenbergMarquardt, "_try", lambda *a, own=LevenbergMarquardt._try: trials.append(1) or own(*a))

    def fitted(steps: int) -> tuple[Waits, int]:
        network = model(*KINDS[kind])
        if kind == "symbolic":
            network.fix_symbolic(0, 0, 1, "sin", fit_params_bool=False)
            network.symbolic_fun[0].mask[2, 0] = 1.0  # a constant, beside the splines
        trials.clear()
        with Waits() as waits:
            options = {"opt": "LM", "reg_metric": "edge_forward_sum", "update_grid": False, "progress": False}
            results = network.fit(data(), steps=steps, lamb=lamb, **options)
        assert results["stopped"] is None and len(results["test_loss"]) == steps
        return waits, len(trials)

    with with_float64() if has_float64 else contextlib.nullcontext():
        (few, tried), (many, tried_in_all) = fitted(2), fitted(6)
    of_trials = (tried_in_all - tried) * (1 if has_float64 else 2)
    assert tried_in_all - tried >= 4
    assert many.count - few.count == 4 + of_trials


@pytest.mark.filterwarnings("ignore:the functions")
def test_symbolic_fits_run_on_the_host():
    network, (x, _) = model(), data()
    network.get_act(x)
    with Waits() as waits:
        report = network.auto_symbolic(verbose=0, lib=["x", "x^2", "sin"], r2_threshold=0.0)
    assert len(report.edges) == 15 and not report.numeric
    assert waits.count <= 9 * network.depth + 1
    assert not [place for place in waits.places if "edge_fit" in place and "edge_fit.py" not in place]


def test_scores_prune_and_passes():
    network, (x, _) = model(), data()
    with Waits() as first_pass:  # of a model or a copy: masks, grids and columns are read once
        network.get_act(x)
    assert first_pass.count <= 3 * network.depth + 1
    with Waits() as waits:
        network.get_act(x)
    assert waits.count == 0
    with Waits() as waits:
        network.attribute()
    assert waits.count <= 2
    with Waits() as waits:
        network.prune()  # scores, the nodes' read at once, and the same again of a copy without these nodes
    assert waits.count <= 2 + 1 + first_pass.count + 2
    network(x).square().mean().backward()
    with Waits() as waits:
        network(x).square().mean().backward()
    assert waits.count == 0
