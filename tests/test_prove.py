"""`fastkan prove` on a device that does not exist: every verdict, whatever a kernel does."""

import functools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fastkan import kinds, select, verdicts
from fastkan.cli import info
from fastkan.cli import prove as cli_prove
from fastkan.prove import checks, child, parent, prove
from fastkan.verdicts import CRASHED, FASTER, HUNG, MISSING, SLOWER, WRONG, Verdict
from fastkan_cli import main
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


def test_slower_at_one_shape_is_slower(judged, monkeypatch):
    monkeypatch.setattr(checks, "race", lambda *args: (3.0, 0.9, 2.0))
    assert judged("right") == Verdict(SLOWER, "", (3.0, 0.9, 2.0))


@pytest.mark.parametrize(("tf32", "precision"), [(True, "tf32"), (False, "ieee")])
def test_tf32_is_allowed_for_its_kinds_alone(judged, monkeypatch, tf32, precision):
    found = []
    matmul = torch.backends.cuda.matmul
    monkeypatch.setattr(matmul, "fp32_precision", matmul.fp32_precision)
    monkeypatch.setitem(child.PARTS, "parity", lambda *args: found.append(matmul.fp32_precision) or Verdict(FASTER))
    child.judge("parity", "dense", KIND._replace(tf32=tf32), kernels.HOST(CPU))
    assert found == [precision]


def test_what_is_wrong_is_not_raced(monkeypatch, tmp_path):
    class Worker:
        def __init__(self, device, part, module):
            self.verdict = Verdict(WRONG, "by 1") if part == "parity" else Verdict(FASTER, "", (2.0,))

        def ask(self, *args):
            return self.verdict

        def stop(self):
            pass

    monkeypatch.setenv("FASTKAN_CACHE", str(tmp_path))
    monkeypatch.setattr(parent, "Worker", Worker)
    assert run("right") == {"right": Verdict(WRONG, "by 1")}
    assert verdicts.read(CPU)[str(KIND)] == {"right": Verdict(WRONG, "by 1")}


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


def test_what_hangs_is_not_tried_for_other_kinds():
    two = kinds.EVERYDAY[:2]
    found = prove(CPU, two, names=("hangs", "absent"), module="support.kernels", job_seconds=5.0)
    assert found[str(two[0])]["hangs"].verdict == HUNG
    assert found[str(two[1])].keys() == {"absent"}


