"""bench.kernels, which tries a GPU's kernels one by one, on the emulated GPU and in Triton's interpreter."""

import pytest
import torch

from bench import kernels
from fastkan import select
from support.emulated import BACKEND, MAJOR, serve_native


@pytest.fixture(autouse=True)
def hopper(monkeypatch):
    monkeypatch.setenv(MAJOR, "9")
    monkeypatch.delenv(kernels.ALGORITHM, raising=False)


NATIVE = [name for name, of in kernels.KERNELS.items() if of.backend == "native"]


def backend(name: str):
    return BACKEND if name in NATIVE else select.functions_of(kernels.KERNELS[name].backend)


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_right_kernels_pass(name):
    said = list(kernels.calls(name, backend(name), "cpu"))
    assert said and all(name in line for line in said)


@pytest.mark.long
@pytest.mark.parametrize("name", NATIVE)
def test_every_problem_passes(name):
    assert len(list(kernels.calls(name, BACKEND, "cpu", every=True))) > 1


@pytest.mark.parametrize("name", NATIVE)
def test_a_wrong_number_is_found(name, monkeypatch):
    of = "stack_out" if name == "stack" else "kan_out"
    right = getattr(BACKEND, of)

    def wrong(*args):
        y = right(*args)
        y.view(-1)[-1] += y.abs().max()
        return y

    monkeypatch.setattr(BACKEND, of, wrong)
    with pytest.raises(AssertionError, match="1 of .* elements off"):
        list(kernels.calls(name, BACKEND, "cpu"))


@pytest.mark.parametrize(("name", "other"), [("features", "fused"), ("fused", "features")])
def test_each_algorithm_of_triton_by_itself(name, other, monkeypatch):
    """What would hang must not run in the other's part."""
    ran = []
    monkeypatch.setattr(select.ALGORITHMS[f"triton:{other}"], "kan_out", lambda *args: ran.append(args))
    assert list(kernels.calls(name, backend(name), "cpu")) and not ran


def test_another_kernel_than_the_named_one_is_found(monkeypatch):
    monkeypatch.setattr(BACKEND, "cuda_algorithm", lambda: "gather")
    with pytest.raises(AssertionError, match="kan_out ran by 'gather': expected 'matrix'"):
        list(kernels.calls("matrix", BACKEND, "cpu"))


class OnGpu:
    """What main asks of a GPU, which is the emulated one."""

    def __init__(self, monkeypatch, major: int = 9):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
        serve_native(monkeypatch)
        run = kernels.calls
        monkeypatch.setattr(kernels, "calls", lambda name, backend, device, every: run(name, backend, "cpu", every))


def test_each_call_is_named_before_it_runs(monkeypatch, capsys):
    OnGpu(monkeypatch)
    monkeypatch.setattr(BACKEND, "stack_out", lambda *args: pytest.fail("as if it hung"))
    with pytest.raises(pytest.fail.Exception):
        kernels.main(["matrix", "stack"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["matrix", "matrix", "stack"]


def test_exit_status(monkeypatch, capsys):
    if not torch.cuda.is_available():
        assert kernels.main(["gather"]) == 1
        assert "torch sees no GPU here" in capsys.readouterr().err
    OnGpu(monkeypatch, major=8)
    assert kernels.main(["wgmma"]) == kernels.ABSENT
    assert capsys.readouterr().out == "no wgmma kernels here: they take sm_90\n"
    assert kernels.main(["wgmma", "matrix"]) == 0
