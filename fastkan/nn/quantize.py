"""quantize: a model for inference, with tables of 8-bit numbers in place of its KAN layers."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..arguments import integer
from ..devices import HOST, exact
from ..reference import basis_features
from .edges import OnEdges
from .hooks import hooked
from .linear import KANLinear
from .quantized import QuantizedKANLinear, checked, points, ranges

BLOCK = 1 << 22  # basis functions at the points of some inputs, in memory at a time


def quantize(model: nn.Module, x: Tensor | None = None, bits: int = 8) -> nn.Module:
    """A copy of a model for inference, with a table of 8-bit numbers in place of every KANLinear and KAN.

    An edge is a function of one number, so a table of its values at 2^bits points of the input's range replaces spline
    and base function: a layer is a sum of I rows of its table, whatever its grid, degree, family and base function. An
    x between the points has the value of the nearest; beyond the range, that of the end.

    Replaced are modules whose forward is KANLinear's, wherever they are in the model (in nn.Sequential, KANSequential,
    KANAttention, ...), and KAN, by an nn.Sequential of tables, with symbolic edges and multiplication nodes.
    Convolutions, KANEmbedding and layers with parameters of their own stay as they are.

    Args:
        model: any module; it stays unchanged.
        x: rows for one call model(x), in evaluation mode: the range of every layer's input is that of what it gets
            there. None for the grid ranges, outside which the layers' functions are then cut off: for layers whose
            inputs are known to lie inside. A KAN with symbolic edges needs x.
        bits: 2 to 8, for 2^bits points. The values themselves always have 8 bits: every row of a table, the values of
            one input's edges at one point, has a scale and an offset of its own.

    Returns:
        The copy, in evaluation mode, whose parameters do not require gradients.

    Raises:
        ValueError: nothing can be replaced; a layer has hooks, or is a KAN with layer_norm; x is empty or makes an
            input infinite or NaN; an edge is not finite in the range.
    """
    bits = integer("bits", bits, 2, 8)
    found = {m: name for name, m in _outermost(model, "") if _is_replaced(m)}
    if not found:
        raise ValueError(f"model={type(model).__name__}: expected a module with a KANLinear or a KAN in it")
    for module, name in found.items():
        if hooked(module):
            raise ValueError(f"model has hooks at {name!r}, a {type(module).__name__}: expected none, tables have none")
    rows = dict.fromkeys(found.values()) if x is None else _inputs(model, x, list(found.values()))
    memo: dict[int, Any] = {}  # what copy.deepcopy takes for copies of the layers
    for module, name in found.items():
        part = rows[name], bits
        memo[id(module)] = (
            _table(module, *part) if isinstance(module, KANLinear) else cast(Any, module).as_tables(*part)
        )
    return copy.deepcopy(model, memo).eval().requires_grad_(False)


def _is_replaced(module: nn.Module) -> bool:
    return type(module).forward is KANLinear.forward or hasattr(type(module), "as_tables")


def _outermost(module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """Names and modules, without those inside of a KAN, and of modules that use a KANLinear in their own way."""
    found = [(name, module)]
    if not _is_replaced(module) and not isinstance(module, OnEdges):
        for n, m in module.named_children():
            found += _outermost(m, f"{name}.{n}" if name else n)
    return found


@torch.no_grad()
def _inputs(model: nn.Module, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    """The rows [N, I] that each of these modules gets in model(x)."""
    model = copy.deepcopy(model).eval()
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    for name in names:

        def keep(module: Any, args: Any, named: dict[str, Any], to: list[Tensor] = kept[name]) -> None:
            given: Tensor = args[0] if args else named["x"]
            to.append(given.detach().reshape(-1, given.shape[-1]))

        model.get_submodule(name).register_forward_pre_hook(keep, with_kwargs=True)
    model(x)
    if idle := [name for name in names if not kept[name]]:
        raise ValueError(f"x: model(x) does not call {idle[0]!r}: expected rows that every layer sees")
    return {name: torch.cat(parts) for name, parts in kept.items()}


@torch.no_grad()
def _table(layer: KANLinear, x: Tensor | None, bits: int) -> QuantizedKANLinear:
    """The table of a layer, for the range of the rows x [N, I] or the grid's."""
    low, high = grid_range(layer) if x is None else ranges(x)
    at = points(low, high, bits)
    values = checked(_edge_values(layer, at), "model")
    return QuantizedKANLinear(values.to(layer.coef.device), low, high, layer.bias, layer.coef.dtype)


def grid_range(layer: KANLinear) -> tuple[Tensor, Tensor]:
    """Ends of the grid range of every input, in float64 on the host."""
    knots = layer.exact_knots.detach().to(HOST)
    return knots[:, layer.spline_order], knots[:, -1 - layer.spline_order]


def _edge_values(layer: KANLinear, x: Tensor) -> Tensor:
    """phi[i,o](x[l,i]) of every edge: x [L, I] in float64 on the host -> [I, L, O], likewise."""
    coef, scale, weight, _ = (None if t is None else exact(t.detach()).to(HOST) for t in layer.weights())
    knots, base = layer.exact_knots.to(HOST), layer.base_activation
    assert coef is not None
    step, blocks = max(1, BLOCK // (len(x) * coef.shape[1])), list[Tensor]()
    for i in range(0, layer.in_features, step):
        part = slice(i, i + step)
        phi = basis_features(x[:, part], knots[part], layer.spec, 0)
        values = torch.einsum("lif,ifo->ilo", phi, coef[part])
        blocks.append(values if scale is None else values * scale[part, None])
    values = torch.cat(blocks)
    if weight is None or base is None:
        return values
    like = layer.coef  # a base function may be a module with parameters of this type
    return values + exact(base(x.to(like.dtype).to(like.device))).to(HOST).T[..., None] * weight[:, None]
