"""Auxiliary variables: expressions of the inputs as additional inputs of a network, and a search for them.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.1.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import overload

import torch
from torch import Tensor

from ..devices import exact
from .derivatives import batch_jacobian, check_points
from .expressions import columns_of, evaluate
from .resampling import Resampled
from .symmetry import sine

Dataset = dict[str, Tensor]


@overload
def augment_input(orig_vars: Sequence, aux_vars: Sequence, x: Tensor) -> Tensor: ...
@overload
def augment_input(orig_vars: Sequence, aux_vars: Sequence, x: Dataset) -> Dataset: ...
def augment_input(orig_vars: Sequence, aux_vars: Sequence, x: Tensor | Dataset) -> Tensor | Dataset:
    """Prepend the values of expressions to the columns of x.

    Args:
        orig_vars: SymPy symbols, or their names, for the first columns of x.
        aux_vars: A SymPy expressions in them.
        x: inputs [..., n], or a dataset, whose train_input and test_input are augmented.

    Returns inputs [..., A + n] in x's dtype, or a new dataset with them; x is not modified. Raises ValueError for an
    expression that is not finite on x.
    """
    if isinstance(x, dict):
        inputs = {key: x[key] for key in ("train_input", "test_input") if key in x}
        if not inputs:
            raise ValueError(f"x has the keys {', '.join(map(repr, x))}: expected train_input, test_input or both")
        return {**x, **{key: augment_input(orig_vars, aux_vars, value) for key, value in inputs.items()}}
    check_points(x)
    columns = columns_of("orig_vars", orig_vars, x)
    new = []
    for expression in aux_vars:
        values = torch.as_tensor(evaluate(expression, columns), dtype=x.dtype, device=x.device)
        if not values.isfinite().all():
            raise ValueError(f"aux_vars: {expression} is not finite at {int((~values.isfinite()).sum())} rows of x")
        new.append(values.expand(*x.shape[:-1], 1))
    return torch.cat([*new, x], -1)


# Default expressions of two variables.
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
    """Expressions such that the model depends on their variables through the expression alone, best first.

    Args:
        model: a function with one output, x [N, n] -> [N, 1]; x: representative data.
        input_vars: SymPy symbols, or their names, for the columns of x.
        candidates: SymPy expressions in them; by default sums, differences, products, ratios and squares of any two.
        sym_th: the largest score to report.

    Returns (expression, score). The score is the sine of the angle between the gradients of the model and of the
    expression by the expression's variables, see symmetry.sine: 0 if the model is a function of the expression and
    other variables. Rows with infinite or undefined derivatives of the expression are ignored.
    """
    resampled = Resampled(model, x)
    names = list(columns_of("input_vars", input_vars, x))
    if candidates is None:
        pairs = combinations(names, 2)
        candidates = [candidate(a, b) for a, b in pairs for candidate in CANDIDATES.values()]
    gradient, results = resampled.gradient(), []
    for expression in candidates:
        used = [i for i, name in enumerate(names) if name in expression.free_symbols]
        if len(used) < 2:
            raise ValueError(f"candidates: {expression} is of {len(used)} variables: expected at least 2 of input_vars")
        direction = exact(batch_jacobian(partial(_values, expression, names), resampled.x)) * resampled.scale
        rows = direction.isfinite().all(1)
        score = float(sine(gradient[rows][:, used], direction[rows][:, used]))
        if rows.any() and score <= sym_th:
            results.append((expression, score))
    return sorted(results, key=lambda pair: pair[1])


def _values(expression, names: Sequence, x: Tensor) -> Tensor:
    return torch.as_tensor(evaluate(expression, columns_of("input_vars", names, x)))
