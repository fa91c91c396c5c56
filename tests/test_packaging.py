"""Wheels and installations with and without a compiler, and the cost of the import."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from fastkan import direct

# Not importorskip: merely looking for the module pip makes setuptools give distutils back, which breaks torch.compile.
if not list(importlib.metadata.distributions(name="pip")):
    pytest.skip("no pip to install with", allow_module_level=True)

pytestmark = pytest.mark.xdist_group("packaging")  # one process builds the wheels

ROOT = Path(__file__).parent.parent
LIBRARY = "fastkan/lib/libfastkan_cpu.so"
COMPILER = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
OPTIONAL = ("matplotlib", "numpy", "scipy", "sklearn", "tqdm", "triton")
SLOW = ("sympy", "torch._dynamo", "torch._inductor")  # parts of torch, and seconds to import

STATE = "import fastkan, json; print(json.dumps(fastkan.backends()))"
FORWARD = """
import torch, fastkan
grid = torch.linspace(-2.2, 2.2, 12)
y = fastkan.functional.kan_linear(torch.zeros(4, 3), torch.ones(3, 8, 2), grid, degree=3)
torch.testing.assert_close(y, torch.full((4, 2), 3.0))
"""


def run(*command: str, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Run without this process's own settings of fastkan; with `path`, only that can provide fastkan."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FASTKAN_") and k != "PYTHONPATH"}
    clean |= {"PYTHONPATH": str(path), "PYTHONNOUSERSITE": "1"} if path else {}
    where = "/" if path else None
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    return subprocess.run(command, cwd=where, env=clean | environment, text=True, timeout=300, **streams)


def python(code: str, path: Path) -> str:
    done = run(sys.executable, "-c", code, path=path)
    assert done.returncode == 0, done.stdout
    return done.stdout


def pip(action: str, source: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    return run(
        *(sys.executable, "-m", "pip", action, "-v", "--no-build-isolation", "--no-deps", "--no-index"),
        *options,
        str(source),
        **environment,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the checkout, so that builds leave it alone, with the libraries of other builds lying about."""
    folder = tmp_path_factory.mktemp("source")
    for file in filter(Path.is_file, ROOT.iterdir()):
        shutil.copy(file, folder)
    for name in ("fastkan", "fastkan_cli", "csrc", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("lib", "__pycache__"))
    for stale in (folder / LIBRARY, folder / "build/lib" / LIBRARY):
        stale.parent.mkdir(parents=True)
        stale.write_text("stale")
    return folder


@pytest.fixture(scope="module")
def native(source, tmp_path_factory) -> Path:
    """The wheel with compiled kernels, unoptimised, which saves most of the compiler's time."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("native")
    done = pip("wheel", source, "-w", str(folder), FASTKAN_REQUIRE_NATIVE="1", CMAKE_BUILD_TYPE="Debug")
    assert done.returncode == 0, done.stdout
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def pure(source, tmp_path_factory) -> Path:
    """An installation without a working compiler."""
    folder = tmp_path_factory.mktemp("pure")
    done = pip("install", source, "--target", str(folder), CXX="/bin/false")
    assert done.returncode == 0, done.stdout
    assert "WARNING: installed without compiled kernels, on plain PyTorch: " in done.stdout
    return folder


@pytest.mark.long
def test_wheel_contents(native):
    assert native.name.startswith("fastkan-") and "-py3-none-" in native.name and not native.name.endswith("-any.whl")
    names = zipfile.ZipFile(native).namelist()
    assert {LIBRARY, "fastkan/py.typed", "fastkan/functional.py", "fastkan/backends/native.py"} <= set(names)
    assert {"fastkan/network/plot/page.html", "fastkan/network/plot/page.js"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fastkan", "fastkan_cli"}
    assert not [name for name in names if "tests" in name or "csrc" in name or name.endswith((".o", ".new"))]
    assert {name for name in names if name.endswith(".so")} == {LIBRARY, f"fastkan/lib/{direct.PATH.name}"}


@pytest.mark.long
def test_wheel_metadata(native):
    import fastkan

    wheel = zipfile.ZipFile(native)
    read = {Path(name).name: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info/" in name}
    metadata = Parser().parsestr(read["METADATA"])
    assert metadata["Version"] == fastkan.__version__
    assert [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r] == ["torch>=2.10"]
    assert set(metadata.get_all("Provides-Extra")) == {"demo", "hub", "plot", "pykan", "sklearn", "symbolic", "test"}
    assert "fastkan = fastkan_cli:main" in read["entry_points.txt"]
    assert "MIT License" in read["LICENSE"]


@pytest.mark.long
def test_wheel_runs_natively(native, tmp_path):
    zipfile.ZipFile(native).extractall(tmp_path)
    assert json.loads(python(STATE, tmp_path))["native"].startswith("chosen")
    python(FORWARD, tmp_path)


@pytest.mark.long
def test_library_needs_only_the_stable_abi(native, tmp_path):
    """No symbols of Python or of torch's C++: one file serves every version of both."""
    if shutil.which("nm") is None:
        pytest.skip("no nm to read symbols with")
    library = zipfile.ZipFile(native).extract(LIBRARY, tmp_path)
    listing = run("nm", "-D", "--undefined-only", library).stdout
    symbols = [line.split()[-1] for line in listing.splitlines()]
    assert "torch_library_impl" in symbols
    assert not [s for s in symbols if s.startswith(("Py", "_Py")) or "c10" in s or "2at" in s or "5torch" in s]


