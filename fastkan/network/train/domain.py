"""Symbolic edges at the boundary of their function's domain: sqrt(x + b) for data from 0 is best at b = 0.

Descent in b does not reach the boundary: the slope is infinite there, so that steps get ever shorter. Instead b is held
at the value that puts the end of the data on the boundary, as a function of a and x, while all other parameters are
fitted.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..layers.symbolic import at_edge

if TYPE_CHECKING:
    from ..model import KAN

# Share of the range of a x: data that end closer to the boundary than this are held there.
BESIDE = 1e-4


@torch.no_grad()
def hold(model: "KAN", x: Tensor, beside: float = BESIDE) -> bool:
    """Hold b of the edges whose data x end near the boundary of the function's domain, or beyond it.

    beside: how near, as a share of the range. Returns whether any edge is held.
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
def release(model: "KAN", x: Tensor) -> None:
    """Set b to the values at which it was held on x."""
    x = model.rows(x)
    for l in range(model.depth):
        layer = model.symbolic_fun[l]
        if layer.held is not None:
            for group in layer.groups:
                affine = layer.affine[group.outputs, group.inputs]
                ax = affine[:, 0] * x[:, group.inputs]
                b = at_edge(ax, affine[:, 1], layer.held[group.outputs, group.inputs], *group.function.domain)
                high = group.function.domain[1]
                above = (ax + b).amax(0) > high  # by a rounding error
                layer.affine[group.outputs, group.inputs, 1] = torch.where(above, b - torch.finfo(b.dtype).eps, b)
            layer.held = None
        x = model.nodes(l, model.sums(l, x)) if l + 1 < model.depth else x
