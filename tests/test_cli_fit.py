"""`fastkan fit`, `predict` and `show`: output, files, and one-line messages for malformed tables."""

import csv
import datetime
import errno
import gzip
import json
import math
import os
import random
import re
from typing import Any

import pytest
import torch

from fastkan import KAN
from fastkan.measure import progress
from fastkan.network import checkpoint
from fastkan.tabular import cells, columns, dates, delimited, files, prepare, row_sample, search
from fastkan.tabular import report as report_of_table
from fastkan_cli import main
from support.tiers import long

HEADER = ["a", "b", "colour", "y"]


def rows(count: int = 60) -> list[list]:
    """y = 2 a + b^2 + 3 [colour = red], and a little noise."""
    r, made = random.Random(0), []
    for _ in range(count):
        a, b, colour = round(r.uniform(0, 10), 3), round(r.gauss(0, 1), 3), r.choice(["red", "green", "blue"])
        made.append([a, b, colour, round(2 * a + b * b + 3 * (colour == "red") + r.gauss(0, 0.1), 3)])
    return made


def written(path, table: list[list], header=HEADER, delimiter: str = ",", decimal: str = ".") -> str:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows([str(v).replace(".", decimal) if isinstance(v, float) else v for v in row] for row in table)
    return str(path)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def quick(monkeypatch):
    """Few networks are tried, and no diagram is drawn."""
    monkeypatch.setattr(KAN, "plot", lambda *args, **options: None)
    monkeypatch.setattr(search, "STEPS", 3)
    monkeypatch.setattr(search, "FOLDS", 1)
    monkeypatch.setattr(search, "SHAPES", ((),))
    monkeypatch.setattr(search, "PENALTIES", (1e-2,))
    monkeypatch.setattr(search, "GRIDS", (3,))
    monkeypatch.setattr(search, "LIBRARIES", (("x", "x^2"),))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with a table and the output of a full fit."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "FOLDS", 1)
        assert main(["fit", written(folder / "t.csv", rows(80)), "--target", "y", "--out", str(folder), "--quiet"]) == 0
    return folder


def report(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def test_fit_finds_the_formula_and_beats_the_linear_model(fitted, capsys):
    assert main(["show", str(fitted / "model.pt")]) == 0
    out = capsys.readouterr().out
    assert "y of t.csv: regression, 64 rows to train on, 16 held out" in out and "colour" in out
    assert main(["show", str(fitted / "model.pt"), "--json"]) == 0
    shown = report(capsys)
    errors = shown["errors"]
    assert errors["formula"]["rmse"] < 0.2 < errors["linear model"]["rmse"] < errors["mean"]["rmse"]
    assert shown["kept"] == "formula" and [c["name"] for c in shown["columns"]] == ["a", "b", "colour"]
    names = {"a": 4.0, "b": 1.5, "red": 1.0}
    text = shown["formula"]["y"].replace("[colour=red]", "red").replace("[colour=blue]", "0").replace(
        "[colour=green]", "0")  # fmt: skip
    value = eval(text, {"__builtins__": {}, "sin": math.sin, "exp": math.exp, "tanh": math.tanh}, names)
    assert value == pytest.approx(2 * 4 + 1.5**2 + 3, abs=0.3)


def test_fit_writes_model_diagram_and_page(fitted):
    assert {"model.pt", "page.html", "diagram.svg"} <= {path.name for path in fitted.iterdir()}
    assert not [path for path in fitted.iterdir() if path.suffix == ".tmp"]
    model = KAN.load(fitted / "model.pt")
    assert model.in_features == 4 and "page.js" not in (fitted / "page.html").read_text()


def test_show_takes_the_folder(fitted, capsys):
    assert main(["show", str(fitted)]) == main(["show", str(fitted / "model.pt")]) == 0
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]


