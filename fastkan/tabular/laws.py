"""Laws: formulas of the columns in their own units, such as 0.5*m*v**2, by the search of KAN.discover.

Columns and target are divided by powers of ten near their medians, so that units do not matter. The search takes a fixed
number of steps, not seconds, so that equal tables give equal formulas.
"""

import importlib.util
import itertools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..network import KAN
from ..network.formulas.compiler import compile_formulas
from ..network.formulas.search.constants import Formula, Table, evaluator, fitted
from ..network.formulas.search.search import Search
from .columns import variable
from .prepare import Prepared

STEPS = 100  # of a search, some seconds
MOST_INPUTS = 10
MOST_ROWS = 2500
EXACT = 1e-9  # squared error over the variance, as of tables with five digits


class Law(NamedTuple):
    """expression: in SymPy, of the columns' symbols, for the target (as fitted: see Column.transform). model: the same as
    a network of standardised inputs and target. exact: whether its error is one of rounding. scaled: the formula in the
    units of the search. symbols: of all columns."""

    expression: Any
    model: KAN
    exact: bool
    scaled: Formula
    symbols: list


def can_be_searched() -> bool:
    """Whether SymPy and NumPy are installed."""
    return all(importlib.util.find_spec(name) for name in ("sympy", "numpy"))


def find(data: Prepared, seed: int) -> Law | None:
    """The best law of the training rows; None for classes, texts, dates, many columns, or without a law."""
    p = data.preparation
    if p.classes is not None or len(p.inputs) > MOST_INPUTS or not can_be_searched():
        return None
    if any(column.levels is not None or column.dates is not None for column in p.columns):
        return None
    units = _Units(data)
    x, y = units.rows(data, data.train[:MOST_ROWS])
    steps = itertools.count()
    search = Search(x, y, units.symbols, seed, lambda: STEPS - next(steps), lambda formula: None, EXACT)
    search.run(levels=1)
    seen = torch.cat([data.train, data.valid])
    every = units.rows(data, seen)[0]
    for found in sorted(search.formulas.values(), key=search.table.merit):
        if found.error < 1 and bool(evaluator(units.symbols, [found.filled])(every).isfinite().all()):
            return _law(found, data, units)
    return None


def refitted(law: Law, data: Prepared, rows: Tensor) -> Law:
    """The law with its numbers fitted to these rows."""
    units = _Units(data)
    best, _ = fitted(law.scaled, Table(*units.rows(data, rows[:MOST_ROWS]), units.symbols))
    return _law(best, data, units)


class _Units:
    """Powers of ten that the columns and the target are divided by, and the columns' symbols."""

    def __init__(self, data: Prepared):
        import sympy

        rows = torch.cat([data.train, data.valid])
        x, y = _raw(data, rows)
        self.inputs = [_exponent(column) for column in x.T]
        self.target = _exponent(y)
        self.symbols = [sympy.Symbol(variable(name), real=True) for name in data.preparation.inputs]

    def rows(self, data: Prepared, rows: Tensor) -> tuple[Tensor, Tensor]:
        x, y = _raw(data, rows)
        return x * torch.tensor([10.0**-e for e in self.inputs], dtype=x.dtype), y * 10.0**-self.target


def _raw(data: Prepared, rows: Tensor) -> tuple[Tensor, Tensor]:
    """x [N, inputs] in the columns' units, y [N] in those of the target's scale."""
    mean, std = (data.x.new_tensor(part) for part in data.preparation.normalizer())
    target = data.preparation.target
    return data.x[rows] * std + mean, data.y[rows, 0] * target.std + target.mean


def _exponent(values: Tensor) -> int:
    """Of the power of ten nearest to the median size of what is not 0, within those of float64."""
    sizes = values.abs()[values != 0]
    return max(-290, min(290, round(math.log10(float(sizes.median()))))) if len(sizes) else 0


def _ten(exponent: int):
    import sympy

    return sympy.Integer(10) ** exponent


def _law(found: Formula, data: Prepared, units: _Units) -> Law:
    """The law of a formula in scaled columns."""
    import sympy

    filled, p = found.filled, data.preparation
    own = {s: s / _ten(e) for s, e in zip(units.symbols, units.inputs, strict=True)}
    expression = filled.xreplace(own) * _ten(units.target)
    mean, std = p.normalizer()
    z = [sympy.Symbol(f"z_{n}", real=True) for n in range(len(units.symbols))]
    standard = {
        s: zn * sympy.Float(d * 10.0**-e) + sympy.Float(m * 10.0**-e)
        for s, zn, m, d, e in zip(units.symbols, z, mean, std, units.inputs, strict=True)
    }
    size = 10.0**units.target
    whole = filled.xreplace(standard) * sympy.Float(size / p.target.std) - sympy.Float(p.target.mean / p.target.std)
    model = compile_formulas(KAN, z, whole, 3, 3, dtype=torch.float64)
    used = [n for n, s in enumerate(units.symbols) if s in filled.free_symbols]
    if used:
        model = model.prune_input(active_inputs=used)
    return Law(expression, model, found.error < EXACT, found, units.symbols)
