"""State dicts of other forms that a network loads: with pykan's names, prefixes of wrappers, averages.

Each function converts `state`, load_state_dict's own copy, in place and under a prefix, so that a network also loads as
part of a larger module.
"""

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...devices import exact, host
from .names import decode
from .rounding import warn_of_rounding

if TYPE_CHECKING:
    from ..model import KAN
    from .numeric import KANLayer
    from .symbolic import SymbolicLayer

NUMERIC = {"scale_base": "linear.base_weight", "scale_sp": "linear.spline_scale", "grid": "linear.grid"}
AFFINE = ("node_bias", "node_scale", "subnode_bias", "subnode_scale")


def prepare_model(model: "KAN", state: dict[str, Any], prefix: str, assign: bool) -> None:
    """Convert the state of a KAN, before its layers load. Raises RuntimeError for a state dict of another width.

    assign: the model will have the tensors of the state dict.
    """
    if not prefix:
        _unwrap(state)
    sizes = _sizes(state, prefix)
    expected = list(zip(model.width_in[:-1], model.width_out[1:], strict=True))
    if sizes and sizes != expected:
        raise RuntimeError(
            f"the state dict of {prefix.removesuffix('.') or 'the model'} has width {_width(sizes)}: "
            f"expected {_width(expected)}"
        )
    if f"{prefix}act_fun.0.coef" in state:  # pykan's
        for name in AFFINE:
            for l in range(model.depth):
                if f"{prefix}{name}_{l}" in state:
                    state[f"{prefix}{name}.{l}"] = state.pop(f"{prefix}{name}_{l}")
        state.setdefault(f"{prefix}input_id", model.input_id)
    columns = state.get(f"{prefix}input_id")
    if isinstance(columns, Tensor) and not columns.is_meta:
        whole = _whole(columns, model.input_id) if columns.is_floating_point() else columns
        state[f"{prefix}input_id"] = whole if assign else host(whole)


def warn_of_lost_precision(model: "KAN", state: dict[str, Any], prefix: str) -> None:
    """Warn of symbolic functions in `state`, after prepare_model, that the model's narrower dtype can't represent."""
    parts = []
    for l, (numeric, symbolic) in enumerate(zip(model.act_fun, model.symbolic_fun, strict=True)):
        numbers, functions = (f"{prefix}{kind}.{l}." for kind in ("act_fun", "symbolic_fun"))
        affine, names = state.get(f"{functions}affine"), state.get(f"{functions}_extra_state")
        mask = state.get(f"{functions}edge_mask", state.get(f"{functions}mask"))
        grid = state.get(f"{numbers}linear.grid", state.get(f"{numbers}grid"))
        if not (isinstance(affine, Tensor) and isinstance(mask, Tensor) and isinstance(grid, Tensor)):
            return
        if affine.is_meta or mask.is_meta or grid.is_meta or affine.shape != symbolic.affine.shape:
            return
        try:
            names = symbolic.funs_name if names is None else decode(names, symbolic.out_dim, symbolic.in_dim)
        except ValueError:  # reported when the layer loads
            return
        parts.append((names, mask, affine, grid[:, [numeric.k, -numeric.k - 1]]))
    warn_of_rounding(parts, model.symbolic_fun[0].affine.dtype)


def prepare_numeric(layer: "KANLayer", state: dict[str, Any], prefix: str) -> None:
    """Convert the state of a KANLayer with pykan's names coef, scale_base, scale_sp, grid and mask."""
    if f"{prefix}coef" not in state:
        return
    coef = state.pop(f"{prefix}coef")
    state[f"{prefix}linear.coef"] = coef.transpose(1, 2).contiguous() if coef.dim() == 3 else coef
    for theirs, own in NUMERIC.items():
        if f"{prefix}{theirs}" in state:
            state[f"{prefix}{own}"] = state.pop(f"{prefix}{theirs}")
    if layer.linear.base_weight is None:
        state.pop(f"{prefix}linear.base_weight", None)
    if f"{prefix}mask" in state:
        state[f"{prefix}edge_mask"] = state.pop(f"{prefix}mask")


def prepare_symbolic(layer: "SymbolicLayer", state: dict[str, Any], prefix: str) -> None:
    """Convert the state of a SymbolicLayer with pykan's name mask; the names of functions, which it lacks, stay."""
    if f"{prefix}mask" not in state:
        return
    mask, affine = state.pop(f"{prefix}mask"), state.get(f"{prefix}affine")
    state[f"{prefix}edge_mask"] = mask
    state.setdefault(f"{prefix}_extra_state", layer.get_extra_state())
    warn_of_nameless(layer.funs_name, mask, affine, prefix.removesuffix("."))


def warn_of_nameless(names: list[list[str]], mask: Tensor, affine: Tensor | None, where: str) -> None:
    """Warn of edges that are on in pykan's state dict and have no function here."""
    if affine is None or mask.is_meta or list(mask.shape) != [len(names), len(names[0])]:
        return
    on = ((mask != 0) & (affine[..., 2] != 0)).nonzero().tolist()
    if lost := [(i, j) for j, i in on if names[j][i] == "0"]:
        warnings.warn(
            f"{where or 'the layer'}: the edges (i, j) = {lost} are symbolic, and pykan's state dict does not contain "
            "their functions: they are 0 here. Set funs_name before loading.",
            stacklevel=2,
        )


def _unwrap(state: dict[str, Any]) -> None:
    """Remove a prefix that a wrapper (DataParallel) has added to all names of a network in `state`."""
    start = "act_fun.0."
    before = {name[: name.index(start)] for name in state if start in name}
    if len(before) == 1 and (prefix := before.pop()):
        for name in [name for name in state if name.startswith(prefix)]:
            state[name.removeprefix(prefix)] = state.pop(name)


def _sizes(state: dict[str, Any], prefix: str) -> list[tuple[int, int]]:
    """(inputs, outputs) of the layers of edges in `state`, up to the first that is missing."""
    sizes: list[tuple[int, int]] = []
    while True:
        start = f"{prefix}act_fun.{len(sizes)}."
        theirs, own = state.get(f"{start}coef"), state.get(f"{start}linear.coef")
        coef = theirs if own is None else own
        if not isinstance(coef, Tensor) or coef.dim() != 3:
            return sizes
        sizes.append((coef.shape[0], coef.shape[1 if own is None else 2]))


def _width(sizes: list[tuple[int, int]]) -> str:
    """The width in the constructor's form, or layer by layer where there are multiplication nodes."""
    inputs, outputs = zip(*sizes, strict=True)
    if inputs[1:] == outputs[:-1]:
        return str([*inputs, outputs[-1]])
    return ", ".join(f"{i} -> {o}" for i, o in sizes)


def _whole(columns: Tensor, own: Tensor) -> Tensor:
    """The averaged input_id `columns`, rounded to integers; RuntimeError where it is not the model's own."""
    dtype, eps, columns = columns.dtype, torch.finfo(columns.dtype).eps, exact(columns)
    whole = columns.round()
    allowed = math.sqrt(eps) * whole.abs().clamp_min(1.0)
    near = bool(((columns - whole).abs() <= allowed).all())
    if not (near and (own.is_meta or torch.equal(whole.to(own), own))):
        raise RuntimeError(
            f"input_id={columns.tolist()} in {dtype}: expected integers, or an average of models that all read "
            f"this model's columns {own.tolist()}"
        )
    return whole.long()
