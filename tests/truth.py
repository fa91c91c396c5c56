"""What a layer or a network computes, written down: of the tensors that it holds now, and of nothing else it knows."""

import torch
from torch import Tensor, nn

from fastkan import KAN, KANLinear
from fastkan.basis.base import BASES, base_feature
from fastkan.basis.bspline import bspline_features
from fastkan.network.library import SYMBOLIC_LIB
from fastkan.network.structure import node_values


def value(model: nn.Module, x: Tensor) -> Tensor:
    """model(x) for a KANLinear, a KAN or a sequence of them, x [N, I], in float64."""
    x = x.detach().double()
    if isinstance(model, KANLinear):
        return linear(model, x)
    if isinstance(model, KAN):
        return network(model, x)
    for layer in model:
        x = value(layer, x)
    return x


def edges(layer: KANLinear, x: Tensor) -> Tensor:
    """The functions of all edges, [N, I, O]."""
    coef, grid = layer.coef.detach().double(), layer.grid.detach().double()
    if layer.spline_scale is not None:
        coef = coef * layer.spline_scale.detach().double()[:, None]
    degree = grid.shape[1] - coef.shape[1] - 1
    found = torch.einsum("nif,ifo->nio", bspline_features(x, grid, degree, layer.outside), coef)
    if layer.base_weight is not None:
        activation = layer.base_activation
        kept = type(activation) in (nn.SiLU, nn.Identity)
        name = {nn.SiLU: "silu", nn.Identity: "identity"}[type(activation)] if kept else None
        base = base_feature(x, name, 0) if name in BASES else _plain(activation, x, layer.coef.dtype)
        found = found + base[..., None] * layer.base_weight.detach().double()
    return found


def _plain(activation, x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(x) if activation is None else activation(x.to(dtype)).detach().double()


def linear(layer: KANLinear, x: Tensor) -> Tensor:
    y = edges(layer, x).sum(1)
    return y if layer.bias is None else y + layer.bias.detach().double()


def network(model: KAN, x: Tensor) -> Tensor:
    x = x[:, model.input_id]
    for at, (numeric, symbolic) in enumerate(zip(model.act_fun, model.symbolic_fun, strict=True)):
        phi = edges(numeric.linear, x) * numeric.edge_mask.double()
        if model.symbolic_enabled:
            phi = phi + functions(symbolic, x)
        s = phi.sum(1) * model.subnode_scale[at].detach().double() + model.subnode_bias[at].detach().double()
        y = node_values(s, model.width[at + 1][0], model.mult_arity[at + 1])
        x = y * model.node_scale[at].detach().double() + model.node_bias[at].detach().double()
    return x


def functions(symbolic: nn.Module, x: Tensor) -> Tensor:
    """The symbolic functions of all edges, [N, I, O]."""
    affine, mask = symbolic.affine.detach().double(), symbolic.edge_mask.double()
    found = x.new_zeros(*x.shape, symbolic.out_dim)
    for o, i in mask.nonzero().tolist():
        a, b, c, d = affine[o, i]
        if (name := symbolic.funs_name[o][i]) != "0":
            found[:, i, o] = c * SYMBOLIC_LIB[name].torch_fn(a * x[:, i] + b)
        found[:, i, o] = mask[o, i] * (found[:, i, o] + d)
    return found
