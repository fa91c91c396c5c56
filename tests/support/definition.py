"""Definition of a layer and a network as plain formulas of their present tensors, the truth of other tests."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastkan import KAN, KANLinear
from fastkan.basis.base import BASES, base_feature
from fastkan.basis.bspline import bspline_features
from fastkan.network.layers.library import SYMBOLIC_LIB
from fastkan.network.layers.shape import node_values

# Applied to every tensor that a formula reads: exact, a conversion to float64; or rounded.
Reader = Callable[[Tensor], Tensor]
exact: Reader = Tensor.double


def rounded(eps: float, seed: int = 0) -> Reader:
    """A reader with random relative errors up to eps: results are then off as by rounding."""
    generator = torch.Generator().manual_seed(seed)

    def read(t: Tensor) -> Tensor:
        return t.double() * (1 + eps * (2 * torch.rand(t.shape, dtype=torch.float64, generator=generator) - 1))

    return read


def value(model: nn.Module, x: Tensor, read: Reader = exact) -> Tensor:
    """model(x) for a KANLinear, a KAN or a sequence of them, x [N, I], in float64; differentiable."""
    if isinstance(model, KANLinear):
        return linear(model, x, read)
    if isinstance(model, KAN):
        return network(model, x, read)
    for layer in model:
        x = value(layer, x, read)
    return x


def edges(layer: KANLinear, x: Tensor, read: Reader = exact) -> Tensor:
    """Values of all edges [N, I, O]."""
    x, coef, grid = read(x), read(layer.coef), read(layer.grid)
    if layer.spline_scale is not None:
        coef = coef * read(layer.spline_scale)[:, None]
    degree = grid.shape[1] - coef.shape[1] - 1
    found = torch.einsum("nif,ifo->nio", splines(x, grid, degree, layer.outside), coef)
    if layer.base_weight is not None:
        activation = layer.base_activation
        kept = type(activation) in (nn.SiLU, nn.Identity)
        name = {nn.SiLU: "silu", nn.Identity: "identity"}[type(activation)] if kept else None
        base = base_feature(x, name, 0) if name in BASES else _plain(activation, x, layer.coef.dtype)
        found = found + base[..., None] * read(layer.base_weight)
    return found


def splines(x: Tensor, grid: Tensor, degree: int, outside: str) -> Tensor:
    """All basis functions [N, I, F]; at the ends of the range, autograd gives the slopes from within."""
    if outside == "zero":
        return bspline_features(x, grid, degree, outside)
    low, high = grid[:, degree], grid[:, -degree - 1]
    end = torch.where(x < low, low, torch.where(x > high, high, x))
    phi = bspline_features(end, grid, degree, "zero")
    if outside == "clamp":
        return phi
    return phi + (x - end)[..., None] * bspline_features(end, grid, degree, "zero", 1)


def _plain(activation, x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(x) if activation is None else activation(x.to(dtype)).double()


def linear(layer: KANLinear, x: Tensor, read: Reader = exact) -> Tensor:
    y = edges(layer, x, read).sum(1)
    return y if layer.bias is None else y + read(layer.bias)


def network(model: KAN, x: Tensor, read: Reader = exact) -> Tensor:
    x = x[:, model.input_id]
    for at, (numeric, symbolic) in enumerate(zip(model.act_fun, model.symbolic_fun, strict=True)):
        phi = edges(numeric.linear, x, read) * numeric.edge_mask.double()
        if model.symbolic_enabled:
            phi = phi + functions(symbolic, x, read)
        s = phi.sum(1) * read(model.subnode_scale[at]) + read(model.subnode_bias[at])
        y = node_values(s, model.width[at + 1][0], model.mult_arity[at + 1])
        x = y * read(model.node_scale[at]) + read(model.node_bias[at])
    return x


def functions(symbolic: nn.Module, x: Tensor, read: Reader = exact) -> Tensor:
    """Values of all symbolic edges [N, I, O]."""
    x, affine, mask = read(x), read(symbolic.affine), symbolic.edge_mask.double()
    found = {}
    for o, i in mask.nonzero().tolist():
        a, b, c, d = affine[o, i]
        f = SYMBOLIC_LIB[symbolic.funs_name[o][i]].torch_fn(a * x[:, i] + b)
        found[o, i] = mask[o, i] * (c * f + d)
    off = x.new_zeros(len(x))
    columns = [found.get((o, i), off) for i in range(symbolic.in_dim) for o in range(symbolic.out_dim)]
    return torch.stack(columns, 1).view(len(x), symbolic.in_dim, symbolic.out_dim)
