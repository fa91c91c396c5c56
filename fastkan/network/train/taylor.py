"""Derivatives of a network along directions, propagated through its layers beside the values (Taylor mode).

By the chain rule of order j, Faa di Bruno's, sums s = sum_i phi_i(x_i) have s^(j) = sum_i sum_d phi_i^(d)(x_i) B_jd,
with B_jd the partial Bell polynomials of x_i', x_i'', ...: the factors of one fused contraction of order d. So an order
costs as many calls as its number, and no autograd graph of graphs.

Source: Griewank and Walther, Evaluating Derivatives, chapter 13.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ... import functional
from ...arguments import integer
from ...nn.hooks import altered
from ..layers.between import refuse_layer_norm
from ..layers.numeric import KANLayer
from ..layers.shape import subnodes

if TYPE_CHECKING:
    from ..model import KAN

MAX_ORDER = 4


class Series(NamedTuple):
    """Values [N, W] and their derivatives of orders 1, 2, ... along D directions, [D, N, W] each."""

    value: Tensor
    derivatives: list[Tensor]

    def map(self, linear: Callable[[Tensor], Tensor], constant: Tensor) -> "Series":
        """linear(values) + constant, and its derivatives."""
        return Series(linear(self.value) + constant, [linear(c) for c in self.derivatives])


class Propagation:
    """A forward pass with derivatives: acts[l], inputs of layer l, with the outputs at the end; sums[l] of its edges.

    x [N, in_features]; directions [D, in_features].
    """

    def __init__(self, model: "KAN", x: Tensor, order: int, directions: Tensor):
        self.points = x
        refuse_layer_norm(model, "derivatives")
        if getattr(model, "dropout", 0.0) and model.training:
            raise RuntimeError(f"dropout={model.dropout!r}: expected eval() before derivatives")
        rows, along = model.rows(x), model.rows(directions.to(x))
        first = along[:, None].expand(-1, *rows.shape)
        higher = [torch.zeros_like(first)] * (order - 1)
        self.acts, self.sums = [Series(rows, [first, *higher][:order])], []
        for l, layer in enumerate(model.act_fun):
            self.sums.append(_through_edges(layer, self.acts[-1]))
            self.acts.append(_through_nodes(model, l, self.sums[-1]))

    def results(self) -> list[Tensor]:
        """The outputs [N, O] and their derivatives, [N, O, D] each."""
        return [self.acts[-1].value, *(c.permute(1, 2, 0) for c in self.acts[-1].derivatives)]


def derivatives(model: "KAN", x: Tensor, order: int = 2, directions: Tensor | None = None) -> list[Tensor]:
    """The network's outputs and their derivatives by its inputs: [u, u_1, ..., u_order], differentiable.

    Args:
        x: points [N, in_features].
        order: highest order, 0 to 4.
        directions: [D, in_features]; None for the inputs' axes: then u_2[n, o, i] is the second derivative of output o
            by input i, and a Laplacian u_2.sum(-1). The mixed derivative by two inputs is half of what the second
            derivative along their sum exceeds those along each by.

    Returns u [N, O], and u_j [N, O, D], the j-th derivative of t -> model(x + t direction) at 0, in the network's type.

    Raises TypeError or ValueError that name the argument, its value and what was expected.
    """
    order, directions = check(model, x, order, directions)
    if is_layered(model):
        return Propagation(model, x, order, directions).results()
    return _by_autograd(model, x, order, directions)


def check(model: "KAN", x: Tensor, order: int, directions: Tensor | None) -> tuple[int, Tensor]:
    """The order and the directions, after validation."""
    functional.check_input(x, model.in_features)
    if x.dim() != 2:
        raise ValueError(f"x has shape {list(x.shape)}: expected points [N, {model.in_features}]")
    if directions is None:
        directions = torch.eye(model.in_features, dtype=x.dtype, device=x.device)
    elif not isinstance(directions, Tensor) or directions.dim() != 2 or directions.shape[1] != model.in_features:
        got = f"a tensor of shape {list(directions.shape)}" if isinstance(directions, Tensor) else repr(directions)
        raise ValueError(f"directions is {got}: expected a tensor [D, {model.in_features}]")
    return integer("order", order, 0, MAX_ORDER), directions.to(x)


def is_layered(model: "KAN") -> bool:
    """Whether every layer is one that a Propagation knows: splines with a fused base function, without hooks."""
    symbolic = model.symbolic_enabled and any(layer.active for layer in model.symbolic_fun)
    known = all(layer.linear.fused for layer in model.act_fun)
    return known and not symbolic and not any(altered(m) for layer in model.act_fun for m in layer.modules())


def factors(x: Series, order: int) -> list[Tensor]:
    """Partial Bell polynomials B_jd of x's derivatives, for j = order and d = 1, ..., j: [D, N, I] each."""
    table: dict[tuple[int, int], Tensor] = {}
    for j in range(1, order + 1):
        table[j, 1] = x.derivatives[j - 1]
        for d in range(2, j + 1):
            terms = [math.comb(j - 1, i - 1) * x.derivatives[i - 1] * table[j - i, d - 1] for i in range(1, j - d + 2)]
            table[j, d] = sum(terms[1:], terms[0])
    return [table[order, d] for d in range(1, order + 1)]


