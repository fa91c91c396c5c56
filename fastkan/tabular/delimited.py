"""Reader of delimited text that detects encoding, delimiter, decimal sign and header.

The file is read in chunks, so that memory does not grow with it.
"""

import codecs
import csv
import gzip
import io
import itertools
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

from .cells import is_number, missing

HEAD = 1 << 22  # bytes read to detect the layout
LINES = 200  # of these bytes, at most
CHUNK = 8192  # rows
DELIMITERS = "\t;|, "  # in order of preference
NAMED = {"\t": "a tab", " ": "a space", None: "none of tab ; | , space"}
KINDS = {b"PK\x03\x04": "an archive or a workbook", b"PAR1": "a Parquet file", b"\xd0\xcf\x11\xe0": "a workbook"}


class TableError(ValueError):
    """A table that cannot be used; the message is one line with the reason."""


class Delimited:
    """The rows of a file.

    Args:
        path: a file, which may be compressed with gzip.
        delimiter, decimal: override the detected ones.
        header: whether the first row has the column names; by default, if none of its cells is a number.
        known: names that mark the first row as the header.

    Attributes: names, the unique column names, and duplicate_names, those that occurred more than once in the file;
    notes for the user; rows and skipped, the numbers of rows read so far, and left out for a wrong number of cells.

    Raises TableError, and OSError.
    """

    def __init__(
        self, path: str | os.PathLike, delimiter: str | None = None, decimal: str | None = None,
        header: bool | None = None, known: Sequence[str] = (),
    ):  # fmt: skip
        self.path, self.notes, self.duplicate_names = os.fspath(path), [], []
        self.skipped = self.rows = 0
        self.first_skipped = None
        head = self._head()
        self.encoding = self._encoding(head)
        text = codecs.getincrementaldecoder(self.encoding)("replace").decode(head)
        lines = list(itertools.islice(io.StringIO(text, newline=""), LINES))
        if 1 < len(lines) < LINES and len(head) == HEAD:
            lines.pop()  # it may be incomplete
        self.comments = self._comments(lines, delimiter)
        lines = [line for line in lines[self.comments :] if line.strip()]
        if not lines:
            raise TableError(f"{self.path} is empty: expected a row of names and rows of numbers")
        self.delimiter = delimiter or _delimiter(lines)
        rows = _rows(lines, self.delimiter)
        if len(rows[0]) == 1 and delimiter is not None and _delimiter(lines):
            raise TableError(
                f"{self.path} has one column with the delimiter {name_of(delimiter)}: "
                f"it looks like {name_of(_delimiter(lines))}"
            )
        self.decimal = decimal or _decimal(rows, self.delimiter)
        self.header = self._has_header(rows[0], header, known)
        self.names = self._names(rows[0])

    # Layout

    def _head(self) -> bytes:
        if not os.path.isdir(self.path) and not os.path.isfile(self.path) and os.path.exists(self.path):
            raise TableError(f"{self.path} is a pipe or a device: expected a file, which is read twice")
        with self._open() as file:
            try:
                head = file.read(HEAD)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise TableError(f"{self.path}: {error}") from None
        for start, kind in KINDS.items():
            if head.startswith(start):
                raise TableError(f"{self.path} is {kind}: expected text; save the table as CSV first")
        utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        odd = sum(head.count(byte) for byte in range(32) if byte not in b"\t\n\r\f\x1a")
        if not utf16 and (b"\0" in head or odd > 0.01 * len(head)):
            raise TableError(f"{self.path} is binary: expected text with rows of cells, such as CSV")
        return head

    def _open(self):
        with open(self.path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        return gzip.open(self.path) if compressed else open(self.path, "rb")

    def _encoding(self, head: bytes) -> str:
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        try:
            codecs.getincrementaldecoder("utf-8-sig")().decode(head)
        except UnicodeDecodeError:
            self.notes.append("the text is not UTF-8: read as Windows-1252")
            return "cp1252"
        return "utf-8-sig"

    @staticmethod
    def _comments(lines: list[str], delimiter: str | None) -> int:
        """How many lines at the start are comments. The last that starts with # has the names if it has as many cells
        as the first row, which is one of numbers."""
        count = int(any(line.startswith("sep=") and len(line.strip()) <= 5 for line in lines[:1]))  # for Excel
        while count < len(lines) and (lines[count].startswith("#") or (count and not lines[count].strip())):
            count += 1
        rest = [line for line in lines[count:] if line.strip()]
        if not count or not rest or not lines[count - 1].startswith("#"):
            return count
        delimiter = delimiter or _delimiter(rest)
        first, named = _rows(rest[:1], delimiter)[0], _rows([lines[count - 1].lstrip("# ")], delimiter)[0]
        decimal = _decimal([first], delimiter)
        numeric = any(is_number(cell, decimal) for cell in first) and not any(is_number(c, decimal) for c in named)
        return count - 1 if numeric and len(named) == len(first) and any(map(str.strip, named)) else count

    def _has_header(self, first: list[str], header: bool | None, known: Sequence[str]) -> bool:
        if header is not None:
            return header
        if set(known) & {cell.strip() for cell in first}:
            return True
        has_names = not any(is_number(cell, self.decimal) for cell in first)
        if not has_names:
            self.notes.append(
                f"no header, since the first row has numbers: the columns are x1 to x{len(first)} (override: --header)"
            )
        return has_names

    def _names(self, first: list[str]) -> list[str]:
        """Unique names, none of them empty."""
        if not self.header:
            return [f"x{n + 1}" for n in range(len(first))]
        first = [first[0].lstrip("# "), *first[1:]]  # a comment with the names
        given = [" ".join(cell.split()) or f"column_{n + 1}" for n, cell in enumerate(first)]
        names = different(given)
        self.duplicate_names = [name for name, times in Counter(given).items() if times > 1]
        if self.duplicate_names:
            names_shown = ", ".join(map(repr, self.duplicate_names))
            self.notes.append(f"several columns are named {names_shown}: numbers were added to the later ones")
        return names

    # Content

    def chunks(self, every: bool = False) -> Iterator[list[tuple[str, ...]]]:
        """Yield the columns of up to CHUNK rows at a time. Blank lines are ignored; a row with a wrong number of cells
        is skipped or, with `every`, returned as empty cells. Raises TableError if more than half are wrong."""
        self.skipped, self.rows, self.first_skipped = 0, 0, None
        width, rows = len(self.names), []
        with self._open() as file, io.TextIOWrapper(file, self.encoding, "replace", newline="") as text:
            for _ in range(self.comments):
                text.readline()
            reader = _reader(text, self.delimiter)
            try:
                for n, row in enumerate(row for row in reader if row):
                    if n == 0 and self.header:
                        continue
                    if len(row) == width + 1 and not row[-1].strip():
                        row.pop()  # a delimiter at the end of the line
                    if len(row) != width:
                        if len(row) == 1 and not row[0].strip():
                            continue
                        row = self._skip(row, self.comments + reader.line_num, width)
                        if not every:
                            continue
                    rows.append(row)
                    if len(rows) == CHUNK:
                        self._count(len(rows))
                        yield list(zip(*rows, strict=True))
                        rows = []
            except csv.Error as error:
                raise TableError(
                    f"{self.path}, line {self.comments + reader.line_num}: {error}; is a quote not closed?"
                ) from None
            except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeError) as error:
                raise TableError(f"{self.path}, line {self.comments + reader.line_num}: {error}") from None
        self._count(len(rows))
        if rows:
            yield list(zip(*rows, strict=True))

    def _skip(self, row: list[str], line: int, width: int) -> list[str]:
        self.skipped += 1
        if self.first_skipped is None:
            open_quote = "; is a quote not closed?" if any("\n" in cell or "\r" in cell for cell in row) else ""
            self.first_skipped = f"line {line} has {counted(len(row), 'cell')} where line 1 has {width}{open_quote}"
        return [""] * width

    def _count(self, rows: int) -> None:
        self.rows += rows
        if self.skipped > self.rows:
            raise TableError(
                f"{self.path}: {self.first_skipped}, and most other rows too; the delimiter was detected as "
                f"{name_of(self.delimiter)} (--delimiter)"
            )