def test_a_hanging_process_ends_with_the_one_that_asks():
    command = [sys.executable, "-m", "fastkan.prove.child", "cpu", "parity", "support.kernels"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(json.dumps(["hangs", str(KIND)]).encode() + b"\n")
        process.stdin.flush()
        assert any(b"hanging" in line for line in process.stderr)
        process.stdin.close()
        assert process.wait(60) == 0


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


# As a command, and among several ranks


def test_the_command_prints_every_verdict(monkeypatch, capsys):
    verdict = Verdict(FASTER, "", (2.0,))

    def prove(device, kinds, seconds, report, job_seconds):
        report(kinds[0], "triton:fused", verdict)
        return {str(kinds[0]): {"triton:fused": verdict}}

    monkeypatch.setattr(cli_prove, "prove", prove)
    assert main(["prove", "--kinds", "rbf-0-zero-uniform-float32*", "--seconds", "7"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("rbf-0-zero-uniform-float32  triton:fused  right and faster: 2 times as fast as dense\n")
    assert "1 of 4 kinds of calls have kernels that are right and faster" in out
    assert "Not reached within 7 s: rbf-0-zero-uniform-float32-tf32 rbf-0-zero-uniform-float32-bfloat16 " in out
    assert main(["prove", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == {str(KIND): {"triton:fused": {"verdict": FASTER, "reason": "", "ratios": [2.0]}}}


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the whole command on the device that does not exist; gives the lines that it printed."""

    def run(*names: str, each: int = 90) -> list[str]:
        monkeypatch.setattr(cli_prove, "prove", functools.partial(prove, names=names, module="support.kernels"))
        assert main(["prove", "--device", "cpu", "--kinds", str(KIND), "--each", str(each)]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        return said.out.splitlines()

    return run


@pytest.mark.long
def test_the_command_goes_on_whatever_kernels_do(command, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTKAN_CACHE", str(tmp_path))
    assert command("right", "aborts", "absent") == [
        f"{KIND}  right  right and faster: 2 times as fast as dense",
        f"{KIND}  aborts  crashed: SIGABRT",
        f"{KIND}  absent  missing: this machine has no such thing",
        "",
        "1 of 1 kinds of calls have kernels that are right and faster: programs take them now.",
    ]
    assert command("hangs", "absent", each=5) == [
        f"{KIND}  hangs  hung: no result within 5 s",
        f"{KIND}  absent  missing: this machine has no such thing",
        "",
        "0 of 1 kinds of calls have kernels that are right and faster: programs keep PyTorch's own operators.",
    ]
    kept = {name: verdict.verdict for name, verdict in verdicts.read(CPU)[str(KIND)].items()}
    assert kept == {"right": FASTER, "aborts": CRASHED, "absent": MISSING, "hangs": HUNG}


@pytest.mark.long
def test_a_command_killed_in_the_middle_keeps_what_it_found(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTKAN_CACHE", str(tmp_path))
    code = (
        "import functools\n"
        "from fastkan.cli import prove as command\n"
        "from fastkan_cli import main\n"
        "command.prove = functools.partial(command.prove, names=('absent', 'hangs'), module='support.kernels')\n"
        f"main(['prove', '--device', 'cpu', '--kinds', '{KIND}'])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == f"{KIND}  absent  missing: this machine has no such thing\n"
        while not verdicts.path_of(CPU).exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    assert verdicts.read(CPU)[str(KIND)].keys() == {"absent"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kinds", "cubic"], "kind 'cubic': expected a name such as bspline-3-zero-uniform-float32, or a pattern"),
        (["--device", "cpu"], "device='cpu': expected a GPU, such as 'cuda:0': no other kernels need a proof"),
        (["--device", "cuda:99"], "torch sees no "),
        (["--device", "gpu"], "device='gpu': expected a GPU, such as 'cuda:0'"),
    ],
)
def test_the_command_names_a_wrong_argument(words, message, capsys):
    assert main(["prove", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fastkan prove: {message}") and error.count("\n") == 1


def test_info_shows_verdicts(monkeypatch, capsys):
    monkeypatch.setattr(info, "gpus", lambda: [CPU])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: "a name")
    monkeypatch.setattr(verdicts, "known", lambda *args, **options: {})
    assert main(["info"]) == 0
    assert "Verdicts on cpu, by `fastkan prove --device cpu`:\n\nnone\n" in capsys.readouterr().out
    known = {str(KIND): {"triton:fused": Verdict(WRONG, "kan_out is off")}}
    monkeypatch.setattr(verdicts, "known", lambda *args, **options: known)
    assert main(["info"]) == 0
    assert "wrong: kan_out is off" in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdicts"]["cpu"][str(KIND)]["triton:fused"]["verdict"] == WRONG


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "torch sees no GPU here, and only kernels for GPUs need a proof"),
        (2, "torch sees no device 'cuda:99': expected cuda:0 to cuda:1"),
    ],
)
def test_the_command_says_which_gpus_there_are(count, message, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert main(["prove", "--device", "cuda:99"]) == 1
    assert capsys.readouterr().err == f"fastkan prove: {message}\n"


@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_of_a_node_proves_and_the_others_read(monkeypatch, rank):
    events, known = [], {"kind": {"native": Verdict(FASTER)}}
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 8 + rank)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: events.append("barrier"))
    monkeypatch.setattr(parent, "_prove", lambda *args: events.append("prove") or known)
    monkeypatch.setattr(verdicts, "read", lambda device: events.append("read") or known)
    assert prove(CPU, module="x") == known
    assert events == (["prove", "barrier"] if rank == 0 else ["barrier", "read"])