def _through_edges(layer: KANLayer, x: Series) -> Series:
    """The sums over a layer's edges."""
    linear, (base, scale) = layer.linear, layer.masked()
    outputs = linear.out_features

    def contracted(order: int, s: Tensor) -> Tensor:
        rows = x.value.expand(s.shape).reshape(-1, s.shape[-1])
        y = functional.apply_derivative(
            rows, s.reshape(rows.shape), linear.coef, linear.knots, base, scale, linear.spec, order, linear.backend
        )
        return y.view(*s.shape[:-1], outputs)

    higher = [
        sum(contracted(d, s) for d, s in enumerate(factors(x, j), start=1)) for j in range(1, len(x.derivatives) + 1)
    ]
    return Series(layer.sums(x.value), higher)  # type: ignore[arg-type]


def _through_nodes(model: "KAN", l: int, sums: Series) -> Series:
    """The nodes of layer l + 1 from the sums of layer l, as KAN.nodes."""
    scale, bias = model._modules["subnode_scale"][l], model._modules["subnode_bias"][l]
    node_scale, node_bias = model._modules["node_scale"][l], model._modules["node_bias"][l]
    s = sums.map(lambda t: t * scale, bias)
    n_sum, arities = model.width[l + 1][0], model.mult_arity[l + 1]
    products = [_product([_column(s, i) for i in group]) for group in subnodes(n_sum, arities)[n_sum:]]
    if products:
        value = torch.cat([s.value[:, :n_sum], *(p.value for p in products)], 1)
        of = [[p.derivatives[j] for p in products] for j in range(len(s.derivatives))]
        s = Series(value, [torch.cat([c[..., :n_sum], *parts], -1) for c, parts in zip(s.derivatives, of, strict=True)])
    return s.map(lambda t: t * node_scale, node_bias)


def _column(s: Series, i: int) -> Series:
    return Series(s.value[:, i : i + 1], [c[..., i : i + 1] for c in s.derivatives])


def _product(parts: list[Series]) -> Series:
    """The product of a few series, by Leibniz' rule."""
    a = parts[0]
    for b in parts[1:]:
        f, g = [a.value, *a.derivatives], [b.value, *b.derivatives]
        terms = [[math.comb(j, i) * f[i] * g[j - i] for i in range(j + 1)] for j in range(len(f))]
        value, *higher = [sum(t[1:], t[0]) for t in terms]
        a = Series(value, higher)
    return a


def _by_autograd(model: "KAN", x: Tensor, order: int, directions: Tensor) -> list[Tensor]:
    """derivatives of any network, by backward passes through backward passes."""
    with torch.enable_grad():
        at = x if x.requires_grad else x.detach().requires_grad_()
        u = model(at)
        found = [u]
        below = u[:, :, None].expand(-1, -1, len(directions))
        for _ in range(order):
            columns = [
                [_slope(below[:, o, d], at) @ directions[d] for d in range(len(directions))] for o in range(u.shape[1])
            ]
            below = torch.stack([torch.stack(row, 1) for row in columns], 1)
            found.append(below)
    return found


def _slope(y: Tensor, x: Tensor) -> Tensor:
    """The gradient [N, I] of every y [N] by its row of x, with a graph."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if g is None else g
