"""get_feynman_dataset: equations of physics by name or number, for datasets and comparison."""

import math
from collections.abc import Callable
from difflib import get_close_matches

import torch
from torch import Tensor

from .expressions import import_sympy
from .feynman_table import ALIASES, equations

_TORCH = {
    "exp": torch.exp, "sqrt": lambda z: z**0.5, "log": torch.log, "sin": torch.sin, "cos": torch.cos, "pi": math.pi,
    "tanh": torch.tanh, "asin": torch.asin, "acos": torch.acos, "sinc": lambda z: torch.sinc(z / math.pi),
}  # fmt: skip
COUNT = 120


def feynman_names() -> list[str]:
    """The names of the 120 equations, number n at index n - 1: 100 from Feynman's lectures, then 20 others."""
    return [name for name, _, _ in equations(**_TORCH)[1:]]


def get_feynman_dataset(name: str | int) -> tuple[list, object, Callable[[Tensor], Tensor], list[list[float]]]:
    """An equation from the Feynman Symbolic Regression Database.

    Args:
        name: such as "I.6.20a", see feynman_names, or the number, 1 to 120.

    Returns:
        symbols: SymPy symbols of the variables, in order; expr: the SymPy expression in them, with exact numbers;
        f: x [..., variables] -> [..., 1], on any device, in x's dtype, differentiable;
        ranges: [low, high] of every variable, for create_dataset(f, n_var=len(symbols), ranges=ranges).

    expr and f come from the same formula. Raises KeyError for an unknown name, IndexError for an unknown number,
    TypeError for other arguments, ImportError without SymPy.

    Source: Udrescu and Tegmark, AI Feynman (arXiv 1905.11481); the ranges are pykan's.
    """
    sympy = import_sympy()
    number = _number(name)
    _, formula, ranges = equations(**_TORCH)[number]
    arguments = formula.__code__.co_varnames[: formula.__code__.co_argcount]
    symbols = [sympy.Symbol(argument.rstrip("_")) for argument in arguments]
    expr = equations(**{function: getattr(sympy, function) for function in _TORCH})[number][1](*symbols)

    def f(x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.dim() == 0 or x.shape[-1] != len(symbols):
            got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
            raise ValueError(f"x has {got}: expected a tensor [..., {len(symbols)}], columns {', '.join(arguments)}")
        return formula(*x.split(1, -1))

    return symbols, expr, f, [list(pair) for pair in ranges]


def _number(name: str | int) -> int:
    """The index of an equation in the table."""
    if isinstance(name, str):
        names = ["test", *feynman_names()]
        full = ALIASES.get(name, name)
        if full not in names:
            close = get_close_matches(name, [*names, *ALIASES], 3)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise KeyError(f"name={name!r}: expected one of feynman_names() or a number from 1 to {COUNT}{hint}")
        return names.index(full)
    if isinstance(name, bool) or not hasattr(name, "__index__"):
        raise TypeError(f"name={name!r}: expected a string or an integer from 1 to {COUNT}")
    if not 1 <= name.__index__() <= COUNT:
        raise IndexError(f"name={name!r}: expected a number from 1 to {COUNT}, or a name")
    return name.__index__()
