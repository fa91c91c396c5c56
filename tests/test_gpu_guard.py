"""support.gpu_guard: tests that break a GPU, or hang, are named, cost only themselves, and run again by --lf."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("xdist")
ROOT = Path(__file__).parent.parent

TESTS = """
import time, pytest, torch
from support import gpu_guard

broken = False
gpu_guard.SECONDS = 1
torch.cuda.is_available = lambda: True

def synchronize():
    if broken:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
torch.cuda.synchronize = synchronize

def test_first(): pass

def test_breaks():
    global broken
    broken = True
    raise AssertionError("the cause of it all")

def test_after(): assert not broken

def test_wrong(): assert 1 == 2

def test_hangs(): time.sleep(60)

def test_last(): assert not broken
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "test_it.py").write_text(TESTS)

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "support.gpu_guard", "-c", os.devnull, "--rootdir=."]
        command += ["-o", "cache_dir=cache", "-p", "no:randomly", *options]
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    return run


@pytest.mark.long
def test_with_workers(run):
    out = run("-n", "1", "--max-worker-restart=4", "test_it.py")
    assert "test_it.py::test_breaks broke the GPU: CUDA error: an illegal memory access was encountered" in out
    assert "AssertionError: the cause of it all" in out
    assert "crashed while running 'test_it.py::test_breaks'" in out
    assert "crashed while running 'test_it.py::test_hangs'" in out and "in test_hangs" in out
    assert "3 failed, 3 passed" in out
    again = run("-n", "1", "--max-worker-restart=4", "--lf", "--lfnf=none", "test_it.py")
    assert "3 failed" in again and "passed" not in again


@pytest.mark.long
def test_without_workers_the_run_ends_there(run):
    out = run("test_it.py")
    assert "test_it.py::test_breaks broke the GPU" in out and "AssertionError: the cause of it all" in out
    assert "passed" not in out