def different(names: Sequence[str]) -> list[str]:
    """Make names unique by adding numbers to repeated ones."""
    unique, used = [], set(names)
    for name in names:
        new, k = name, 2
        while new in unique or (new != name and new in used):
            new, k = f"{name}_{k}", k + 1
        unique.append(new)
    return unique


def counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def name_of(delimiter: str | None) -> str:
    return NAMED.get(delimiter, repr(delimiter))


def _reader(lines, delimiter: str | None):
    return csv.reader(lines, delimiter=delimiter or ",", skipinitialspace=True)


def _rows(lines: list[str], delimiter: str | None) -> list[list[str]]:
    rows = []
    try:
        rows.extend(row for row in _reader(lines, delimiter) if row)
    except csv.Error:  # raised again when the table is read
        pass
    return rows or [[""]]


def _delimiter(lines: list[str]) -> str | None:
    """The delimiter that splits most rows into the same number of cells, at least two; None if there is none."""
    best, most = None, 0.0
    for delimiter in DELIMITERS:
        rows = _rows(lines, delimiter)
        width, times = Counter(map(len, rows)).most_common(1)[0]
        share = times / len(rows)
        if width > 1 and share > most + 0.05:
            best, most = delimiter, share
    return best


def _decimal(rows: list[list[str]], delimiter: str | None) -> str:
    """The decimal sign with which more cells are numbers.

    If all are with both, as 1,234 is, a comma after semicolons: programs write these where commas are decimal.
    """
    cells = [cell for row in rows[1:] for cell in row if not missing(cell)]
    counts = {sign: sum(is_number(cell, sign) for cell in cells) for sign in ".,"}
    if counts[","] == counts["."] and delimiter == ";" and not any("." in cell for cell in cells):
        return ","
    return "," if counts[","] > counts["."] else "."
