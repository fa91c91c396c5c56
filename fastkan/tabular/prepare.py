"""Prepare a sample of a table for training: split rows, choose and standardise columns, collect notes."""

import difflib
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .columns import Column, Preparation, by_level, indices, looked_up, of_field, of_numbers
from .delimited import TableError, counted
from .row_sample import Field, Sample

FEWEST_ROWS = 10
MOST_CLASSES = 20
FEW = 5  # up to this many different whole numbers are classes
FAR, MOST_FAR = 1e4, 0.02  # distance in interquartile ranges, and share of the rows, of numbers that may be errors
MOST_RARE = 0.1  # share of the rows whose text may be rare without a note
ORDINAL = 4  # as many, one after the other, are a scale, as from 1 to 5


class Prepared(NamedTuple):
    """x [N, inputs] and y, [N, 1] standardised or [N] class indices, in float64; indices of the training, validation
    and test rows; notes for the user; a numeric target in its own units, [N], if its scale may be chosen (skew.py)."""

    preparation: Preparation
    x: Tensor
    y: Tensor
    train: Tensor
    valid: Tensor
    test: Tensor
    notes: list[str]
    numbers: Tensor | None = None


def find_target(names: Sequence[str], target: str, duplicates: Collection[str] = ()) -> str:
    """The column with this name, ignoring case if that is unique. TableError suggests similar names.

    duplicates: names of several columns, which are ambiguous.
    """
    if target in duplicates:
        raise TableError(f"several columns are named {target!r}: expected one; rename the others")
    if target in names:
        return target
    alike = [name for name in names if name.lower() == target.strip().lower()]
    if len(alike) == 1:
        return alike[0]
    near = difflib.get_close_matches(target.lower(), [name.lower() for name in names], 3, 0.5)
    near = list(dict.fromkeys(name for n in near for name in names if name.lower() == n))
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {listed(names)}"
    raise TableError(f"no column {target!r}; {hint}")


