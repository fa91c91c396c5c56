"""`fastkan predict`: predict the target for every row of a table with a model written by `fastkan fit`."""

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from ..network.checkpoint import atomic_write
from ..network.train.predict import chosen, probabilities
from ..nn import quantize
from ..tabular import files, prepare, report
from ..tabular.columns import Column, looked_up
from ..tabular.columns import indices as indices_of
from ..tabular.delimited import Delimited, TableError, counted
from ..tabular.row_sample import of_column


def run(args: argparse.Namespace) -> int:
    fitted = files.load(args.model)
    names = [column.name for column in fitted.preparation.columns]
    header = False if args.header is None and not fitted.preparation.header else args.header
    source = Delimited(args.data, args.delimiter, args.decimal, header, known=names)
    predictor = Predictor(fitted, source, args.quantize)
    with _output(args.out) as file:
        write = _json_lines(file, predictor) if args.json else _csv_lines(file, predictor)
        for chunk in source.chunks(every=True):
            write(*predictor(chunk))
    if not args.quiet:
        for note in predictor.notes():
            print(note, file=sys.stderr)
    return 0


@contextmanager
def _output(path: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that is created only when it is complete."""
    with nullcontext() if path is None else atomic_write(path) as binary:
        if binary is None:
            yield sys.stdout
            sys.stdout.flush()
            return
        text = TextIOWrapper(binary, "utf-8", newline="")
        yield text
        text.flush()
        text.detach()


class Predictor:
    """Predicts chunks of rows and counts missing and out-of-range values. TableError if an input column is missing.

    quantized: by tables of 8-bit numbers, for the ranges of the first chunk.
    """

    def __init__(self, fitted: files.Fitted, source: Delimited, quantized: bool = False):
        self.model, self.preparation, self.source = fitted.model, fitted.preparation, source
        self.run: nn.Module | None = None if quantized else fitted.model
        self.about_tables: list[str] = []
        used = {fitted.preparation.inputs[n] for n in fitted.model.input_id.tolist()}
        self.used = [c for c in fitted.preparation.columns if used & set(c.inputs)]
        absent = [c.name for c in self.used if c.name not in source.names]
        if absent:
            raise TableError(
                f"{source.path} has no column {prepare.listed(absent)}: it has {prepare.listed(source.names)}"
            )
        self.fields = {c.name: of_column(c.name, c.levels, c.dates) for c in self.used}
        self.target = self.preparation.target.name if self.preparation.target.name in source.names else None
        self.label = of_column(self.preparation.target.name, fitted.preparation.classes, None)
        self.outside, self.empty, self.without_value = dict.fromkeys(self.fields, 0), 0, 0
        self.known: list[tuple[Tensor, Tensor]] = []

    @property
    def header(self) -> list[str]:
        p = self.preparation
        return [p.target.name, *(f"probability of {name}" for name in p.classes or ())]

    @torch.no_grad()
    def __call__(self, cells: list[tuple[str, ...]]) -> tuple[list[list], list[bool]]:
        """The output cells of each row, and whether all of the row's input cells are empty."""
        by_name = dict(zip(self.source.names, cells, strict=True))
        values, blank = {}, torch.ones(len(cells[0]), dtype=torch.bool)
        for column in self.preparation.columns:
            values[column.name] = torch.full((len(cells[0]),), torch.nan, dtype=torch.float64)
        for column in self.used:
            read = self._read(column, by_name[column.name])
            values[column.name] = read
            blank &= torch.tensor([not cell.strip() for cell in by_name[column.name]])
        features = self.preparation.features(values)
        if self.run is None:
            self.run = self._tables(features)
        prediction = self.run(features)
        self.empty += int(blank.sum())
        if self.target is not None:
            self._keep_label(by_name[self.target], prediction, blank)
        return self._cells(prediction), blank.tolist()

    def _tables(self, features: Tensor) -> nn.Module:
        """The network as tables, with a note on their ranges and error. TableError where it has none."""
        try:
            tables = quantize(self.model, features)
        except ValueError as error:
            raise TableError(f"--quantize: {error}") from None
        before, after, target = self.model(features), tables(features), self.preparation.target
        if self.preparation.classes is None:
            before, after = target.unscaled(before), target.unscaled(after)
        change, rows = float((after - before).abs().max()), counted(len(features), "row")
        what = target.name if self.preparation.classes is None else "an output of the network"
        self.about_tables = [f"8-bit tables for the ranges of the first {rows}: {what} changes by {change:.3g} at most"]
        return tables

    def _read(self, column: Column, cells: tuple[str, ...]) -> Tensor:
        read = self.fields[column.name].values(cells, self.source.decimal)
        self.outside[column.name] += int(column.outside(read).sum())
        return read

    def _keep_label(self, cells: tuple[str, ...], prediction: Tensor, blank: Tensor) -> None:
        """Store predictions and targets, for the error, if the table has the target column."""
        p, label = self.preparation, self.label.values(cells, self.source.decimal)
        if p.classes is not None:
            names = [_class_name(name, self.source.decimal, p.classes) for name in self.label.texts]
            label = looked_up(label, indices_of(names, p.classes))
        rows = ~label.isnan() & ~blank
        if bool(rows.any()):
            self.known.append((prediction[rows], label[rows]))

    def _cells(self, prediction: Tensor) -> list[list]:
        p = self.preparation
        if p.classes is None:
            values = p.target.unscaled(prediction[:, 0])
            self.without_value += int((~values.isfinite()).sum())
            return [[value if math.isfinite(value) else ""] for value in values.tolist()]
        names = [p.classes[n] for n in chosen(prediction).tolist()]
        shares = probabilities(prediction).tolist()
        return [[name, *share] for name, share in zip(names, shares, strict=True)]

    def notes(self) -> list[str]:
        """Notes for the user: skipped rows, missing and out-of-range values, the error."""
        notes = [*self.source.notes, *self.about_tables]
        if self.source.skipped:
            notes.append(f"{counted(self.source.skipped, 'row')} without a prediction: {self.source.first_skipped}")
        for name, field in self.fields.items():
            parts = {"missing": field.missing - self.empty, "outside the training range": self.outside[name]}
            counts = [f"{count} {what}" for what, count in parts.items() if count > 0]
            if counts:
                notes.append(f"{name}: {', '.join(counts)}")
        if self.without_value:
            rows = counted(self.without_value, "row")
            notes.append(f"{rows} without a prediction: the formula has no finite value there")
        if self.known:
            prediction, label = (torch.cat(part) for part in zip(*self.known, strict=True))
            target = self.preparation.target
            if self.preparation.classes is None:
                scores = report.number_scores(target.unscaled(prediction), label[:, None])
            else:
                scores = report.class_scores(prediction, label.long())
            (_, *kinds), ((_, *values),) = report.lines({"": scores})
            shown = ", ".join(f"{kind} {value}" for kind, value in zip(kinds, values, strict=True))
            notes.append(f"{shown} on the {len(label)} rows with {target.name}")
        return notes


def _class_name(text: str, decimal: str, classes: list[str]) -> str:
    """The class of a cell; whole numbers may be spelled differently (1, 1.0)."""
    if text in classes:
        return text
    try:
        return str(int(float(text.replace(decimal, "."))))
    except (ValueError, OverflowError):
        return text


def _csv_lines(file: IO[str], predictor: Predictor):
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(predictor.header)
    blank_row = [""] * len(predictor.header)

    def write(rows: list[list], blank: list[bool]) -> None:
        writer.writerows(
            blank_row if empty else [_short(cell) for cell in row] for row, empty in zip(rows, blank, strict=True)
        )

    return write


def _json_lines(file: IO[str], predictor: Predictor):
    header = predictor.header

    def write(rows: list[list], blank: list[bool]) -> None:
        for row, empty in zip(rows, blank, strict=True):
            cells = [(cell or None) if isinstance(cell, str) else float(_short(cell)) for cell in row]
            cells = [None] * len(row) if empty else cells
            file.write(json.dumps(dict(zip(header, cells, strict=True))) + "\n")

    return write


def _short(cell) -> str:
    return cell if isinstance(cell, str) else f"{cell:.8g}"
