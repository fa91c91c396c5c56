"""`fastkan fit`: train a network on a table and find its formula."""

import argparse
import json
import math
import os
import time
import warnings
from pathlib import Path

import torch

from .. import __version__
from ..measure.progress import stages
from ..measure.table import duration, table
from ..network.plot import page
from ..tabular import files, formula, laws, prepare, report, row_sample, search
from ..tabular.delimited import CHUNK, Delimited, TableError, counted

NAMED = {"network": "Network of splines", "formula": "Formula"}
NAMES = {"model": files.MODEL, "diagram": "diagram.svg", "page": "page.html"}


def run(args: argparse.Namespace) -> int:
    start, silent = time.perf_counter(), args.quiet or args.json
    paths = _paths(args)
    source = Delimited(args.data, args.delimiter, args.decimal, args.header, known=[args.target])
    target = prepare.find_target(source.names, args.target, source.duplicate_names)
    times = [args.time] if args.time is not None else []
    for option, names in (("--drop", args.drop), ("--text", args.text), ("--time", times)):
        for name in names:
            if name not in source.names:
                raise TableError(f"{option} {name!r}: expected a column, {prepare.listed(source.names)}")
    with stages(not silent) as report_step, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of discarded candidate models are of no use to the user
        rows = row_sample.read(
            source, args.rows, args.seed, args.text, lambda n: n > CHUNK and report_step(f"{n} rows read")
        )
        options = (args.task, args.drop, args.hold_out, args.seed, source.header, args.time)
        data = prepare.prepare(rows, target, *options)
        if args.time is None:
            found = search.folds(data, lambda n: prepare.prepare(rows, target, *options, n), args.seed, report_step)
        else:
            found = [search.find(data, args.seed, report_step)]
        if found[0].formula is not None and not laws.can_be_searched():
            data.notes.append("no formula: it needs SymPy and NumPy, pip install sympy numpy")
            found = [one._replace(formula=None) for one in found]
        report_step("errors and formula")
        data, kept = found[0].data, _kept(args, found)
        content = _report(args, source, rows, found, kept)
        fitted = files.Fitted(found[0].model(kept), data.preparation, content)
        report_step("files")
        content["files"] = _write(fitted, data, paths)
    content["seconds"] = round(time.perf_counter() - start, 1)
    if args.json:
        print(as_json(content))
    elif not args.quiet:
        print(text(fitted))
    return 0


def _paths(args: argparse.Namespace) -> dict[str, Path]:
    """Output files by kind. Raises TableError before the training if one of them cannot be written."""
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


def _kept(args: argparse.Namespace, found: list[search.Found]) -> str:
    """Which model is kept: "formula" or "network"."""
    if found[0].formula is None:
        return "network"
    return args.keep or ("formula" if report.formula_is_as_good(found) else "network")


def _report(args, source: Delimited, rows: row_sample.Sample, found: list[search.Found], kept: str) -> dict:
    """The report as JSON-compatible values."""
    first = found[0]
    data, model = first.data, first.model(kept)
    p, notes = data.preparation, [*source.notes, *data.notes]
    if source.skipped:
        notes.append(f"{counted(source.skipped, 'row')} skipped: {source.first_skipped}")
    if rows.total > len(rows.values):
        notes.append(f"a random sample of {len(rows.values)} of {rows.total} rows (--rows)")
    factor = report.mean_over_median(first, model)
    if factor is not None:
        notes.append(f"means of {p.target.name} are about {factor:.3g} times the predictions")
    return {
        "fastkan": __version__,
        "table": args.data.name,
        "target": p.target.name,
        "task": "regression" if p.classes is None else "classification",
        "classes": p.classes,
        "seed": args.seed,
        "rows": {"table": rows.total, "trained_on": len(data.train) + len(data.valid), "held_out": len(data.test)},
        "inputs": p.inputs,
        "used": [p.inputs[n] for n in model.input_id.tolist()],
        "notes": notes,
        "errors": report.errors(found),
        "folds": len(found),
        "tested_on": sum(len(one.data.test) for one in found),
        "formula": dict(zip(p.outcomes, formula.formulas(first), strict=True)) if first.formula is not None else None,
        "kept": kept,
        "shape": [sum(width) for width in model.width],
        "edges": model.n_edge,
    }  # fmt: skip


