"""Auxiliary variables: expressions of the inputs that are given to a network as inputs too, and a search for them.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.1.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from .derivatives import batch_jacobian, check_points
from .expressions import columns_of, evaluate
from .resampling import Exchange
from .symmetry import sine

Dataset = dict[str, Tensor]


def augment_input(orig_vars: Sequence, aux_vars: Sequence, x: Tensor | Dataset) -> Tensor | Dataset:
    """Values of expressions before the columns of x.

    Args:
        orig_vars: SymPy symbols, or their names, of the first columns of x.
        aux_vars: A SymPy expressions in them.
        x: inputs [..., n], or a dictionary whose train_input and test_input are meant.

    Returns inputs [..., A + n] in x's dtype, or a new dictionary with them; x stays as it is. Raises ValueError for an
    expression that is not finite on x.
    """
    if isinstance(x, dict):
        inputs = {key: x[key] for key in ("train_input", "test_input") if key in x}
        if not inputs:
            raise ValueError(f"x has the keys {', '.join(map(repr, x))}: expected train_input, test_input or both")
        return {**x, **{key: augment_input(orig_vars, aux_vars, value) for key, value in inputs.items()}}
    check_points(x)
    columns = columns_of("orig_vars", orig_vars, x)
    added = []
    for expression in aux_vars:
        values = torch.as_tensor(evaluate(expression, columns), dtype=x.dtype, device=x.device)
        if not values.isfinite().all():
            raise ValueError(f"aux_vars: {expression} is not finite at {int((~values.isfinite()).sum())} rows of x")
        added.append(values.expand(*x.shape[:-1], 1))
    return torch.cat([*added, x], -1)


# Of two variables.
CANDIDATES = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b,
    "a**2 + b**2": lambda a, b: a**2 + b**2,
    "a**2 - b**2": lambda a, b: a**2 - b**2,
    "a**2 * b": lambda a, b: a**2 * b,
    "a * b**2": lambda a, b: a * b**2,
    "a**2 / b": lambda a, b: a**2 / b,
    "a / b**2": lambda a, b: a / b**2,
}


def suggest_auxiliary(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    input_vars: Sequence,
    candidates: Sequence | None = None,
    sym_th: float = 5e-2,
) -> list[tuple[object, float]]:
    """Expressions through which alone the model depends on their variables, the best first.

    Args:
        model: of one output, x [N, n] -> [N, 1]; x: data, as the model is used.
        input_vars: SymPy symbols, or their names, of the columns of x.
        candidates: SymPy expressions in them; by default sums, differences, products, ratios and squares of any two.
        sym_th: the largest score that is told.

    Returns (expression, score) with scores by the angle between the gradients of the model and of the expression, by
    the variables of the expression: the sine, see symmetry.sine; 0 where the model is a function of the expression and
    other variables. Rows where the expression has no finite slopes do not count.
    """
    exchange = Exchange(model, x)
    names = list(columns_of("input_vars", input_vars, x))
    if candidates is None:
        pairs = combinations(names, 2)
        candidates = [candidate(a, b) for a, b in pairs for candidate in CANDIDATES.values()]
    slopes, found = exchange.slopes(), []
    for expression in candidates:
        used = [i for i, name in enumerate(names) if name in expression.free_symbols]
        if len(used) < 2:
            raise ValueError(f"candidates: {expression} is of {len(used)} variables: expected at least 2 of input_vars")
        own = batch_jacobian(lambda at, e=expression: evaluate(e, columns_of("input_vars", names, at)), exchange.x)
        own = own.double() * exchange.scale
        rows = own.isfinite().all(1)
        score = float(sine(slopes[rows][:, used], own[rows][:, used]))
        if rows.any() and score <= sym_th:
            found.append((expression, score))
    return sorted(found, key=lambda pair: pair[1])
