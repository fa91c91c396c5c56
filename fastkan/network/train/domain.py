"""Formulas at the edge of a domain: sqrt(x + b) of data from 0 is best at b = 0, beyond which it is not defined.

No descent in b gets there: the slope is infinite at the edge, so that steps get ever shorter before it. So b is held
where the data's end is at the edge, as a function of a and of what enters, while all other parameters are fitted.
"""

import math

import torch
from torch import Tensor

from ..layers.symbolic import at_edge

# Of the range of a x: what ends closer to an edge than this may be meant to end there.
BESIDE = 1e-4


@torch.no_grad()
def hold(model, x: Tensor, beside: float = BESIDE) -> bool:
    """Hold b of the edges that end beside the edge of their functions' domains on x, or beyond it; whether there are.

    beside: how close, as a share of the range.
    """
    found, x = False, model.rows(x)
    for l in range(model.depth):
        layer = model.symbolic_fun[l]
        held = torch.zeros_like(layer.edge_mask, dtype=torch.int8)
        for group in layer.groups if model.symbolic_enabled and layer.active else ():
            low, high = group.function.domain
            if math.isfinite(low) or math.isfinite(high):
                a, b, *_ = layer.affine[group.outputs, group.inputs].unbind(1)
                ax = a * x[:, group.inputs]
                least, most = ax.amin(0), ax.amax(0)
                near = beside * (most - least)
                side = (most + b > high - near).to(held.dtype) - 2 * (least + b < low + near).to(held.dtype)
                held[group.outputs, group.inputs] = side.clamp_min(-1)
        if bool(held.any()):
            layer.held, found = held, True
        x = model.nodes(l, model.sums(l, x)) if l + 1 < model.depth else x
    return found


@torch.no_grad()
def release(model, x: Tensor) -> None:
    """Give b the values at which it was held on x."""
    x = model.rows(x)
    for l in range(model.depth):
        layer = model.symbolic_fun[l]
        if layer.held is not None:
            for group in layer.groups:
                affine = layer.affine[group.outputs, group.inputs]
                ax = affine[:, 0] * x[:, group.inputs]
                b = at_edge(ax, affine[:, 1], layer.held[group.outputs, group.inputs], *group.function.domain)
                high = group.function.domain[1]
                above = (ax + b).amax(0) > high  # by rounding
                layer.affine[group.outputs, group.inputs, 1] = torch.where(above, b - torch.finfo(b.dtype).eps, b)
            layer.held = None
        x = model.nodes(l, model.sums(l, x)) if l + 1 < model.depth else x