def test_predict_is_the_model_in_the_units_of_the_table(fitted, capsys):
    table = rows(80)
    assert main(["predict", str(fitted / "model.pt"), str(fitted / "t.csv")]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "y" and len(lines) == 81
    errors = [float(line) - row[-1] for line, row in zip(lines[1:], table, strict=True)]
    assert math.sqrt(sum(e * e for e in errors) / len(errors)) < 0.2
    assert "on the 80 rows with y" in captured.err and "RMSE" in captured.err


def test_predict_by_tables_says_what_they_change(fitted, capsys):
    predictions, notes = [], ""
    for options in ([], ["--quantize"]):
        assert main(["predict", str(fitted / "model.pt"), str(fitted / "t.csv"), *options]) == 0
        captured = capsys.readouterr()
        predictions.append([float(line) for line in captured.out.splitlines()[1:]])
        notes = captured.err
    (change,) = re.findall(r"8-bit tables for the ranges of the first 80 rows: y changes by (\S+) at most", notes)
    found = max(abs(a - b) for a, b in zip(*predictions, strict=True))
    assert found > 0 and abs(found - float(change)) <= 0.005 * found + 1e-7  # three digits, of predictions with eight


def test_predict_fills_gaps_reorders_columns_and_keeps_the_number_of_rows(fitted, tmp_path, capsys):
    path = tmp_path / "new.csv"
    path.write_text("colour,extra,b,a\nred,1,0.5,NA\npurple,1,oops,3\nred,1\ngreen,1,0.5,99\n")
    assert main(["predict", str(fitted / "model.pt"), str(path), "--out", "p.csv"]) == 0
    got = list(csv.reader(open("p.csv")))
    assert [len(row) for row in got] == [1, 1, 1, 1, 1] and got[3] == [""]
    assert all(math.isfinite(float(row[0])) for row in (got[1], got[2], got[4]))
    err = capsys.readouterr().err
    assert "a: 1 missing, 1 outside the training range" in err and "line 4 has 2 cells" in err
    assert main(["predict", str(fitted / "model.pt"), str(path), "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert [list(json.loads(line)) for line in captured.out.splitlines()] == [["y"]] * 4 and captured.err == ""


def test_the_same_seed_gives_the_same_report(tmp_path, quick, capsys):
    path = written(tmp_path / "t.csv", rows())
    reports = []
    for seed in ("3", "3", "4"):
        assert main(["fit", path, "--target", "y", "--seed", seed, "--json"]) == 0
        reports.append({k: v for k, v in report(capsys).items() if k not in ("seconds", "seed")})
    assert reports[0] == reports[1] != reports[2]


def test_classes(tmp_path, quick, capsys):
    table = [[a, b, "high" if y > 12 else "low"] for a, b, _, y in rows()]
    path = written(tmp_path / "t.csv", table, ["a", "b", "level"])
    assert main(["fit", path, "--target", "level", "--json", "--keep", "network"]) == 0
    shown = report(capsys)
    assert shown["classes"] == ["high", "low"] and shown["task"] == "classification" and shown["kept"] == "network"
    assert shown["errors"]["network"]["accuracy"] > shown["errors"]["most common class"]["accuracy"]
    assert list(shown["formula"]) == ["log-odds of low"]
    assert main(["predict", "t-kan/model.pt", path, "--out", "p.csv"]) == 0
    got = list(csv.DictReader(open("p.csv")))
    assert sum(row["level"] == true[-1] for row, true in zip(got, table, strict=True)) > 45
    for row in got:
        assert float(row["probability of low"]) + float(row["probability of high"]) == pytest.approx(1, abs=1e-6)
    assert "accuracy" in capsys.readouterr().err


def test_three_classes_of_numbers(tmp_path, quick, capsys):
    path = written(tmp_path / "t.csv", [[a, b, min(int(y // 8), 2)] for a, b, _, y in rows()], ["a", "b", "level"])
    assert main(["fit", path, "--target", "level", "--json"]) == 0
    shown = report(capsys)
    assert shown["classes"] == ["0", "1", "2"] and list(shown["formula"]) == [f"score of {k}" for k in range(3)]
    assert main(["predict", "t-kan/model.pt", path]) == 0
    assert "accuracy" in capsys.readouterr().err
    assert main(["fit", path, "--target", "level", "--json", "--task", "regression"]) == 0
    assert report(capsys)["task"] == "regression"


# Small tables: the errors of several searches


def test_errors_of_a_small_table_are_those_of_every_row(tmp_path, quick, monkeypatch, capsys):
    """The folds of 60 rows hold out each row once; the error of the mean is then that of all of them."""
    monkeypatch.setattr(search, "FOLDS", 5)
    table = rows()
    path = written(tmp_path / "t.csv", table)
    assert main(["fit", path, "--target", "y", "--json"]) == 0
    shown = report(capsys)
    assert (shown["folds"], shown["tested_on"], shown["rows"]["held_out"]) == (5, 60, 12)
    y = torch.tensor([row[-1] for row in table], dtype=torch.float64)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    tests = order.view(5, 12)
    rest = torch.stack([y[t] - (y.sum() - y[t].sum()) / 48 for t in tests]).flatten()
    assert shown["errors"]["mean"]["rmse"] == pytest.approx(float(rest.square().mean().sqrt()), rel=1e-9)
    error = float(rest.square().std()) / 60**0.5 / (2 * shown["errors"]["mean"]["rmse"])
    assert shown["errors"]["mean"]["rmse_error"] == pytest.approx(error, rel=1e-9)
    assert main(["fit", path, "--target", "y", "--time", "a", "--json"]) == 0
    assert report(capsys)["folds"] == 1, "the last rows by the time are the test"


def test_the_choice_is_by_all_folds():
    """One search whose formula was lucky on its validation rows, and two where it fails."""
    x = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None]
    column = columns.Column("x", 0.0, 1.0)
    p = columns.Preparation([column], column, None, True)
    y = p.target.scaled(x[:, 0])[:, None]

    def found(formula: Any, start: int) -> search.Found:
        part = torch.arange(start, start + 10)
        network: Any = lambda x: x + 0.1  # noqa: E731
        return search.Found(prepare.Prepared(p, y, y, part, part, part, []), network, formula, True)

    lucky, bad = found(lambda x: x, 0), found(lambda x: x + 1, 10)
    assert report_of_table.formula_is_as_good([lucky])
    assert not report_of_table.formula_is_as_good([lucky, bad, bad])


# The report and the page are of the model that is kept


@pytest.mark.parametrize("keep", ["formula", "network"])
def test_page_and_report_are_of_the_kept_model(tmp_path, quick, keep, capsys):
    path = written(tmp_path / "t.csv", rows())
    assert main(["fit", path, "--target", "y", "--keep", keep]) == 0
    out, page = capsys.readouterr().out, (tmp_path / "t-kan/page.html").read_text()
    fitted = files.load("t-kan/model.pt")
    formula = f"y = {fitted.report['formula']['y']}"
    assert (formula in out) == (json.dumps(formula)[1:-1] in page) == (keep == "formula")
    assert f"Saved: the {keep}, " in out and f" {fitted.model.n_edge} edges" in out
    other = {"formula": "Network of splines", "network": "Formula"}[keep]
    assert f"{other}: RMSE" in out and f"{other}: RMSE" not in page
    table = out[out.index("| on") : out.index("\n\n", out.index("| on"))]
    assert f"| {keep}" in table and table.count("\n") == 4


def test_a_formula_has_the_inputs_of_its_model(fitted):
    shown = files.load(fitted).report
    assert all(name in shown["formula"]["y"] for name in shown["used"])


def test_networks_of_many_edges_get_no_formula(tmp_path, quick, monkeypatch, capsys):
    monkeypatch.setattr(search, "READABLE", 1)
    assert main(["fit", written(tmp_path / "t.csv", rows()), "--target", "y", "--json"]) == 0
    shown = report(capsys)
    assert shown["formula"] is None and shown["kept"] == "network" and "no formula: the net" in str(shown["notes"])


# Progress


def test_progress_is_a_line_on_a_terminal_and_few_lines_elsewhere(monkeypatch, capsys):
    with progress.stages() as stage:
        for n in range(5):
            stage(f"stage {n}")
    assert capsys.readouterr().err == "   0 s  stage 0\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.stages() as stage:
        stage("stage 0")
        stage("stage 1")
    err = capsys.readouterr().err
    assert "stage 1" in err and "\n" not in err and err.endswith("\r") and not err.split("\r")[-2].strip()
    with progress.stages(False) as stage:
        stage("stage 0")
    assert capsys.readouterr().err == ""


# Unusual tables

BASE = "\n".join([",".join(HEADER), *(",".join(map(str, row)) for row in rows())]) + "\n"
LINES = BASE.splitlines()


def extended(cell, name: str = "k") -> str:
    """The table with one more column."""
    return "\n".join([f"{LINES[0]},{name}", *(f"{line},{cell(k)}" for k, line in enumerate(LINES[1:]))])


ODD = {
    "semicolons and decimal commas": (BASE.replace(",", ";").replace(".", ","), "y", ""),
    "tabs": (BASE.replace(",", "\t"), "y", ""),
    "spaces": (BASE.replace(",", "  "), "y", ""),
    "a BOM": ("\ufeff" + BASE, "y", ""),
    "UTF-16": (BASE.encode("utf-16"), "y", ""),
    "Windows": (BASE.replace("red", "größe").encode("cp1252").replace(b"\n", b"\r\n"), "y", "not UTF-8"),
    "compressed": (gzip.compress(BASE.encode()), "y", ""),
    "no header": ("\n".join(LINES[1:]), "x4", "no header, since"),
    "missing": (extended(lambda k: ["", "NA", "nan", k][k % 4]), "y", "missing values, replaced by"),
    "infinite": (extended(lambda k: ["inf", "-Infinity", "1e999", k][k % 4]), "y", "45 infinite numbers"),
    "text among numbers": (extended(lambda k: "oops" if k == 9 else k), "y", "k: 1 cell of text among numbers"),
    "no target in some rows": ("\n".join(LINES + ["1,2,red,", "1,2,red,?"]), "y", "2 rows without y: left out"),
    "a constant": (extended(lambda k: 7), "y", "k: constant: left out"),
    "an empty column": (extended(lambda k: ""), "y", "k: no values: left out"),
    "names of rows": (extended(lambda k: f"id{k}"), "y", "k: text with 48 different values"),
    "huge": (extended(lambda k: f"{k % 3 - 1}.7e308"), "y", ""),
    "thousands": (extended(lambda k: f'"{k},{100 + k}.5"'), "y", ""),
    "duplicate names": (extended(lambda k: k, "a"), "y", "several columns are named 'a'"),
    "a delimiter at the end": ("\n".join([LINES[0], *(line + "," for line in LINES[1:])]), "y", ""),
    "ragged": ("\n".join([*LINES, "1,2", "1,2,red,4,5"]), "y", "2 rows skipped: line 62 has 2 cells where line 1"),
    "an open quote": ("\n".join([*LINES[:50], '"1,2,red,3', *LINES[50:]]), "y", "is a quote not closed?"),
    "quotes, line breaks": (extended(lambda k: f'"a, ""{k % 2}""\nb"'), "y", ""),
    "strange names": (BASE.replace("a,b,colour", '"$a_1$ <b>","x^2","co=l"'), "y", ""),
    "a typing error": (extended(lambda k: 1e12 if k == 5 else k), "y", "k: 1 number far from the others, such as"),
    "rare texts": (extended(lambda k: f"id{k % 6 if k < 30 else k}"), "y", "k: text with 29 different values, inputs"),
    "few rows": ("\n".join(LINES[:11]), "y", "colour: text with 3 different values"),
}  # fmt: skip


SHORT = ("semicolons and decimal commas", "missing", "text among numbers", "ragged", "quotes, line breaks", "few rows")


@pytest.mark.parametrize("kind", [*SHORT, *long(*(kind for kind in ODD if kind not in SHORT))])
def test_unusual_tables_are_read(kind, tmp_path, quick, capsys):
    content, target, note = ODD[kind]
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["fit", "t.csv", "--target", target, "--json"]) == 0
    shown = report(capsys)
    assert note in "\n".join(shown["notes"]) and (note or shown["notes"] == [])
    assert shown["rows"]["table"] == {"few rows": 10, "an open quote": 49, "no target in some rows": 62}.get(kind, 60)
    assert all(math.isfinite(value) for scores in shown["errors"].values() for value in scores.values())
    if kind not in ("few rows", "an open quote"):
        assert shown["errors"]["formula"]["r2"] > 0.98
    assert main(["predict", "t-kan/model.pt", "t.csv", "--out", "p.csv"]) == 0
    assert all(math.isfinite(float(row[0])) for row in list(csv.reader(open("p.csv")))[1:] if row[0])


WRONG = {
    "empty": (b"", "t.csv is empty"),
    "blank": (b"\n \n\n", "t.csv is empty"),
    "a header alone": (LINES[0].encode(), "0 rows with a value of 'y': expected at least 10"),
    "one row": ("\n".join(LINES[:2]).encode(), "1 row with a value of 'y': expected at least 10"),
    "binary": (bytes(range(256)) * 8, "t.csv is binary"),
    "a workbook": (b"PK\x03\x04" + b"abc" * 30, "save the table as CSV first"),
    "cut short": (gzip.compress(BASE.encode() * 50)[:100], "t.csv: Compressed file ended"),
    "one column": ("\n".join(["y", *map(str, range(30))]).encode(), "no column is left to predict from"),
    "constant columns": (("a,b,y\n" + "".join(f"1,,{k}\n" for k in range(30))).encode(), "a (constant), b (no values)"),
    "a constant target": ("\n".join(["a,y", *(f"{k},5" for k in range(30))]).encode(), "'y' is always 5"),
    "a target of names": ("\n".join(["a,y", *(f"{k},n{k}" for k in range(30))]).encode(), "30 different values"),
    "a doubled target": (extended(lambda k: k, "y").encode(), "several columns are named 'y'"),
    "other rows": ("\n".join([LINES[0], *(["1,2,3"] * 30)]).encode(), "line 2 has 3 cells where line 1 has 4"),
    "a huge cell": (("a,y\n" + "1,2\n" * 20 + '"' + "x," * 100_000).encode(), "is a quote not closed?"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_tables_end_in_a_line(kind, tmp_path, capsys):
    content, message = WRONG[kind]
    (tmp_path / "t.csv").write_bytes(content)
    assert main(["fit", "t.csv", "--target", "y"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("fastkan fit: ") and message in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--target", "colr"], "no column 'colr'; did you mean 'colour'?"),
        (["--target", "price"], "no column 'price'; there are 'a', 'b', 'colour', 'y'"),
        (["--target", "y", "--drop", "z"], "--drop 'z': expected a column, 'a', 'b', 'colour', 'y'"),
        (
            ["--target", "y", "--drop", "a", "--drop", "b", "--drop", "colour"],
            "left out: a (--drop), b (--drop), colour",
        ),
        (["--target", "y", "--delimiter", ";"], "one column with the delimiter ';': it looks like ','"),
        (["--target", "y", "--out", "t.csv"], "can't be written"),
        (["--target", "colour", "--task", "regression"], "the target 'colour' is text, such as"),
        (["--target", "y", "--task", "classification"], "different values, such as"),
    ],
)
def test_wrong_options_end_in_a_line(tmp_path, capsys, options, message):
    (tmp_path / "t.csv").write_text(BASE)
    assert main(["fit", "t.csv", *options]) == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_names_are_found_whatever_their_case(tmp_path, quick, capsys):
    (tmp_path / "t.csv").write_text(BASE)
    assert main(["fit", "t.csv", "--target", "Y", "--drop", "b", "--text", "a", "--json"]) == 0
    shown = report(capsys)
    assert shown["target"] == "y" and all(name.startswith("colour=") for name in shown["inputs"])


@pytest.mark.parametrize("path", ["missing.csv", "."])
def test_unreadable_files_give_one_line(path, capsys):
    assert main(["fit", path, "--target", "y"]) == 1
    assert path in (err := capsys.readouterr().err) and err.count("\n") == 1


def test_files_that_are_no_models_give_one_line(tmp_path, fitted, capsys):
    (tmp_path / "t.csv").write_text(BASE)
    KAN([2, 1]).save(tmp_path / "plain.pt")
    content = torch.load(fitted / "model.pt", weights_only=True)
    torch.save({**content, files.ENTRY: "{}"}, tmp_path / "damaged.pt")
    for path, message in (
        ("t.csv", "another file, or a damaged one"),
        ("plain.pt", "a network without a table"),
        ("damaged.pt", "another file, or a damaged one"),
        ("none.pt", ": none.pt: no such file"),
        (".", "model.pt: no such file"),
    ):
        assert main(["show", path]) == 1 and main(["predict", path, "t.csv"]) == 1
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 2
    (tmp_path / "other.csv").write_text("p,q\n1,2\n")
    assert main(["predict", str(fitted / "model.pt"), "other.csv"]) == 1
    assert "other.csv has no column 'a', 'b', 'colour': it has 'p', 'q'" in capsys.readouterr().err


# Nothing is half written


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_what_was_there(tmp_path, quick, monkeypatch, capsys):
    (tmp_path / "t.csv").write_text(BASE)
    assert main(["fit", "t.csv", "--target", "y", "--quiet"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "t-kan").iterdir()}
    monkeypatch.setattr(checkpoint.os, "fsync", full)
    assert main(["fit", "t.csv", "--target", "y", "--seed", "5"]) == 1
    assert main(["predict", "t-kan/model.pt", "t.csv", "--out", "p.csv"]) == 1
    assert capsys.readouterr().err.count("No space left on device") == 2
    assert {path: path.read_bytes() for path in (tmp_path / "t-kan").iterdir()} == before
    assert not (tmp_path / "p.csv").exists()


def test_interrupt_leaves_no_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "t.csv").write_text(BASE)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "find", interrupted)
    assert main(["fit", "t.csv", "--target", "y"]) == 130
    assert capsys.readouterr().err == "fastkan fit: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_device_is_not_replaced_by_a_file():
    with pytest.raises(OSError, match="expected a file"), checkpoint.atomic_write("/dev/null"):
        pass
    assert not os.path.isfile("/dev/null")


# The parts


@pytest.mark.parametrize(
    "cell, decimal, value",
    [
        ("1.5", ".", 1.5), (" 1e3 ", ".", 1000.0), ("1,234.5", ".", 1234.5), ("12,34", ".", None), ("1_000", ".", None),
        ("1,5", ",", 1.5), ("1.234,5", ",", 1234.5), ("1.5", ",", None), ("1 234,5", ",", 1234.5), ("5", ",", 5.0),
        ("0,123", ".", None), ("0.123", ",", None), ("-1,234", ".", -1234.0),
        ("", ".", None), ("abc", ".", None), ("-inf", ".", -math.inf), ("$1,234.50", ".", 1234.5), ("-$3", ".", -3.0),
        ("5 €", ".", 5.0), ("1.234,5 €", ",", 1234.5), ("(1,200)", ".", -1200.0), ("(-3)", ".", None),
        ("($3", ".", None), ("12.5 %", ".", 0.125), ("-5%", ".", -0.05), ("%", ".", None), ("$", ".", None),
        ("5$%", ".", None),
    ],
)  # fmt: skip
def test_numbers_of_cells(cell, decimal, value):
    assert cells.number(cell, decimal) == value


@pytest.mark.parametrize(
    "lines, decimal",
    [
        ("x;y\n0,123;1,234\n", ","), ("x;y\n1,234;2,345\n", ","), ("x;y\n0.123;1.234\n", "."),
        ("x;y\n1.234;2.345\n", "."), ('x,y\n"1,234","2,345"\n', "."), ("x;y\n1,234;2.5\n", "."),
        ("x\ty\n0,123\t1,234\n", ","), ("sep=;\r\nx;y\r\n1,234;2,345\r\n", ","),
    ],
)  # fmt: skip
def test_three_digits_after_a_comma(lines, decimal, tmp_path):
    """They are thousands or decimals, by the other cells and the delimiter."""
    (tmp_path / "t.csv").write_text(lines)
    table = delimited.Delimited(tmp_path / "t.csv")
    assert table.decimal == decimal and table.names == ["x", "y"]


def test_whole_numbers_of_a_scale_are_numbers():
    """1 to 5 is a scale; three values, or some that are not next to each other, are classes."""

    def classes(values):
        y = torch.tensor([float(v) for v in values] * 5)
        return prepare._classes(row_sample.Field("y", False), y, None)

    assert classes([1, 2, 3, 4, 5]) is None and classes([0, 1, 2, 3]) is None
    assert classes([0, 1, 2]) == ["0", "1", "2"] and classes([1, 2, 4, 8]) == ["1", "2", "4", "8"]


@pytest.mark.parametrize(
    ("cells", "order", "first"),
    [
        (["2020-01-31", "2020-02-01T06:00:00Z"], "year-month-day", 18292),
        (["31.01.2020", "1.2.2020"], "day-month-year", 18292),
        (["01/31/2020", "2/1/2020"], "month-day-year", 18292),
        (["31/01/2020", "1/2/2020"], "day-month-year", 18292),
        (["1/2/2020", "3/4/2020"], "month-day-year", 18263),
        (["1.2.2020", "3.4.2020"], "day-month-year", 18293),
        (["2020-01-31 12:00", "2020-02-01 18:30:30.5"], "year-month-day", 18292.5),
        (["2020-01-31T01:00:00+01:00"], "year-month-day", 18292),
    ],
)
def test_dates(cells, order, first):
    assert dates.order(cells) == order and dates.days(cells[0], order) == first


def test_what_is_no_date():
    assert dates.order(["2020-13-01"] * 3) is None and dates.order(["red", "blue"]) is None and dates.order([]) is None
    assert dates.days("2020-02-30", dates.ORDERS[0]) is None and dates.days("2020-01-01 25:00", dates.ORDERS[0]) is None
    assert dates.order(["2020-01-01"] * 8 + ["red"] * 2) is None


def test_dates_are_a_trend_and_cycles(tmp_path, capsys):
    """Sales that grow, and follow year and week; the last days are the test."""
    first, lines = datetime.date(2019, 1, 1), ["day,sales"]
    for n in range(1000):
        wave = math.cos(2 * math.pi * (n + 17897) / 365.2425) + 0.5 * math.sin(2 * math.pi * (n + 17897) / 7)
        lines.append(f"{first + datetime.timedelta(days=n)},{0.01 * n + wave}")
    (tmp_path / "sales.csv").write_text("\n".join(lines))
    table = delimited.Delimited(tmp_path / "sales.csv")
    data = prepare.prepare(row_sample.read(table, 10_000, 0), "sales", None, [], 0.2, 0, True, "day")
    (column,) = data.preparation.columns
    assert column.cycles == ["year", "week"] and data.x.shape == (1000, 5)
    assert data.preparation.inputs[:3] == ["day", "day, cosine of the year", "day, sine of the year"]
    days = data.x[:, 0]
    assert days[data.test].min() > days[data.valid].max() > days[data.valid].min() > days[data.train].max()
    design = torch.cat([data.x, torch.ones_like(data.y)], 1)
    y = data.y - design @ torch.linalg.lstsq(design[data.train], data.y[data.train]).solution
    assert float(y[data.test].abs().max()) < 1e-9, "trend and cycles hold beyond the training rows"
    mean, std = data.preparation.normalizer()
    assert (mean[1:], std[1:]) == ([0.0] * 4, [1.0] * 4) and std[0] == pytest.approx(231, rel=0.01)


def test_a_model_of_dates_predicts(tmp_path, quick):
    lines = [f"2021-{1 + n % 12:02}-{1 + n % 27:02} 0{n % 9}:00,{n % 12 + n % 9 / 10}" for n in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(["when,y", *lines]))
    (tmp_path / "new.csv").write_text("when\n2021-06-15 04:00\nnever\n")
    assert main(["fit", "t.csv", "--target", "y", "--out", "model", "--time", "when", "--quiet"]) == 0
    assert main(["predict", "model", "new.csv", "--out", "out.csv"]) == 0
    values = (tmp_path / "out.csv").read_text().split()
    assert len(values) == 3 and float(values[1]) < 20


def test_comments_before_the_names(tmp_path):
    rows = "\n".join(f"{n},{n % 7}" for n in range(40))
    for head, names in (
        ("# measured in May\n#\na,b\n", ["a", "b"]), ("# measured in May\n# a, b\n", ["a", "b"]),
        ("# of 2 columns\n", ["x1", "x2"]), ("#a,b\n", ["a", "b"]),
    ):  # fmt: skip
        (tmp_path / "table.csv").write_text(head + rows)
        table = delimited.Delimited(tmp_path / "table.csv")
        assert table.names == names
        (columns,) = table.chunks()
        assert columns[0] == tuple(str(n) for n in range(40)) and table.skipped == 0


def test_whole_numbers_that_differ_little_are_not_constant():
    ids = torch.arange(50, dtype=torch.float64) * 64 + 1e17
    column = columns.of_numbers("id", ids)
    assert column is not None
    expected = (torch.arange(50, dtype=torch.float64) - 24.5) / torch.arange(50, dtype=torch.float64).std(correction=0)
    torch.testing.assert_close(column.scaled(ids), expected, rtol=1e-9, atol=1e-9)
    assert columns.of_numbers("rounding", 1 + ids / 1e17 * 1e-15) is None
    huge = torch.tensor([-1.7e308, 0.0, 1.7e308], dtype=torch.float64)
    column = columns.of_numbers("huge", huge)
    assert column is not None and column.scaled(huge).tolist() == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])


def test_a_large_table_is_sampled_evenly_in_bounded_memory(tmp_path):
    with open(tmp_path / "t.csv", "w") as file:
        file.write("n,y\n" + "".join(f"{k},{k % 7}\n" for k in range(100_000)))
    table, rows_read = delimited.Delimited(tmp_path / "t.csv"), []
    found = row_sample.read(table, 2000, 1, progress=rows_read.append)
    n = found.values[:, 0]
    assert found.total == rows_read[-1] == 100_000 and len(n) == 2000 == len(n.unique())
    assert bool((n.diff() > 0).all())  # in their order
    assert n.mean() == pytest.approx(50_000, abs=5 * 100_000 / math.sqrt(12 * 2000))  # five standard errors
    assert bool((row_sample.read(table, 2000, 1).values == found.values).all())


def test_columns_are_scaled_by_the_rows_that_are_seen(tmp_path):
    table = delimited.Delimited(written(tmp_path / "t.csv", rows(200)))
    data = prepare.prepare(row_sample.read(table, 10**6, 0), "y", None, (), 0.25, 0, True)
    assert (len(data.train), len(data.valid), len(data.test)) == (113, 37, 50)
    assert sorted(torch.cat([data.train, data.valid, data.test]).tolist()) == list(range(200))
    seen = data.x[torch.cat([data.train, data.valid])]
    assert data.preparation.inputs[:2] == ["a", "b"] and len(data.preparation.inputs) == 4
    torch.testing.assert_close(seen[:, :2].mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(seen[:, :2].std(0, correction=0), torch.ones(2, dtype=torch.float64))
    assert set(data.x[:, 2:].unique().tolist()) == {0.0, 1.0}


def test_worse_is_more_than_chance():
    base = torch.ones(100, dtype=torch.float64)
    noise = torch.linspace(-1, 1, 100, dtype=torch.float64)  # a standard error of 0.058
    assert not search.worse(base + noise + 0.05, base) and search.worse(base + noise + 0.07, base)
    assert not search.worse(base + noise + 0.07, base, errors=2.0)
    assert not search.worse(base * 1.02, base) and search.worse(base * 1.04, base)
    assert search.worse(base * math.inf, base) and not search.worse(base, base * math.inf)
