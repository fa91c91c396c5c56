"""Models and state dicts of pykan (0.2.8) as fastkan's, and back."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...network import KAN
from ...network.checkpoint import same_base
from ...network.layers.library import get_symbolic
from ...network.layers.state_dict import AFFINE, warn_of_nameless
from ...nn.grid import snapped
from .install import installed
from .library import avoiding

OF_EDGES = ("coef", "mask", "scale_base", "scale_sp")


def from_pykan(model, exact: bool = False, **options) -> KAN:
    """The same function as a model of pykan, with its masks, symbolic edges, multiplication nodes and affine maps.

    model: a kan.KAN; it is read by its attributes, pykan itself is not imported. exact: take its float32 knots as they
    are, instead of as the equidistant ones that they are rounded from, which are faster. options: others of KAN, such
    as backend or outside; the dtype and the device are the model's.

    Raises ValueError where the knots of a layer do not ascend, as a grid update by pykan can leave them, KeyError for
    a symbolic function that is not in the library (add_symbolic adds it).
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


def to_pykan(model: KAN):
    """The same function as a kan.KAN of pykan, which has to be installed; with auto_save=False.

    Random numbers are left as they were, which pykan's constructor seeds.

    With outside other than "zero", which is all that pykan has, it is the same within the grid ranges, and warns.

    Raises ImportError without pykan, RuntimeError while fastkan stands in for it (uninstall).
    """
    if installed():
        raise RuntimeError("kan is fastkan's own now: expected uninstall() before to_pykan")
    if other := {layer.linear.outside for layer in model.act_fun} - {"zero"}:
        warnings.warn(
            f"model has outside={other.pop()!r}, and pykan's is 'zero': beyond the grid ranges its splines fall to 0",
            UserWarning, stacklevel=2,
        )  # fmt: skip
    check_common(model)
    import kan

    with torch.random.fork_rng(devices=[]), _numpy_random_kept():
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
                _put(theirs, j, i, name, kan.utils.SYMBOLIC_LIB)
    return new


def check_common(model: KAN) -> None:
    """ValueError where layers differ in what pykan has once for all of them."""
    bases, ends = [layer.base_fun for layer in model.act_fun], [layer.linear.outside for layer in model.act_fun]
    if not all(same_base(bases[0], other) for other in bases):
        raise ValueError(f"the layers have the base functions {bases}: expected one for all, as pykan has")
    if len(set(ends)) > 1:
        raise ValueError(f"the layers have outside={ends}: expected one for all, as pykan has")


def to_pykan_state(model: KAN) -> dict[str, Tensor]:
    """The state dict that pykan's model of the same function has: its names and shapes; knots in float64, which its
    load_state_dict rounds to the model's dtype. The functions' names are not among it, here as there."""
    state = {f"{name}_{l}": part.detach() for name in AFFINE for l, part in enumerate(getattr(model, name))}
    for l, layer in enumerate(model.act_fun):
        state |= {f"act_fun.{l}.{name}": getattr(layer, name).detach().contiguous() for name in ("grid", *OF_EDGES)}
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
    """The model of a state dict of pykan's. Grid sizes, degrees, dtype and device are read off it.

    Args:
        width, mult_arity: of the model; width may be left out where no node multiplies.
        funs_name: [l][O][I], the names of the symbolic functions, which a state dict lacks; "0" by default.
        input_id: the columns that are read, after prune_input.
        exact: see from_pykan. options: others of KAN.

    Raises ValueError or KeyError for a state dict that lacks something, or shapes that do not fit the width.
    """
    state = _own(state)
    depth = sum(name.startswith("act_fun.") and name.endswith(".coef") for name in state)
    layers = [{name: state[f"act_fun.{l}.{name}"] for name in ("grid", *OF_EDGES)} for l in range(depth)]
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
        grid = layer["grid"].double() if exact else snapped(layer["grid"], *mine.linear.grid_range, mine.k)
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
    """mult_arity as pykan likes it best: one number, where one will do."""
    found = {a for layer in model.mult_arity for a in layer}
    return found.pop() if len(found) == 1 else [list(a) for a in model.mult_arity] if found else 2


def _own(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of `state` that is a MultKAN's, by the names that it has there."""
    first = "act_fun.0.coef"
    prefixes = [name.removesuffix(first) for name in state if name.endswith(first)]
    if len(prefixes) == 1:
        return {name.removeprefix(prefixes[0]): value for name, value in state.items() if name.startswith(prefixes[0])}
    if prefixes:
        raise ValueError(f"state holds several models, {prefixes}: expected the part of one of them")
    if {"coef", "grid", "scale_sp"} <= state.keys():
        raise ValueError(
            "state is a kan.KANLayer's: expected a MultKAN's; KANLayer(...).load_state_dict takes the other"
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


def _state_of(model) -> dict[str, Tensor]:
    """state_dict, by the attributes that pykan itself computes with: a layer by expand_depth is in no state dict."""
    state = {f"{name}_{l}": part.detach() for name in AFFINE for l, part in enumerate(getattr(model, name))}
    for l, (numeric, symbolic) in enumerate(zip(model.act_fun, model.symbolic_fun, strict=True)):
        state |= {f"act_fun.{l}.{name}": getattr(numeric, name).detach() for name in ("grid", *OF_EDGES)}
        state |= {f"symbolic_fun.{l}.{name}": getattr(symbolic, name).detach() for name in ("mask", "affine")}
    return state


def _put(layer, j: int, i: int, name: str, library: dict) -> None:
    if name not in library:
        function = get_symbolic(name)
        library[name] = (function.torch_fn, function.sympy_fn, function.complexity, avoiding(function))
    fun, form, _, singular = library[name]
    layer.funs_name[j][i], layer.funs[j][i] = name, fun
    layer.funs_sympy[j][i], layer.funs_avoid_singularity[j][i] = form, singular


class _numpy_random_kept:
    """numpy's and random's global generators, left as they were."""

    def __enter__(self) -> None:
        import random

        import numpy as np

        self.kept = np.random.get_state(), random.getstate()

    def __exit__(self, *_) -> None:
        import random

        import numpy as np

        np.random.set_state(self.kept[0])
        random.setstate(self.kept[1])
