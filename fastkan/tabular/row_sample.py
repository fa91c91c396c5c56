"""Random sample of a table's rows as numbers, in one pass and bounded memory."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import dates
from .cells import is_number, missing, numbers
from .delimited import Delimited

CELLS = 1 << 25  # maximum size of a sample
FEWEST = 1000  # rows of a sample, even if that is more cells
VALUES = 10_000  # different texts of a column that get their own code


@dataclass
class Field:
    """A column while it is read: its texts with their codes, and counts of irregular cells."""

    name: str
    is_text: bool
    dates: str | None = None  # how they are written, see dates.ORDERS
    texts: dict[str, int] = field(default_factory=dict)
    missing: int = 0
    infinite: int = 0
    wrong: int = 0  # texts among numbers
    first_wrong: str | None = None

    def values(self, cells: Sequence[str], decimal: str) -> Tensor:
        """[N] numbers, text codes or days; NaN if missing."""
        if self.is_text:
            found = array("d", [self._code(cell) for cell in cells])
        elif self.dates is not None:
            found = array("d", [self._day(cell) for cell in cells])
        else:
            read, wrong, first = numbers(cells, decimal)
            self.wrong += wrong
            self.first_wrong = self.first_wrong or first
            found = array("d", read)
        values = torch.frombuffer(found, dtype=torch.float64)
        infinite = values.isinf()
        if bool(infinite.any()):
            self.infinite += int(infinite.sum())
            values = values.masked_fill(infinite, torch.nan)
        self.missing += int(values.isnan().sum())
        return values

    def _day(self, cell: str) -> float:
        day = dates.days(cell, self.dates or "")
        if day is None and not missing(cell):
            self.wrong, self.first_wrong = self.wrong + 1, self.first_wrong or cell.strip()
        return torch.nan if day is None else day

    def _code(self, cell: str) -> float:
        text = " ".join(cell.split())
        if missing(text):
            return torch.nan
        if text not in self.texts and len(self.texts) >= VALUES:
            return VALUES
        return self.texts.setdefault(text, len(self.texts))


@dataclass
class Sample:
    """values [rows, columns]: numbers or text codes, NaN if missing. total: number of rows in the table."""

    fields: list[Field]
    values: Tensor
    total: int

    def column(self, name: str) -> tuple[Field, Tensor]:
        at = [f.name for f in self.fields].index(name)
        return self.fields[at], self.values[:, at]


def read(
    table: Delimited,
    rows: int,
    seed: int,
    text: Sequence[str] = (),
    progress: Callable[[int], object] = lambda rows: None,
) -> Sample:
    """A random sample of `rows` rows, in file order; all rows of a smaller table.

    text: columns to read as text even if they look like numbers. progress: called with the number of rows read so far.
    """
    rows = min(rows, max(FEWEST, CELLS // len(table.names)))
    generator = torch.Generator().manual_seed(seed)
    fields, kept, keys, total = None, [], [], 0
    for columns in table.chunks():
        if fields is None:
            fields = [
                detected(name, cells, table.decimal, name in text)
                for name, cells in zip(table.names, columns, strict=True)
            ]
        new = [f.values(cells, table.decimal) for f, cells in zip(fields, columns, strict=True)]
        kept.append(torch.stack(new, 1))
        keys.append(torch.rand(len(columns[0]), generator=generator, dtype=torch.float64))
        total += len(columns[0])
        if sum(map(len, keys)) > 2 * rows:
            kept, keys = _thinned(kept, keys, rows)
        progress(total)
    if fields is None:
        return Sample([Field(name, False) for name in table.names], torch.empty(0, len(table.names)), 0)
    kept, _ = _thinned(kept, keys, rows)
    return Sample(fields, kept[0], total)


def _thinned(kept: list[Tensor], keys: list[Tensor], rows: int) -> tuple[list[Tensor], list[Tensor]]:
    """The rows with the smallest random keys: a uniform sample of the rows read so far."""
    every, key = torch.cat(kept), torch.cat(keys)
    if len(key) <= rows:
        return [every], [key]
    chosen = key.topk(rows, largest=False).indices.sort().values
    return [every[chosen]], [key[chosen]]


def of_column(name: str, levels: Sequence[str] | None, order: str | None) -> Field:
    """The field of a column that is known: texts coded by their index in `levels`, unknown ones by larger codes; or
    numbers, or dates of this order."""
    return Field(name, levels is not None, order, {level: code for code, level in enumerate(levels or ())})


def detected(name: str, cells: Sequence[str], decimal: str, text: bool = False) -> Field:
    """The field of a column with these cells: of texts where text is set, else of what most cells are."""
    if text or not is_text(cells, decimal):
        return Field(name, text)
    order = dates.order([cell for cell in cells if not missing(cell)])
    return Field(name, order is None, order)


def is_text(cells: Sequence[str], decimal: str) -> bool:
    """Whether fewer than half of the non-missing cells are numbers."""
    given = [cell for cell in cells if not missing(cell)]
    return sum(is_number(cell, decimal) for cell in given) < 0.5 * len(given)
