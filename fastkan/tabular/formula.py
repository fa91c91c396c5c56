"""Write a symbolic network as formulas of the table's columns, in their units, with few digits."""

import decimal

import torch
from torch import Tensor

from .columns import Column, variable
from .search import SEARCH_ROWS, Found
from .transform import TRANSFORMS

DIGITS = range(3, 13)
SHARE = 0.1  # rounding may add this share of the model's error, which raises the total by 0.5 %
EXACT_SHARE = 0.3  # of an exact law, whose error is that of the table's digits
HARDLY = 1e-3  # of the allowed distance, for leaving out a column
LONG = 100  # operations of a formula
SMALL, LARGE = 1e-4, 1e7  # numbers between are written without an exponent
KEEP = {"power_base": False, "power_exp": False, "log": False, "basic": False}


def formulas(found: Found) -> list[str]:
    """One formula for each output of the symbolic network, or of the law, for the columns and target in their units.

    Rounding is limited by its effect on the outputs at the rows of training and validation, relative to their error or,
    for classes, to their size.
    """
    data, model, p = found.data, found.model("formula"), found.data.preparation
    rows = torch.cat([data.train, data.valid])[:SEARCH_ROWS]
    x, mean_std = data.x[rows], p.normalizer()
    raw = x * x.new_tensor(mean_std[1]) + x.new_tensor(mean_std[0])
    if found.law is not None:
        exact, symbols = [plain_numbers(found.law.expression)], found.law.symbols
        raw = raw[:, found.law.units.inputs]
    else:
        exact, symbols = model.symbolic_formula(list(map(variable, p.inputs)), mean_std, p.output_normalizer())
    with torch.no_grad():
        values = model(x)
        error = (values if p.classes else values - data.y[rows]).square().mean(0).sqrt()
    mean, std = (p.target.mean, p.target.std) if p.classes is None else (0.0, 1.0)
    share = EXACT_SHARE if found.law is not None and found.law.exact else SHARE
    return [
        text(
            _short(formula, symbols, raw, values[:, n] * std + mean, std * max(share * float(error[n]), 1e-9), p.target)
        )
        for n, formula in enumerate(exact)
    ]


def _short(formula, symbols: list, raw: Tensor, values: Tensor, allowed: float, target: Column):
    """The formula for the target in its units, with few numbers and digits.

    formula: for the target as fitted, which is `values` [N] at the raw columns, within `allowed`.
    """
    import sympy

    few = without_small_numbers(formula, symbols, raw, values, allowed / 2)
    long = sympy.count_ops(few) > LONG  # expanding powers of long sums takes time, and helps nobody
    options = [few]
    for multinomial in (False,) if long else (False, True):
        expanded = sympy.expand(few, multinomial=multinomial, **KEEP)
        options.append(without_small_numbers(expanded, symbols, raw, values, allowed / 2))
    rounded = [_rounded(untransformed(option, target), symbols, raw, values, allowed, target) for option in options]
    return min(rounded, key=lambda option: len(text(option)))


def _rounded(formula, symbols: list, raw: Tensor, values: Tensor, allowed: float, target: Column):
    """The formula with as few digits as its distance from the values allows."""
    rounded = formula
    for digits in DIGITS:
        rounded = significant(formula, digits)
        if _distance(rounded, symbols, raw, values, target) <= allowed:
            break
    return rounded


def untransformed(expr, target: Column):
    """The formula of a target from that of its transform."""
    import sympy

    if target.transform is None:
        return expr
    own = TRANSFORMS[target.transform].symbolic_inverse(sympy, expr)
    return own if target.unit == 1 else sympy.Float(target.unit) * own


def plain_numbers(expr):
    """An expression with decimal numbers for fractions and roots of numbers; small whole numbers, fractions of pi and
    exponents stay."""
    import sympy

    if not expr.args or expr.is_number:
        of_pi = expr.has(sympy.pi) and sympy.count_ops(expr) < 3
        small = expr.is_Integer and abs(expr) <= 1000
        return expr if not expr.is_number or small or of_pi else sympy.Float(expr.evalf(17))
    if expr.is_Pow and expr.exp.is_number:
        return sympy.Pow(plain_numbers(expr.base), expr.exp)
    if expr.is_Add or expr.is_Mul:
        numbers = [part for part in expr.args if part.is_number]
        rest = [plain_numbers(part) for part in expr.args if not part.is_number]
        return expr.func(*([plain_numbers(expr.func(*numbers))] if numbers else []), *rest)
    return expr.func(*map(plain_numbers, expr.args))


def text(expr) -> str:
    """The expression as text, with numbers as 2.5e9 where they are large or small."""
    from sympy.printing.str import StrPrinter

    class Printer(StrPrinter):
        def _print_Integer(self, expr):
            return shown(int(expr))

        def _print_Float(self, expr):
            return shown(float(expr))

    return Printer().doprint(expr)


def shown(value: float) -> str:
    """A number with all its digits, as 2.5e9 from 1e7 on and below 1e-4."""
    if not value or SMALL <= abs(value) < LARGE:
        return repr(value)
    mantissa, exponent = repr(decimal.Decimal(repr(value)).normalize().__format__("e")).strip("'").split("e")
    return f"{mantissa}e{int(exponent)}"


def without_small_numbers(expr, symbols: list, raw: Tensor, values: Tensor, allowed: float):
    """Set numbers in expr to 0, smallest first, while it stays within `allowed` of the values at the raw columns.

    Columns stay unless they hardly matter, since they are inputs of the model that the formula is of.
    """
    import sympy

    numbers = {sympy.Dummy(): number for number in sorted(expr.atoms(sympy.Float), key=abs)}
    general = expr.xreplace({number: dummy for dummy, number in numbers.items()})
    for dummy in numbers:
        trial = general.xreplace(numbers | {dummy: sympy.S.Zero})
        kept = expr.free_symbols <= trial.free_symbols
        if _distance(trial, symbols, raw, values) <= (allowed if kept else HARDLY * allowed):
            numbers[dummy] = sympy.S.Zero
    return general.xreplace(numbers)


def significant(expr, digits: int):
    """Round the numbers in expr to significant digits; whole numbers become integers."""
    import sympy

    numbers = {number: float(f"{float(number):.{digits}g}") for number in expr.atoms(sympy.Float)}
    exact = {n: sympy.Integer(v) if v.is_integer() else sympy.Float(repr(v)) for n, v in numbers.items()}
    return expr.xreplace(exact)


def _distance(expr, symbols: list, raw: Tensor, values: Tensor, target: Column | None = None) -> float:
    """Root mean square of expr(raw columns) - values, or of the target's transform of the former."""
    import numpy as np
    import sympy

    with np.errstate(all="ignore"):
        found = sympy.lambdify(symbols, expr, "numpy")(*raw.numpy().T)
        if target is not None and target.transform is not None:
            found = TRANSFORMS[target.transform].forward(torch.as_tensor(found) / target.unit).numpy()
    return float(np.sqrt(np.mean(np.abs(found - values.numpy()) ** 2)))