def _write(fitted: files.Fitted, data: prepare.Prepared, paths: dict[str, Path]) -> dict[str, str]:
    """Write model, page and diagram, each file atomically. Returns their paths."""
    p, model = fitted.preparation, fitted.model
    model.get_act(data.x[torch.cat([data.train, data.valid])[: search.SEARCH_ROWS]])
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    title = f"{p.target.name}, from {fitted.report['table']}"
    out_vars = p.outcomes if p.classes else [p.target.fitted_name]
    try:
        in_plot, out_plot = [_plain(name) for name in p.inputs], [_plain(name) for name in out_vars]
        model.plot(in_vars=in_plot, out_vars=out_plot, path=paths["diagram"])
    except (ImportError, ValueError) as error:
        fitted.report["notes"].append(f"no diagram: {error}")
        paths = {kind: path for kind, path in paths.items() if kind != "diagram"}
    page.to_html(
        model, paths["page"], in_vars=p.inputs, out_vars=out_vars, title=title, caption=_caption(fitted.report),
        normalizer=p.normalizer(), output_normalizer=p.output_normalizer(),
    )  # fmt: skip
    files.save(fitted, paths["model"])
    return {kind: str(path) for kind, path in paths.items()}


def _caption(content: dict) -> str:
    """The formula, if that is the model, and its errors."""
    lines = [f"{name} = {formula}" for name, formula in (content["formula"] or {}).items()]
    return "\n".join([*(lines if content["kept"] == "formula" else []), _scores(content, content["kept"])])


def _scores(content: dict, kind: str) -> str:
    """The errors of a model in a sentence."""
    (_, *kinds), ((_, *values),) = report.lines({kind: content["errors"][kind]})
    shown = " and ".join(f"{what} {value}" for what, value in zip(kinds, values, strict=True))
    return f"{NAMED[kind]}: {shown} on {counted(content['tested_on'], 'held-out row')}."


def _plain(name: str) -> str:
    """The name for matplotlib, where dollar signs would start a formula."""
    return name.replace("$", r"\$")


def as_json(content: dict) -> str:
    """The report as JSON; NaN and infinities become null."""

    def finite(value):
        if isinstance(value, dict):
            return {key: finite(v) for key, v in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(content), indent=1, allow_nan=False)


def text(fitted: files.Fitted) -> str:
    """The report as text."""
    r, p = fitted.report, fitted.preparation
    rows = r["rows"]
    lines = [
        f"{r['target']} of {r['table']}: {r['task']}"
        + (f" into {len(p.classes)} classes" if p.classes else "")
        + f", {rows['trained_on']} rows to train on, {rows['held_out']} held out"
    ]
    lines += [f"  {note}" for note in r["notes"]]
    other = {"network": "formula", "formula": "network"}[r["kept"]]
    shown = {kind: scores for kind, scores in r["errors"].items() if kind != other}
    where = "on held-out rows" if r["folds"] == 1 else f"on held-out rows, {r['folds']} folds"
    lines += ["", table(*report.lines(shown, where)), ""]
    if r["kept"] == "formula":
        lines += [f"{name} = {formula}" for name, formula in r["formula"].items()]
    unused = len(r["inputs"]) - len(r["used"])
    inputs = f"{len(r['used'])} of {counted(len(r['inputs']), 'input')}" if unused else counted(len(r["used"]), "input")
    edges = counted(r["edges"], "edge")
    lines.append(f"Saved: the {r['kept']}, {'-'.join(map(str, r['shape']))}, {edges}, {inputs}.")
    if other in r["errors"]:
        lines.append(f"Not saved (--keep {other}): {_scores(r, other)}")
    for kind, path in r.get("files", {}).items():
        lines.append(f"{kind + ':':9}{path}")
    if "seconds" in r:
        lines.append(f"in {duration(r['seconds'])}")
    return "\n".join(lines)
