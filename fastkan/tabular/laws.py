"""Laws: formulas of the columns in their own units, such as 0.5*m*v**2, by the search of KAN.discover.

Columns and target are divided by powers of ten near their medians, so that units do not matter. The search takes a
fixed number of steps, not seconds, so that equal tables give equal formulas.
"""

import importlib.util
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..network import KAN
from ..network.formulas.compiler import compile_formulas
from ..network.formulas.search.constants import Formula, Table, evaluator, fitted, length
from ..network.formulas.search.search import Search
from .columns import variable
from .prepare import Prepared

STEPS = 45  # of a search, some seconds
MOST_INPUTS = 5
MOST_ROWS = 2500
ROUNDING, ALIKE = 1e-18, 10.0  # squared errors over the variance that do not tell exact laws apart, and their ratio
EXACT = 1e-9  # squared error over the variance, as of tables with five digits


class Law(NamedTuple):
    """expression: in SymPy, of the columns' symbols, for the target (as fitted: see Column.transform). model: the same
    as a network of standardised inputs and target. exact: whether its error is one of rounding. scaled: the formula in
    the units of the search."""

    expression: Any
    model: KAN
    exact: bool
    scaled: Formula
    units: "_Units"

    @property
    def symbols(self) -> list:
        """Of the inputs in the expression."""
        return self.units.symbols


def can_be_searched() -> bool:
    """Whether SymPy and NumPy are installed."""
    return all(importlib.util.find_spec(name) for name in ("sympy", "numpy"))


def find(data: Prepared, seed: int, inputs: Sequence[int]) -> Law | None:
    """The best law of some inputs by the training rows; None for classes, texts, dates, many inputs, or no fit."""
    p = data.preparation
    plain = [column.levels is None and column.dates is None for column in p.columns for _ in column.inputs]
    if p.classes is not None or not 0 < len(inputs) <= MOST_INPUTS or not all(plain[n] for n in inputs):
        return None
    if not can_be_searched():
        return None
    units = _Units(data, inputs)
    x, y = units.rows(data, data.train[:MOST_ROWS])
    steps = itertools.count()
    search = Search(x, y, units.symbols, seed, lambda: STEPS - next(steps), lambda formula: None, EXACT)
    search.run(levels=1)
    seen = units.rows(data, torch.cat([data.train, data.valid]))[0]
    for found in _ranked(list(search.formulas.values()), search.table):
        rows = seen if found.error < EXACT else _beyond(seen)
        if found.error < 1 and bool(evaluator(units.symbols, [found.filled])(rows).isfinite().all()):
            return _law(found, data, units)
    return None


def _ranked(formulas: list[Formula], table: Table) -> list[Formula]:
    """The formulas, the best first: of those that are exact to about the same digits, the shortest; then by merit."""
    least = max(ALIKE * min(formula.error for formula in formulas), ROUNDING)
    alike = [formula for formula in formulas if formula.error < min(least, EXACT)]
    others = [formula for formula in formulas if formula not in alike]
    alike.sort(key=lambda formula: (length(formula.filled), formula.error))
    return alike + sorted(others, key=table.merit)


def _beyond(x: Tensor) -> Tensor:
    """Rows [M, inputs] where a law that is not exact has to have a value: x [N, inputs], and with every column shuffled
    and half as wide again; columns of one sign keep it."""
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(len(x), generator=generator) for _ in range(x.shape[1])], 1)
    mixed = x.gather(0, order)
    middle = torch.where((x > 0).all(0) | (x < 0).all(0), 0.0, x.mean(0))
    return torch.cat([x, mixed, *(middle + (mixed - middle) * by for by in (0.5, 1.5))])


def refitted(law: Law, data: Prepared, rows: Tensor) -> Law:
    """The law with its numbers fitted to these rows."""
    table = Table(*law.units.rows(data, rows[:MOST_ROWS]), law.units.symbols)
    return _law(fitted(law.scaled, table)[0], data, law.units)


class _Units:
    """Powers of ten that some inputs and the target are divided by, and the inputs' symbols."""

    def __init__(self, data: Prepared, inputs: Sequence[int]):
        import sympy

        self.inputs = list(inputs)
        x, y = self._raw(data, torch.cat([data.train, data.valid]))
        self.exponents, self.target = [_exponent(column) for column in x.T], _exponent(y)
        self.symbols = [sympy.Symbol(variable(data.preparation.inputs[n]), real=True) for n in self.inputs]

    def _raw(self, data: Prepared, rows: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, inputs] in the columns' units, y [N] in those of the target's scale."""
        mean, std = (data.x.new_tensor(part)[self.inputs] for part in data.preparation.normalizer())
        target = data.preparation.target
        return data.x[rows][:, self.inputs] * std + mean, data.y[rows, 0] * target.std + target.mean

    def rows(self, data: Prepared, rows: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, inputs] and y [N] in the units of the search."""
        x, y = self._raw(data, rows)
        return x * x.new_tensor([10.0**-e for e in self.exponents]), y * 10.0**-self.target


def _exponent(values: Tensor) -> int:
    """Of the power of ten nearest to the median size of what is not 0, within those of float64."""
    sizes = values.abs()[values != 0]
    return max(-290, min(290, round(math.log10(float(sizes.median()))))) if len(sizes) else 0


def _law(found: Formula, data: Prepared, units: _Units) -> Law:
    """The law of a formula in the units of the search."""
    import sympy

    filled, p, ten = found.filled, data.preparation, sympy.Integer(10)
    own = {s: s / ten**e for s, e in zip(units.symbols, units.exponents, strict=True)}
    z = [sympy.Symbol(f"z_{n}", real=True) for n in range(len(p.inputs))]
    mean, std = p.normalizer()
    standard = {
        s: z[n] * sympy.Float(std[n] * 10.0**-e) + sympy.Float(mean[n] * 10.0**-e)
        for s, n, e in zip(units.symbols, units.inputs, units.exponents, strict=True)
    }
    size = sympy.Float(10.0**units.target / p.target.std)
    whole = filled.xreplace(standard) * size - sympy.Float(p.target.mean / p.target.std)
    model = compile_formulas(KAN, z, whole, 3, 3, dtype=torch.float64)
    used = [n for s, n in zip(units.symbols, units.inputs, strict=True) if s in filled.free_symbols]
    if used:
        model = model.prune_input(active_inputs=used)
    return Law(filled.xreplace(own) * ten**units.target, model, found.error < EXACT, found, units)
