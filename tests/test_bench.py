"""Benchmarks: wrong results are reported instead of times, rounds are interleaved, records survive a round trip."""

import math
import subprocess
import time
from pathlib import Path

import pytest
import torch

from fastkan.measure import peers
from fastkan.measure.correctness import Candidate, Case, Checker, Operands, Unavailable, formula
from fastkan.measure.provenance import environment, read_csv, write_csv
from fastkan.measure.timing import PHASES, measure, quartiles, time_interleaved

CASE = Case(64, 6, 5, 5)
LAYERS = [Case(1024, 256, 256, 5), Case(4096, 64, 64, 5), Case(1024, 784, 64, 5), Case(256, 64, 64, 200)]


@pytest.fixture(scope="module")
def problem():
    return Operands.of(CASE)


@pytest.fixture(scope="module")
def checker(problem):
    return Checker(problem)


@pytest.mark.parametrize("degree", range(6))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_right_layers_pass(degree, dtype):
    problem = Operands.of(Case(64, 6, 5, 20, degree, dtype))
    checker = Checker(problem)
    for name in ("reference", "native", "efficient-kan", "closed-cubic"):
        try:
            candidate = peers.PEERS[name].build(problem)
        except Unavailable:
            continue
        share, reason = checker.check(candidate)
        assert share < 1 and not reason, name


class Wrong(Candidate):
    """A right layer with one result changed."""

    def __init__(self, problem: Operands, key: str, change):
        right = formula(problem, "reference")
        super().__init__(right.forward, right.x, right.grad_out, right.parameters, right.gradients)
        self.key, self.change = key, change

    def results(self, rows=None):
        found = super().results(rows)
        return {**found, self.key: self.change(found[self.key])}


def nearly(value: torch.Tensor) -> torch.Tensor:
    """One element off by a hundredth."""
    value = value.clone()
    value.view(-1)[-1] += 0.01
    return value


def with_nan(value: torch.Tensor) -> torch.Tensor:
    value = value.clone()
    value.view(-1)[0] = math.nan
    return value


@pytest.mark.parametrize("key", ["y", "grad_x", "grad_coef", "grad_base_weight"])
@pytest.mark.parametrize("change", [nearly, with_nan, lambda v: v / 2, lambda v: v[1:], lambda v: v.bfloat16().float()])
def test_correctness_check_fails_on_wrong_results(problem, checker, key, change):
    _, reason = checker.check(Wrong(problem, key, change))
    assert reason.startswith(key)


def test_correctness_check_sees_ten_bits_of_mantissa(problem, checker):
    """What tensor cores do to float32 unasked."""

    def rounded(value: torch.Tensor) -> torch.Tensor:
        mantissa, exponent = torch.frexp(value)
        return torch.ldexp((mantissa * 2048).round() / 2048, exponent)

    _, reason = checker.check(Wrong(problem, "y", rounded))
    assert reason.startswith("y is off by")


def test_a_large_problem_is_checked_in_some_rows_and_run_in_all(monkeypatch):
    monkeypatch.setattr("fastkan.measure.correctness.FEATURES", 10 * CASE.in_features * CASE.functions)
    problem = Operands.of(CASE)
    checker = Checker(problem)
    assert len(checker.rows) == 10 and checker.rows[0] == 0 and checker.rows[-1] == CASE.batch - 1
    share, reason = checker.check(formula(problem, "reference"))
    assert share < 1 and not reason
    elsewhere = next(n for n in range(CASE.batch) if n not in checker.rows)

    def leaking(grad_x: torch.Tensor) -> torch.Tensor:
        grad_x[elsewhere] += 0.01
        return grad_x

    _, reason = checker.check(Wrong(problem, "grad_x", leaking))
    assert reason.startswith("grad_x is off by")


def test_no_time_for_wrong_missing_or_failing_candidates():
    def absent(problem):
        raise Unavailable("not here")

    def failing(problem):
        raise RuntimeError("broken\nat length")

    candidates = {
        "linear": peers.linear_equal_parameters,
        "wrong": lambda problem: Wrong(problem, "grad_x", lambda v: v / 2),
        "absent": absent,
        "failing": failing,
    }
    results = measure(CASE, candidates, 2, sample_seconds=0)
    assert [(r.peer, r.phase) for r in results] == [(peer, phase) for phase in PHASES for peer in candidates]
    for r in results:
        assert bool(r.times) == bool(r.ratios) == (r.peer == "linear")
    reasons = {r.peer: r.reason for r in results}
    assert reasons["wrong"].startswith("wrong: grad_x is off by")
    assert reasons["absent"] == "not here"
    assert reasons["failing"] == "fails: RuntimeError: broken"


