"""bench/gpu.sh with stand-ins for Python, the compilers and compute-sanitizer: order, limits, summary, exit status."""

import itertools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("bash", "cat", "cp", "date", "dirname", "mkdir", "nproc", "sleep", "tail", "tee")
PROGRAMS = ("nvcc", "cmake", "ninja")

# Answers as told by the file `rules`: lines of a pattern and what to do if the arguments hold it; else it succeeds.
STAND_IN = """#!/usr/bin/env bash
echo "$@" >>{folder}/calls
while read -r pattern what; do
    [[ "$*" == *"$pattern"* ]] && eval "$what"
done <{folder}/rules
[[ "$*" == *"device_count"* ]] && echo 90
exit 0
"""
# Seconds become tenths, so that a limit is reached at once.
TIMEOUT = """#!/usr/bin/env bash
echo "limit $3 $(printf '%s ' "${{@:4}}")" >>{folder}/calls
exec {timeout} --signal=INT --kill-after=1 "$(($3 / 20)).2" "${{@:4}}"
"""


@dataclass
class Done:
    status: int
    out: str
    calls: list[str]

    @property
    def summary(self) -> list[str]:
        return self.out.partition("== summary\n")[2].splitlines()

    def limits(self) -> dict[str, int]:
        """The seconds of each part that ran, by what it runs."""
        return {c.split(" ", 2)[2].strip(): int(c.split()[1]) for c in self.calls if c.startswith("limit")}


