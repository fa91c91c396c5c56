"""Flop formulas of the operators, for torch.utils.flop_counter.FlopCounterMode.

Counted as PyTorch counts matrix products: a multiplication and an addition are two operations, and elementwise work
(features, base functions, scales, biases) is not counted. A contraction of N rows by I inputs and O outputs has
2 N I O (W + 1), W the number of basis functions that are not zero at a point: degree + 1 B-splines, all F functions of
the other families; + 1 for a base function. Kernels that also multiply by zeros, because that is faster, do more. The
reference backend consists of PyTorch's products, which count all F.

Imported when torch.utils.flop_counter is.
"""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import register_flop_formula

from .ops import CONTRACTIONS, GPU_SCHEMAS, NAMESPACES, WEIGHTS
from .spec import Spec

_FIELDS = len(Spec._fields)


def _contraction(rows: int, coef, with_base: bool, spec: Spec) -> int:
    inputs, functions, outputs = coef
    return 2 * rows * inputs * outputs * ((functions if spec.family else spec.degree + 1) + with_base)


def _kan_out(x, s, coef, base_weight, bias, grid, *rest, out_shape) -> int:
    return _contraction(x[0], coef, base_weight is not None, Spec(*rest[:_FIELDS]))


def _kan_in(x, u, coef, base_weight, grid, *rest, out_shape) -> int:
    return _contraction(x[0], coef, base_weight is not None, Spec(*rest[:_FIELDS]))


def _kan_coef(x, s, u, grid, *rest, out_shape) -> int:
    return _contraction(x[0], out_shape[0], rest[-1], Spec(*rest[:_FIELDS]))


def _kan_backward(x, s, u, coef, base_weight, grid, *rest, out_shape) -> int:
    """The gradients by the input and by the coefficients."""
    return 2 * _contraction(x[0], coef, base_weight is not None, Spec(*rest[:_FIELDS]))


def _edge_moments(x, coef, base_weight, grid, *spec, out_shape) -> int:
    """The values of the edges."""
    return _contraction(x[0], coef, base_weight is not None, Spec(*spec))


def _edge_backward(x, u, terms, coef, base_weight, grid, *rest, out_shape) -> int:
    """The values of the edges, and the gradients by the coefficients and, with_x, by the input."""
    return (2 + rest[-1]) * _contraction(x[0], coef, base_weight is not None, Spec(*rest[:_FIELDS]))


def _stack(x, tangents, weights, specs) -> list[tuple[int, int]]:
    """For every layer, the operations of one contraction and the number of contractions.

    A hidden layer computes the derivatives by all subsets of the k tangents, the last layer that by the whole set. The
    derivative of a layer's output by n tangents is a sum of n contractions; of one if n is 0 or the layer is the first.
    """
    k, layers = len(tangents), len(weights) // WEIGHTS
    counts = [2**k, *[1 + k * 2**k // 2] * (layers - 2), max(1, k)]
    contractions = []
    for layer in range(layers):
        coef, _, base_weight, _ = weights[layer * WEIGHTS :][:WEIGHTS]
        one = _contraction(x[0], coef, base_weight is not None, Spec(*specs[layer * _FIELDS :][:_FIELDS]))
        contractions.append((one, counts[layer]))
    return contractions


def _stack_out(x, tangents, weights, grids, specs, *, out_shape) -> int:
    return sum(one * count for one, count in _stack(x, tangents, weights, specs))


def _stack_backward(x, tangents, u, weights, grids, specs, with_x, with_tangents, with_weights, *, out_shape) -> int:
    """The hidden layers again; then the gradients of every contraction by its input, tangents and weights."""
    layers = [one * count for one, count in _stack(x, tangents, weights, specs)]
    first, after = layers[0], sum(layers[1:])
    by_inputs = with_x * first + after
    by_tangents = with_tangents * first + after if tangents else 0
    return sum(layers[:-1]) + by_inputs + by_tangents + with_weights * (first + after)


_FORMULAS = (_kan_out, _kan_in, _kan_coef, _kan_backward, _edge_moments, _edge_backward)


def _register(name: str, formula: Callable[..., int]) -> None:
    operators = [getattr(getattr(torch.ops, namespace), name) for namespace in NAMESPACES]
    operators += [getattr(torch.ops.fastkan, form) for form in GPU_SCHEMAS if form.rpartition("_")[0] == name]
    register_flop_formula(operators)(formula)


for _name, _formula in zip(CONTRACTIONS, _FORMULAS, strict=True):
    _register(_name, _formula)
register_flop_formula(torch.ops.fastkan.stack_out)(_stack_out)
register_flop_formula(torch.ops.fastkan.stack_backward)(_stack_backward)
