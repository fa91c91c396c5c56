"""The tests for a GPU, where there is none: on the emulated GPU, and collected as for a real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.emulated import LIBRARY

ROOT = Path(__file__).parent.parent
TESTS = sorted(
    f"tests/{path.name}"
    for path in (ROOT / "tests").glob("test_gpu_*.py")
    if "support.gpu import" in path.read_text() and path != Path(__file__)
)
# What the modules ask of a GPU when they are imported.
A_GPU = """
import torch
from fastkan import select
torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda device=None: (9, 0)
select.missing = lambda *args: None
"""


def pytest_of(*options: str, **variables: str) -> str:
    assert LIBRARY.exists()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--show-capture=no", *options]
    environment = {**os.environ, **variables}
    environment.pop("FASTKAN_LONG", None)  # all tests, of this run's share or not
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


def test_sample_on_the_emulated_gpu():
    out = pytest_of("tests/test_gpu_launch.py", "tests/test_gpu_runtime.py", "-n", "0", FASTKAN_TEST_DEVICE="emulated")
    assert " passed" in out and "failed" not in out


@pytest.mark.long
def test_all_on_the_emulated_gpu():
    out = pytest_of(*TESTS, "-n", "0", FASTKAN_TEST_DEVICE="emulated")
    assert int(out.rpartition(" passed")[0].split()[-1]) > 900


def test_collected_as_for_a_gpu(tmp_path):
    (tmp_path / "a_gpu.py").write_text(A_GPU)
    paths = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "tests")))
    out = pytest_of(*TESTS, "-p", "a_gpu", "-m", "gpu", "--collect-only", "-n", "0", PYTHONPATH=paths)
    for kind in ("stack", "wgmma", "matrix"):
        assert f"test_gpu_launch.py::test_a_captured_graph_computes_what_its_inputs_say[{kind}" in out
    alone = pytest_of(*TESTS, "-p", "a_gpu", "-m", "gpu and alone", "--collect-only", "-n", "0", PYTHONPATH=paths)
    names = {line.partition("[")[0].rpartition("::")[2] for line in alone.splitlines() if "::" in line}
    assert names == {
        "test_offsets_beyond_32_bits",
        "test_a_training_step_needs_no_more_memory_than_that_of_the_equal_linear",
    }
