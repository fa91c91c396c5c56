"""kanpiler: compiles a formula into a network of symbolic edges, exact to rounding.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 3.3.
"""

import os
from collections.abc import Sequence
from typing import Any

from .formulas.compiler import compile_formulas
from .history import History
from .model import KAN


def kanpiler(
    input_variables: Sequence,
    expr: Any,
    grid: int | Sequence[int] = 5,
    k: int | Sequence[int] = 3,
    auto_save: bool = False,
    *,
    history: History | str | os.PathLike | bool | None = None,
    ckpt_path: str | os.PathLike = "./model",
    **options: Any,
) -> KAN:
    """Compile a SymPy expression, or a list of them, into a KAN with one symbolic function on every edge.

    Sums become summing nodes, products multiplication nodes. Repeated subexpressions are computed once; edges "x" copy
    values to deeper layers. The numeric branch is off; expand_width, expand_depth and perturb add trainable parts.

    Args:
        input_variables: the symbols, in the order of the network's inputs.
        expr: consists of numbers, these symbols, +, *, powers, the functions in library.SYMBOLIC_LIB (add_symbolic adds
            others), sec, csc, cot, the hyperbolic functions and their inverses asinh and acosh, Max and Min. If an
            exponent contains a variable, the base has to be positive.
        grid, k, options: of KAN. With dtype=torch.float64 the network equals the expression to float64 rounding; with
            narrower dtypes the formula's numbers are rounded.
        auto_save, history, ckpt_path: as in KAN.

    Raises:
        ImportError: SymPy is not installed.
        TypeError, ValueError: a wrong argument, or a part of the expression that can't be compiled; the message names
            it.
    """
    model = compile_formulas(KAN, input_variables, expr, grid, k, **options)
    model.history = ckpt_path if auto_save and history is None else history
    return model
