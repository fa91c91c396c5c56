"""as_tables: a network as tables of 8-bit numbers, for fastkan.nn.quantize."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ... import functional
from ...devices import HOST
from ...nn.quantize import grid_range
from ...nn.quantized import QuantizedKANLinear, checked, points, ranges
from ..activations import Activations, postacts
from ..layers.between import refuse_layer_norm
from ..layers.shape import node_values
from ..stacked import has_own_steps

if TYPE_CHECKING:
    from ..model import KAN


class Columns(nn.Module):
    """The columns of x [..., in_features] that a network reads, in the order of its inputs: [..., I]."""

    def __init__(self, in_features: int, columns: Tensor):
        super().__init__()
        self.in_features = in_features
        self.register_buffer("columns", columns)

    def forward(self, x: Tensor) -> Tensor:
        functional.check_input(x, self.in_features)
        return x.index_select(-1, self.get_buffer("columns"))


class Products(nn.Module):
    """The nodes [..., n_sum + len(arities)] of subnodes [..., n_sum + sum(arities)], with their scale and bias."""

    def __init__(self, n_sum: int, arities: list[int], scale: Tensor, bias: Tensor):
        super().__init__()
        self.n_sum, self.arities = n_sum, arities
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        nodes = node_values(x.reshape(-1, x.shape[-1]), self.n_sum, self.arities)
        y = torch.addcmul(self.get_buffer("bias"), nodes, self.get_buffer("scale"))
        return y.view(*x.shape[:-1], y.shape[-1])


@torch.no_grad()
def as_tables(model: "KAN", x: Tensor | None = None, bits: int = 8) -> nn.Sequential:
    """The network as tables, for inference: x [..., in_features] -> [..., outputs]; see fastkan.nn.quantize.

    Symbolic edges and the maps of summing nodes are in the tables; multiplication nodes are products of their results.

    Raises ValueError with layer_norm, in a class that overrides a step of forward, without x for symbolic edges.
    """
    refuse_layer_norm(model, "tables")
    if not has_own_steps(model):
        raise ValueError(f"model is a {type(model).__name__} with a forward of its own: expected that of KAN")
    if x is None and model.symbolic_enabled and any(layer.active for layer in model.symbolic_fun):
        raise ValueError("x=None: expected rows, since the grid ranges say nothing about symbolic edges")
    training = model.training
    acts = [] if x is None else Activations(model.eval(), x).acts
    model.train(training)
    layers: list[nn.Module] = [Columns(model.in_features, model.input_id)]
    for l in range(model.depth):
        low, high = ranges(acts[l]) if acts else grid_range(model.act_fun[l].linear)
        layers += _layer(model, l, low, high, bits)
    return nn.Sequential(*layers)


def _layer(model: "KAN", l: int, low: Tensor, high: Tensor, bits: int) -> list[nn.Module]:
    """The table of layer l for the ranges low, high of its inputs, and the products of multiplication nodes."""
    coef, maps = model.act_fun[l].linear.coef, model._modules
    at = points(low, high, bits).to(coef.dtype).to(coef.device)
    values = checked(postacts(model, l, at, {}).permute(2, 0, 1), f"model: layer {l}")  # I L O
    scale, bias = maps["subnode_scale"][l], maps["subnode_bias"][l]
    to, offset = maps["node_scale"][l], maps["node_bias"][l]
    n_sum, arities = model.width[l + 1][0], model.mult_arity[l + 1]
    products = [Products(n_sum, arities, to.detach().clone(), offset.detach().clone())] if arities else []
    if not arities:
        scale, bias = scale * to, bias * to + offset
    return [QuantizedKANLinear(values * scale, low, high, bias.to(HOST), coef.dtype), *products]