def prepare(
    sample: Sample, target: str, task: str | None, drop: Collection[str], hold_out: float, seed: int, header: bool,
    time: str | None = None, fold: int = 0,
) -> Prepared:  # fmt: skip
    """Split the rows, choose columns, and scale by the training and validation rows. Raises TableError.

    time: a column of numbers or dates; the last rows by it are the test, those before them the validation rows. fold:
    each one has other test rows, as far as there are others.
    """
    field, y = sample.column(target)
    notes = _odd_cells(sample.fields, target)
    has = ~y.isnan()
    if not bool(has.all()):
        notes.append(f"{counted(int((~has).sum()), 'row')} without {target}: left out")
    if int(has.sum()) < FEWEST_ROWS:
        raise TableError(
            f"{counted(int(has.sum()), 'row')} with a value of {target!r}: expected at least {FEWEST_ROWS}"
        )
    values, y = sample.values[has], y[has]
    classes = _classes(field, y, task)
    if classes is None and task is None and not field.is_text and is_scale(distinct := y.unique().tolist()):
        notes.append(f"{target} from {distinct[0]:g} to {distinct[-1]:g}: numbers, not classes (--task classification)")
    if classes is None and field.is_text:
        raise TableError(f"the target {target!r} is text, such as {next(iter(field.texts))!r}: expected numbers")
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    if time is not None:
        order = order[_times(sample, time)[has][order].argsort(descending=True, stable=True)]
    tested = max(2, round(hold_out * len(y)))
    order = order.roll(-fold * tested)
    test, rest = order[:tested], order[tested:]
    valid, train = rest[: max(2, len(rest) // 4)], rest[max(2, len(rest) // 4) :]
    fitted = torch.cat([train, valid])
    columns, features, unused = [], [], [f"{name} (--drop)" for name in drop]
    for n, f in enumerate(sample.fields):
        if f.name == target or f.name in drop:
            continue
        column = of_field(f, values[fitted, n])
        if column is None:
            why = _unusable(f, values[fitted, n])
            notes.append(f"{f.name}: {why}: left out")
            unused.append(f"{f.name} ({why})")
            continue
        notes += _rare(f, values[fitted, n], column) if column.levels is not None else _far(f, values[:, n])
        columns.append(column)
        features.append(column.features(by_level(f, values[:, n], column)))
    if not columns:
        rest = f" and {len(unused) - 8} more" if len(unused) > 8 else ""
        left_out = f"; left out: {', '.join(unused[:8])}{rest}" if unused else ""
        raise TableError(f"no column is left to predict from: expected one beside the target that varies{left_out}")
    if classes is None:
        scaled = of_numbers(target, y[fitted])
        if scaled is None:
            raise TableError(f"the target {target!r} is always {y[0]:g}: expected one that varies")
        label = scaled.scaled(y)[:, None]
    else:
        scaled = Column(target)
        label = looked_up(y, indices(list(field.texts), classes)) if field.is_text else _codes(y, classes)
        label = label.long()
    preparation = Preparation(columns, scaled, classes, header)
    numbers = y if classes is None else None
    return Prepared(preparation, torch.cat(features, 1), label, train, valid, test, notes, numbers)


def _times(sample: Sample, name: str) -> Tensor:
    """The values of the column that orders the rows; missing ones are the first."""
    field, values = sample.column(name)
    if field.is_text:
        raise TableError(f"--time {name}: text such as {next(iter(field.texts), '')!r}; expected numbers or dates")
    return values.nan_to_num(-torch.inf)


def is_scale(distinct: Sequence[float]) -> bool:
    """Whether sorted whole numbers are the steps of a scale, such as 1 to 5."""
    return ORDINAL <= len(distinct) <= FEW and distinct[-1] - distinct[0] == len(distinct) - 1


def _classes(field: Field, y: Tensor, task: str | None) -> list[str] | None:
    """The classes of a categorical target, None for a numeric one."""
    distinct = y.unique().tolist()
    whole = not field.is_text and all(value == int(value) for value in distinct)
    few = field.is_text or (whole and len(distinct) <= FEW and not is_scale(distinct))
    if task == "regression" or (task is None and not few):
        return None
    if len(distinct) > MOST_CLASSES:
        raise TableError(
            f"the target {field.name!r} has {len(distinct)} different values, such as {_shown(field, distinct[0])}: "
            f"expected numbers, or at most {MOST_CLASSES} classes"
        )
    if len(distinct) < 2:
        raise TableError(f"the target {field.name!r} is always {_shown(field, distinct[0])}: expected one that varies")
    if field.is_text:
        return sorted(list(field.texts)[int(code)] for code in distinct)
    return [_number_name(value) for value in distinct]


def _codes(y: Tensor, classes: list[str]) -> Tensor:
    return (y[:, None] == torch.tensor([float(name) for name in classes], dtype=torch.float64)).double().argmax(1)


def _number_name(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _shown(field: Field, value: float) -> str:
    return repr(list(field.texts)[int(value)]) if field.is_text else _number_name(value)


def _unusable(field: Field, values: Tensor) -> str:
    given = values[~values.isnan()]
    if not len(given):
        return "no values"
    if field.is_text and len(given.unique()) > 1:
        return f"text with {len(given.unique())} different values, of which fewer than two are common"
    return "constant"


def _rare(field: Field, values: Tensor, column: Column) -> list[str]:
    """A note on a text column of which many rows have values that get no input."""
    given = values[~values.isnan()].long()
    times = torch.bincount(given).sort(descending=True).values
    rest = float(times[len(column.levels or ()) + 1 :].sum()) / max(len(given), 1)
    if rest < MOST_RARE:
        return []
    return [
        f"{field.name}: text with {int((times > 0).sum())} different values, inputs for {len(column.levels or ())} of "
        f"them; the rest, {rest:.0%} of the rows, count as the most common one"
    ]


def _far(field: Field, values: Tensor) -> list[str]:
    """A note on numbers that are so far from the others that they may be errors."""
    given = values[~values.isnan()]
    ordered = given.sort().values
    low, middle, high = (float(ordered[len(given) * quarter // 4]) for quarter in (1, 2, 3))
    far = given[(given - middle).abs() > FAR * (high - low)] if high > low else given[:0]
    if not 0 < len(far) < MOST_FAR * len(given):
        return []
    return [f"{field.name}: {counted(len(far), 'number')} far from the others, such as {float(far[0]):g}"]


def _odd_cells(fields: Sequence[Field], target: str) -> list[str]:
    """Notes on cells treated as missing, and on missing values."""
    notes = []
    for field in fields:
        if field.wrong:
            cells = counted(field.wrong, "cell")
            notes.append(
                f"{field.name}: {cells} of text among numbers, such as {field.first_wrong!r}: treated as missing"
            )
        if field.infinite:
            notes.append(f"{field.name}: {counted(field.infinite, 'infinite number')}: treated as missing")
    missing = Counter({f.name: f.missing for f in fields if f.missing and f.name != target})
    if missing:
        most = ", ".join(f"{name} ({count})" for name, count in missing.most_common(5))
        more = f" and {len(missing) - 5} more columns" if len(missing) > 5 else ""
        notes.append(f"missing values, replaced by the median or the most common value: {most}{more}")
    return notes


def listed(names: Sequence[str], most: int = 8) -> str:
    """The names for a message, at most `most` of them."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest
