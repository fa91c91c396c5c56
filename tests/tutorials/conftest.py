"""Fixtures of the tutorials: fastkan as kan, float64, a folder of its own, no windows; and pykan's results."""

import statistics
from pathlib import Path

import pytest
import torch

from bench.tutorials import TASKS, chance, each, ratios
from fastkan.measure.provenance import read_csv
from support.pykan import our_kan

RESULTS = Path(__file__).parent.parent.parent / "bench" / "results" / "cpu" / "tutorials.csv"
# As many seeds as take so many seconds of the processor, one at least.
SEEDS, SECONDS = 5, 1.5
ROWS = 0.015  # of an accuracy: its standard error over the 1000 rows that it is of


@pytest.fixture
def kan(tmp_path, monkeypatch):
    """fastkan's kan."""
    plt = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("sympy")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    plt.close("all")  # figures of earlier tests
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with our_kan() as kan:
        yield kan
    plt.close("all")
    torch.set_default_dtype(dtype)
    torch.set_rng_state(state)


@pytest.fixture
def task(kan, tmp_path, monkeypatch):
    """Run a task of bench.tutorials by its name and compare its results with those of pykan.

    Compared is the median over several seeds, or over all that were measured where that of fewer is worse; returned is
    the result of the first.
    """
    rows = {(r["tutorial"], r["peer"]): r for r in read_csv(RESULTS)}

    def of_seed(name: str, seed: int) -> dict:
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        kan.plt.close("all")
        return TASKS[name](kan, seed)

    def run(name: str) -> dict:
        theirs, ours = (rows[name, peer] for peer in ("pykan", "fastkan"))
        found = [of_seed(name, seed) for seed in range(max(1, min(SEEDS, int(SECONDS / float(ours["cpu_seconds"])))))]
        for what, value in (pair.split(": ") for pair in theirs["result"].split("; ") if pair):
            assert not what.endswith("accuracy") or found[0][what] >= float(value) - ROWS, what
        what, known = next(iter(found[0])), ratios(each(ours), each(theirs))
        if known and not what.endswith("accuracy"):
            here = ratios([float(result[what]) for result in found], each(theirs))
            if statistics.median(here) > chance(
                known, len(here)
            ):  # a few starts may all be unlucky, on one kind of CPU
                found += [of_seed(name, seed) for seed in range(len(found), int(ours["seeds"]))]
                here = ratios([float(result[what]) for result in found], each(theirs))
            assert statistics.median(here) <= chance(known, len(here)), what
        return found[0]

    return run
