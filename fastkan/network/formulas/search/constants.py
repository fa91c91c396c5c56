"""Formulas with constants: fitted by least squares, rounded to simple numbers, and compared by description length."""

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Nats that describe an operation or a symbol, and a constant. A term more, which the search takes from a million, costs
# about as much as the best of a million gains by chance.
OPERATION, NUMBER = 3.3, 5.0
SMALLEST = 1e-24  # squared relative error that is as good as none
STEPS = 10
PENALTY = 1e-4  # of squared logarithms of odds
DENOMINATORS = (1, 2, 3, 4, 5, 6, 8, 10, 12)


class Formula(NamedTuple):
    """expression in the symbols of the inputs and of constants, their values, and the squared relative error."""

    expression: Any
    constants: tuple
    values: tuple
    error: float

    @property
    def filled(self):
        """The expression with numbers for constants."""
        import sympy

        numbers = {
            c: v if isinstance(v, sympy.Expr) else sympy.Float(v)
            for c, v in zip(self.constants, self.values, strict=True)
        }
        return self.expression.subs(numbers)  # type: ignore[attr-defined]


@lru_cache(maxsize=4096)  # formulas are sorted again and again
def length(expression) -> float:
    """Nats that describe an expression."""
    import sympy

    leaves = sum(not part.args and not part.is_number for part in sympy.preorder_traversal(expression))
    floats = len(expression.atoms(sympy.Float))
    return OPERATION * (int(sympy.count_ops(expression)) + leaves) + NUMBER * floats


