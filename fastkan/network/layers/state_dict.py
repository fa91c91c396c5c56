"""What load_state_dict takes beside a network's own state dict: pykan's names, the prefixes of wrappers, averages.

Each function prepares `state`, the dictionary that load_state_dict has made for itself, in place and under a prefix.
So a network loads the same wherever it stands in a larger module.
"""

import math
import warnings

import torch
from torch import Tensor

from .names import decode
from .rounding import warn_of_lost

NUMERIC = {"scale_base": "linear.base_weight", "scale_sp": "linear.spline_scale", "grid": "linear.grid"}
AFFINE = ("node_bias", "node_scale", "subnode_bias", "subnode_scale")


def prepare_model(model, state: dict[str, Tensor], prefix: str) -> None:
    """Of a KAN, before its layers load. Raises RuntimeError for a state dict of another width."""
    if not prefix:
        _unwrap(state)
    found = _sizes(state, prefix)
    expected = list(zip(model.width_in[:-1], model.width_out[1:], strict=True))
    if found and found != expected:
        raise RuntimeError(
            f"the state dict of {prefix.removesuffix('.') or 'the model'} has width {_width(found)}: "
            f"expected {_width(expected)}"
        )
    if f"{prefix}act_fun.0.coef" in state:  # pykan's
        for name in AFFINE:
            for l in range(model.depth):
                if f"{prefix}{name}_{l}" in state:
                    state[f"{prefix}{name}.{l}"] = state.pop(f"{prefix}{name}_{l}")
        state.setdefault(f"{prefix}input_id", model.input_id)
    columns = state.get(f"{prefix}input_id")
    if isinstance(columns, Tensor) and columns.is_floating_point() and not columns.is_meta:
        state[f"{prefix}input_id"] = _whole(columns, model.input_id)


def tell_of_lost(model, state: dict[str, Tensor], prefix: str) -> None:
    """Warn of functions in a prepare_model'd `state` of a wider type that the model's type can't carry."""
    parts = []
    for l, (numeric, symbolic) in enumerate(zip(model.act_fun, model.symbolic_fun, strict=True)):
        numbers, functions = (f"{prefix}{kind}.{l}." for kind in ("act_fun", "symbolic_fun"))
        affine, names = state.get(f"{functions}affine"), state.get(f"{functions}_extra_state")
        mask = state.get(f"{functions}edge_mask", state.get(f"{functions}mask"))
        grid = state.get(f"{numbers}linear.grid", state.get(f"{numbers}grid"))
        found = [affine, mask, grid]
        if any(not isinstance(t, Tensor) or t.is_meta for t in found) or affine.shape != symbolic.affine.shape:
            return
        try:
            names = symbolic.funs_name if names is None else decode(names, symbolic.out_dim, symbolic.in_dim)
        except ValueError:  # which the layer's own loading tells
            return
        parts.append((names, mask, affine, grid[:, [numeric.k, -numeric.k - 1]]))
    warn_of_lost(parts, model.symbolic_fun[0].affine.dtype)


def prepare_numeric(layer, state: dict[str, Tensor], prefix: str) -> None:
    """Of a KANLayer: pykan's coef, scale_base, scale_sp, grid and mask become the layer's own."""
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


def prepare_symbolic(layer, state: dict[str, Tensor], prefix: str) -> None:
    """Of a SymbolicLayer: pykan's mask becomes the layer's own, and names, which pykan's state dict lacks, stay."""
    if f"{prefix}mask" not in state:
        return
    mask, affine = state.pop(f"{prefix}mask"), state.get(f"{prefix}affine")
    state[f"{prefix}edge_mask"] = mask
    state.setdefault(f"{prefix}_extra_state", layer.get_extra_state())
    warn_of_nameless(layer.funs_name, mask, affine, prefix.removesuffix("."))


def warn_of_nameless(names: list[list[str]], mask: Tensor, affine: Tensor | None, where: str) -> None:
    """Tell of edges that are on in pykan's state dict, and have no name here."""
    if affine is None or mask.is_meta or list(mask.shape) != [len(names), len(names[0])]:
        return
    on = ((mask != 0) & (affine[..., 2] != 0)).nonzero().tolist()
    if lost := [(i, j) for j, i in on if names[j][i] == "0"]:
        warnings.warn(
            f"{where or 'the layer'}: the edges (i, j) = {lost} are symbolic, and pykan's state dict does not hold "
            "their functions: they are 0 here. Set funs_name before loading.",
            stacklevel=2,
        )


def _unwrap(state: dict[str, Tensor]) -> None:
    """Take away the one prefix that all of a network has in `state`, as wrappers (DataParallel) put it there."""
    start = "act_fun.0."
    before = {name[: name.index(start)] for name in state if start in name}
    if len(before) == 1 and (prefix := before.pop()):
        for name in [name for name in state if name.startswith(prefix)]:
            state[name.removeprefix(prefix)] = state.pop(name)


def _sizes(state: dict[str, Tensor], prefix: str) -> list[tuple[int, int]]:
    """(inputs, outputs) of the layers of edges that are in `state`; none where they are not those of a network."""
    found: list[tuple[int, int]] = []
    while True:
        start = f"{prefix}act_fun.{len(found)}."
        theirs, own = state.get(f"{start}coef"), state.get(f"{start}linear.coef")
        coef = theirs if own is None else own
        if not isinstance(coef, Tensor) or coef.dim() != 3:
            return found
        found.append((coef.shape[0], coef.shape[1 if own is None else 2]))


def _width(sizes: list[tuple[int, int]]) -> str:
    """As the constructor takes it, or layer by layer where nodes multiply."""
    inputs, outputs = zip(*sizes, strict=True)
    if inputs[1:] == outputs[:-1]:
        return str([*inputs, outputs[-1]])
    return ", ".join(f"{i} -> {o}" for i, o in sizes)


def _whole(columns: Tensor, own: Tensor) -> Tensor:
    """input_id of an average, as integers."""
    whole = columns.double().round()
    allowed = math.sqrt(torch.finfo(columns.dtype).eps) * whole.abs().clamp_min(1.0)
    near = bool(((columns.double() - whole).abs() <= allowed).all())
    if not (near and (own.is_meta or torch.equal(whole.to(own), own))):
        raise RuntimeError(
            f"input_id={columns.tolist()} in {columns.dtype}: expected integers, or an average that gives the model's "
            f"own {own.tolist()}, since models that read different columns have none"
        )
    return whole.long()
