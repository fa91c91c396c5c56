"""kan.compiler: from a SymPy expression to a network."""

import contextlib

import torch

with contextlib.suppress(ImportError):
    import numpy as np
with contextlib.suppress(ImportError):
    import sympy
    from sympy import *  # pyright: ignore[reportWildcardImportFromLibrary]  # as in pykan

from ....network.compiler import kanpiler as fastkan_kanpiler
from ..history import Steps
from ..model import MultKAN


def expr2kan(input_variables, expr, grid: int = 5, k: int = 3, auto_save: bool = False, **options) -> MultKAN:
    """fastkan.kanpiler, which takes the options; outside is "zero" by default, as in pykan."""
    options.setdefault("outside", "zero")
    model = MultKAN.from_kan(fastkan_kanpiler(input_variables, expr, grid, k, **options))
    if auto_save:
        model.history = Steps.new(model.ckpt_path)
    return model


sf2kan = kanpiler = expr2kan


def next_nontrivial_operation(expr, scale=1, bias=0) -> tuple:
    """expr without constant factors and summands, the last such factor, and the last such summand.

    3 exp(x) - 2 gives exp(x), 3, -2. Without such a constant, scale or bias is returned.
    """
    while expr.is_Add or expr.is_Mul:
        number, rest = expr.as_independent(*expr.free_symbols, as_Add=expr.is_Add)
        if number == expr.identity:
            break
        scale, bias = (scale, number) if expr.is_Add else (number, bias)
        expr = rest
    return expr, scale, bias
