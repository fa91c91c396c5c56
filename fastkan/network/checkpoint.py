"""save and load: a network in one file that holds tensors, numbers and text, and so can't run code."""

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import torch
from torch import nn

from .layers import library


class State:
    """Parameters and grids of a model at a moment; its shape may differ only in the numbers of grid intervals."""

    def __init__(self, model):
        self.model = model
        self.keep()

    @torch.no_grad()
    def keep(self) -> None:
        """Keep what the model now is."""
        self.parameters = [p.detach().clone() for p in self.model.parameters()]
        self.grids = [layer.grid.clone() for layer in self.model.act_fun]

    @torch.no_grad()
    def restore(self) -> None:
        """Make the model what was kept."""
        for layer, grid in zip(self.model.act_fun, self.grids, strict=True):
            functions = grid.shape[1] - layer.k - 1
            layer.linear.set_grid(grid, layer.linear.coef.new_zeros(layer.in_dim, functions, layer.out_dim))
        for p, kept in zip(self.model.parameters(), self.parameters, strict=True):
            p.copy_(kept)

    @torch.no_grad()
    def approach(self) -> bool:
        """Go halfway to what was kept; False, and nothing is changed, where that is on other grids, or no change."""
        pairs = list(zip(self.model.parameters(), self.parameters, strict=True))
        grids = zip(self.model.act_fun, self.grids, strict=True)
        if not all(layer.grid.shape == grid.shape and torch.equal(layer.grid, grid) for layer, grid in grids):
            return False
        if all(torch.equal(p, kept) for p, kept in pairs):
            return False
        for p, kept in pairs:
            p.copy_(torch.where(p == kept, p, kept + (p - kept) / 2))
        return True


def trained(model) -> list[nn.Parameter]:
    """The parameters that take a gradient, without those of layers whose edges are all off."""
    off = {id(p) for layer in model.act_fun if not layer.active for p in layer.linear.parameters()}
    for layer in model.symbolic_fun:
        layer.active  # noqa: B018  decides whether its affine takes a gradient
    return [p for p in model.parameters() if p.requires_grad and id(p) not in off]


FORMAT = "fastkan.KAN 2"
# 1 lacks "layers" and "trainable": what a new model of that configuration has is then used.
READABLE = ("fastkan.KAN 1", FORMAT)


def save(model, path: str | os.PathLike | IO[bytes]) -> None:
    """Write the model to the file `path`, or one that is open for writing: its shape as JSON, its state as tensors.

    Which parameters train is kept, each on its own; data and activations are not. The file is written beside `path`
    and takes its place when it is complete: if that fails, what was there before stays.

    Base functions that have no name, and functions that were added to the library, are not in the file.
    """
    if hasattr(path, "write"):
        torch.save(content(model), path)
        return
    with replaced(path) as file:
        torch.save(content(model), file)


def content(model) -> dict:
    """What a file holds. Further entries are let be: load does not look at them."""
    return {
        "format": FORMAT,
        "config": json.dumps(model.config()),
        "layers": json.dumps(_layers(model)),
        "trainable": json.dumps(trainable(model)),
        "state": model.state_dict(),
    }


