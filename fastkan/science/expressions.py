"""Evaluation of SymPy expressions on tensors by torch operations: on any device, differentiable."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# SymPy's name -> torch function.
FUNCTIONS = {
    name: getattr(torch, name)
    for name in "exp log sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh erf erfc sign floor".split()
} | {
    "Abs": torch.abs,
    "ceiling": torch.ceil,
    "atan2": torch.atan2,
    "sinc": lambda z: torch.sinc(z / math.pi),
}


def import_sympy() -> Any:
    """The module sympy; ImportError with instructions if it is missing."""
    try:
        import sympy
    except ImportError as error:
        raise ImportError(f"expressions need SymPy ({error}): pip install sympy numpy") from error
    return sympy


def evaluate(expr: Any, columns: dict) -> Tensor | float:
    """The value of an expression with tensors for its symbols, {symbol: tensor}; a float without symbols.

    Raises ValueError for a symbol that is not in columns and for a function that is not in FUNCTIONS.
    """
    if not getattr(expr, "free_symbols", None):
        return float(expr)
    if expr.is_Symbol:
        if expr not in columns:
            known = ", ".join(map(str, columns))
            raise ValueError(f"{expr} is none of the variables: expected expressions in {known}")
        return columns[expr]
    arguments = [evaluate(argument, columns) for argument in expr.args]
    if expr.is_Add:
        return sum(arguments)
    if expr.is_Mul:
        return math.prod(arguments)
    if expr.is_Pow:
        base, exponent = arguments
        return base**exponent
    name = type(expr).__name__
    if name not in FUNCTIONS:
        raise ValueError(f"{expr} has the function {name}: expected one of {', '.join(FUNCTIONS)}")
    return FUNCTIONS[name](*arguments)


def columns_of(name: str, variables: Sequence, x: Tensor) -> dict:
    """{symbol: column of x [..., 1]} for the first columns, by SymPy symbols or their names, also "x y z"."""
    sympy = import_sympy()
    variables = variables.replace(",", " ").split() if isinstance(variables, str) else variables
    symbols = [sympy.Symbol(v) if isinstance(v, str) else v for v in variables]
    if not all(isinstance(s, sympy.Symbol) for s in symbols) or len(set(symbols)) != len(symbols):
        raise ValueError(f"{name}={variables!r}: expected different SymPy symbols, or their names")
    if len(symbols) > x.shape[-1]:
        raise ValueError(f"{name} has {len(symbols)} names: expected at most {x.shape[-1]}, the columns of x")
    return dict(zip(symbols, x[..., : len(symbols)].split(1, -1), strict=True))
