"""Times of KAN.auto_symbolic and of pykan's, for all edges of a network."""

import contextlib
import copy
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch

import fastkan
from fastkan.measure.correctness import Unavailable
from fastkan.measure.progress import bar
from fastkan.measure.timing import quartiles, time_interleaved

from .peers import installed

BASELINE = "fastkan"
LABELS = {"fastkan": "fastkan", "pykan": "pykan"}


@dataclass(frozen=True)
class Setting:
    """A network, its number of data rows, and the number of edges that pykan is timed on, to be extrapolated."""

    width: tuple[int, ...]
    rows: int = 1000
    timed: int = 2

    def __str__(self) -> str:
        return str(list(self.width))

    @property
    def edges(self) -> int:
        return sum(i * o for i, o in zip(self.width, self.width[1:], strict=False))


FULL = (Setting((4, 5, 1)), Setting((17, 1, 14)))
TINY = (Setting((2, 1, 1), 40, 1),)


def rows(which: Sequence[Setting], rounds: int) -> list[dict[str, object]]:
    """One row per setting and peer; up to 5 interleaved rounds."""
    return [row for setting in bar(which, "symbolic") for row in _rows(setting, min(rounds, 5))]


def _rows(setting: Setting, rounds: int) -> Iterator[dict[str, object]]:
    runs: dict[str, Callable[[], float]] = {BASELINE: Fastkan(setting)}
    reason = ""
    try:
        runs["pykan"] = Pykan(setting)
    except Unavailable as absent:
        reason = str(absent)
    times, _ = time_interleaved(runs, rounds, 0.0, label=str(setting), sample=lambda run, repeats: run())
    for peer in LABELS:
        row = {"network": str(setting), "rows": setting.rows, "edges": setting.edges, "peer": peer}
        row |= {"edges_timed": setting.edges if peer == BASELINE else setting.timed}
        row |= {"seconds": "", "seconds_q1": "", "seconds_q3": "", "ratio": "", "reason": reason}
        if peer in times:
            low, high = quartiles(times[peer])
            ratio = median(a / b for a, b in zip(times[peer], times[BASELINE], strict=True))
            seconds = {"seconds": median(times[peer]), "seconds_q1": low, "seconds_q3": high, "ratio": ratio}
            row |= {name: f"{value:.4g}" for name, value in seconds.items()} | {"reason": ""}
        yield row


def data(setting: Setting) -> torch.Tensor:
    return torch.rand(setting.rows, setting.width[0], generator=torch.Generator().manual_seed(0)) * 2 - 1


class Fastkan:
    """Call it for the seconds of auto_symbolic on an untrained network."""

    def __init__(self, setting: Setting):
        self.model = fastkan.KAN(list(setting.width), grid=5, seed=0)
        self.model.get_act(data(setting))

    def __call__(self) -> float:
        model = copy.deepcopy(self.model)
        start = time.perf_counter()
        model.auto_symbolic(verbose=0, r2_threshold=0.0)
        return time.perf_counter() - start


class Pykan:
    """Call it for the seconds of pykan's auto_symbolic, extrapolated from the first few edges of the same network."""

    def __init__(self, setting: Setting):
        self.setting = setting
        with contextlib.redirect_stdout(io.StringIO()):
            self.model = installed("kan", "pykan").KAN(list(setting.width), grid=5, seed=0, auto_save=False)
        self.model(data(setting))
        self.edges = [(0, i, j) for i in range(setting.width[0]) for j in range(setting.width[1])][: setting.timed]

    def __call__(self) -> float:
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            for edge in self.edges:
                name, *_ = self.model.suggest_symbolic(*edge, verbose=False)
                self.model.fix_symbolic(*edge, name, verbose=False, log_history=False)
        seconds = time.perf_counter() - start
        for edge in self.edges:
            self.model.unfix_symbolic(*edge, log_history=False)
        return seconds / len(self.edges) * self.setting.edges
