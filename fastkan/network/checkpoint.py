"""save and load: a network in one file that holds tensors, numbers and text, and so can't run code."""

import json
import os

import torch

from . import library

FORMAT = "fastkan.KAN 1"


def save(model, path: str | os.PathLike) -> None:
    """Write the model to the file `path`: its shape as JSON, its state as tensors; not its data or activations.

    A base function that is not a name, and functions that were added to the library, are not in the file.
    """
    config = json.dumps(model.config())
    torch.save({"format": FORMAT, "config": config, "state": model.state_dict()}, path)


def load(cls, path: str | os.PathLike, base_fun=None, device=None, backend: str | None = None):
    """The model that save has written, on `device`, by default that on which it was saved.

    Files are read with weights_only: they can't run code, wherever they come from. base_fun: needed where it was not a
    name. Functions that had been added to the library must be added before.

    Raises ValueError where the file is not one, KeyError where the library lacks a function.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the reader of a file that is no checkpoint fails in many ways
        raise ValueError(f"path={str(path)!r}: expected a file that KAN.save has written ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"path={str(path)!r}: expected a file that KAN.save has written, of format {FORMAT!r}")
    config, state = json.loads(content["config"]), content["state"]
    in_features, dtype = config.pop("in_features"), getattr(torch, config.pop("dtype"))
    if config["base_fun"] is None and base_fun is None:
        raise ValueError("base_fun=None: expected the base function, which the file can't hold")
    config["base_fun"] = config["base_fun"] if base_fun is None else base_fun
    model = cls(**config, device=state["input_id"].device, dtype=dtype, backend=backend)
    model.load_state_dict(state)
    model.in_features = in_features
    for name in {name for layer in model.symbolic_fun for row in layer.funs_name for name in row}:
        library.get_symbolic(name)
    return model


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
