"""`fastkan show`: formula, errors and columns of a model written by `fastkan fit`."""

import argparse
import datetime

from ..measure.table import table
from ..tabular import files
from ..tabular.columns import Column
from . import fit


def run(args: argparse.Namespace) -> int:
    fitted = files.load(args.model)
    if args.json:
        print(fit.as_json({**fitted.report, "columns": fitted.preparation.as_json()["columns"]}))
        return 0
    print(fit.text(fitted))
    used = set(fitted.report["used"])
    columns = [column for column in fitted.preparation.columns if used & set(column.inputs)]
    print("\n" + table(("column", "from", "to", "if missing"), [_row(column) for column in columns]))
    return 0


def _row(column: Column) -> list[str]:
    if column.levels is not None:
        return [column.name, "text: " + ", ".join(column.levels), "", "as any other text"]
    if column.dates is not None:
        shown = (datetime.date(1970, 1, 1) + datetime.timedelta(days=d) for d in (column.low, column.high, column.fill))
        return [column.name, *map(str, shown)]
    return [column.name, *(f"{value:.6g}" for value in (column.low, column.high, column.fill))]
