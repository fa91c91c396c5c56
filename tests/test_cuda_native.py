"""Reasons that the native backend gives for missing GPU kernels; needs no GPU."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastkan import select
from fastkan.backends import native
from fastkan.verdicts import FASTER, Verdict

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_torch_without_cuda():
    assert native.missing("cuda", (torch.float32,)) == "torch was built without CUDA"


@pytest.mark.parametrize("gpu", [0, 1])
def test_the_gpu_of_a_call_alone_is_asked(monkeypatch, gpu):
    """Of two, of which the library has code for the second: asking makes a CUDA context, which takes memory there."""
    asked = []
    monkeypatch.setitem(native.ABSENT, "cuda", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda of: {gpu: (7, 5)}[of])
    monkeypatch.setattr(torch.ops.fastkan, "cuda_serves", lambda of: asked.append(of) or of == 1)
    native._unserved.cache_clear()
    try:
        reason = [native.missing("cuda", (torch.float32,)) for _ in range(2)]
    finally:
        native._unserved.cache_clear()
    expected = "libfastkan_cuda.so holds no code for sm_75: see FASTKAN_CUDA_ARCHS"
    assert reason == 2 * [None if gpu == 1 else expected]
    assert asked == [gpu]


def test_the_choice_asks_for_the_gpu_of_the_tensor(monkeypatch):
    """`missing` speaks of the current GPU, so the choice makes the tensor's GPU current."""
    current = [0]

    @contextlib.contextmanager
    def device(of):
        before, current[0] = current[0], of.index
        yield
        current[0] = before

    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", device)
    asked = []
    monkeypatch.setattr(native, "missing", lambda *args: asked.append(current[0]) or "not on this one")
    monkeypatch.setattr(select, "verdicts_of", lambda *args: {"native": Verdict(FASTER, ratios=(2.0,))})
    monkeypatch.setattr(select, "_choices", {})
    kind = torch.device("cuda", 3), (torch.float32, torch.float32), select.everyday()
    assert select.choose(None, *kind) == "dense"
    with pytest.raises(select.BackendError, match="cannot run here: not on this one"):
        select.choose("native", *kind)
    assert asked and {*asked} == {3}


@pytest.mark.parametrize(("release", "takes"), [("12.4", False), ("12.5", True), ("13.0", True)])
def test_an_nvcc_that_is_too_old_is_named(tmp_path, release, takes):
    cmake = shutil.which("cmake", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    if cmake is None:
        pytest.skip("no cmake")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"#!/bin/sh\ncase $1 in --version) echo 'tools, release {release}, V{release}.1' ;; esac\n")
    nvcc.chmod(0o755)
    options = ["-DFASTKAN_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DTORCH_ROOT={Path(torch.__file__).parent}"]
    done = subprocess.run(
        [cmake, "-S", str(ROOT), "-B", str(tmp_path / "build"), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0  # it knows no architecture either
    reason = " ".join(done.stderr.split())  # CMake breaks lines
    assert (f"is of CUDA {release}: expected 12.5 or later" in reason) != takes
    assert ("FASTKAN_CUDA_ARCHS" in reason) == takes


def test_reason_for_a_failed_build_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "_LIBRARY", tmp_path)
    (tmp_path / "libfastkan_cuda.absent.txt").write_text("nvcc was not found")
    assert native._load("libfastkan_cuda.so") == "libfastkan_cuda.so was not built: nvcc was not found"


def test_library_of_older_sources_is_reported(monkeypatch):
    monkeypatch.setattr(native.ops, "STACK_SCHEMAS", {"kan_tomorrow": ""})
    torch.library.define("fastkan::kan_tomorrow", "() -> int")
    found = native._load("libfastkan_cpu.so")
    assert found == "libfastkan_cpu.so was built from older sources, without kan_tomorrow: install the package again"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"FASTKAN_CUDA": "1", "FASTKAN_CUDA_ARCHS": "1"}, "CMake failed"),
        ({"FASTKAN_CUDA": "1", "FASTKAN_NO_NATIVE": "1"}, "FASTKAN_NO_NATIVE is set"),
    ],
    ids=["architecture", "switch"],
)
def test_required_kernels_that_do_not_build_are_an_error(tmp_path, environment, reason):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    for name in ("setup.py", "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    code = "import runpy, sys; sys.argv = ['setup.py', '-q', 'build_native', '--inplace']; runpy.run_path('setup.py')"
    environment = {**os.environ, **environment, "CXX": "/bin/false"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"fastkan: the compiled kernels were not built: {reason}" in done.stderr
