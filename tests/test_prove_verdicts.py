"""The file of verdicts: where it is, what makes it another one, several writers, and whatever else may stand in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastkan
from fastkan import devices, kinds, verdicts
from fastkan.verdicts import FASTER, WRONG, Verdict

CPU = torch.device("cpu")
KIND = str(kinds.EVERYDAY[0])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTKAN_CACHE", str(tmp_path))
    monkeypatch.setattr(verdicts, "_read", {})
    return tmp_path


def test_verdicts_come_back(cache):
    assert verdicts.read(CPU) == {}
    verdicts.add(CPU, KIND, "native", Verdict(FASTER, "", (2.0, 3.0)))
    verdicts.add(CPU, KIND, "triton:fused", Verdict(WRONG, "kan_out is off"))
    verdicts.add(CPU, KIND, "native", Verdict(FASTER, "", (8.0, 2.0)))
    expected = {KIND: {"native": Verdict(FASTER, "", (8.0, 2.0)), "triton:fused": Verdict(WRONG, "kan_out is off")}}
    assert verdicts.read(CPU) == expected and expected[KIND]["native"].speed == 4.0
    assert {p.name for p in (cache / "proven").iterdir()} == {verdicts.path_of(CPU).name, "lock"}


def test_the_folder(monkeypatch, tmp_path):
    assert verdicts.path_of(CPU).parent == tmp_path / "proven"
    monkeypatch.delenv("FASTKAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert verdicts.path_of(CPU).parent == Path("/caches/fastkan/proven")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert verdicts.path_of(CPU).parent == Path.home() / ".cache/fastkan/proven"


@pytest.mark.parametrize("changed", ["triton", "native", "name", "dense"])
def test_the_kernels_are_those_of_the_triton_folder_and_the_library(tmp_path, changed):
    (folder := tmp_path / "backends" / "triton" / "kernels").mkdir(parents=True)
    (tmp_path / "lib").mkdir()
    (file := folder / "kan_out.py").write_text("a")
    (library := tmp_path / "lib" / "libfastkan_cuda.so").write_text("b")
    (other := tmp_path / "backends" / "dense.py").write_text("c")
    before = verdicts.kernels.__wrapped__(tmp_path)
    if changed == "name":
        file.rename(folder / "kan_in.py")
    else:
        {"triton": file, "native": library, "dense": other}[changed].write_text("d")
    assert (verdicts.kernels.__wrapped__(tmp_path) == before) == (changed == "dense")


@pytest.mark.parametrize("fact", ["kernels", "torch", "triton", "fastkan", "switch", "driver", "device"])
def test_other_facts_are_another_file(monkeypatch, fact):
    before = verdicts.path_of(CPU)
    if fact == "kernels":
        monkeypatch.setattr(verdicts, "kernels", lambda: "other sources")
    elif fact == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    elif fact == "triton":
        monkeypatch.setattr(verdicts, "_version", lambda package: "9.9")
    elif fact == "fastkan":
        monkeypatch.setattr(fastkan, "__version__", "9.9")
    elif fact == "switch":
        monkeypatch.setenv("FASTKAN_CUDA_ALGORITHM", "wgmma")
    else:
        gpu(monkeypatch, name="A")
        before = verdicts.path_of(torch.device("cuda", 0))
        if fact == "driver":
            monkeypatch.setattr(verdicts, "_driver", lambda: "13.1")
        else:
            gpu(monkeypatch, name="B")
        assert verdicts.path_of(torch.device("cuda", 0)) != before
        return
    assert verdicts.path_of(CPU) != before


def gpu(monkeypatch, name: str, hip: str | None = None) -> None:
    from types import SimpleNamespace

    found = SimpleNamespace(
        name=name, major=9, minor=0, gcnArchName="gfx942:sramecc+:xnack-", multi_processor_count=132
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.version, "hip", hip)


@pytest.mark.parametrize(("hip", "name"), [(None, "sm_90"), ("7.0", "gfx942")])
def test_names_of_architectures(monkeypatch, hip, name):
    gpu(monkeypatch, "X", hip)
    assert devices.architecture(torch.device("cuda", 0)) == name
    assert verdicts.facts(torch.device("cuda", 0))["device"] == f"X, {name}, 132 multiprocessors"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"verdicts": []}', '{"verdicts": {"a": {"b": 1}}}', '{"verdicts": {"a": {"b": {}}}}',
     '{"verdicts": {"a": {"b": {"verdict": "fine", "reason": "", "ratios": []}}}}', "\xff", None],
)  # fmt: skip
def test_what_cannot_be_read_is_no_verdict(content):
    path = verdicts.path_of(CPU)
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_text(content, encoding="latin-1")
    with pytest.warns(UserWarning, match="verdicts of `fastkan prove` can't be read: .*; prove again"):
        assert verdicts.known(CPU) == {}
    assert verdicts.known(CPU) == {}  # once
    if content is not None:
        verdicts.add(CPU, KIND, "native", Verdict(FASTER))
        assert verdicts.read(CPU) == {KIND: {"native": Verdict(FASTER)}}


def test_several_writers_lose_nothing(cache):
    code = (
        "import sys, torch; from fastkan import verdicts\n"
        "for n in range(20):\n"
        "    verdicts.add(torch.device('cpu'), f'kind {n}', sys.argv[1], verdicts.Verdict('right and faster'))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("first", "second")]
    assert [p.wait() for p in processes] == [0, 0]
    found = verdicts.read(CPU)
    assert len(found) == 20 and all(of.keys() == {"first", "second"} for of in found.values())


def test_a_failed_write_leaves_the_file_as_it_was(monkeypatch, cache):
    verdicts.add(CPU, KIND, "native", Verdict(FASTER))

    def fails(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        verdicts.add(CPU, KIND, "native", Verdict(WRONG))
    assert verdicts.read(CPU) == {KIND: {"native": Verdict(FASTER)}}
    assert len(list((cache / "proven").iterdir())) == 2


# FASTKAN_PROVE=block


@pytest.mark.parametrize(
    ("case", "runs"), [("block", True), ("known", False), ("compiling", False), ("", False), ("rank 1", False)]
)
def test_block_proves_at_first_use(monkeypatch, case, runs):
    commands = []

    def run(command, **options):
        commands.append(command)
        assert options["env"]["FASTKAN_PROVE"] == "off"
        verdicts.add(CPU, KIND, "native", Verdict(FASTER))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("FASTKAN_PROVE", case if case in ("", "block") else "block")
    if case == "known":
        verdicts.add(CPU, KIND, "native", Verdict(FASTER))
    if case == "rank 1":
        monkeypatch.setenv("LOCAL_RANK", "1")
    found = verdicts.known(CPU, may_prove=case != "compiling")
    assert commands == ([[sys.executable, "-m", "fastkan", "prove", "--device", "cpu"]] if runs else [])
    assert bool(found) == (runs or case == "known")
    verdicts.known(CPU)
    assert len(commands) == runs


def test_the_file_is_for_people_too():
    verdicts.add(CPU, KIND, "native", Verdict(FASTER, "", (2.0,)))
    content = json.loads(verdicts.path_of(CPU).read_text())
    assert content["verdicts"][KIND]["native"] == {"verdict": FASTER, "reason": "", "ratios": [2.0]}
    assert content["facts"]["torch"] == torch.__version__