def test_without_a_compiler(pure):
    assert not (pure / LIBRARY).exists() and (pure / "fastkan/py.typed").exists()
    assert "Tag: py3-none-any" in next(pure.glob("fastkan-*.dist-info/WHEEL")).read_text()
    state = json.loads(python(STATE, pure))
    assert state["native"].startswith("missing: libfastkan_cpu.so was not built: CMake failed")
    assert state["dense"].startswith("chosen")
    python(FORWARD, pure)


@pytest.mark.parametrize("broken", [{"CXX": "/bin/false"}, {"FASTKAN_NO_NATIVE": "1"}], ids=lambda e: next(iter(e)))
def test_required_kernels_that_do_not_build_are_an_error(source, tmp_path, broken):
    done = pip("wheel", source, "-w", str(tmp_path), FASTKAN_REQUIRE_NATIVE="1", **broken)
    assert done.returncode != 0
    assert "fastkan: the compiled kernels were not built: " in done.stdout


def test_no_native_switch(source, tmp_path):
    done = pip("wheel", source, "-w", str(tmp_path), FASTKAN_NO_NATIVE="1")
    assert "plain PyTorch: FASTKAN_NO_NATIVE is set" in done.stdout
    (wheel,) = tmp_path.iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert LIBRARY not in zipfile.ZipFile(wheel).namelist()


SETUP = "import runpy, sys; runpy.run_path(sys.argv[1])"


def test_an_old_setuptools_is_named(tmp_path):
    """pip does not compare versions with --no-build-isolation."""
    (tmp_path / "setuptools.py").write_text("__version__ = '68.0.0'")
    done = run(sys.executable, "-c", SETUP, str(ROOT / "setup.py"), path=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "fastkan: setuptools 68.0.0 is too old: expected 77 or later, pip install -U 'setuptools>=77'"
    ]


@pytest.mark.parametrize(
    "says, message",
    [("cmake version 3.18.4", "CMake 3.18.4: expected 3.20 or later"), ("oops", "a CMake without a version")],
)
def test_an_old_cmake_is_named(tmp_path, says, message):
    (tmp_path / "cmake").write_text(f"#!/bin/sh\necho '{says}'\n")
    (tmp_path / "cmake").chmod(0o755)
    code = (
        "import runpy, setuptools, shutil, sys; setuptools.setup = lambda **options: None;"
        f"shutil.which = lambda name, path: {str(tmp_path / 'cmake')!r};"
        "runpy.run_path(sys.argv[1])['cmake']()"
    )
    done = run(sys.executable, "-c", code, str(ROOT / "setup.py"))
    assert f"RuntimeError: {tmp_path}/cmake is {message}" in done.stdout


@pytest.mark.parametrize(
    "capabilities, expected", [("9.0 8.6 8.6", "['86', '90a']"), ("7.5", "[]"), ("No devices were found", "[]")]
)
def test_cuda_kernels_are_built_for_the_gpus_of_the_machine(tmp_path, capabilities, expected):
    lines = capabilities if "No" in capabilities else capabilities.replace(" ", "\\n")
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{lines}\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    code = (
        "import os, runpy, setuptools, sys; setuptools.setup = lambda **options: None;"
        f"os.environ['PATH'] = {str(tmp_path)!r} + ':' + os.environ['PATH'];"
        "print(runpy.run_path(sys.argv[1])['gpus']())"
    )
    assert run(sys.executable, "-c", code, str(ROOT / "setup.py")).stdout.strip() == expected


def test_library_that_does_not_load(pure, tmp_path):
    shutil.copytree(pure / "fastkan", tmp_path / "fastkan")
    (tmp_path / "fastkan/lib").mkdir(exist_ok=True)
    (tmp_path / LIBRARY).write_text("not a library")
    state = json.loads(python(STATE, tmp_path))
    assert state["native"].startswith("missing: libfastkan_cpu.so does not load: ")
    assert state["dense"].startswith("chosen")


def test_imports_with_torch_alone(pure):
    """Neither the extras nor NumPy nor Triton have to be there."""
    block = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"
    python(block + FORWARD, pure)


def test_import_brings_in_nothing_beyond_torch(pure):
    code = "import sys, torch; had = set(sys.modules); import fastkan; print(*set(sys.modules) - had)"
    new = python(code, pure).split()
    assert "fastkan.functional" in new
    assert not [name for name in new if name.startswith(OPTIONAL + SLOW)]
