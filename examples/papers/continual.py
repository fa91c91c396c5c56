"""Continual learning: five peaks, shown one after the other."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import kan as pykan
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastkan import KAN

from .experiment import Experiment, Rows

CENTERS = 0.4 * (torch.arange(5, dtype=torch.float64) - 2)
LATTICE = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
# A spline's coefficient acts on k + 1 = 4 intervals. Any other trained number of an edge acts everywhere.
LOCAL: dict[str, Any] = {"base_fun": "zero", "sp_trainable": False, "sb_trainable": False}
KEEP, FORGET = "fastkan [1, 1], local", "fastkan [1, 1], defaults"
MLP, PYKAN = "MLP [1, 12, 12, 1], Adam", "pykan [1, 1], local"


def peaks(x: Tensor) -> Tensor:
    return torch.exp(-300 * (x - CENTERS) ** 2).sum(1, keepdim=True)


def shown(phase: int) -> Tensor:
    """The 100 points around one peak."""
    return torch.linspace(-0.2, 0.2, 100, dtype=torch.float64)[:, None] + CENTERS[phase]


def fastkan(update_grid: bool = False, width: Sequence[int] = (1, 1), **options: Any) -> Callable[[int], tuple]:
    """A maker of the network and of its training on one phase, for a number of steps."""

    def make(steps: int) -> tuple[nn.Module, Callable[[Tensor], object]]:
        model = KAN(width, seed=0, dtype=torch.float64, **options)
        return model, lambda x: model.fit((x, peaks(x)), steps=steps, update_grid=update_grid, progress=False)

    return make


def mlp(steps: int) -> tuple[nn.Module, Callable[[Tensor], object]]:
    """About as many parameters as the KAN; tanh, since with SiLU its values reach hundreds beside the points."""
    torch.manual_seed(0)
    hidden = nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh()
    model = nn.Sequential(*hidden, nn.Linear(12, 1)).double()

    def train(x: Tensor) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(20 * steps):  # as many as the iterations in steps of L-BFGS
            optimizer.zero_grad()
            (model(x) - peaks(x)).square().mean().backward()
            optimizer.step()

    return model, train


def other(steps: int) -> tuple[nn.Module, Callable[[Tensor], object]]:
    """pykan with the settings of its tutorial."""
    model = pykan.KAN(width=[1, 1], grid=200, k=3, noise_scale=0.1, auto_save=False, seed=0, **LOCAL).double()

    def train(x: Tensor) -> None:
        data = {"train_input": x, "train_label": peaks(x), "test_input": x, "test_label": peaks(x)}
        model.fit(data, opt="LBFGS", steps=steps, update_grid=False, log=steps)

    return model, train


NETWORKS = {
    KEEP: fastkan(grid=200, **LOCAL),
    "with scale_sp trained": fastkan(grid=200, base_fun="zero"),
    "with a base function": fastkan(grid=200, sp_trainable=False),
    "with grid updates": fastkan(update_grid=True, grid=200, **LOCAL),
    "with a hidden layer, [1, 5, 1]": fastkan(width=(1, 5, 1), grid=200, **LOCAL),
    FORGET: fastkan(update_grid=True),
    MLP: mlp,
    PYKAN: other,
}


@cache
def phases(name: str, steps: int) -> tuple[list[Tensor], int, float]:
    """The network on the lattice after each phase, its parameters, and seconds."""
    start = time.perf_counter()
    model, train = NETWORKS[name](steps)
    values = []
    for phase in range(5):
        train(shown(phase))
        with torch.no_grad():
            values.append(model(LATTICE))
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # pykan counts what acts on nothing: those of symbolic functions, and of nodes.
    return values, 203 if name == PYKAN else count, time.perf_counter() - start


def run(quick: bool) -> Rows:
    rows = []
    for name in NETWORKS:
        steps = 3 if quick and name != KEEP else 50
        values, count, seconds = phases(name, steps)
        errors = {}
        for phase, y in enumerate(values):
            seen = LATTICE[:, 0] <= CENTERS[phase] + 0.2
            errors[f"after {phase + 1}"] = (y - peaks(LATTICE))[seen].square().mean().sqrt().item()
        cost = {"parameters": count, "steps a phase": steps, "seconds": round(seconds, 1)}
        rows.append({"network": name, **errors, **cost})
    return rows


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Phases beside each other; below the data what the networks know after them."""
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    axes = figure.subplots(4, 5, sharex=True, sharey=True)
    steps = {row["network"]: int(row["steps a phase"]) for row in rows}
    x, y = LATTICE[:, 0], peaks(LATTICE)[:, 0]
    for phase in range(5):
        points = shown(phase)
        axes[0][phase].plot(points, peaks(points), ".", color="black", markersize=2)
        axes[0][phase].set(title=f"phase {phase + 1}")
        for line, (name, color) in enumerate(((KEEP, "C0"), (FORGET, "C1"), (MLP, "C2")), start=1):
            axes[line][phase].plot(x, y, color="lightgray")
            axes[line][phase].plot(x, phases(name, steps[name])[0][phase], color=color)
    for line, label in enumerate(("data", "fastkan,\nlocal", "fastkan,\ndefaults", "MLP")):
        axes[line][0].set(ylabel=label, ylim=(-0.5, 1.5))
    return figure


EXPERIMENT = Experiment(
    "Continual learning",
    "Liu et al., KAN (arXiv 2404.19756), section 3.5",
    "Root mean square error over the peaks shown so far, after each phase. An edge keeps what it has learnt where all "
    'that is trained is local: `KAN([1, 1], grid=200, base_fun="zero", sp_trainable=False)` and '
    "`fit(..., update_grid=False)`. A trained base function or `scale_sp` acts on the whole line, grids follow the "
    "present data alone, and so do the inputs of a second layer: rows 2 to 5 each change one of these. The defaults, "
    "a base function and grids that follow the data, are made for data that come all at once.",
    run,
    draw,
)
