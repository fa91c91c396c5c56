"""What every tutorial starts with: kan installed, float64, a folder of its own, and no windows; and pykan's results."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from pykan_both import our_kan  # noqa: E402

from bench.tutorials import TASKS  # noqa: E402
from fastkan.cli.record import read_csv  # noqa: E402

RESULTS = Path(__file__).parent.parent.parent / "bench" / "results" / "cpu" / "tutorials.csv"
# Trainings that rounding alone sets apart end apart: from the same seed pykan's own API 12 ended at 0.0112 and 0.0149,
# its hellokan at 2e-14 and 4e-12. Below EXACT both have found the formula, and the rest is rounding.
SCATTER, EXACT = 2.0, 1e-8
ROWS = 0.015  # of an accuracy: its standard error over the 1000 rows that it is of


@pytest.fixture
def kan(tmp_path, monkeypatch):
    """fastkan's kan."""
    plt = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("sympy")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with our_kan() as kan:
        yield kan
    plt.close("all")
    torch.set_default_dtype(dtype)
    torch.set_rng_state(state)


@pytest.fixture
def task(kan):
    """Runs a task of bench.tutorials by its name, and holds what it reaches against what pykan reached there."""
    pykans = {r["tutorial"]: r["result"] for r in read_csv(RESULTS) if r["peer"] == "pykan"}

    def run(name: str) -> dict:
        found = TASKS[name](kan)
        for n, (what, value) in enumerate(pair.split(": ") for pair in pykans[name].split("; ") if pair):
            if what.endswith("accuracy"):
                assert found[what] >= float(value) - ROWS, what
            elif n == 0:
                assert found[what] <= max(SCATTER * float(value), EXACT), what
        return found

    return run
