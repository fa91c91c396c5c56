"""Conversion between fastkan and pykan (0.2.8): models and state dicts, in both directions."""

import contextlib
import importlib
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ... import devices
from ...network import KAN
from ...network.checkpoint import same_base
from ...network.layers.library import get_symbolic
from ...network.layers.state_dict import AFFINE, warn_of_nameless
from ...nn.grid import snapped
from .install import installed
from .library import bounded

EDGE_PARAMETERS = ("coef", "mask", "scale_base", "scale_sp")


def from_pykan(model: Any, exact: bool = False, **options) -> KAN:
    """A KAN that computes the same function as pykan's model, with masks, symbolic edges, multiplication nodes, affine.

    model: a kan.KAN; only its attributes are read, pykan itself is not imported. exact: keep its float32 knots as they
    are, instead of removing the rounding of equidistant knots, which makes them faster. options: of KAN, such as
    backend or outside; the dtype and the device are the model's.

    Raises ValueError if the knots of a layer do not ascend, which grid updates in pykan can cause, KeyError for a
    symbolic function that is not in the library (add_symbolic adds it).
    """
    arguments = {
        "base_fun": model.base_fun_name if isinstance(model.base_fun_name, str) else model.base_fun,
        "symbolic_enabled": model.symbolic_enabled, "affine_trainable": model.affine_trainable,
        "grid_eps": model.grid_eps, "grid_range": tuple(model.grid_range), "sp_trainable": model.sp_trainable,
        "sb_trainable": model.sb_trainable,
    }  # fmt: skip
    return from_pykan_state(
        _state_of(model), model.width, model.mult_arity, [layer.funs_name for layer in model.symbolic_fun],
        model.input_id, exact=exact, **arguments | options,
    )  # fmt: skip


def to_pykan(model: KAN) -> Any:
    """A kan.KAN of pykan, which must be installed, that computes the same function; with auto_save=False.

    Global random generators, which pykan's constructor seeds, are restored. With outside other than "zero", the only
    one of pykan, the functions are equal only within the grid ranges, and a warning says so.

    Raises ImportError without pykan, RuntimeError while install() is active.
    """
    if installed():
        raise RuntimeError("install() has replaced kan by fastkan: expected uninstall() before to_pykan")
    if other := {layer.linear.outside for layer in model.act_fun} - {"zero"}:
        warnings.warn(
            f"model has outside={other.pop()!r}, and pykan's is 'zero': its splines are 0 outside the grid ranges",
            UserWarning, stacklevel=2,
        )  # fmt: skip
    check_common(model)
    kan: Any = importlib.import_module("kan")
    with torch.random.fork_rng(devices=[]), _fork_numpy_and_random():
        new = kan.KAN(
            width=[list(pair) for pair in model.width], grid=[layer.num for layer in model.act_fun],
            k=[layer.k for layer in model.act_fun], mult_arity=arity(model), base_fun=model.base_fun,
            symbolic_enabled=model.symbolic_enabled, affine_trainable=model.affine_trainable, grid_eps=model.grid_eps,
            grid_range=list(model.grid_range), sp_trainable=model.sp_trainable, sb_trainable=model.sb_trainable,
            auto_save=False, device=model.device,
        ).to(model.device)  # fmt: skip
    state = to_pykan_state(model)
    new.to(state["act_fun.0.coef"].dtype)
    new.load_state_dict(state)
    new.input_id = model.input_id.clone()
    for mine, theirs in zip(model.symbolic_fun, new.symbolic_fun, strict=True):
        for j, row in enumerate(mine.funs_name):
            for i, name in enumerate(row):
                _set_function(theirs, j, i, name, kan.utils.SYMBOLIC_LIB)
    return new


def check_common(model: KAN) -> None:
    """ValueError if layers differ in their base function or `outside`, which pykan has once per model, or have other
    functions than B-splines."""
    if model.family != "bspline":
        raise ValueError(f"model has family={model.family!r}: pykan has only 'bspline'")
    bases, outside = [layer.base_fun for layer in model.act_fun], [layer.linear.outside for layer in model.act_fun]
    if not all(same_base(bases[0], other) for other in bases):
        raise ValueError(f"the layers have the base functions {bases}: expected one for all, as pykan has")
    if len(set(outside)) > 1:
        raise ValueError(f"the layers have outside={outside}: expected one for all, as pykan has")


def to_pykan_state(model: KAN) -> dict[str, Tensor]:
    """The model's state dict in pykan's names and shapes, without the names of symbolic functions, as in pykan.

    Knots are float64; load_state_dict rounds them to the dtype of pykan's model.
    """
    state = {f"{name}_{l}": part.detach() for name in AFFINE for l, part in enumerate(getattr(model, name))}
    for l, layer in enumerate(model.act_fun):
        state |= {
            f"act_fun.{l}.{name}": getattr(layer, name).detach().contiguous() for name in ("grid", *EDGE_PARAMETERS)
        }
    for l, layer in enumerate(model.symbolic_fun):
        state |= {f"symbolic_fun.{l}.{name}": getattr(layer, name).detach() for name in ("mask", "affine")}
    return {name: value.clone() for name, value in state.items()}


