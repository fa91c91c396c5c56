"""`fastkan fit`: from a table to a network and its formula."""

import argparse
import json
import math
import os
import time
import warnings
from pathlib import Path

import torch

from .. import __version__
from ..arguments import positive
from ..measure.progress import steps
from ..measure.table import duration, table
from ..network.plot import page
from ..tabular import files, formula, prepare, report, row_sample, search
from ..tabular.delimited import Delimited, TableError, counted

ROWS = 20_000
NAMES = {"model": "model.pt", "diagram": "diagram.svg", "page": "page.html"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="a file of delimited text with a row of names, may be gzipped")
    parser.add_argument("--target", required=True, metavar="NAME", help="the column to predict")
    parser.add_argument("--task", choices=prepare.TASKS,
                        help=f"(classification of text and of {prepare.FEW} whole numbers at most)")  # fmt: skip
    parser.add_argument("--drop", action="append", default=[], metavar="NAME", help="a column to leave out; repeatable")
    parser.add_argument("--text", action="append", default=[], metavar="NAME",
                        help="a column of numbers that are names; repeatable")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the files (the table's name and -kan)")
    parser.add_argument("--html", type=Path, metavar="PATH", help="of the interactive page (FOLDER/page.html)")
    parser.add_argument("--keep", choices=("formula", "network"),
                        help="what the model file holds (the formula, unless the splines are better)")  # fmt: skip
    parser.add_argument("--hold-out", type=_share, default=0.2, metavar="SHARE", help="of rows, for the errors (0.2)")
    parser.add_argument("--rows", type=positive, default=ROWS, help=f"a random sample of so many, at most ({ROWS})")
    parser.add_argument("--seed", type=int, default=0, help="of sample, split and networks (0)")
    add_layout(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def add_layout(parser: argparse.ArgumentParser) -> None:
    """How the file is to be read where what is found is wrong."""
    parser.add_argument("--delimiter", type=_delimiter, metavar="SIGN", help="between cells, or 'tab' (as found)")
    parser.add_argument("--decimal", choices=(".", ","), help="the decimal sign (as found)")
    parser.add_argument("--header", action=argparse.BooleanOptionalAction,
                        help="whether the first row has the names (as found)")  # fmt: skip


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0, 0.5 at most")
    return value


def _delimiter(text: str) -> str:
    text = {"tab": "\t", "\\t": "\t", "space": " "}.get(text, text)
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r}: expected one character, or tab or space")
    return text


def run(args: argparse.Namespace) -> int:
    start, silent = time.perf_counter(), args.quiet or args.json
    paths = _paths(args)
    source = Delimited(args.data, args.delimiter, args.decimal, args.header, known=[args.target])
    target = prepare.find_target(source.names, args.target, source.twice)
    for option, names in (("--drop", args.drop), ("--text", args.text)):
        for name in names:
            if name not in source.names:
                raise TableError(f"{option} {name!r}: expected a column, {prepare.listed(source.names)}")
    with steps(search.STAGES, not silent) as tell, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a training that did not work says is for those who ask for one
        rows = row_sample.read(source, args.rows, args.seed, args.text, lambda n: tell(f"{n} rows read", 0))
        data = prepare.prepare(rows, target, args.task, args.drop, args.hold_out, args.seed, source.header)
        found = search.find(data, args.seed, tell)
        if found.formula is not None and not formula.can_be_written():
            data.notes.append("no formula: it needs SymPy and NumPy, pip install fastkan[symbolic]")
            found = found._replace(formula=None)
        tell("errors and formula")
        content = _report(args, source, rows, data, found)
        fitted = files.Fitted(_kept(args, found), data.preparation, content)
        tell("files")
        content["files"] = _write(fitted, data, paths)
    content["seconds"] = round(time.perf_counter() - start, 1)
    if args.json:
        print(as_json(content))
    elif not args.quiet:
        print(text(fitted))
    return 0


def _paths(args: argparse.Namespace) -> dict[str, Path]:
    """Where the files go; OSError now, rather than after the training, where they can't."""
    folder = args.out or Path(f"{args.data.name.removesuffix('.gz').rsplit('.', 1)[0]}-kan")
    paths = {kind: folder / name for kind, name in NAMES.items()}
    if args.html:
        paths["page"] = args.html
    for path in paths.values():
        if path.is_dir():
            raise TableError(f"{path} is a folder: expected a name for a file")
        parent = next(p for p in path.absolute().parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise TableError(f"{path} can't be written: {parent} is no folder that may be written to")
    return paths


def _kept(args: argparse.Namespace, found: search.Found):
    formula = found.formula is not None and (args.keep == "formula" or found.formula_is_as_good)
    return found.formula if formula and args.keep != "network" else found.network


def _report(args, source: Delimited, rows: row_sample.Sample, data: prepare.Prepared, found: search.Found) -> dict:
    """What was done and found, of which JSON can be made."""
    p, notes = data.preparation, [*source.notes, *data.notes]
    if source.skipped:
        notes.append(f"{counted(source.skipped, 'row')} skipped: {source.first_skipped}")
    if rows.total > len(rows.values):
        notes.append(f"a random sample of {len(rows.values)} of {rows.total} rows (--rows)")
    few = data.x[torch.cat([data.train, data.valid])[: search.SEARCH_ROWS]]
    label = data.y[torch.cat([data.train, data.valid])[: search.SEARCH_ROWS]] if p.classes is None else None
    kept = _kept(args, found)
    return {
        "fastkan": __version__,
        "table": args.data.name,
        "target": p.target.name,
        "task": "regression" if p.classes is None else "classification",
        "classes": p.classes,
        "seed": args.seed,
        "rows": {"table": rows.total, "trained_on": len(data.train) + len(data.valid), "held_out": len(data.test)},
        "inputs": p.inputs,
        "used": [p.inputs[n] for n in kept.input_id.tolist()],
        "notes": notes,
        "errors": report.errors(data, found),
        "formula": dict(zip(p.outcomes, formula.formulas(found.formula, p, few, label), strict=True))
        if found.formula is not None else None,
        "kept": "network" if kept is found.network else "formula",
        "shape": [sum(width) for width in kept.width],
        "edges": kept.n_edge,
    }  # fmt: skip


def _write(fitted: files.Fitted, data: prepare.Prepared, paths: dict[str, Path]) -> dict[str, str]:
    """Write model, page and diagram, each in one piece; their paths."""
    p, model = fitted.preparation, fitted.model
    model.get_act(data.x[torch.cat([data.train, data.valid])[: search.SEARCH_ROWS]])
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    title = f"{p.target.name}, from {fitted.report['table']}"
    names = {"in_vars": [_plain(name) for name in p.inputs], "out_vars": [_plain(name) for name in p.outcomes]}
    try:
        model.plot(**names, path=paths["diagram"])
    except (ImportError, ValueError) as error:
        fitted.report["notes"].append(f"no diagram: {error}")
        paths = {kind: path for kind, path in paths.items() if kind != "diagram"}
    page.to_html(
        model, paths["page"], in_vars=p.inputs, out_vars=p.outcomes, title=title,
        caption="\n".join(f"{name} = {formula}" for name, formula in (fitted.report["formula"] or {}).items()),
        normalizer=p.normalizer(), output_normalizer=p.output_normalizer(),
    )  # fmt: skip
    files.save(fitted, paths["model"])
    return {kind: str(path) for kind, path in paths.items()}


def _plain(name: str) -> str:
    """The name for matplotlib, to which dollar signs start formulas."""
    return name.replace("$", r"\$")


def as_json(content: dict) -> str:
    """The report for a machine, null for what is no finite number."""

    def finite(value):
        if isinstance(value, dict):
            return {key: finite(v) for key, v in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(content), indent=1, allow_nan=False)


def text(fitted: files.Fitted) -> str:
    """The report for a person."""
    r, p = fitted.report, fitted.preparation
    rows = r["rows"]
    lines = [
        f"{r['target']} of {r['table']}: {r['task']}"
        + (f" into {len(p.classes)} classes" if p.classes else "")
        + f", {rows['trained_on']} rows to train on, {rows['held_out']} held out"
    ]
    lines += [f"  {note}" for note in r["notes"]]
    lines += ["", table(*report.lines(r["errors"])), ""]
    if r["formula"]:
        lines += [f"{name} = {formula}" for name, formula in r["formula"].items()]
        if r["kept"] == "network":
            lines.append("On the rows to choose by, the network with its splines was better (else: --keep formula).")
    unused = len(r["inputs"]) - len(r["used"])
    inputs = f"{len(r['used'])} of {len(r['inputs'])} inputs" if unused else f"{len(r['inputs'])} inputs"
    lines.append(f"Kept: the {r['kept']}, {'-'.join(map(str, r['shape']))}, {r['edges']} edges, {inputs}.")
    for kind, path in r.get("files", {}).items():
        lines.append(f"{kind + ':':9}{path}")
    if "seconds" in r:
        lines.append(f"in {duration(r['seconds'])}")
    return "\n".join(lines)
