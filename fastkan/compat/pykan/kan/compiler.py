"""kan.compiler: a SymPy expression as a network."""

import contextlib

import torch

with contextlib.suppress(ImportError):
    import numpy as np
with contextlib.suppress(ImportError):
    import sympy
    from sympy import *

from ....network.kanpiler import kanpiler as network_of
from ..model import MultKAN
from ..steps import Steps


def expr2kan(input_variables, expr, grid: int = 5, k: int = 3, auto_save: bool = False, **options) -> MultKAN:
    """fastkan.kanpiler, whose further arguments are options; outside is "zero", as in pykan."""
    found = MultKAN.of(network_of(input_variables, expr, grid, k, **{"outside": "zero"} | options))
    if auto_save:
        found.history = Steps.begun(found.ckpt_path)
    return found


sf2kan = kanpiler = expr2kan


def next_nontrivial_operation(expr, scale=1, bias=0) -> tuple:
    """What expr is without numbers that are added to it and factors, the last of these, and the last of those.

    Of 3 exp(x) - 2 that is exp(x), 3, -2; scale and bias are returned where there is none.
    """
    while expr.is_Add or expr.is_Mul:
        number, rest = expr.as_independent(*expr.free_symbols, as_Add=expr.is_Add)
        if number == expr.identity:
            break
        scale, bias = (scale, number) if expr.is_Add else (number, bias)
        expr = rest
    return expr, scale, bias
