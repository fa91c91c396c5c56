"""Parse the cells of a table: numbers, missing values, text."""

import math
import re
from collections.abc import Sequence

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "missing", "?", "-", ".", "#n/a", "#na", "<na>", "nil"))
_GROUPED = {  # digits in threes, by the decimal sign; 0,123 alone is not 123
    ".": re.compile(r"[+-]?(?!0,\d{3}$)\d{1,3}(,\d{3})+(\.\d*)?"),
    ",": re.compile(r"[+-]?(?!0\.\d{3}$)\d{1,3}([. \u00a0\u202f]\d{3})+(,\d*)?"),
}
_MONEY = "$€£¥₹₽₩₺₪฿"
_SIGNED = re.compile(
    rf"(?P<open>\()?(?P<sign>[+-]?)(?P<before>[{_MONEY}]?)\s*(?P<number>[^\s()%{_MONEY}][^()%{_MONEY}]*?)\s*"
    rf"(?P<after>[{_MONEY}%]?)(?P<close>\))?"
)


def missing(cell: str) -> bool:
    """Whether the cell is a missing value: empty, NA, nan, null, ? and the like."""
    return cell.strip().lower() in MISSING


def number(cell: str, decimal: str) -> float | None:
    """Parse a number; inf if it overflows, None if the cell is not a number.

    decimal: "." or ",". The other sign may separate thousands: 1,234.5 or 1.234,5. Amounts of money may have their sign
    ($5, 5 €) and be in brackets if negative; 12 % is 0.12.
    """
    plain = _plain(cell.strip(), decimal)
    parts = _SIGNED.fullmatch(cell.strip()) if plain is None else None
    if parts is None or bool(parts["open"]) != bool(parts["close"]):
        return plain
    value = _plain(parts["number"], decimal)
    if value is None or (parts["open"] and (value < 0 or parts["sign"])):
        return None
    value = -value if parts["open"] or parts["sign"] == "-" else value
    return value / 100 if parts["after"] == "%" else value


def _plain(cell: str, decimal: str) -> float | None:
    if "_" in cell:  # Python ignores it in numbers
        return None
    if _GROUPED[decimal].fullmatch(cell):
        cell = re.sub(r"[, \u00a0\u202f]" if decimal == "." else r"[. \u00a0\u202f]", "", cell)
    elif decimal == "," and "." in cell:
        return None
    if decimal == ",":
        cell = cell.replace(",", ".")
    try:
        return float(cell)
    except ValueError:
        return None


def is_number(cell: str, decimal: str) -> bool:
    value = number(cell, decimal)
    return value is not None and not math.isnan(value)


def numbers(cells: Sequence[str], decimal: str) -> tuple[list[float], int, str | None]:
    """The cells as numbers, NaN for missing values and text; the count of text cells, and the first of them."""
    if decimal == "." and "_" not in "".join(cells):
        try:
            return list(map(float, cells)), 0, None
        except ValueError:
            pass
    values, texts, first = [], 0, None
    for cell in cells:
        value = number(cell, decimal)
        if value is None:
            value = math.nan
            if not missing(cell):
                texts, first = texts + 1, first or cell.strip()
        values.append(value)
    return values, texts, first
