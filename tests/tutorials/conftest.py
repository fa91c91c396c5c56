"""What every tutorial starts with: kan installed, float64, a folder of its own, and no windows."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from pykan_both import our_kan  # noqa: E402


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