def test_rounds_are_interleaved_and_rotated():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    times, repeats = time_interleaved(runs, 4, sample_seconds=0)
    assert repeats == {"a": 1, "b": 1, "c": 1}
    assert "".join(calls[-12:]) == "abcbcacababc"
    assert all(len(samples) == 4 for samples in times.values())


def test_short_runs_are_repeated_within_a_sample():
    _, repeats = time_interleaved({"short": lambda: None, "long": lambda: time.sleep(2e-3)}, 1, sample_seconds=1e-3)
    assert repeats["short"] > 10 and repeats["long"] == 1


def test_quartiles():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)
    assert quartiles([7.0]) == (7.0, 7.0)


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_the_baseline_has_as_many_parameters_and_the_same_aspect(case):
    wide, high = peers.equal_linear(case)
    assert wide * high == pytest.approx(case.parameters, rel=0.01)
    assert wide / high == pytest.approx(case.in_features / case.out_features, rel=0.02)


def test_all_layers_train_the_same_parameters(problem):
    for name in ("reference", "efficient-kan", "closed-cubic"):
        assert peers.PEERS[name].build(problem).parameter_count == CASE.parameters


def test_records_come_back_as_they_were_written(tmp_path):
    rows = [{"peer": "a, b", "reason": 'says "no"\nand why'}, {"peer": "c", "reason": ""}]
    write_csv(tmp_path / "sub" / "x.csv", rows)
    found = read_csv(tmp_path / "sub" / "x.csv")
    assert [{key: row[key] for key in rows[0]} for row in found] == rows
    now = environment()
    assert all(row["torch"] == torch.__version__ and set(now) < set(row) for row in found)
    with pytest.raises(ValueError, match="rows is empty"):
        write_csv(tmp_path / "y.csv", [])
    with pytest.raises(ValueError, match=r"rows have cpu, fastkan: expected other names"):
        write_csv(tmp_path / "y.csv", [{"fastkan": 1.0, "cpu": 2}])