@torch.no_grad()
def from_pykan_state(
    state: Mapping[str, Tensor],
    width: Sequence | None = None,
    mult_arity: int | Sequence[Sequence[int]] = 2,
    funs_name: Sequence[Sequence[Sequence[str]]] | None = None,
    input_id: Tensor | Sequence[int] | None = None,
    *,
    exact: bool = False,
    **options,
) -> KAN:
    """The KAN of a state dict of pykan, which determines grid sizes, degrees, dtype and device.

    Args:
        width, mult_arity: of the model; width is optional without multiplication nodes.
        funs_name: [l][O][I], the names of the symbolic functions, which a state dict lacks; "0" by default.
        input_id: the input columns in use, after prune_input.
        exact: see from_pykan. options: of KAN.

    Raises ValueError or KeyError for an incomplete state dict, or shapes that do not match the width.
    """
    state = _without_prefix(state)
    depth = sum(name.startswith("act_fun.") and name.endswith(".coef") for name in state)
    layers = [{name: state[f"act_fun.{l}.{name}"] for name in ("grid", *EDGE_PARAMETERS)} for l in range(depth)]
    degrees = [layer["grid"].shape[1] - layer["coef"].shape[2] - 1 for layer in layers]
    sizes = [layer["coef"].shape[2] - k for layer, k in zip(layers, degrees, strict=True)]
    coef = layers[0]["coef"]
    if width is None:
        width = _width_of(layers)
    options = {"device": coef.device, "dtype": coef.dtype, "outside": "zero"} | options
    new = KAN([list(w) if isinstance(w, list | tuple) else w for w in width], sizes, degrees, mult_arity, **options)
    for l, (layer, mine) in enumerate(zip(layers, new.act_fun, strict=True)):
        expected = [mine.in_dim, mine.out_dim, mine.num + mine.k]
        if list(layer["coef"].shape) != expected:
            raise ValueError(
                f"act_fun.{l}.coef has shape {list(layer['coef'].shape)}: expected {expected} with width={width!r}"
            )
        grid = devices.exact(layer["grid"])
        grid = grid if exact else snapped(grid, *mine.linear.grid_range, mine.k)
        mine.linear.set_grid(grid, layer["coef"].transpose(1, 2))
        mine.scale_base, mine.scale_sp, mine.mask = layer["scale_base"], layer["scale_sp"], layer["mask"]
    for l, mine in enumerate(new.symbolic_fun):
        if funs_name is None:
            warn_of_nameless(
                mine.funs_name, state[f"symbolic_fun.{l}.mask"], state[f"symbolic_fun.{l}.affine"], f"symbolic_fun.{l}"
            )
        else:
            mine.funs_name = [list(row) for row in funs_name[l]]
        for name in {name for row in mine.funs_name for name in row}:
            get_symbolic(name)
        mine.affine.copy_(state[f"symbolic_fun.{l}.affine"])
        mine.mask = state[f"symbolic_fun.{l}.mask"]
    for name in AFFINE:
        for l, mine in enumerate(getattr(new, name)):
            mine.copy_(state[f"{name}_{l}"])
    if input_id is not None:
        new.input_id = torch.as_tensor(input_id).to(new.input_id)
        new.in_features = max(new.in_features, int(new.input_id.max()) + 1)
    return new


def arity(model: KAN) -> int | list[list[int]]:
    """mult_arity for pykan: one number if all multiplication nodes share it, which pykan handles best."""
    distinct = {a for layer in model.mult_arity for a in layer}
    return distinct.pop() if len(distinct) == 1 else [list(a) for a in model.mult_arity] if distinct else 2


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of the MultKAN that `state` contains, under the names that the MultKAN itself uses."""
    first = "act_fun.0.coef"
    prefixes = [name.removesuffix(first) for name in state if name.endswith(first)]
    if len(prefixes) == 1:
        return {name.removeprefix(prefixes[0]): value for name, value in state.items() if name.startswith(prefixes[0])}
    if prefixes:
        raise ValueError(f"state holds several models, {prefixes}: expected the part of one of them")
    if {"coef", "grid", "scale_sp"} <= state.keys():
        raise ValueError(
            "state is a kan.KANLayer's: expected a MultKAN's; KANLayer(...).load_state_dict loads a KANLayer's"
        )
    raise ValueError(f"state has the names {sorted(state)[:5]}: expected a state dict of pykan's MultKAN")


def _width_of(layers: list[dict]) -> list[int]:
    inputs = [layer["coef"].shape[0] for layer in layers]
    outputs = [layer["coef"].shape[1] for layer in layers]
    if inputs[1:] != outputs[:-1]:
        raise ValueError(
            f"width=None: expected the width, since nodes multiply ({outputs[:-1]} sums, {inputs[1:]} nodes)"
        )
    return [*inputs, outputs[-1]]


def _state_of(model: Any) -> dict[str, Tensor]:
    """The state dict of pykan's model, read from its attributes: pykan's own lacks layers added by expand_depth."""
    state = {f"{name}_{l}": part.detach() for name in AFFINE for l, part in enumerate(getattr(model, name))}
    for l, (numeric, symbolic) in enumerate(zip(model.act_fun, model.symbolic_fun, strict=True)):
        state |= {f"act_fun.{l}.{name}": getattr(numeric, name).detach() for name in ("grid", *EDGE_PARAMETERS)}
        state |= {f"symbolic_fun.{l}.{name}": getattr(symbolic, name).detach() for name in ("mask", "affine")}
    return state


def _set_function(layer: Any, j: int, i: int, name: str, library: dict) -> None:
    if name not in library:
        function = get_symbolic(name)
        library[name] = (function.torch_fn, function.sympy_fn, function.complexity, bounded(function))
    fun, form, _, singular = library[name]
    layer.funs_name[j][i], layer.funs[j][i] = name, fun
    layer.funs_sympy[j][i], layer.funs_avoid_singularity[j][i] = form, singular


@contextlib.contextmanager
def _fork_numpy_and_random() -> Iterator[None]:
    """Restore the global generators of numpy and random on exit."""
    import numpy as np

    states = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
