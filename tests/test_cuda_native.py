"""Reasons that the native backend gives for missing GPU kernels; needs no GPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastkan.backends import native

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_torch_without_cuda():
    assert native.missing("cuda", (torch.float32,)) == "torch was built without CUDA"


@pytest.mark.parametrize("served", [True, False])
def test_library_without_code_for_these_gpus(monkeypatch, served):
    monkeypatch.setitem(native.ABSENT, "cuda", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (7, 5))
    monkeypatch.setattr(torch.ops.fastkan, "cuda_serves", lambda gpu: served and gpu == 1)
    native._unserved.cache_clear()
    try:
        reason = native.missing("cuda", (torch.float32,))
    finally:
        native._unserved.cache_clear()
    expected = "libfastkan_cuda.so holds no code for sm_75: see FASTKAN_CUDA_ARCHS"
    assert reason == (None if served else expected)


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
