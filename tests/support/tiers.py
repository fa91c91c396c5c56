"""What `make test` leaves out and `make test-all` runs: parameters with the marker `long`."""

import itertools
from collections.abc import Sequence

import pytest


def long(*values) -> list:
    """Parameters that only `make test-all` runs."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]


def tiers(cases: Sequence[dict], *crossed: str) -> list:
    """The cases as parameters: `long` but for a few that hold every value, and every combination of `crossed`."""
    held = [set(case.items()) | {tuple((name, case[name]) for name in crossed)} for case in cases]
    missing, short = set().union(*held), set()
    while missing:
        best = max(range(len(cases)), key=lambda n: len(missing & held[n]))
        missing -= held[best]
        short.add(best)
    return list(itertools.chain(*([case] if n in short else long(case) for n, case in enumerate(cases))))
