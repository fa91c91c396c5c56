"""`fastkan prove` on a device that does not exist: every verdict, whatever a kernel does."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from fastkan import kinds, select, verdicts
from fastkan.prove import child, parent, prove
from fastkan.verdicts import CRASHED, FASTER, HUNG, MISSING, SLOWER, WRONG, Verdict
from support import kernels

CPU = torch.device("cpu")
KIND = kinds.EVERYDAY[0]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A folder for verdicts; child processes import the kernels of tests/support."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("FASTKAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        yield


def run(*names: str, **options) -> dict[str, Verdict]:
    return prove(CPU, (KIND,), names=names, module="support.kernels", **options).get(str(KIND), {})


@pytest.fixture
def judged(monkeypatch):
    """The verdict of an implementation, by both parts, in this process."""

    def judge(name: str) -> Verdict:
        monkeypatch.setitem(select.ALGORITHMS, name, kernels.IMPLEMENTATIONS[name])
        host = kernels.HOST(CPU)
        right = child.judge("parity", name, KIND, host)
        return child.judge("speed", name, KIND, host) if right.verdict == FASTER else right

    return judge


def test_right_kernels_are_raced(judged):
    assert judged("right") == Verdict(FASTER, "", (2.0,) * 3)
    assert judged("slow") == Verdict(SLOWER, "", (0.5,) * 3)
    assert str(judged("right")) == "right and faster: 2 times as fast as dense"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong in one element", r"1 rows, 1->1, G=3, order 0: kan_coef, result 0: 1 of 6 elements off"),
        ("wrong in large sums", r"3000 rows, 3->9, G=5, order 0: edge_moments, result 0"),
        ("wrong for NaN", r"a NaN in x: kan_out, result 0: 5 of 45 elements off"),
        ("unwritten", r"kan_out, result 0: .* nan, expected"),
        ("wrong on streams", r"on 3 streams: kan_in, result 0"),
        ("wrong in a graph", r"in a replayed graph: kan_backward, result 0"),
        ("different at times", r"call \d+ of equal ones gives another result than the first"),
    ],
)
def test_wrong_kernels_are_told_apart(judged, name, reason):
    found = judged(name)
    assert found.verdict == WRONG and re.search(reason, found.reason), found


def test_what_cannot_run_is_missing_or_fails_with_the_reason(judged):
    assert judged("absent") == Verdict(MISSING, "this machine has no such thing")
    assert judged("fails") == Verdict(CRASHED, "RuntimeError: out of resource: shared memory")


# In processes of their own


@pytest.fixture(scope="module")
def found(cache) -> dict[str, Verdict]:
    return run("absent", "aborts", "right")


def test_a_crash_costs_only_itself(found):
    assert found["absent"].verdict == MISSING
    assert found["aborts"] == Verdict(CRASHED, "SIGABRT")
    assert found["right"] == Verdict(FASTER, "", (2.0,) * 3)


@pytest.mark.long
def test_a_device_is_not_used_after_it_broke():
    found = run("breaks the device", "segfaults", "right")
    assert found["breaks the device"] == Verdict(CRASHED, "RuntimeError: an illegal memory access was encountered")
    assert found["segfaults"] == Verdict(CRASHED, "SIGSEGV")
    assert found["right"].verdict == FASTER


def test_a_hang_costs_only_itself():
    """However slow the machine is: the second answers without computing anything."""
    hung = run("hangs", "absent", job_seconds=5.0)
    assert hung["hangs"] == Verdict(HUNG, "no result within 5 s") and hung["absent"].verdict == MISSING


def test_what_is_not_reached_has_no_verdict():
    assert run("right", seconds=0.01) == {}


def test_verdicts_are_kept(found):
    kept = verdicts.read(CPU)[str(KIND)]
    assert {name: kept[name] for name in found} == found
    assert json.loads(verdicts.path_of(CPU).read_text())["facts"] == verdicts.facts(CPU)


def test_without_a_folder_to_write_verdicts_are_still_given(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTKAN_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="the verdicts can't be kept for later processes: .*file"):
        assert not parent._kept(CPU, str(KIND), "right", Verdict(FASTER))


def test_a_process_that_does_not_start_is_an_error():
    with pytest.raises(RuntimeError, match="does not start: exit status 1: .*No module named 'nowhere'"):
        prove(CPU, (KIND,), module="nowhere", names=("right",))
