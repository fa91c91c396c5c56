"""Loading state dicts into a KANLinear: its own, of any grid size, and efficient-kan's."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..devices import exact, place
from .grid import snapped

if TYPE_CHECKING:
    from .linear import KANLinear


def read_state(layer: "KANLinear", state_dict: dict[str, Any], prefix: str, assign: bool) -> str:
    """Prepare state_dict, in place, and the layer for an ordinary load; returns a hint for when that fails.

    Keys of efficient-kan (recognised by spline_weight) are renamed and transposed; a scaler without a parameter in the
    layer is multiplied into coef. Knots become float64, where there is any, without float32 rounding (grid.snapped). A
    layer that differs only in its number of grid intervals is resized. assign: the layer will have the tensors of the
    state dict.
    """
    if prefix + "spline_weight" in state_dict:
        _rename(layer, state_dict, prefix)
    inputs, functions, outputs = layer.coef.shape
    coef, grid = state_dict.get(prefix + "coef"), state_dict.get(prefix + "grid")
    content = "no coef and grid"
    if isinstance(coef, Tensor) and isinstance(grid, Tensor) and coef.dim() == 3 and grid.dim() == 2:
        degree = grid.shape[1] - coef.shape[1] - 1
        content = f"in_features={coef.shape[0]}, out_features={coef.shape[2]}, spline_order={degree}"
        same = (coef.shape[0], coef.shape[2], degree) == (inputs, outputs, layer.spline_order)
        grid_size = coef.shape[1] - degree
        if same and grid_size >= 1 and len(grid) == inputs:
            if coef.shape[1] != functions:
                _resize(layer, grid_size)
            knots = grid.double() if grid.is_meta else snapped(exact(grid), *layer.grid_range, degree)
            state_dict[prefix + "grid"] = place(knots, grid.device) if assign else knots
    return (
        f"{prefix or 'KANLinear'}: the state dict has {content}; the layer has in_features={inputs}, "
        f"out_features={outputs}, spline_order={layer.spline_order}. Only grid_size may differ."
    )


def _resize(layer: "KANLinear", grid_size: int) -> None:
    functions, knots = grid_size + layer.spline_order, grid_size + 2 * layer.spline_order + 1
    coef = layer.coef.new_empty(layer.in_features, functions, layer.out_features)
    layer.coef = nn.Parameter(coef, requires_grad=layer.coef.requires_grad)
    layer.grid = layer.grid.new_empty(layer.in_features, knots)


def _rename(layer: "KANLinear", state_dict: dict[str, Any], prefix: str) -> None:
    weight: Tensor = state_dict.pop(prefix + "spline_weight")  # O I F
    scale: Tensor | None = state_dict.pop(prefix + "spline_scaler", None)  # O I
    if layer.spline_scale is not None:
        scale = torch.ones_like(weight[..., 0]) if scale is None else scale
        state_dict[prefix + "spline_scale"] = scale.T.contiguous()
    elif scale is not None:
        weight = weight * scale[..., None]
    state_dict[prefix + "coef"] = weight.permute(1, 2, 0).contiguous()
    if prefix + "base_weight" in state_dict:
        state_dict[prefix + "base_weight"] = state_dict[prefix + "base_weight"].T.contiguous()