class Table:
    """x [rows, inputs], y [rows], symbols of the inputs, and the loss of a formula's values: squares, relative to their
    sum about the mean."""

    def __init__(self, x: Tensor, y: Tensor, symbols: list):
        self.x, self.y, self.symbols = x, y, symbols
        self.unit = sum_of_squares(y)

    def loss(self, values: Tensor) -> float:
        return float((values - self.y).square().sum()) / self.unit

    def slopes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Of every row: the negative derivative of half its loss by its value, without the unit, and the second one."""
        return self.y - values, torch.ones_like(values)

    def description(self, loss: float) -> float:
        """Twice the nats that describe y."""
        return len(self.y) * math.log(loss + SMALLEST)

    def variance(self, formula: Formula) -> float:
        """Of y about the formula, in the units of `slopes`."""
        return formula.error * self.unit / max(len(self.y) - len(formula.constants), 1)

    def merit(self, formula: Formula) -> float:
        """Description length of the data and the formula, times two; the lower, the better."""
        terms = length(formula.expression) + NUMBER * len(formula.constants)
        return self.description(formula.error) + 2 * terms


class Labels(Table):
    """y [rows] of 0 and 1, and formulas for the logarithm of the odds of 1. The loss is the deviance, relative to that
    of a constant, with a slight penalty of huge values, which separable classes would lead to."""

    def __init__(self, x: Tensor, y: Tensor, symbols: list):
        super().__init__(x, y, symbols)
        share = y.mean()
        self.unit = float(-2 * len(y) * (share.xlogy(share) + (1 - share).xlogy(1 - share)))

    def loss(self, values: Tensor) -> float:
        deviance = 2 * nn.functional.binary_cross_entropy_with_logits(values, self.y, reduction="sum")
        return float(deviance + PENALTY * values.square().sum()) / self.unit

    def slopes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        share = values.sigmoid()
        return self.y - share - PENALTY * values, share * (1 - share) + PENALTY

    def description(self, loss: float) -> float:
        return loss * self.unit

    def variance(self, formula: Formula) -> float:
        return 1.0


def sum_of_squares(y: Tensor) -> float:
    """Those about the mean; of a constant, all."""
    spread, size = float((y - y.mean()).square().sum()), float(y.square().sum())
    return spread if spread > 1e-24 * size else size or 1.0


def evaluator(arguments: Sequence, expressions: Sequence) -> Callable[..., Tensor]:
    """A function of x and constants: the values of the expressions, [rows, expressions]; NaN where not real."""
    import numpy as np
    import sympy

    infinite = (sympy.zoo, sympy.nan, sympy.oo)
    expressions = [sympy.nan if sympy.sympify(e).has(*infinite) else e for e in expressions]
    compiled = sympy.lambdify(arguments, expressions, "numpy")

    def evaluate(x: Tensor, *numbers: float) -> Tensor:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = compiled(*x.numpy().T, *numbers)
        columns = x.new_full((len(x), len(results)), math.nan)
        for n, result in enumerate(map(np.asarray, results)):
            if result.dtype.kind in "iufb":
                columns[:, n] = torch.as_tensor(result.astype(float))
        return columns

    return evaluate


def measured(formula: Formula, table: Table) -> Formula:
    """The formula with its error on the table, inf where it is not finite."""
    evaluate = evaluator([*table.symbols, *formula.constants], [formula.expression])
    error = table.loss(evaluate(table.x, *map(float, formula.values))[:, 0])
    return formula._replace(error=error if math.isfinite(error) else math.inf)


def fitted(formula: Formula, table: Table) -> tuple[Formula, Tensor]:
    """The formula with the constants of least loss, by Levenberg-Marquardt, and their covariance / variance of y."""
    import sympy

    count = len(formula.constants)
    if not count:
        return formula, torch.zeros(0, 0)
    derivatives = [sympy.diff(formula.expression, c) for c in formula.constants]
    evaluate = evaluator([*table.symbols, *formula.constants], [formula.expression, *derivatives])
    point, damping = table.x.new_tensor([float(v) for v in formula.values]), 1e-9
    values = evaluate(table.x, *point.tolist())
    error, inverse = table.loss(values[:, 0]), table.x.new_full((count, count), math.inf)
    for _ in range(STEPS):
        if not bool(values.isfinite().all()):
            return formula, inverse
        jacobian, (rest, weights), before = values[:, 1:], table.slopes(values[:, 0]), error
        size = jacobian.norm(dim=0).clamp_min(1e-300)
        scaled = jacobian / size
        normal = scaled.T @ (scaled * weights[:, None])
        inverse = torch.linalg.pinv(normal, hermitian=True) / torch.outer(size, size)
        for _ in range(5):
            damped = normal + damping * torch.eye(count, dtype=normal.dtype)
            trial = point + torch.linalg.lstsq(damped, scaled.T @ rest, driver="gelsd").solution / size
            trial_values = evaluate(table.x, *trial.tolist())
            trial_error = table.loss(trial_values[:, 0])
            if trial_error < error:
                point, values, error, damping = trial, trial_values, trial_error, max(damping / 10, 1e-14)
                break
            damping *= 100
        if not error < before * (1 - 1e-6):
            break
    return formula._replace(values=tuple(point.tolist()), error=error), inverse


def loosened(formula: Formula) -> Formula | None:
    """The formula with scaled arguments of its functions, and shifted ones of its waves; None without such functions.

    exp(z) becomes exp(c z), and cos(z) becomes cos(c z + d), unless there is a constant in z.
    """
    import sympy

    kinds = (sympy.sin, sympy.cos, sympy.exp, sympy.tanh, sympy.atan)
    known, table, constants, values = set(formula.constants), {}, [], []
    free = (f"k_{n}" for n in itertools.count() if f"k_{n}" not in {c.name for c in known})
    for part in formula.expression.atoms(*kinds):
        if known & part.free_symbols:
            continue
        scale, argument = part.args[0].as_coeff_Mul()
        scale, argument = (scale * sympy.pi, argument / sympy.pi) if argument.has(sympy.pi) else (scale, argument)
        constants.append(sympy.Symbol(next(free), real=True))
        values.append(float(scale))
        inner = constants[-1] * argument
        if part.func in (sympy.sin, sympy.cos):
            constants.append(sympy.Symbol(next(free), real=True))
            values.append(0.0)
            inner += constants[-1]
        table[part] = part.func(inner)
    if not table:
        return None
    expression = formula.expression.xreplace(table)
    return Formula(expression, (*formula.constants, *constants), (*formula.values, *values), math.inf)


def rounded(formula: Formula, table: Table) -> Formula:
    """The formula with simple numbers for constants, where the errors of the data allow them.

    A number is taken if it lies within three standard errors, if it is unlikely that a random one does, and if the
    other constants, fitted again, leave a description that is not longer.
    """
    formula, inverse = fitted(formula, table)
    tried = set()
    while formula.constants:
        errors = (inverse.diagonal() * table.variance(formula)).clamp_min(0).sqrt().tolist()
        options = []
        for n, (constant, value, error) in enumerate(zip(formula.constants, formula.values, errors, strict=True)):
            within = 3 * error + 1e-9 * abs(value)
            number = simple_number(float(value), within) if constant not in tried else None
            if number is not None:
                options.append((float(length(number)), n, number))
        if not options:
            break
        _, n, number = min(options, key=lambda option: option[:2])
        tried.add(formula.constants[n])
        rest = Formula(
            formula.expression.subs(formula.constants[n], number),
            formula.constants[:n] + formula.constants[n + 1 :],
            formula.values[:n] + formula.values[n + 1 :],
            math.inf,
        )
        rest, inverse_rest = fitted(measured(rest, table), table)
        if table.merit(rest) <= table.merit(formula) or rest.error <= SMALLEST:
            formula, inverse = rest, inverse_rest
    return formula


def simple_number(value: float, tolerance: float):
    """The simplest fraction, or fraction times pi or over pi, within the tolerance; None if chance would find one."""
    import sympy

    if abs(value) <= tolerance:
        return None
    for factor, size in ((sympy.Integer(1), 1.0), (sympy.pi, math.pi), (1 / sympy.pi, 1 / math.pi)):
        for denominator in DENOMINATORS if size == 1 else DENOMINATORS[:4]:
            numerator = round(value / size * denominator)
            dense = 2 * tolerance / size * denominator * (1 if size == 1 else 3)
            near = numerator and abs(numerator * size / denominator - value) <= tolerance
            if near and dense < 0.4 and abs(numerator) <= 1000:
                return sympy.Rational(numerator, denominator) * factor
    return None
