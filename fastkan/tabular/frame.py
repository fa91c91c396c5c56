"""Columns of a pandas frame, or of an array, as those of a table in a file."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .columns import Column
from .dates import ORDERS
from .delimited import different
from .row_sample import Field, detected, of_column


def is_frame(table: Any) -> bool:
    """Whether table has columns with types of their own."""
    return hasattr(table, "columns") and hasattr(table, "dtypes")


def names(frame: Any) -> list[str]:
    """The names of a frame's columns, all different."""
    return different([str(name) for name in frame.columns])


def read(frame: Any, columns: Sequence[Column | None] | None = None) -> tuple[list[Field], Tensor]:
    """The fields of a frame and their values [N, columns], numbers or text codes, NaN if missing.

    Numbers and truth values are numbers, categories are texts, and a column of objects or texts is what it is in a
    file: numbers if at least half of its cells are. columns: those of the training, which then say what is text, and
    whose levels are the first codes; None for one that is not used. Raises TypeError for a column of another kind and
    ValueError for infinite numbers, which name the column.
    """
    fields, values = [], []
    for n, name in enumerate(names(frame)):
        series = frame.iloc[:, n]
        known = columns[n] if columns is not None else None
        if columns is not None and known is None:
            fields.append(Field(name, False))
            values.append(torch.full((len(frame),), torch.nan, dtype=torch.float64))
            continue
        field, read = _field(name, series, known)
        if field.infinite:
            raise ValueError(f"X: the column {name!r} has infinite numbers: expected finite or missing ones")
        fields.append(field)
        values.append(read)
    return fields, torch.stack(values, 1)


def _field(name: str, series: Any, known: Column | None) -> tuple[Field, Tensor]:
    """The field of a series and its values; known: the column in training."""
    kind, category = getattr(series.dtype, "kind", "O"), hasattr(series, "cat")
    if kind in "biuf" and not category and (known is None or known.levels is None):
        field, numbers = Field(name, False), series.to_numpy(dtype="float64", na_value=float("nan"))
        values = torch.from_numpy(numbers.copy())
        field.infinite = int(values.isinf().sum())
        return field, values
    if kind == "M":
        cells = ["" if blank else str(cell) for cell, blank in zip(series, series.isna(), strict=True)]
        field = Field(name, False, ORDERS[0])
        return field, field.values(cells, ".")
    if kind not in "biufOSUT":
        raise TypeError(f"X: the column {name!r} is of {series.dtype}: expected numbers, texts or categories")
    cells = ["" if blank else str(cell) for cell, blank in zip(series, series.isna(), strict=True)]
    if known is None:
        field = detected(name, cells, ".", category)
    else:
        field = of_column(known.name, known.levels, known.dates)
    return field, field.values(cells, ".")
