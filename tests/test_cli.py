"""The command line: output of each command, and one-line messages for user errors."""

import json
import os
import shutil
import subprocess
import sys

import pytest

import fastkan
import fastkan_cli
from fastkan import select, spec
from fastkan.cli import demo, formulas
from fastkan.measure import progress
from fastkan.measure.correctness import Case
from fastkan.measure.peers import DEFAULT, PEERS
from fastkan.measure.provenance import read_csv
from fastkan.measure.table import digits, duration, table
from fastkan.tabular import prepare
from fastkan_cli import main

TINY = ["--rounds", "1", "--shape", "16x3x2"]


def test_version_of_the_module():
    done = subprocess.run([sys.executable, "-m", "fastkan", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == f"fastkan {fastkan.__version__}"


@pytest.mark.parametrize("command", [["--help"], ["--version"], *([name, "--help"] for name in fastkan_cli.COMMANDS)])
def test_help_does_not_import_torch(command):
    code = "import sys, fastkan_cli\ntry: fastkan_cli.main()\nfinally: assert not {'torch', 'fastkan'} & {*sys.modules}"
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 0 and "fastkan" in done.stdout and not done.stderr


def test_the_names_in_the_options_are_those_of_the_package():
    assert fastkan_cli.version() == fastkan.__version__
    assert fastkan_cli.FAMILIES == spec.FAMILIES and fastkan_cli.MAX_DEGREE == spec.MAX_DEGREE
    assert fastkan_cli.PEERS == tuple(PEERS) and fastkan_cli.DEFAULT_PEERS == DEFAULT
    assert fastkan_cli.FEW_CLASSES == prepare.FEW


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _fastkan; echo ${{COMPREPLY[@]}}"
    script = subprocess.run([sys.executable, "-m", "fastkan", "completion", "bash"], capture_output=True, text=True)
    done = subprocess.run(["bash", "-c", script.stdout + "\n" + code], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    "words, expected",
    [
        (["fastkan", ""], [*fastkan_cli.COMMANDS, "--help", "--version"]),
        (["fastkan", "pr"], ["predict", "prove"]),
        (["fastkan", "fit", "t.csv", "--ta"], ["--target", "--task"]),
        (["fastkan", "fit", "t.csv", "--task", ""], [*fastkan_cli.TASKS]),
        pytest.param(["fastkan", "bench", "--degree", ""], ["0", "1", "2", "3", "4", "5"], marks=pytest.mark.long),
        pytest.param(["fastkan", "completion", "z"], ["zsh"], marks=pytest.mark.long),
        pytest.param(["fastkan", "demo", "--e"], [], marks=pytest.mark.long),
        pytest.param(["fastkan", "fit", "t"], [], marks=pytest.mark.long),
    ],
)
def test_bash_completes(words, expected):
    assert completed(*words) == expected


@pytest.mark.parametrize("shell, line", [("zsh", "bashcompinit"), ("fish", "-l keep -x -a 'formula network'")])
def test_scripts_of_other_shells(capsys, shell, line):
    assert main(["completion", shell]) == 0
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("command", [["completion", "bash"], ["info"]])
def test_a_closed_output_gives_no_traceback(command):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:
        done = subprocess.run([sys.executable, "-m", "fastkan", *command], stdout=closed, stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr == b""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_info_names_versions_and_backends(capsys, dtype):
    assert main(["info", "--dtype", dtype]) == 0
    out = capsys.readouterr().out
    for name in (fastkan.__version__, "torch", "python", "cpu", "instruction set", "threads", "gpu", *select.BACKENDS):
        assert name in out
    assert "chosen: " in out and "compiled library, cpu" in out


def test_info_as_json(capsys):
    assert main(["info", "--json", "--family", "rbf"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["family"] == "rbf" and content["torch"] and content["compiled library, cpu"]
    assert content["backends"]["cpu"] == fastkan.backends(family="rbf")


def test_info_asks_about_a_family(native, capsys, monkeypatch):
    monkeypatch.setattr(native, "WITH_KERNELS", ("bspline",))
    assert main(["info", "--family", "rbf"]) == 0
    out = capsys.readouterr().out
    assert "Backends for rbf in float32 on cpu" in out and "no compiled kernels for family 'rbf'" in out


def test_bench_prints_a_line_for_every_layer(capsys):
    assert main(["bench", *TINY]) == 0
    out = capsys.readouterr().out
    for peer in DEFAULT:
        assert PEERS[peer].label in out
    assert "16 rows, 3 -> 2, G=5, K=3, float32" in out


@pytest.mark.parametrize("degree, dtype", [("0", "float32"), ("1", "float64"), ("5", "float32"), ("3", "bfloat16")])
def test_bench_at_other_degrees_and_dtypes(capsys, degree, dtype):
    peers = ["reference", "closed-cubic"]
    assert main(["bench", *TINY, "--degree", degree, "--dtype", dtype, "--peers", *peers]) == 0
    out = capsys.readouterr().out
    assert "fastkan reference: " not in out
    assert ("cubic only" in out) == (degree != "3")


def test_bench_writes_what_it_measured(tmp_path, capsys):
    path = tmp_path / "new.csv"
    assert main(["bench", *TINY, "--csv", str(path), "--peers", "reference"]) == 0
    rows = read_csv(path)
    assert [(r["peer"], r["phase"]) for r in rows] == [
        (peer, phase) for phase in ("forward", "forward+backward") for peer in ("linear", "reference")
    ]
    for row in rows:
        assert row["batch"] == "16" and row["rounds"] == "1" and float(row["seconds"]) > 0
        assert all(row[key] for key in ("cpu", "cores", "threads", "torch", "python", "fastkan", "date", "command"))


@pytest.mark.parametrize(
    "argv, message",
    [
        (["bench", "--shape", "16x3"], "'16x3': expected rows x in_features x out_features"),
        (["bench", "--shape", "0x3x2"], "'0x3x2': expected rows"),
        (["bench", "--grid", "0"], "'0': expected a whole number of at least 1"),
        (["bench", "--degree", "6"], "invalid choice: 6"),
        (["bench", "--peers", "nobody"], "invalid choice: 'nobody'"),
        (["demo", "--threads", "x"], "'x': expected a whole number"),
        ([], "required"),
    ],
)
def test_a_wrong_command_line_ends_in_a_message(capsys, argv, message):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_path_that_cannot_be_written_ends_in_a_message(tmp_path, capsys):
    assert main(["bench", *TINY, "--csv", str(tmp_path / "no" / "x.csv")]) == 1
    assert "fastkan bench: " in capsys.readouterr().err


def test_a_wrong_environment_variable_ends_in_a_message(monkeypatch, capsys):
    monkeypatch.setattr(select, "_requested", ("nobody", select.ENV))
    with pytest.raises(SystemExit):
        main(["info"])
    assert "FASTKAN_BACKEND='nobody': expected one of" in capsys.readouterr().err


def test_demo_shows_both_networks_the_formulas_and_the_throughput(monkeypatch, capsys, tmp_path):
    for package in ("sklearn", "sympy", "matplotlib"):
        pytest.importorskip(package)
    monkeypatch.setattr(demo, "CASES", (Case(16, 3, 2, 4),))
    monkeypatch.setattr(formulas, "STEPS", 2)
    assert main(["demo", "--epochs", "1", "--rounds", "1", "--folder", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert "formula found: exp(y**2 + sin(pi*x))" in out and "progress = " in out
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"formula.svg", "diabetes.svg"}
    for text in ("accuracy", "parameters", "step, AdamW(fused=True)", "nn.Linear", "KANLinear", "outside the grid"):
        assert text in out
    assert PEERS["efficient-kan"].label in out


def test_demo_networks_compare_fairly():
    networks = demo.models(0)
    plain, wide, kan = networks.values()
    assert demo.parameter_count(wide) == pytest.approx(demo.parameter_count(kan), rel=0.01)
    assert [layer.in_features for layer in plain[::2]] == [layer.in_features for layer in kan[::2]]


def test_demo_learns_and_repeats_itself():
    pytest.importorskip("sklearn")
    data = demo.load_digits(0)
    assert data.train_x.min() == -1 and data.train_x.max() == 1
    first, second = (demo.train("kan", demo.models(0)["KANLinear"], data, 2, 0) for _ in range(2))
    assert first.accuracy == second.accuracy > 0.8
    assert first.outside[0] == 0


def test_demo_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["demo"]) == 1
    assert "needs scikit-learn" in (err := capsys.readouterr().err)
    assert "pip install scikit-learn sympy matplotlib tqdm" in err


def test_without_tqdm_there_are_no_bars(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    progress._say_once.cache_clear()
    assert list(progress.bar(range(3), "label")) == [0, 1, 2]
    assert list(progress.bar(range(2), "label")) == [0, 1]
    assert capsys.readouterr().err.count("pip install tqdm") == 1


def test_tables_and_numbers():
    assert table(["a", "bb"], [["ccc", "d"]]) == "| a   | bb |\n|-----|---:|\n| ccc |  d |"
    assert [duration(s) for s in (1.234e-6, 0.0123, 0.9996, 12.34)] == ["1.23 us", "12.3 ms", "1.00 s", "12.3 s"]
    assert [digits(v) for v in (0.004, 9.996, 123.4)] == ["0.00", "10.0", "123"]
