"""KAN.fit and pykan's: time and evaluations per step, final loss, and peak memory of a wide network."""

import contextlib
import copy
import io
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import torch
from torch import Tensor, nn

import fastkan
from fastkan.measure.correctness import Unavailable
from fastkan.measure.progress import bar
from fastkan.measure.timing import quartiles, time_interleaved

from .peers import installed

ROWS = 1000
# Steps of a timed training, and of the one for the final loss; all from the same start.
STEPS, REACHED = 4, 20
BASELINE = "fastkan"
LABELS = {"fastkan": "fastkan", "pykan": "pykan", "speed": "pykan, speed()"}


@dataclass(frozen=True)
class Setting:
    """A network and its training options. memory: measure the peak memory of a step instead of its time."""

    width: tuple[int, ...]
    grid: int
    lamb: float = 0.0
    update_grid: bool = False
    memory: bool = False

    def __str__(self) -> str:
        return f"{list(self.width)}, G={self.grid}"


NETWORKS = (((2, 5, 1), 5), ((4, 9, 1), 10), ((10, 10, 10, 1), 20))
FULL = (
    *(Setting(*n, lamb, move) for n, lamb, move in itertools.product(NETWORKS, (0.0, 1e-3), (False, True))),
    *(Setting((256, 256, 10), 5, lamb, memory=True) for lamb in (0.0, 1e-3)),
)
TINY = (Setting((2, 2, 1), 3, 1e-3, True), Setting((2, 2, 1), 3, memory=True))


def rows(which: Sequence[Setting], rounds: int) -> list[dict[str, object]]:
    """One row per setting and peer; up to 7 rounds of trainings."""
    return [row for setting in bar(which, "fit") for row in _rows(setting, min(rounds, 7))]


def _rows(setting: Setting, rounds: int) -> Iterator[dict[str, object]]:
    starts, reasons = {}, {}
    for peer in LABELS:
        try:
            starts[peer] = model(peer, setting)
        except Unavailable as absent:
            reasons[peer] = str(absent)
    times: dict[str, list[float]] = {}
    if not setting.memory:
        runs = {peer: Training(start, setting) for peer, start in starts.items()}
        times, _ = time_interleaved(runs, rounds, 0.0, label=str(setting), sample=_seconds_per_step)
    for peer in LABELS:
        row = {
            "network": str(setting), "lamb": setting.lamb, "update_grid": setting.update_grid, "peer": peer,
            "seconds": "", "seconds_q1": "", "seconds_q3": "", "ratio": "", "evaluations": "", "train_loss": "",
            "reg": "", "peak_mib": "", "reason": reasons.get(peer, ""),
        }  # fmt: skip
        if peer in times:
            row |= _timed(times[peer], times[BASELINE]) | reached(starts[peer], setting)
        elif peer in starts:
            row["peak_mib"] = peak_mib(peer, setting)
        yield row


def _timed(samples: list[float], base: list[float]) -> dict[str, object]:
    low, high = quartiles(samples)
    ratio = median(a / b for a, b in zip(samples, base, strict=True))
    seconds = {"seconds": median(samples), "seconds_q1": low, "seconds_q3": high, "ratio": ratio}
    return {name: f"{value:.4g}" for name, value in seconds.items()}


def dataset(inputs: int) -> dict[str, Tensor]:
    """exp(sin(pi x1) + x2^2) of the first two inputs, the function of the KAN paper's example."""
    x = torch.rand(ROWS, inputs, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:2] ** 2)
    return {"train_input": x, "train_label": y, "test_input": x[:100], "test_label": y[:100]}


def model(peer: str, setting: Setting) -> nn.Module:
    """An untrained network; the same for pykan and fastkan, from the same seed."""
    options = {"grid": setting.grid, "k": 3, "seed": 0}
    if peer == "fastkan":
        return fastkan.KAN(list(setting.width), **options)
    if peer == "speed" and setting.lamb:
        raise Unavailable("stores no activations, which the penalty needs")
    with contextlib.redirect_stdout(io.StringIO()):
        made = installed("kan", "pykan").KAN(list(setting.width), auto_save=False, **options)
        return made.speed() or made if peer == "speed" else made


def fit(network: nn.Module, setting: Setting, steps: int, **options) -> dict:
    if isinstance(network, fastkan.KAN):
        options["progress"] = False
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return network.fit(
            _labelled(dataset(setting.width[0]), setting.width[-1]), opt="LBFGS", steps=steps, lamb=setting.lamb,
            update_grid=setting.update_grid, **options,
        )  # fmt: skip


def _labelled(data: dict[str, Tensor], outputs: int) -> dict[str, Tensor]:
    return {name: t.expand(-1, outputs).contiguous() if "label" in name else t for name, t in data.items()}


class Training:
    """Call it for the seconds of STEPS training steps from the start."""

    def __init__(self, start: nn.Module, setting: Setting):
        self.start, self.setting = start, setting

    def __call__(self) -> float:
        network = copy.deepcopy(self.start)
        start = time.perf_counter()
        fit(network, self.setting, STEPS)
        return time.perf_counter() - start


def _seconds_per_step(run: Callable[[], object], repeats: int) -> float:
    return mean(run() for _ in range(repeats)) / STEPS


def reached(start: nn.Module, setting: Setting) -> dict[str, object]:
    """Loss and penalty after REACHED steps, and the number of evaluations per step."""
    calls = 0

    def loss(prediction: Tensor, label: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return (prediction - label).square().mean()

    results = fit(copy.deepcopy(start), setting, REACHED, loss_fn=loss)
    shown = float(results["train_loss"][-1])
    return {
        "evaluations": f"{calls / REACHED - 1:.3g}",  # without the evaluation on test data
        "train_loss": f"{shown**0.5 if isinstance(start, fastkan.KAN) else shown:.3g}",  # pykan reports the root
        "reg": f"{float(results['reg'][-1]):.4g}" if setting.lamb else "",
    }


def peak_mib(peer: str, setting: Setting) -> str:
    """Increase of peak memory by a training step, in a fresh process after a step of a small network, in MiB."""
    arguments = [peer, *map(str, setting.width), str(setting.grid), str(setting.lamb), str(torch.get_num_threads())]
    done = subprocess.run(
        [sys.executable, "-m", "bench.fit", *arguments], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    return done.stdout.split()[-1]


def resident_kib() -> int:
    """Peak resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _peak_increase(peer: str, setting: Setting) -> float:
    small = Setting((2, 2, 1), 3, setting.lamb)
    fit(model(peer, small), small, 1)
    network = model(peer, setting)
    before = resident_kib()
    fit(network, setting, 1)
    return (resident_kib() - before) / 1024


if __name__ == "__main__":
    name, *sizes, intervals, weight, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(f"{_peak_increase(name, Setting(tuple(map(int, sizes)), int(intervals), float(weight))):.1f}")
