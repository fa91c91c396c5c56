"""Write a symbolic network as formulas of the table's columns, in their units, with few digits."""

import importlib.util

import torch
from torch import Tensor

from ..network import KAN
from ..network.formulas.simplify import count_operations
from .columns import Preparation, variable

DIGITS = range(3, 13)
SHARE = 0.1  # rounding may add this share of the model's error, which raises the total by 0.5 %
KEEP = {"power_base": False, "power_exp": False, "log": False, "basic": False}


def can_be_written() -> bool:
    """Whether SymPy and NumPy are installed."""
    return all(importlib.util.find_spec(name) for name in ("sympy", "numpy"))


def formulas(model: KAN, preparation: Preparation, x: Tensor, y: Tensor | None) -> list[str]:
    """One formula for each output of a symbolic network.

    Rounding is limited by its effect on the standardised rows x [N, inputs], relative to the error against y [N, 1]
    or, for classes (None), to the size of the outputs.
    """
    import sympy

    names = [variable(name) for name in preparation.inputs]
    mean, std = preparation.normalizer()
    exact, symbols = model.symbolic_formula(names, (mean, std), preparation.output_normalizer())
    raw = x * x.new_tensor(std) + x.new_tensor(mean)
    with torch.no_grad():
        values = model(x)
        error = (values if y is None else values - y).square().mean(0).sqrt()
    scale = preparation.target.std if preparation.classes is None else 1.0
    written = []
    for n, formula in enumerate(exact):
        target = preparation.target.unscaled(values[:, n]) if preparation.classes is None else values[:, n]
        allowed = scale * max(SHARE * float(error[n]), 1e-9)
        few = without_small_numbers(formula, symbols, raw, target, allowed / 2)
        powers = (False, True) if model.depth == 1 else (False,)  # expanding powers of sums of inputs is long
        options = [few, *(sympy.expand(few, multinomial=m, **KEEP) for m in powers)]
        shortest = rounded = min(options, key=count_operations)
        for digits in DIGITS:
            rounded = significant(shortest, digits)
            if _distance(rounded, symbols, raw, target) <= allowed:
                break
        written.append(sympy.sstr(rounded, full_prec=False))
    return written


def without_small_numbers(expr, symbols: list, raw: Tensor, values: Tensor, allowed: float):
    """Set numbers in expr to 0, smallest first, while it stays within `allowed` of the values at the raw columns."""
    import sympy

    numbers = {sympy.Dummy(): number for number in sorted(expr.atoms(sympy.Float), key=abs)}
    general = expr.xreplace({number: dummy for dummy, number in numbers.items()})
    for dummy in numbers:
        trial = general.xreplace(numbers | {dummy: sympy.S.Zero})
        if _distance(trial, symbols, raw, values) <= allowed:
            numbers[dummy] = sympy.S.Zero
    return general.xreplace(numbers)


def significant(expr, digits: int):
    """Round the numbers in expr to significant digits; whole numbers become integers."""
    import sympy

    numbers = {number: float(f"{float(number):.{digits}g}") for number in expr.atoms(sympy.Float)}
    exact = {n: sympy.Integer(v) if v.is_integer() else sympy.Float(repr(v)) for n, v in numbers.items()}
    return expr.xreplace(exact)


def _distance(expr, symbols: list, raw: Tensor, values: Tensor) -> float:
    """Root mean square of expr(raw columns) - values."""
    import numpy as np
    import sympy

    with np.errstate(all="ignore"):
        found = sympy.lambdify(symbols, expr, "numpy")(*raw.numpy().T)
    return float(np.sqrt(np.mean(np.abs(found - values.numpy()) ** 2)))
