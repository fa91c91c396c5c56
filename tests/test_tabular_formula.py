"""Formulas of tables: as short as the model's error allows."""

import pytest
import torch

sympy = pytest.importorskip("sympy")

from fastkan.tabular.formula import significant, text, without_small_numbers  # noqa: E402

a, b = sympy.symbols("a b")
X = torch.rand(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def fitted(offset: float):
    """exp(b^2 + sin(pi a)) as fitted, with small numbers in place of zeros."""
    inner = sympy.Float(1.7321) * b - sympy.Float(1.3e-5)
    return sympy.exp(sympy.Float(0.33333) * inner**2 + sympy.sin(sympy.Float(3.1416) * a - offset)) - sympy.Float(4e-5)


def values(expr) -> torch.Tensor:
    return torch.from_numpy(sympy.lambdify([a, b], expr, "numpy")(*X.numpy().T))


def test_insignificant_numbers_are_dropped():
    expr = fitted(sympy.Float(2e-4))
    short = without_small_numbers(expr, [a, b], X, values(expr), 1e-3)
    assert sympy.sstr(significant(short, 4)) == "exp(b**2 + sin(3.142*a))"
    assert (values(short) - values(expr)).square().mean().sqrt() <= 1e-3


def test_significant_numbers_stay():
    expr = fitted(sympy.Float(0.02))
    short = without_small_numbers(expr, [a, b], X, values(expr), 1e-3)
    assert sympy.sstr(significant(short, 2)) == "exp(b**2 + sin(3.1*a - 0.02))"
    assert without_small_numbers(expr, [a, b], X, values(expr), 1e-9) == expr


def test_numbers_that_avoid_a_division_by_zero_stay():
    expr = sympy.Float(1.0) / (a**2 + sympy.Float(1e-6))
    assert without_small_numbers(expr, [a, b], X, values(expr), 1e-3).has(sympy.Float(1e-6))


def test_whole_numbers_have_no_point():
    expr = sympy.Float(2.0001) * a**2 - sympy.Float(254.3) + sympy.Float(2.5e9) * b
    assert text(significant(expr, 3)) == "2*a**2 + 2.5e9*b - 254"