@pytest.fixture
def bench(monkeypatch):
    """The benchmarks, which are not part of the package."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    pytest.importorskip("matplotlib")
    import bench.report

    return bench


def test_a_layer_keeps_its_input_and_parameters_only(bench, problem):
    from bench.memory import saved_bytes

    assert saved_bytes(peers.PEERS["efficient-kan"].build(problem)) > 0
    for name in ("reference", "native"):
        try:
            candidate = peers.PEERS[name].build(problem)
        except Unavailable:
            continue
        assert saved_bytes(candidate) == 0


def test_the_report_is_made_of_the_records(bench, tmp_path, monkeypatch):
    from bench import accuracy, convolutions, layers, rbf, report, scaling, stacks

    few = ["reference", "efficient-kan", "pykan"]
    write_csv(tmp_path / "layers.csv", layers.rows(layers.TINY, 1, few))
    write_csv(tmp_path / "scaling.csv", scaling.rows(scaling.TINY, 1))
    write_csv(tmp_path / "accuracy.csv", [accuracy._row(case, name) for case in accuracy.TINY for name in few])
    small = stacks.rows(stacks.TINY, 1)
    assert all(row["seconds"] and not row["reason"] for row in small)
    write_csv(tmp_path / "stacks.csv", small)
    write_csv(tmp_path / "rbf.csv", rbf.rows(rbf.TINY, 1))
    monkeypatch.setattr(convolutions, "peak_mib", lambda *_: "1.5")  # a process each
    write_csv(tmp_path / "convolutions.csv", convolutions.rows(convolutions.TINY, 1))
    paths = report.write(tmp_path)
    assert [path.name for path in paths] == ["report.md", "layers.png", "scaling.png"]
    text = paths[0].read_text()
    assert "fastkan reference" in text and "32, 4->3, G=5" in text and "zero-filling the gradient" in text
    assert "| FastKANLayer, native" in text and "16, 3->2, F=4" in text
    assert "unfold and KANLinear" in text and "2, 2->3, 6x6, stride 2, G=5" in text and "1.5 MiB" in text
    assert "fastkan, KANSequential" in text and "2-3-1, 8 rows, second derivatives" in text
    before = text
    report.write(tmp_path)
    assert paths[0].read_text() == before


def test_gpu_benchmark_requires_a_gpu(bench, tmp_path, capsys):
    from bench import gpu

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert gpu.main(["--out", str(tmp_path)]) == 1
    assert "torch finds no GPU here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_gpu_benchmark_dry_run(bench, tmp_path, monkeypatch):
    from bench import gpu

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # in which this would take minutes
    assert gpu.main(["--out", str(tmp_path), "--dry"]) == 0
    out = tmp_path / "dry-run"
    assert sorted(path.name for path in out.iterdir()) == [
        "layers.csv", "layers.png", "limits.csv", "report.md", "steps.csv",
    ]  # fmt: skip
    text = (out / "report.md").read_text()
    assert text.startswith("# Dry run on a CPU: these are no measurements")
    assert "fastkan reference" in text and "tf32" in text and "second derivatives" in text
    assert "fastkan native, KANSequential, eager" in text
    rows = read_csv(out / "layers.csv")
    assert all(float(r["floor_seconds"]) > 0 for r in rows if r["seconds"])
    assert not [r["reason"] for r in rows if r["reason"].startswith(("wrong", "fails"))]


def test_skipped_measurements_are_reported(bench):
    from bench import gpu

    session = gpu.Session(torch.device("cpu"), 1, seconds=0)
    (row, _) = session.layer(gpu.TINY[0])
    assert row["reason"] == "left out: the time limit of 0 s was reached" and not row["seconds"]


def test_the_limit_of_a_kan_layer_counts_its_windows(bench):
    from bench.device import floor_seconds

    rates = {"float32": 1e12, "tf32": 1e13, "copy": 1e12}
    case = Case(1 << 14, 64, 64, 200)
    assert floor_seconds(case, "triton", "forward", case.parameters, rates) == 2 * 2**14 * 64 * 64 * 5 / 1e12
    narrow = Case(1 << 14, 4, 4, 5, tf32=True)
    numbers = 2**14 * 8 + narrow.parameters
    assert floor_seconds(narrow, "triton", "forward", narrow.parameters, rates) == numbers * 4 / 1e12


def test_candidates_rotate_their_inputs(problem):
    candidate = formula(problem, "reference")
    x = candidate.x.detach()
    candidate.rotate(2)
    seen = []
    for _ in range(3):
        candidate.train()
        seen.append(candidate.x.detach())
    assert torch.equal(seen[0], x) and torch.equal(seen[2], x) and torch.equal(seen[1], x.roll(1, 0))


@pytest.mark.long
def test_tutorials_under_one_package_in_a_process_of_its_own():
    pytest.importorskip("sympy"), pytest.importorskip("matplotlib")
    from bench import report, tutorials

    row = tutorials._row(tutorials.TINY[0], "fastkan", 2)
    assert row["reason"] == "" and 0 < float(row["cpu_seconds"]) < tutorials.LIMIT
    assert row["result"].startswith("loss and penalty: ") and row["seeds"] == 2
    first, second = map(float, row["each"].split())
    assert first != second and float(row["result"].split()[-1]) == pytest.approx((first + second) / 2, rel=0.01)
    stopped = row | {"peer": "pykan", "cpu_seconds": "", "result": "", "reason": "stopped after 60 s"}
    assert "| stopped after 60 s |" in report.tutorials([row, stopped])
    slow = row | {"peer": "pykan", "cpu_seconds": str(3 * float(row["cpu_seconds"]))}
    assert "the median is 3.0" in report.tutorials([row, slow])


def test_two_commits_are_compared(bench, tmp_path, monkeypatch, capsys):
    from bench import compare

    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=compare.ROOT, capture_output=True).returncode:
        pytest.skip("no git history")
    monkeypatch.setattr(compare, "TREES", tmp_path)
    monkeypatch.setenv("FASTKAN_NO_NATIVE", "1")  # compiling takes minutes
    monkeypatch.delenv("FASTKAN_REQUIRE_NATIVE", raising=False)
    try:
        assert compare.main(["HEAD", "--tiny", "--rounds", "2", "--csv", str(tmp_path / "x.csv")]) == 0
    finally:
        compare.git("worktree", "remove", "--force", str(next(tmp_path.glob("*/"))))
    out = capsys.readouterr().out
    assert "| 16, 3->2, G=5, forward+backward |" in out and "not built: FASTKAN_NO_NATIVE is set" in out
    (row,) = read_csv(tmp_path / "x.csv")
    assert float(row["ratio"]) > 0 and float(row["difference"]) < compare.TOLERANCE
    with pytest.raises(SystemExit, match="bench compare: fatal: "):
        compare.main(["no-such-commit"])


def test_results_that_differ_between_commits_are_reported(bench):
    from bench.compare import difference

    assert difference([(1.0, 2.0), (0.5, 1.0)], [(1.0, 2.0), (0.6, 1.0)]) == pytest.approx(0.1)
    assert difference([(1.0, 2.0)], []) == math.inf and difference([], []) == 0


def test_tables_are_compared_with_the_model(bench):
    pytest.importorskip("sklearn")
    from bench import quantize

    float32, *tables = quantize.rows(seed=0, epochs=1, rounds=1)
    assert (
        float(str(float32["largest_difference"])) == 0 and len(quantize.as_table([float32, *tables]).splitlines()) == 6
    )
    differences = [float(str(row["rms_difference"])) for row in tables]
    assert 0 < differences[0] < differences[1] < differences[2]  # 256, 64, 16 points