@pytest.fixture
def make_gpu(tmp_path):
    """Runs the script, with rules for the stand-in of Python and without some programs."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    bin = tmp_path / "bin"
    bin.mkdir()
    for tool in TOOLS:
        (bin / tool).symlink_to(shutil.which(tool))

    def program(name: str, text: str) -> None:
        (bin / name).write_text(text.format(folder=tmp_path, timeout=shutil.which("timeout")))
        (bin / name).chmod(0o755)

    (tmp_path / "verdicts/proven").mkdir(parents=True)
    program("fake-python", STAND_IN.replace("/usr/bin/env bash", shutil.which("bash")))
    program("timeout", TIMEOUT.replace("/usr/bin/env bash", shutil.which("bash")))

    def run(parts: str = "", rules: str = "", without: str = "", **variables: str) -> Done:
        for name in (*PROGRAMS, "compute-sanitizer"):
            program(name, STAND_IN.replace("/usr/bin/env bash", shutil.which("bash")))
        for name in without.split():
            (bin / name).unlink()
        (tmp_path / "rules").write_text(rules)
        (tmp_path / "calls").write_text("")
        environment = {"PATH": str(bin), "HOME": str(tmp_path), "PYTHON": "fake-python", "PARTS": parts, **variables}
        done = subprocess.run(
            ["bash", str(ROOT / "bench/gpu.sh"), str(tmp_path / "out")],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout + done.stderr, (tmp_path / "calls").read_text().splitlines())

    return run


def ended(summary: list[str]) -> list[str]:
    """The parts of a summary, in order."""
    return [line.split()[1].rstrip(":,") for line in summary]


KERNELS = ["features", "gather", "fused", "matrix", "stack", "wgmma"]
SANITIZERS = [f"sanitize-{tool}" for tool in ("memcheck", "racecheck", "initcheck", "synccheck")]


def test_all_parts_in_order(make_gpu, tmp_path):
    done = make_gpu(FASTKAN_CACHE=str(tmp_path / "verdicts"))
    assert ended(done.summary) == ["build", "info", *KERNELS, "tests", "alone", *SANITIZERS, "prove", "bench"]
    assert all(line.startswith("passed") for line in done.summary) and done.status == 0
    assert "== summary" in (tmp_path / "out/gpu.log").read_text()


def test_parts_run_in_this_order_whatever_is_asked(make_gpu):
    done = make_gpu("bench wgmma gather build")
    assert ended(done.summary) == ["build", "gather", "wgmma", "bench"]


def test_an_unknown_part_is_named(make_gpu):
    done = make_gpu("tests dense")
    assert done.status == 2 and "no part dense; expected among: build" in done.out and not done.calls


def test_documented_calls_take_less_than_ten_minutes(make_gpu):
    text = (ROOT / "docs/tutorials/gpu.md").read_text()
    calls = re.findall(r'make gpu PARTS="?([^"\n#]+?)"?\s*(?:#.*)?\n', text)
    assert len(calls) >= 4
    named = set(itertools.chain.from_iterable(c.split() for c in calls))
    assert named == {"build", "risky", "tests", "alone", "sanitize", "prove", "bench"}
    for parts in calls:
        plan = make_gpu(parts, PLAN="1").out.splitlines()
        assert int(re.fullmatch(r"at most (\d+) s", plan[-1])[1]) < 600
        assert sum(int(line.split()[1]) + 10 for line in plan[:-1]) == int(plan[-1].split()[2])


def test_limits_are_those_of_the_plan(make_gpu):
    plan = make_gpu(PLAN="1").out.splitlines()[:-1]
    limits = make_gpu().limits()
    assert limits.keys() and all(
        next(seconds for call, seconds in limits.items() if key in call) == int(dict(map(str.split, plan))[part])
        for part, key in {
            "build": "build_native", "wgmma": "bench.kernels wgmma", "tests": "not alone", "alone": "gpu and alone",
            "sanitize-racecheck": "--tool racecheck", "prove": "fastkan prove", "bench": "bench.gpu",
        }.items()
    )  # fmt: skip


def test_a_failure_is_in_the_summary_and_the_exit_status(make_gpu):
    done = make_gpu("build gather matrix", "bench.kernels exit 3\n")
    assert done.status == 1
    assert [line.partition(",")[0] for line in done.summary] == ["passed  build", "FAILED  gather", "FAILED  matrix"]


def test_a_hang_is_named_and_what_would_hang_again_is_left_out(make_gpu, tmp_path):
    rule = 'bench.kernels [[ "$*" == *"wgmma" ]] && sleep 30\n'
    done = make_gpu("wgmma stack tests alone sanitize prove bench", rule, FASTKAN_CACHE=str(tmp_path / "verdicts"))
    lines = dict(zip(ended(done.summary), done.summary, strict=True))
    assert done.status == 1 and lines["wgmma"] == "TIMEOUT wgmma, after 20 s" and lines["stack"].startswith("passed")
    assert "NOT RUN tests: wgmma hung; run it by PARTS=tests" in done.summary
    assert "NOT RUN sanitize-memcheck: wgmma hung; run it by PARTS=sanitize-memcheck" in done.summary
    assert lines["prove"].startswith("passed")
    assert not any("-m pytest" in call for call in done.calls)


def test_kernels_that_this_gpu_lacks(make_gpu):
    done = make_gpu("wgmma", "bench.kernels echo no wgmma kernels here: they take sm_90; exit 77\n")
    assert done.status == 0
    assert done.summary == ["ABSENT  wgmma: no wgmma kernels here: they take sm_90"]


def test_what_failed_runs_again_one_by_one(make_gpu):
    done = make_gpu("tests", 'pytest [[ "$*" == *"--lf "* ]] && [ "$CUDA_LAUNCH_BLOCKING" != 1 ] && exit 7; exit 1\n')
    assert [line.rpartition(",")[0] for line in done.summary] == ["FAILED  tests, status 1", "FAILED  again, status 1"]
    done = make_gpu("tests", "pytest exit 5\n")
    assert ended(done.summary) == ["tests"] and done.status == 1  # no test at all


@pytest.mark.parametrize("program", ["cmake", "ninja"])
def test_a_tool_that_is_missing_is_named(make_gpu, program):
    done = make_gpu("build gather", without=program)
    assert done.status == 1
    assert done.summary[0] == f"LACKING build: needs {program} (fake-python)" and ended(done.summary)[1] == "gather"


def test_a_package_that_is_missing_is_named(make_gpu):
    done = make_gpu("tests", "find_spec echo xdist scipy; exit 0\n")
    assert done.status == 1 and done.summary == ["LACKING tests: needs xdist scipy (fake-python)"]


def test_no_compute_sanitizer(make_gpu):
    done = make_gpu("sanitize-memcheck", without="compute-sanitizer")
    assert done.status == 1 and done.summary == ["LACKING sanitize-memcheck: needs compute-sanitizer (fake-python)"]


def test_no_cuda_kernels_never_pass_in_silence(make_gpu):
    done = make_gpu("tests", "select.missing echo libfastkan_cuda.so was not built; exit 0\n")
    assert done.status == 1
    assert done.summary[-1] == (
        "ABSENT  the CUDA kernels, so nothing above is about them: libfastkan_cuda.so was not built"
    )


def test_an_amd_gpu_needs_none(make_gpu):
    rules = "device_count echo hip; exit 0\nselect.missing echo none; exit 0\n"
    done = make_gpu("build sanitize-memcheck", rules, without="nvcc")
    assert done.status == 0 and done.summary[-1] == "ABSENT  sanitize-memcheck: for NVIDIA's GPUs"


def test_no_gpu(make_gpu):
    done = make_gpu(rules="device_count exit 0\n")
    assert done.status == 1 and "torch sees no GPU here (fake-python)" in done.out
    assert not done.limits() and not done.summary


def test_sanitizers_watch_our_kernels_alone(make_gpu):
    done = make_gpu("sanitize-initcheck")
    (call,) = [c for c in done.calls if c.startswith("limit")]
    assert call.startswith("limit 120 compute-sanitizer --tool initcheck")
    assert "--kernel-regex kns=fastkan" in call and "triton" not in call


def test_verdicts_are_kept(make_gpu, tmp_path):
    done = make_gpu("prove")
    assert done.status == 1 and done.summary[-1] == "MISSING the verdicts of prove"
    for folder, variables in (".cache/fastkan", {}), ("own", {"FASTKAN_CACHE": str(tmp_path / "own")}):
        (tmp_path / folder / "proven").mkdir(parents=True)
        (tmp_path / folder / "proven/a.json").write_text(folder)
        assert make_gpu("prove", **variables).status == 0
        assert (tmp_path / "out/proven/a.json").read_text() == folder
