"""Formulas of the operators for torch.utils.flop_counter.FlopCounterMode, and for what stands on it.

As PyTorch counts its own products: a multiplication and an addition are two operations, and what is done once for each
number (features, bases, scales, biases) is not counted. A contraction of N rows by I inputs and O outputs has
2 N I O (W + 1), W the functions that are not zero at a point, which is all that the kernels need: degree + 1 B-splines,
all F functions of the other families; and one more for the base function, where there is one. Kernels that multiply by
zeros too, because that is faster, do more. The reference backend consists of PyTorch's products, which count all F.

Imported when torch.utils.flop_counter is.
"""

import torch
from torch.utils.flop_counter import register_flop_formula

from .ops import CONTRACTIONS, GPU_SCHEMAS, NAMESPACES, TF32, WEIGHTS
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
    """The gradients of the input and of the coefficients."""
    return 2 * _contraction(x[0], coef, base_weight is not None, Spec(*rest[:_FIELDS]))


def _edge_moments(x, coef, base_weight, grid, *spec, out_shape) -> int:
    """The values of the edges."""
    return _contraction(x[0], coef, base_weight is not None, Spec(*spec))


def _edge_backward(x, u, terms, coef, base_weight, grid, *rest, out_shape) -> int:
    """The values of the edges, and the gradients of the coefficients and, where it is wanted, of the input."""
    return (2 + rest[-1]) * _contraction(x[0], coef, base_weight is not None, Spec(*rest[:_FIELDS]))


def _stack(x, tangents, weights, specs) -> list[tuple[int, int]]:
    """Of every layer the operations of one contraction, and how many derivatives of it are computed.

    Of the derivatives by k tangents all subsets pass a hidden layer, and the whole set the last one. What leaves a
    layer by a subset of n tangents is a sum of n contractions, and of one where n is 0 or the layer is the first.
    """
    k, layers = len(tangents), len(weights) // WEIGHTS
    counts = [2**k, *[1 + k * 2**k // 2] * (layers - 2), max(1, k)]
    found = []
    for layer in range(layers):
        coef, _, base_weight, _ = weights[layer * WEIGHTS :][:WEIGHTS]
        one = _contraction(x[0], coef, base_weight is not None, Spec(*specs[layer * _FIELDS :][:_FIELDS]))
        found.append((one, counts[layer]))
    return found


def _stack_out(x, tangents, weights, grids, specs, *, out_shape) -> int:
    return sum(one * count for one, count in _stack(x, tangents, weights, specs))


def _stack_backward(x, tangents, u, weights, grids, specs, with_x, with_tangents, with_weights, *, out_shape) -> int:
    """The hidden layers once more; then the gradients of every contraction by its input, tangents and weights."""
    layers = [one * count for one, count in _stack(x, tangents, weights, specs)]
    first, after = layers[0], sum(layers[1:])
    by_inputs = with_x * first + after
    by_tangents = with_tangents * first + after if tangents else 0
    return sum(layers[:-1]) + by_inputs + by_tangents + with_weights * (first + after)


_FORMULAS = (_kan_out, _kan_in, _kan_coef, _kan_backward, _edge_moments, _edge_backward)

for _name, _formula in zip(CONTRACTIONS, _FORMULAS, strict=True):
    _operators = [getattr(getattr(torch.ops, namespace), _name) for namespace in NAMESPACES]
    if f"{_name}{TF32}" in GPU_SCHEMAS:
        _operators.append(getattr(torch.ops.fastkan, f"{_name}{TF32}"))
    register_flop_formula(_operators)(_formula)
register_flop_formula(torch.ops.fastkan.stack_out)(_stack_out)
register_flop_formula(torch.ops.fastkan.stack_backward)(_stack_backward)
