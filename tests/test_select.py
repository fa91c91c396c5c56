"""Choice of the backend: argument, context, environment; a backend requested by name never falls back."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fastkan
from fastkan import BackendError, backends, select, use_backend
from fastkan.backends import native as compiled
from fastkan.functional import edge_mean, kan_linear
from fastkan.testing import Problem
from support.tiers import long

REASON = "this machine has no such thing"
CUBIC, SINGLES = select.everyday(), (torch.float32, torch.float32)
NAMES = "'native', 'triton', 'dense', 'reference'"


@pytest.fixture(autouse=True)
def nobody_asked(monkeypatch):
    """As in a process without FASTKAN_BACKEND."""
    monkeypatch.setattr(select, "_requested", (None, select.ENV))


@pytest.fixture
def without_native(by_python, monkeypatch):
    monkeypatch.setitem(select.BACKENDS, "native", SimpleNamespace(missing=lambda device_type, dtypes, family: REASON))


def layer(backend: str | None = None) -> torch.Tensor:
    p = Problem.random(4, 3, 2, 5)
    return kan_linear(p.x, p.coef, p.grid, p.base_weight, degree=3, backend=backend)


def edges(backend: str | None = None) -> torch.Tensor:
    p = Problem.random(4, 3, 2, 5)
    return edge_mean(p.x, p.coef, p.grid, p.base_weight, degree=3, backend=backend)


def ran(calls) -> set[str]:
    found = {name for name, count in calls.items() if count}
    for count in calls.values():
        count.clear()
    return found


def in_process(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("run", [layer, edges])
def test_the_automatic_choice_is_the_first_that_can(run, calls, native):
    run()
    assert ran(calls) == {"native"}


@pytest.mark.parametrize("run", [layer, edges])
def test_the_automatic_choice_passes_over_what_is_missing(run, without_native):
    run()
    assert select.choose(None, torch.device("cpu"), SINGLES, CUBIC) == "dense"


@pytest.mark.parametrize("run", [layer, edges])
def test_a_named_backend_runs(run, backend_name, calls):
    run(backend_name)
    assert ran(calls) == {backend_name}
    with use_backend(backend_name):
        run()
    assert ran(calls) == {backend_name}


def test_argument_beats_context_beats_environment(calls, native, monkeypatch):
    monkeypatch.setattr(select, "_requested", ("reference", select.ENV))
    layer()
    assert ran(calls) == {"reference"}
    with use_backend("native"):
        layer()
        assert ran(calls) == {"native"}
        layer("reference")
        assert ran(calls) == {"reference"}
        with use_backend("reference"):
            layer()
            assert ran(calls) == {"reference"}
        with use_backend(None):
            layer()
            assert ran(calls) == {"native"}
        layer()
        assert ran(calls) == {"native"}
    layer()
    assert ran(calls) == {"reference"}


def test_the_context_ends_with_an_exception(calls):
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert select._requested == (None, select.ENV)


@pytest.mark.parametrize("run", [layer, edges])
def test_a_named_backend_never_falls_back(run, without_native):
    with pytest.raises(BackendError, match=f"backend='native' cannot run here: {REASON}"):
        run("native")
    with use_backend("native"), pytest.raises(BackendError, match=f"use_backend='native' cannot run here: {REASON}"):
        run()


def test_a_name_in_the_environment_never_falls_back(without_native, monkeypatch):
    monkeypatch.setattr(select, "_requested", ("native", select.ENV))
    with pytest.raises(BackendError, match=f"FASTKAN_BACKEND='native' cannot run here: {REASON}"):
        layer()


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64], ids=str)
def test_native_names_the_unsupported_dtype_or_device(native, dtype):
    assert str(dtype) in native.missing("cpu", (torch.float32, dtype))
    assert "'mps'" in native.missing("mps", (torch.float32,))
    assert native.missing("cpu", (torch.float64, torch.bfloat16)) is None


@pytest.mark.parametrize("by", [layer, lambda name: use_backend(name).__enter__()], ids=["argument", "context"])
def test_unknown_names_are_refused_with_the_known_ones(by):
    with pytest.raises(ValueError, match=f"backend='cuda': expected one of {NAMES}"):
        by("cuda")


def test_backends_explains_the_choice(native):
    table = backends()
    assert list(table) == list(select.BACKENDS)
    assert table["native"] == f"chosen: {select.PREFERENCE['cpu'][1]}"
    assert table["reference"] == "available"


def test_backends_explains_a_missing_backend(without_native):
    table = backends()
    assert table["native"] == f"missing: {REASON}"
    assert table["dense"].startswith("chosen: ")


def test_backends_of_another_family(native, monkeypatch):
    assert backends(family="rbf") == backends(family="chebyshev") == backends()
    monkeypatch.setattr(compiled, "WITH_KERNELS", ("bspline", "chebyshev"))
    table = backends(family="rbf")
    assert table["native"] == "missing: no compiled kernels for family 'rbf'"
    assert table["dense"].startswith("chosen: ")
    assert backends()["native"].startswith("chosen") and backends(family="chebyshev")["native"].startswith("chosen")
    with pytest.raises(ValueError, match="family='cosine': expected one of 'bspline', 'rbf', 'chebyshev'"):
        backends(family="cosine")


def test_backends_explains_a_requested_backend():
    with use_backend("reference"):
        assert backends()["reference"] == "chosen: requested by use_backend"
        assert not backends()["native"].startswith("chosen")


def test_backends_explains_another_device():
    table = backends("meta")
    assert table["native"].startswith("missing: no compiled kernels for device 'meta'")
    assert table["dense"] == "chosen: plain PyTorch runs on every device"


def test_backends_names_the_chosen_backend(calls):
    chosen = {name for name, why in backends().items() if why.startswith("chosen")}
    layer()
    assert ran(calls) == chosen


def test_the_environment_variable_is_read_at_import():
    code = "import fastkan; print(fastkan.backends()['reference'])"
    assert in_process(code, FASTKAN_BACKEND="reference").stdout == "chosen: requested by FASTKAN_BACKEND\n"
    assert "asked for" not in in_process(code, FASTKAN_BACKEND="").stdout


def test_a_wrong_name_in_the_environment_is_an_error_at_the_first_call():
    code = (
        "import fastkan, torch;"
        "fastkan.functional.kan_linear(torch.ones(1, 1), torch.ones(1, 1, 1), torch.arange(2.), degree=0)"
    )
    result = in_process(code, FASTKAN_BACKEND="fast")
    assert result.returncode != 0
    assert f"FASTKAN_BACKEND='fast': expected one of {NAMES}" in result.stderr


def test_without_a_compiled_library_the_package_says_so_and_runs(tmp_path):
    """A copy of the package without its library, in a fresh process."""
    package = Path(fastkan.__file__).parent
    shutil.copytree(package, tmp_path / "fastkan", ignore=shutil.ignore_patterns("lib", "__pycache__"))
    code = (
        "import fastkan, torch; print(fastkan.__file__, *fastkan.backends().values(), sep='\\n');"
        "fastkan.functional.kan_linear(torch.ones(1, 1), torch.ones(1, 1, 1), torch.arange(2.), degree=0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    where, native, _, dense, _ = result.stdout.splitlines()
    assert where.startswith(str(tmp_path))
    assert native.startswith("missing: libfastkan_cpu.so was not built")
    assert dense.startswith("chosen")


def test_library_that_does_not_load_is_a_reason(tmp_path, monkeypatch):
    (tmp_path / "broken.so").write_bytes(b"not a library")
    monkeypatch.setattr(compiled, "_LIBRARY", tmp_path)
    assert compiled._load("broken.so").startswith("broken.so does not load: ")
    assert compiled._load("absent.so").startswith("absent.so was not built")
    (tmp_path / "setup.py").touch()
    monkeypatch.setattr(compiled, "_LIBRARY", tmp_path / "fastkan" / "lib")
    assert f"a source folder that was not built ({tmp_path}): pip install -e . there" in compiled._load("absent.so")


# Settings of torch by which float32 products on a GPU may be rounded to TF32.
PRECISIONS = (
    "torch.set_float32_matmul_precision('high')",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.cudnn.fp32_precision = 'tf32'",
)


@pytest.mark.parametrize("setting", [PRECISIONS[0], *long(*PRECISIONS[1:])])
def test_the_precision_of_products_is_torchs_eager_and_compiled(setting):
    """Set in a process of its own, since some of the ways leave no way back."""
    code = f"""
import torch
from fastkan import ops

def asked(x):
    return x + ops.allows_tf32()

compiled = torch.compile(asked, backend="eager", fullgraph=True)
before = compiled(torch.zeros(1))
{setting}
print(*(int(y) for y in (before, asked(torch.zeros(1)), compiled(torch.zeros(1)))))
"""
    assert in_process(code).stdout.strip() == "0 1 1"
