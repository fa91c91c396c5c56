"""How far a stack's results may be from the exact ones: the roundings of all its layers, to first order.

A result is a sum of products of weights, tangents, u, and a feature in each layer. So it is off by at most the sum of
their absolute values in which one factor after the other is replaced by its error. That is the derivative at e = 0 of a
stack whose weights, tangents and u are their absolute values, and whose features are, at the exact node,

    |phi_d| + e E_d    at order d, each the derivative of the one before by the node.

E_d is the error of a feature in a contraction: `perturbation` of testing.py, and 8 roundings more for the edge scale,
products of tangents and sums over orders. The derivative of a node by e bounds the node's error, which moves the
features behind it; those of the gradients bound theirs. A sum of N rows wanders by 2 sqrt(N) roundings, and a result is
rounded at most four times. No node may be on the other side of a knot: see `apart`.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .. import reference
from ..reference import total
from ..stack import Layer, products
from ..testing import Problem, perturbation


def bounds(x: Tensor, along: Sequence[Tensor], u: Tensor, layers: Sequence[Layer]) -> list[Tensor]:
    """Of the output, and of its gradients by x, the tangents and the weights, in this order."""
    start, *tangents = (t.double().abs().requires_grad_() for t in (x, *along))
    absolute = [_absolute(layer) for layer in layers]
    weights = [t.requires_grad_() for layer in absolute for t in layer[:4] if t is not None]
    h, e = {0: start} | {1 << t: tangent for t, tangent in enumerate(tangents)}, _nothing()
    for exact, layer, size in zip(_nodes(x, layers), layers, absolute, strict=False):
        h = _through(h, len(along), _features(exact, layer, len(along) + 2, e), size)
    y, by = h[(1 << len(along)) - 1], [start, *tangents, *weights]
    values = [y, *torch.autograd.grad(y, by, u.double().abs(), True, True, allow_unused=True, materialize_grads=True)]
    limits = torch.finfo(u.dtype)
    roundings = [4.0] * (2 + len(along)) + [4 + 2 * len(x) ** 0.5] * len(weights)
    return [
        error + n * limits.eps * value.detach() + limits.tiny
        for value, error, n in zip(values, _derivatives(values, e), roundings, strict=True)
    ]


def apart(x: Tensor, layers: Sequence[Layer]) -> Tensor:
    """[N]: whether every hidden node of a row is farther from all knots than twice its error."""
    found, h, e = torch.ones(len(x), dtype=torch.bool), {0: x.double()}, _nothing()
    nodes = list(_nodes(x, layers))
    for exact, after, layer, following in zip(nodes, nodes[1:], layers, layers[1:], strict=False):
        h = _through(h, 0, _features(exact, layer, 2, e), _absolute(layer))
        place = 4 * torch.finfo(x.dtype).eps * (following.grid.abs().amax(-1) + after.abs())
        error = _derivatives([h[0]], e)[0] + place
        found &= ((after[..., None] - following.grid).abs() > 2 * error[..., None]).all(-1).all(-1)
    return found


def _nothing() -> Tensor:
    """e."""
    return torch.zeros((), dtype=torch.float64, requires_grad=True)


def _derivatives(values: list[Tensor], e: Tensor) -> list[Tensor]:
    """Of all elements of the values by e: of <v, d values/de> by v, since autograd has the gradients of one number."""
    v = [torch.zeros_like(t).requires_grad_() for t in values]
    (along_v,) = torch.autograd.grad(total((a * b).sum() for a, b in zip(values, v, strict=True)), e, create_graph=True)
    return list(torch.autograd.grad(along_v, v, retain_graph=True, allow_unused=True, materialize_grads=True))


def _absolute(layer: Layer) -> Layer:
    return Layer._make((*(None if t is None else t.double().abs() for t in layer[:4]), layer.grid, layer.spec))


def _nodes(x: Tensor, layers: Sequence[Layer]) -> Iterator[Tensor]:
    """The exact inputs of every layer, and the output."""
    h = x.double()
    yield h
    for coef, scale, base_weight, bias, grid, spec in layers:
        coef = coef.double() if scale is None else coef.double() * scale.double()[:, None]
        base_weight, bias = (None if t is None else t.double() for t in (base_weight, bias))
        h = reference.kan_out(h, None, coef, base_weight, bias, grid, spec, 0)
        yield h


def _features(exact: Tensor, layer: Layer, most: int, e: Tensor) -> list[Tensor]:
    """|phi_d| + e E_d for d = 0 to most, [N, I, F] or [N, I, F + 1] with the base function last."""
    coef, _, base_weight, bias, grid, spec = layer
    x, terms, found = exact.to(coef.dtype), max(coef.shape[0], coef.shape[2]), []
    for d in range(most + 1):
        phi = reference.features(exact, grid, spec, d, base_weight is not None).abs()
        p = Problem(x, None, x, coef, base_weight, bias, grid, x, spec, d)
        found.append(phi + e * (perturbation(p, d, terms) + 8 * torch.finfo(coef.dtype).eps * phi))
    return found


def _through(h: dict[int, Tensor], tangents: int, features: list[Tensor], size: Layer) -> dict[int, Tensor]:
    """A layer's h'_A, of stack.py, for all sets A of tangents."""
    coef = size.coef if size.scale is None else size.coef * size.scale[:, None]
    weight = reference.weights(coef, size.base_weight, torch.float64)
    moved = (h[0] - h[0].detach())[..., None]  # 0, with the node's derivatives
    phi = [a + b * moved + c * moved**2 / 2 for a, b, c in zip(features, features[1:], features[2:], strict=False)]
    found = {}
    for subset in range(1 << tangents):
        terms = [
            torch.einsum("nif,ifo->no", phi[d] if s is None else phi[d] * s[..., None], weight)
            for d, s in products(h, subset).items()
        ]
        found[subset] = total(terms if subset or size.bias is None else [*terms, size.bias])
    return found
