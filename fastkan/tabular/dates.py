"""Dates in tables: recognised by their form, read as days since 1970-01-01."""

import datetime
import re
from collections.abc import Sequence

_CLOCK = r"(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2}(?:[.,]\d+)?))?\s*(Z|UTC|[+-]\d{2}:?\d{2})?)?"
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})" + _CLOCK)
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})" + _CLOCK)
ORDERS = ("year-month-day", "day-month-year", "month-day-year")
_EPOCH = datetime.date(1970, 1, 1).toordinal()


def order(cells: Sequence[str]) -> str | None:
    """How at least nine tenths of the cells write dates, one of ORDERS; None if they do not.

    A date such as 3/4/2020, where both orders are possible in all cells, has the month first if it has strokes.
    """
    last = any((found := _YEAR_LAST.fullmatch(cell.strip())) and found[2] != "/" for cell in cells[:100])
    orders = ORDERS if last else (ORDERS[0], ORDERS[2], ORDERS[1])
    counts = [sum(days(cell, each) is not None for cell in cells) for each in orders]
    best = max(counts, default=0)
    return orders[counts.index(best)] if best and best >= 0.9 * len(cells) else None


def days(cell: str, order: str) -> float | None:
    """Days since 1970-01-01, UTC where the cell names a time zone; None if the cell is not a date."""
    found = (_YEAR_FIRST if order == ORDERS[0] else _YEAR_LAST).fullmatch(cell.strip())
    if found is None:
        return None
    first, _, second, third, hour, minute, second_of, zone = found.groups()
    numbers = int(first), int(second), int(third)
    year, month, day = {
        ORDERS[0]: numbers, ORDERS[1]: numbers[::-1], ORDERS[2]: (numbers[2], numbers[0], numbers[1]),
    }[order]  # fmt: skip
    try:
        date = datetime.date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        return None
    clock = int(hour or 0), int(minute or 0), float((second_of or "0").replace(",", "."))
    if clock[0] > 24 or clock[1] > 59 or clock[2] >= 61:
        return None
    seconds = 3600 * clock[0] + 60 * clock[1] + clock[2]
    if zone and zone[0] in "+-":
        shift = 3600 * int(zone[1:3]) + 60 * int(zone[-2:])
        seconds -= shift if zone[0] == "+" else -shift
    return date + seconds / 86400
