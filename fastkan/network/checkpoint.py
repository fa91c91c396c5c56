"""save and load: a network in one file of tensors, numbers and text, which can't run code when it is loaded."""

import errno
import io
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from ..devices import has_float64, home
from ..nn.processes import is_sharded, unwrapped, whole
from .layers import library

if TYPE_CHECKING:
    from .model import KAN

Model = TypeVar("Model", bound="KAN")


class State:
    """A snapshot of a model's parameters and grids. The model may change its grid sizes before restore, nothing else
    of its shape."""

    def __init__(self, model: "KAN"):
        self.model = model
        self.keep()

    @torch.no_grad()
    def keep(self) -> None:
        """Take the snapshot anew."""
        self.parameters = [p.detach().clone() for p in self.model.parameters()]
        self.grids = [layer.grid.clone() for layer in self.model.act_fun]

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the snapshot."""
        for layer, grid in zip(self.model.act_fun, self.grids, strict=True):
            functions = grid.shape[1] - layer.k - 1
            coef = layer.linear.coef
            zeros = torch.zeros(layer.in_dim, functions, layer.out_dim, dtype=coef.dtype, device=coef.device)
            layer.linear.set_grid(grid, zeros)
        for p, saved in zip(self.model.parameters(), self.parameters, strict=True):
            p.copy_(saved)

    @torch.no_grad()
    def approach(self) -> bool:
        """Move the parameters halfway to the snapshot; False, with nothing changed, where the grids differ or all
        parameters are equal."""
        pairs = list(zip(self.model.parameters(), self.parameters, strict=True))
        grids = zip(self.model.act_fun, self.grids, strict=True)
        if not all(layer.grid.shape == grid.shape and torch.equal(layer.grid, grid) for layer, grid in grids):
            return False
        if all(torch.equal(p, saved) for p, saved in pairs):
            return False
        for p, saved in pairs:
            p.copy_(torch.where(p == saved, p, saved + (p - saved) / 2))
        return True


def trained(model: "KAN") -> list[nn.Parameter]:
    """The parameters that take a gradient, without those of layers whose edges are all off."""
    off = {id(p) for layer in model.act_fun if not layer.active for p in layer.linear.parameters()}
    for layer in model.symbolic_fun:
        layer.active  # noqa: B018  updates requires_grad of its affine
    return [p for p in model.parameters() if p.requires_grad and id(p) not in off]


FORMAT = "fastkan.KAN 2"
# 1 lacks "layers" and "trainable": the defaults of a new model are then used.
READABLE = ("fastkan.KAN 1", FORMAT)


def save(model: "KAN", path: str | os.PathLike | IO[bytes]) -> None:
    """Write the model to a file, by its path or open for writing: its shape as JSON, its state as tensors.

    requires_grad of every parameter is saved; data and activations are not. The file at `path` is replaced when the new
    one is complete: if writing fails, the old one stays.

    Base functions without a name, and functions added to the library, are not in the file. RuntimeError for a model
    whose parameters are sharded over processes: save a gathered() one, or use torch.distributed.checkpoint.
    """
    if isinstance(path, str | os.PathLike):
        with atomic_write(path) as file:
            torch.save(content(model), file)
    else:
        torch.save(content(model), path)


def content(model: "KAN") -> dict[str, Any]:
    """The contents of a file. load ignores further entries."""
    if is_sharded(model):
        raise RuntimeError(
            "the parameters are sharded over processes: expected model.gathered().save(path), where all processes "
            "call gathered(), or torch.distributed.checkpoint"
        )
    return _content(model, model.state_dict())


def gathered(model: Model) -> Model:
    """An ordinary copy of a model whose parameters are sharded over processes, whole in every process.

    All processes must call this. The copy has no history, cache_data or results. A model without shards may be given
    too.
    """
    state = {name: whole(t) if isinstance(t, torch.Tensor) else t for name, t in model.state_dict().items()}
    file = io.BytesIO()
    torch.save(_content(model, state), file)
    file.seek(0)
    copied = load(unwrapped(type(model)), file, given_base_funs(model))
    for mine, theirs in zip(copied.act_fun, model.act_fun, strict=True):
        mine.linear.backend = theirs.linear.backend
    return copied.train(model.training)


def _content(model: "KAN", state: dict[str, Any]) -> dict[str, Any]:
    for l, layer in enumerate(model.act_fun):
        if not has_float64(layer.linear.grid.device):  # as on other devices
            state[f"act_fun.{l}.linear.grid"] = layer.linear.exact_knots
    return {
        "format": FORMAT,
        "config": json.dumps(model.config()),
        "layers": json.dumps(_layers(model)),
        "trainable": json.dumps(trainable(model)),
        "classes": json.dumps(model.classes),
        "state": state,
    }


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A temporary file that replaces `path` when it is complete: if writing fails, the old file stays.

    Raises OSError that names `path`, also where that is a device or a folder, which must not be replaced.
    """
    target = os.path.realpath(path)  # follows links, as writing to the path would
    if os.path.exists(target) and not os.path.isfile(target):
        raise FileExistsError(errno.EEXIST, "expected a file, or a name that is free", os.fspath(path))
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f"{name[:40]}.{uuid.uuid4().hex}.tmp")  # within the limit on file names
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        if os.path.exists(temporary):
            os.remove(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
        raise


def load(
    cls: type[Model],
    path: str | os.PathLike | IO[bytes],
    base_fun: Any = None,
    device: torch.device | str | None = None,
    backend: str | None = None,
) -> Model:
    """The model in a file of KAN.save, on `device`, by default the one on which it was saved.

    Files are read with weights_only: a file from any source can't run code. base_fun: for layers whose base function
    has no name, and ignored for others: one function, or a list with one for every layer. Functions that were added to
    the library must be added before.

    Raises ValueError for a file of another kind, KeyError where the library lacks a function, RuntimeError where the
    state does not match the shape.
    """
    parts = _read(path, device)
    config, state = parts["config"], parts["state"]
    in_features, dtype = config.pop("in_features"), getattr(torch, config.pop("dtype"))
    names = [options.get("base_fun", config["base_fun"]) for options in parts["layers"]]
    base_funs = _base_funs(names or [config["base_fun"]] * (len(config["width"]) - 1), base_fun)
    has_base = any(name.endswith("linear.base_weight") for name in state)
    config["base_fun"] = "identity" if has_base else "zero"
    model = cls(**config, device=state["input_id"].device if device is None else device, dtype=dtype, backend=backend)
    for layer, function in zip(model.act_fun, base_funs, strict=True):
        layer.base_fun = function
    model.load_state_dict(state)
    model.in_features = in_features
    for name in {name for layer in model.symbolic_fun for row in layer.funs_name for name in row}:
        library.get_symbolic(name)
    for l, layer in enumerate(model.act_fun):  # exactly: load_state_dict may snap float32 knots to a uniform grid
        layer.linear.set_grid(state[f"act_fun.{l}.linear.grid"])
    for layer, options in zip(model.act_fun, parts["layers"], strict=False):
        layer.linear.grid_eps, layer.linear.grid_range = options["grid_eps"], tuple(options["grid_range"])
        layer.linear.outside = options["outside"]
    set_trainable(model, parts["trainable"])
    model.classes = parts["classes"]
    for layer, options in zip(model.symbolic_fun, parts["layers"], strict=False):
        layer.trainable = options.get("symbolic_trainable", layer.trainable)
    return model


def _read(path: str | os.PathLike | IO[bytes], device: torch.device | str | None) -> dict[str, Any]:
    """The parts of the file, with their types checked; KAN and load_state_dict check their contents."""
    try:
        where = None if device is None else home(torch.device(device))  # torch.load cannot narrow float64
        content = torch.load(path, map_location=where, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch.load of another kind of file fails in many ways
        raise ValueError(f"path={str(path)!r}: expected a file of KAN.save ({error})") from None
    if not isinstance(content, dict) or content.get("format") not in READABLE:
        formats = " or ".join(map(repr, READABLE))
        raise ValueError(f"path={str(path)!r}: expected a file of KAN.save, of format {formats}")
    parts: dict[str, Any] = {"state": content.get("state")}
    try:
        for name, default in (("config", "null"), ("layers", "[]"), ("trainable", "{}"), ("classes", "null")):
            parts[name] = json.loads(content.get(name, default))
        complete = all(isinstance(parts[name], dict) for name in ("config", "state", "trainable"))
        complete &= {"in_features", "dtype", "base_fun"} <= parts["config"].keys() and "input_id" in parts["state"]
        complete &= all({"grid_eps", "grid_range", "outside"} <= layer.keys() for layer in parts["layers"])
    except (TypeError, ValueError, AttributeError):
        complete = False
    if not complete:
        raise ValueError(f"path={str(path)!r}: expected a complete file of KAN.save")
    return parts


def config(model: "KAN") -> dict[str, Any]:
    """The arguments of KAN and load for a model of this shape: numbers, names and lists of them."""
    linear = model.act_fun[0].linear
    between = {"dropout": model.dropout, "layer_norm": model.layer_norm}
    return {name: value for name, value in between.items() if value} | {
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
        "family": linear.family,
        "in_features": model.in_features,
        "dtype": str(linear.coef.dtype).removeprefix("torch."),
    }


def _layers(model: "KAN") -> list[dict]:
    """Options that may differ between layers. A base function without a name is the index of its first layer."""
    functions, layers = [layer.base_fun for layer in model.act_fun], []
    for function, layer, symbolic in zip(functions, model.act_fun, model.symbolic_fun, strict=True):
        linear = layer.linear
        if not isinstance(function, str):
            function = next(l for l, other in enumerate(functions) if same_base(function, other))
        options = {"grid_eps": linear.grid_eps, "grid_range": list(linear.grid_range), "outside": linear.outside}
        layers.append(options | {"base_fun": function, "symbolic_trainable": symbolic.trainable})
    return layers


def given_base_funs(model: "KAN") -> Any:
    """The argument base_fun of load for a file of this model."""
    functions = [layer.base_fun for layer in model.act_fun]
    if all(isinstance(function, str) for function in functions):
        return None
    return functions[0] if all(same_base(functions[0], other) for other in functions) else functions


def same_base(function: Any, other: Any) -> bool:
    """Whether two base functions are the same object, or equal modules without state."""
    if function is other:
        return True
    alike = isinstance(function, torch.nn.Module) and type(function) is type(other) and repr(function) == repr(other)
    return alike and not function.state_dict()


def _base_funs(names: list, given: Any) -> list:
    """The base function of every layer of a file: its name there, else the given function or list entry."""
    missing = {name for name in names if not isinstance(name, str)}
    if not missing:
        return names
    if isinstance(given, list | tuple):
        if len(given) != len(names):
            raise ValueError(f"base_fun={given!r}: expected one function, or {len(names)}, one for each layer")
    elif given is None:
        raise ValueError("base_fun=None: expected the base function, which is not in the file")
    elif len(missing) > 1 and not isinstance(given, type):
        raise ValueError(f"base_fun={given!r}: expected a list with one for each layer, since they differed")
    else:
        given = [given] * len(names)
    return [name if isinstance(name, str) else function for name, function in zip(names, given, strict=True)]


def trainable(model: "KAN") -> dict[str, bool]:
    """requires_grad of every parameter, by name."""
    return {name: p.requires_grad for name, p in model.named_parameters()}


def set_trainable(model: "KAN", flags: dict[str, bool]) -> None:
    """Set requires_grad of these parameters, by name; the others stay."""
    for layer in model.symbolic_fun:
        layer.active  # noqa: B018  updates requires_grad of its affine now, so that the next forward pass does not
    for name, p in model.named_parameters():
        p.requires_grad_(flags.get(name, p.requires_grad))