@contextmanager
def replaced(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when it is complete: if writing fails, what was there before stays.

    Raises OSError that names `path`, also where that is a device or a folder, which nothing should take the place of.
    """
    target = os.path.realpath(path)  # through a link, as writing to it would
    if os.path.exists(target) and not os.path.isfile(target):
        raise FileExistsError(errno.EEXIST, "expected a file, or a name that is free", os.fspath(path))
    folder, name = os.path.split(target)
    beside = os.path.join(folder, f"{name[:40]}.{uuid.uuid4().hex}.tmp")  # no longer than a name may be
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException as error:
        if os.path.exists(beside):
            os.remove(beside)
        if isinstance(error, OSError) and error.filename == beside:
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
        raise


def load(cls, path: str | os.PathLike | IO[bytes], base_fun=None, device=None, backend: str | None = None):
    """The model that save has written, on `device`, by default that on which it was saved.

    Files are read with weights_only: they can't run code, wherever they come from. base_fun: needed for layers whose
    base function has no name, and looked at for these alone: one for all, or a list with one for every layer of the
    network. Functions that had been added to the library must be added before.

    Raises ValueError where the file is not one, KeyError where the library lacks a function, RuntimeError where its
    state does not fit its shape.
    """
    parts = _read(path, device)
    config, state = parts["config"], parts["state"]
    in_features, dtype = config.pop("in_features"), getattr(torch, config.pop("dtype"))
    names = [kept.get("base_fun", config["base_fun"]) for kept in parts["layers"]]
    base_funs = _base_funs(names or [config["base_fun"]] * (len(config["width"]) - 1), base_fun)
    weighed = any(name.endswith("linear.base_weight") for name in state)
    config["base_fun"] = "identity" if weighed else "zero"
    model = cls(**config, device=state["input_id"].device, dtype=dtype, backend=backend)
    for layer, function in zip(model.act_fun, base_funs, strict=True):
        layer.base_fun = function
    model.load_state_dict(state)
    model.in_features = in_features
    for name in {name for layer in model.symbolic_fun for row in layer.funs_name for name in row}:
        library.get_symbolic(name)
    for l, layer in enumerate(model.act_fun):  # as they were, where float32 knots were taken for uniform ones
        layer.linear.set_grid(state[f"act_fun.{l}.linear.grid"])
    for layer, kept in zip(model.act_fun, parts["layers"], strict=False):
        layer.linear.grid_eps, layer.linear.grid_range = kept["grid_eps"], tuple(kept["grid_range"])
        layer.linear.outside = kept["outside"]
    set_trainable(model, parts["trainable"])
    for layer, kept in zip(model.symbolic_fun, parts["layers"], strict=False):
        layer.trainable = kept.get("symbolic_trainable", layer.trainable)
    return model


def _read(path: str | os.PathLike | IO[bytes], device) -> dict:
    """The parts of the file, with the right types; what is in them, KAN and load_state_dict look at."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the reader of a file that is no checkpoint fails in many ways
        raise ValueError(f"path={str(path)!r}: expected a file that KAN.save has written ({error})") from None
    if not isinstance(content, dict) or content.get("format") not in READABLE:
        formats = " or ".join(map(repr, READABLE))
        raise ValueError(f"path={str(path)!r}: expected a file that KAN.save has written, of format {formats}")
    parts = {"state": content.get("state")}
    try:
        for name, default in (("config", "null"), ("layers", "[]"), ("trainable", "{}")):
            parts[name] = json.loads(content.get(name, default))
        whole = all(isinstance(parts[name], dict) for name in ("config", "state", "trainable"))
        whole &= {"in_features", "dtype", "base_fun"} <= parts["config"].keys() and "input_id" in parts["state"]
        whole &= all({"grid_eps", "grid_range", "outside"} <= layer.keys() for layer in parts["layers"])
    except (TypeError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"path={str(path)!r}: expected a file that KAN.save has written, and a whole one")
    return parts


def config(model) -> dict:
    """What KAN(...) and load need to make a model of this shape: numbers, names and lists of them."""
    linear = model.act_fun[0].linear
    return {
        "width": model.width,
        "grid": [layer.num for layer in model.act_fun],
        "k": [layer.k for layer in model.act_fun],
        "mult_arity": model.mult_arity,
        "base_fun": model.base_fun if isinstance(model.base_fun, str) else None,
        "symbolic_enabled": model.symbolic_enabled,
        "affine_trainable": model.affine_trainable,
        "grid_eps": model.grid_eps,
        "grid_range": list(model.grid_range),
        "sp_trainable": model.sp_trainable,
        "sb_trainable": model.sb_trainable,
        "outside": linear.outside,
        "in_features": model.in_features,
        "dtype": str(linear.coef.dtype).removeprefix("torch."),
    }


def _layers(model) -> list[dict]:
    """What may differ from layer to layer, and is no tensor. A base function without a name is the number of the first
    layer that has it."""
    functions, found = [layer.base_fun for layer in model.act_fun], []
    for function, layer, symbolic in zip(functions, model.act_fun, model.symbolic_fun, strict=True):
        linear = layer.linear
        if not isinstance(function, str):
            function = next(l for l, other in enumerate(functions) if same_base(function, other))
        options = {"grid_eps": linear.grid_eps, "grid_range": list(linear.grid_range), "outside": linear.outside}
        found.append(options | {"base_fun": function, "symbolic_trainable": symbolic.trainable})
    return found


def given_base_funs(model):
    """What load needs as base_fun for a file of this model."""
    functions = [layer.base_fun for layer in model.act_fun]
    if all(isinstance(function, str) for function in functions):
        return None
    return functions[0] if all(same_base(functions[0], other) for other in functions) else functions


def same_base(function, other) -> bool:
    """Whether two base functions are one, or modules of the same kind with no state."""
    if function is other:
        return True
    alike = isinstance(function, torch.nn.Module) and type(function) is type(other) and repr(function) == repr(other)
    return alike and not function.state_dict()


def _base_funs(names: list, given) -> list:
    """Those of every layer of a file: its name there, or the given function, or the one in a list of them."""
    missing = {name for name in names if not isinstance(name, str)}
    if not missing:
        return names
    if isinstance(given, list | tuple):
        if len(given) != len(names):
            raise ValueError(f"base_fun={given!r}: expected one function, or {len(names)}, one for each layer")
    elif given is None:
        raise ValueError("base_fun=None: expected the base function, which the file can't hold")
    elif len(missing) > 1 and not isinstance(given, type):
        raise ValueError(f"base_fun={given!r}: expected a list with one for each layer, since they differed")
    else:
        given = [given] * len(names)
    return [name if isinstance(name, str) else function for name, function in zip(names, given, strict=True)]


def trainable(model) -> dict[str, bool]:
    """Which parameters take a gradient, by name."""
    return {name: p.requires_grad for name, p in model.named_parameters()}


def set_trainable(model, flags: dict[str, bool]) -> None:
    """Make these parameters, by name, take a gradient or not; the others stay."""
    for layer in model.symbolic_fun:
        layer.active  # noqa: B018  what its edges are decides now, and not again at the next forward pass
    for name, p in model.named_parameters():
        p.requires_grad_(flags.get(name, p.requires_grad))
